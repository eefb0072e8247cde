"""The commands for support: doctor, report."""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING

from .errors import Exit, printable
from .terminal import columns, say

if TYPE_CHECKING:
    from .model import Layout
    from .terminal import Commands


def add_to(commands: Commands) -> None:
    doctor = commands.add_parser(
        "doctor",
        help="check configuration, network, disk, identity and service",
        description="Check this device. No claim is used and nothing is changed; the check state-write makes"
        " and removes a file of its own. Ends 0, or 1 when a check failed.",
    )
    doctor.add_argument("--json", action="store_true", help="print the same results as JSON")
    doctor.add_argument("--strict", action="store_true", help="end 1 for warnings too")
    doctor.add_argument("--list", action="store_true", help="all checks, a line each")
    doctor.add_argument("--only", action="append", default=[], metavar="ID,...", help="these checks alone")
    doctor.add_argument("--skip", action="append", default=[], metavar="ID,...", help="all but these checks")
    doctor.set_defaults(command=_doctor)


def _doctor(options: argparse.Namespace, layout: Layout) -> int:
    from . import doctor, inquiry

    if options.list:
        say(inquiry.list_lines(doctor.CHECKS))
        return Exit.OK
    only, skip = _ids(options.only), _ids(options.skip)
    unknown = [name for name in (*only, *skip) if name not in doctor.IDS]
    if unknown:
        print(
            f"claimd: there is no check {printable(unknown[0])!r}; see: claimd doctor --list", file=sys.stderr
        )
        return Exit.USAGE
    answers = doctor.diagnose(layout, options.config, only=only, skip=skip)
    if options.json:
        print(json.dumps(inquiry.document(answers), indent=2))
    else:
        say(inquiry.lines(answers, columns(sys.stdout)))
    return inquiry.exit_code(answers, strict=options.strict)


def _ids(given: list[str]) -> tuple[str, ...]:
    return tuple(name.strip() for text in given for name in text.split(",") if name.strip())
