"""What the watcher's tests start: the service with a command and a pace of the test's choice.

python watcher_program.py '{"root": ..., "config_file": ..., "command": [...], "pace": {...}}'
"""

from __future__ import annotations

import json
import sys

from claimd.model import Layout
from claimd.service import Pace, run

if __name__ == "__main__":
    told = json.loads(sys.argv[1])
    sys.exit(run(Layout(told["root"]), told["config_file"], told["command"], Pace(**told["pace"])))
