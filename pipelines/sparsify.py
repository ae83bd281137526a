"""DVC stage `sparsify`: data/<zoo>/, one MLflow run a twin, and zoos/<zoo>/, of the models of another zoo."""

import sys

from weightzoo.console import guarded
from weightzoo.stages.sparsify import sparsify
from weightzoo.workspace import Workspace

if __name__ == "__main__":
    sys.exit(guarded(lambda: sparsify(sys.argv[1], Workspace())))
