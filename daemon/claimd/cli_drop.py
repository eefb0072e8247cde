"""The commands around the drop directory: sweep."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from .errors import Exit, problem
from .terminal import complain

if TYPE_CHECKING:
    from .model import Layout
    from .terminal import Commands


def add_to(commands: Commands) -> None:
    sweep = commands.add_parser(
        "sweep", help="destroy the folders that claimd set aside in the drop directory (as root)"
    )
    sweep.set_defaults(command=_sweep)


def _sweep(options: argparse.Namespace, layout: Layout) -> int:
    from .durable import Disk, disk_problem
    from .errors import Code
    from .sweep import sweep

    try:
        done = sweep(Disk(), layout.drop_directory)
    except OSError as error:
        found = disk_problem(error, layout.drop_directory)
        complain(found)
        return found.exit
    if done.left:
        complain(problem(Code.FOLDER_NOT_SWEPT))
        return Exit.RETRY
    if done.removed:
        print(f"{done.removed} names destroyed", file=sys.stderr)
    return Exit.OK
