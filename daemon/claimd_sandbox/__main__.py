"""`python -m claimd_sandbox`, and the entry point of the command."""

from __future__ import annotations

import sys

from claimd_sandbox.cli import main

if __name__ == "__main__":
    sys.exit(main())
