"""DVC stage `finetune`: data/<zoo>/, one MLflow run a member, and zoos/<zoo>/, from the models of another zoo."""

import sys

from weightzoo.console import guarded
from weightzoo.stages.finetune import finetune
from weightzoo.workspace import Workspace

if __name__ == "__main__":
    sys.exit(guarded(lambda: finetune(sys.argv[1], Workspace())))
