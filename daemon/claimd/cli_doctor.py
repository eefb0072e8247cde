"""The commands for support: doctor, report."""

from __future__ import annotations

import argparse
import io
import json
import os
import shlex
import sys
import tarfile
from typing import TYPE_CHECKING

from .errors import ClaimdError, Exit, printable
from .redaction import scrubbed
from .terminal import columns, complain, now, say, start_command, status

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

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

    report = commands.add_parser(
        "report",
        help="pack what support needs: status, doctor, configuration, journal, versions; no secret",
        description="Pack what support needs into one file, and print what it contains. Keys, tokens and"
        " secret parameters are not in it.",
    )
    report.add_argument("--output", metavar="FILE", help="default: claimd-report-TIME.tar.gz here")
    report.set_defaults(command=_report)


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


def _report(options: argparse.Namespace, layout: Layout) -> int:
    from .durable import Disk, disk_problem

    at = now()
    name = options.output or f"claimd-report-{at:%Y%m%dT%H%M%SZ}.tar.gz"
    path = os.path.abspath(name)
    if os.path.lexists(path):
        print(f"claimd: {printable(name)} is there already; name another file with --output", file=sys.stderr)
        return Exit.USAGE
    parts = {part: scrubbed(text).encode("utf-8", "replace") for part, text in _parts(layout, options.config)}
    try:
        Disk().write_file(path, _packed(parts, int(at.timestamp())), 0o600)
    except OSError as error:
        complain(disk_problem(error, path))
        return disk_problem(error, path).exit
    for part, data in parts.items():
        print(f"{len(data):>9}  {part}: {_CONTENTS[part]}")
    print(f"written to {printable(name)}, readable for you alone; look at it with:")
    # With sudo it is root's file, and the shell that the command is pasted into is not.
    print(f"{'sudo ' if 'SUDO_USER' in os.environ else ''}tar xzf {shlex.quote(printable(name))}")
    return Exit.OK


_CONTENTS = {
    "status.txt": "what claimd status shows",
    "status.json": "the same for programs",
    "doctor.txt": "what claimd doctor shows",
    "doctor.json": "the same for programs",
    "configuration.txt": "every key, its value here and its file; no secret parameter",
    "versions.txt": "claimd, its libraries, Python, kernel, distribution",
    "journal.txt": "the last 500 lines of the service's journal",
}
_JOURNAL = ("journalctl", "--unit=claimd.service", "--lines=500", "--no-pager", "--output=short-iso")


def _parts(layout: Layout, config_file: str | None) -> Iterator[tuple[str, str]]:
    from . import doctor, inquiry
    from .patient import Patient
    from .report import problem_lines
    from .screen import status_lines

    try:
        document = status(layout)
        said = status_lines(document, now(), start=start_command(layout))
    except ClaimdError as error:
        document, said = {"schema": 1, "problem": error.problem.to_json()}, problem_lines(error.problem)
    yield "status.txt", "\n".join(said) + "\n"
    yield "status.json", json.dumps(document, indent=2) + "\n"
    answers = doctor.diagnose(layout, config_file)
    yield "doctor.txt", "\n".join(inquiry.lines(answers)) + "\n"
    yield "doctor.json", json.dumps(inquiry.document(answers), indent=2) + "\n"
    yield "configuration.txt", _configuration(layout, config_file)
    yield "versions.txt", _versions()
    # Below --root there is no journal of its own; the machine's is another device's.
    journal = Patient.ask(*_JOURNAL) if not layout.root else None
    yield "journal.txt", journal or "no journal: none is kept, or you may not read it (sudo claimd report)\n"


def _configuration(layout: Layout, config_file: str | None) -> str:
    from . import config
    from .cli_config import config_lines

    try:
        return "\n".join(config_lines(config.load(layout, config_file), layout)) + "\n"
    except ClaimdError as error:
        return f"{error.problem.happened}\n"


def _versions() -> str:
    from . import __version__, components
    from .patient import text_of

    machine = os.uname()
    lines = [
        f"claimd {__version__}",
        *(f"{name} {version}" for name, version in components.installed().items()),
    ]
    lines += [f"Python {sys.version}", f"{machine.sysname} {machine.release} {machine.machine}"]
    return "\n".join([*lines, text_of("/etc/os-release") or ""]) + "\n"


def _packed(parts: Mapping[str, bytes], at: int) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for name, data in parts.items():
            member = tarfile.TarInfo(f"claimd-report/{name}")
            member.size, member.mtime, member.mode = len(data), at, 0o600
            archive.addfile(member, io.BytesIO(data))
    return packed.getvalue()


def _ids(given: list[str]) -> tuple[str, ...]:
    return tuple(name.strip() for text in given for name in text.split(",") if name.strip())
