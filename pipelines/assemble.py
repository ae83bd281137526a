"""DVC stage `assemble`: zoos/<zoo>/, packed from the runs that the list of members names."""

import sys

from weightzoo.console import guarded
from weightzoo.stages.assemble import assemble
from weightzoo.workspace import Workspace

if __name__ == "__main__":
    sys.exit(guarded(lambda: assemble(sys.argv[1], Workspace())))
