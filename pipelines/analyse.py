"""DVC stage `analyse`: what the methods of analysis find in a zoo, as records, tables and metrics in reports/<zoo>."""

import sys

from weightzoo.console import guarded
from weightzoo.stages.analyse import analyse
from weightzoo.workspace import Workspace


def main() -> None:
    """Analyse the zoo that the stage is of; predictors of its models are tested on a second one too."""
    analyse(sys.argv[1], Workspace(), on=sys.argv[2])


if __name__ == "__main__":
    sys.exit(guarded(main))
