"""DVC stage `report`: reports/<zoo>/, the page with its figures, plots and metrics."""

import sys

from weightzoo.console import guarded
from weightzoo.stages.report import report
from weightzoo.workspace import Workspace

if __name__ == "__main__":
    sys.exit(guarded(lambda: report(sys.argv[1], Workspace())))
