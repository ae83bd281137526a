"""DVC stage `train`: one MLflow run a member, and zoos/<zoo>.members.json, the list of them."""

import sys

from weightzoo.console import guarded
from weightzoo.stages.train import train
from weightzoo.workspace import Workspace

if __name__ == "__main__":
    sys.exit(guarded(lambda: train(sys.argv[1], Workspace())))
