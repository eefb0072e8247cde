"""The entry point. `run` goes straight to the watcher, past everything that a command line costs:
the service lives for years, and argparse alone is more than a megabyte of it.
"""

from __future__ import annotations

import os
import sys


def main() -> int:
    arguments = sys.argv[1:]
    watcher = _watcher_arguments(arguments)
    if watcher is not None:
        from .spare import spare

        spare("inspect")
        from .model import Layout, rebased
        from .service import run

        root, config_file = watcher
        return run(Layout(rebased(root)), config_file)
    from .cli import main as command_line

    return command_line(arguments)


def _watcher_arguments(arguments: list[str]) -> tuple[str, str | None] | None:
    """(root, configuration file) of a plain `[--root DIR] [--config FILE] run`, else None for argparse."""
    options = {"--root": "", "--config": None}
    rest = list(arguments)
    while len(rest) >= 3 and rest[0] in options:
        options[rest[0]] = rest[1]
        rest = rest[2:]
    if rest != ["run"]:
        return None
    root = options["--root"]
    return os.path.abspath(root) if root else "", options["--config"]


if __name__ == "__main__":
    sys.exit(main())
