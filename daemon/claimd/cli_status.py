"""The commands that tell: status, explain."""

from __future__ import annotations

import argparse
import json
import os
import sys
from typing import TYPE_CHECKING, Any

from .errors import Code, Exit, printable
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
    explain.add_argument("code", nargs="?", help="a code as status prints it; default: this device's problem")
    explain.add_argument("--list", action="store_true", help="all codes, a line each")
    explain.set_defaults(command=_explain)


def _status(options: argparse.Namespace, layout: Layout) -> int:
    from .report import status_lines

    document = _document(layout)
    if options.json:
        print(json.dumps(document, indent=2))
    else:
        print("\n".join(status_lines(document, now())))
    return Exit.OK


def _document(layout: Layout) -> dict[str, Any]:
    from .report import merged

    worker = read_document(layout.status_file)
    watcher = read_document(layout.supervisor_file)
    document = merged(worker, watcher if _alive(watcher) else None)
    document.setdefault("drop_directory", layout.drop_directory)
    return document


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
    from .report import explained, explained_list

    if options.list:
        print("\n".join(explained_list()))
        return Exit.OK
    found = _problem_now(layout)
    name: str | None = options.code or (str(found["code"]) if found else None)
    if name is None:
        print("nothing is wrong now; all failures: claimd explain --list")
        return Exit.OK
    try:
        code = Code(name)
    except ValueError:
        print(f"claimd: there is no failure {printable(name)!r}; see: claimd explain --list", file=sys.stderr)
        return Exit.USAGE
    here = found if found is not None and found["code"] == name else None
    print("\n".join(explained(code, here)))
    return Exit.OK


def _problem_now(layout: Layout) -> dict[str, Any] | None:
    """What status shows on this device."""
    found: dict[str, Any] | None = _document(layout)["problem"]
    return found
