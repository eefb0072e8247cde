"""The commands that tell: status, explain."""

from __future__ import annotations

import argparse
import json
import os
import sys
from typing import TYPE_CHECKING, Any

from .errors import Exit
from .terminal import now, read_document

if TYPE_CHECKING:
    from .model import Layout
    from .terminal import Commands


def add_to(commands: Commands) -> None:
    status = commands.add_parser("status", help="what this device has, does and needs")
    status.add_argument(
        "--json", action="store_true", help='print the document ("schema": 1) instead of text'
    )
    status.set_defaults(command=_status)

    explain = commands.add_parser("explain", help="what a failure's code means and what to do")
    explain.add_argument("code", nargs="?", help="a code as status prints it, such as claim-expired")
    explain.add_argument("--list", action="store_true", help="all codes, a line each")
    explain.set_defaults(command=_explain)


def _status(options: argparse.Namespace, layout: Layout) -> int:
    from .report import merged, status_lines

    worker = read_document(layout.status_file)
    watcher = read_document(layout.supervisor_file)
    document = merged(worker, watcher if _alive(watcher) else None)
    document.setdefault("drop_directory", layout.drop_directory)
    if options.json:
        print(json.dumps(document, indent=2))
    else:
        print("\n".join(status_lines(document, now())))
    return Exit.OK


def _alive(watcher: dict[str, Any] | None) -> bool:
    """A watcher that was killed left its file behind."""
    pid = watcher.get("pid") if watcher else None
    if not isinstance(pid, int) or pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True  # it is there and belongs to somebody else
    return True


def _explain(options: argparse.Namespace, layout: Layout) -> int:
    from .errors import CATALOGUE, Code

    if options.list or options.code is None:
        for code, words in CATALOGUE.items():
            print(f"{code.value:<28}{words.happened}")
        return Exit.OK
    try:
        code = Code(options.code)
    except ValueError:
        print(f"claimd: there is no failure {options.code!r}; see: claimd explain --list", file=sys.stderr)
        return Exit.USAGE
    words = CATALOGUE[code]
    print(code.value)
    print(f"  what happened: {words.happened}")
    print(f"  likely cause:  {words.cause}")
    print(f"  what to do:    {words.remedy}")
    return Exit.OK
