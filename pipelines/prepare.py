"""DVC stage `prepare`: data/<zoo>/ from the zoo's data set."""

import sys

from weightzoo.console import guarded
from weightzoo.stages.prepare import prepare
from weightzoo.workspace import Workspace

if __name__ == "__main__":
    sys.exit(guarded(lambda: prepare(sys.argv[1], Workspace())))
