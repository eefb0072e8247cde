"""The command line: a command parses, calls one flow, renders.

Invariant: a command imports what it needs when it runs; only this module and the entry point exit.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from . import __version__
from .errors import ClaimdError, Exit, Problem
from .model import Layout, rebased

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .provision import Result

MAX_STATUS_BYTES = 1024 * 1024


def main(arguments: Sequence[str]) -> int:
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.command is None:
        parser.print_help()
        return Exit.USAGE
    try:
        layout = Layout(rebased(options.root if not options.root else os.path.abspath(options.root)))
        command: Callable[[argparse.Namespace, Layout], int] = options.command
        return command(options, layout)
    except ClaimdError as error:
        _complain(error.problem)
        return error.problem.exit
    except BrokenPipeError:
        # The reader has seen enough (`claimd status | head`); nothing is left to flush.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return Exit.OK


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="claimd",
        description="AWS IoT fleet provisioning by trusted user: drop a claim, get a permanent identity.",
    )
    parser.add_argument("--root", default="", metavar="DIR", help="act on the system below DIR instead of /")
    parser.add_argument("--config", metavar="FILE", help="read this configuration instead of /etc/claimd")
    parser.add_argument("--version", action="version", version=f"claimd {__version__}")
    parser.set_defaults(command=None)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")

    run = commands.add_parser("run", help="watch the drop directory (what the service does)")
    run.set_defaults(command=_run)

    provision = commands.add_parser(
        "provision", help="one pass: take in what was dropped, go as far as it goes"
    )
    provision.add_argument("--json", action="store_true", help="print one JSON object on the last line")
    provision.set_defaults(command=_provision)

    status = commands.add_parser("status", help="what this device has, does and needs")
    status.add_argument(
        "--json", action="store_true", help='print the document ("schema": 1) instead of text'
    )
    status.set_defaults(command=_status)

    config = commands.add_parser("config", help="check or show the configuration")
    actions = config.add_subparsers(title="actions", metavar="ACTION", required=True)
    check = actions.add_parser("check", help="say whether it is right, and what to correct")
    check.set_defaults(command=_config_check)
    show = actions.add_parser("show", help="the values in force and the file that each comes from")
    show.add_argument("--json", action="store_true", help="print JSON")
    show.set_defaults(command=_config_show)

    explain = commands.add_parser("explain", help="what a failure's code means and what to do")
    explain.add_argument("code", nargs="?", help="a code as status prints it, such as claim-expired")
    explain.add_argument("--list", action="store_true", help="all codes, a line each")
    explain.set_defaults(command=_explain)
    return parser


def _run(options: argparse.Namespace, layout: Layout) -> int:
    from .service import run

    return run(layout, options.config)


def _provision(options: argparse.Namespace, layout: Layout) -> int:
    from . import logs, system

    system.hide_memory()
    if not layout.root:
        system.become_service_user()
    os.umask(0o027)
    from .ensure import Request, ensure

    logs.to_stderr()
    stop = _StopSignal()
    result = ensure(
        Request(
            layout=layout,
            config_file=options.config,
            by_hand=not options.json,
            stopping=stop.requested,
            progress=_quiet if options.json else _Progress(layout).show,
        )
    )
    if options.json:
        print(json.dumps(_result_document(result)), flush=True)
    else:
        _say_result(result)
    return result.exit


class _StopSignal:
    """SIGTERM and SIGINT set a flag: what is in flight is finished, nothing new is sent."""

    def __init__(self) -> None:
        self._requested = False
        signal.signal(signal.SIGTERM, self._on_signal)
        signal.signal(signal.SIGINT, self._on_signal)

    def requested(self) -> bool:
        return self._requested

    def _on_signal(self, number: int, frame: object) -> None:
        self._requested = True


class _Progress:
    """A line a stage for a person, with the time that the claim still has."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout

    def show(self, stage: str, sentence: str) -> None:
        print(f"{_claim_left(self._layout):>12}  {sentence}", flush=True)


def _claim_left(layout: Layout) -> str:
    from .report import remaining

    document = _read_json(layout.status_file)
    attempt = document.get("attempt") if document else None
    claim = attempt.get("claim") if isinstance(attempt, dict) else None
    if not isinstance(claim, dict):
        return ""
    return remaining(datetime.fromisoformat(claim["not_after"]), _now())


def _quiet(stage: str, sentence: str) -> None:
    """The watcher reads the last line only."""


def _result_document(result: Result) -> dict[str, Any]:
    attempt = result.record.attempt
    if result.exit is Exit.OK:
        following = "done"
    elif result.after_seconds is not None:
        following = "again"
    else:
        following = "nothing"
    outcome = result.problem.code.value if result.problem else "idle"
    if result.exit is Exit.OK:
        outcome = "active"
    return {
        "schema": 1,
        "outcome": outcome,
        "exit": int(result.exit),
        "next": following,
        "after_seconds": result.after_seconds,
        "certificate_id": attempt.certificate_id if attempt else None,
        "thing_name": attempt.thing_name if attempt else None,
        "problem": result.problem.to_json() if result.problem else None,
    }


def _say_result(result: Result) -> None:
    if result.problem is not None:
        _complain(result.problem)
        if result.after_seconds is not None:
            print(
                f"  next try:     in {result.after_seconds:.0f} s (the service does it by itself)",
                file=sys.stderr,
            )
    elif result.exit is Exit.OK and result.record.attempt is not None:
        attempt = result.record.attempt
        who = attempt.thing_name or "the device"
        print(f"done: {who} has its identity, certificate {attempt.certificate_id}")
    else:
        print("nothing to do: no claim was dropped")


def _status(options: argparse.Namespace, layout: Layout) -> int:
    from .report import merged, status_lines

    worker = _read_json(layout.status_file)
    watcher = _read_json(layout.supervisor_file)
    document = merged(worker, watcher if _alive(watcher) else None)
    document.setdefault("drop_directory", layout.drop_directory)
    if options.json:
        print(json.dumps(document, indent=2))
    else:
        print("\n".join(status_lines(document, _now())))
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


def _config_check(options: argparse.Namespace, layout: Layout) -> int:
    from . import config, facts, settings

    loaded = config.load(layout, options.config)
    for name, value in facts.resolve_parameters(loaded.config, layout):
        print(f"template parameter {name} = {value!r} on this device")
    config.root_certificates(loaded.config, layout)
    for warning in settings.warnings(loaded.config):
        print(f"warning: {warning}")
    print("the configuration is right")
    return Exit.OK


def _config_show(options: argparse.Namespace, layout: Layout) -> int:
    from . import config

    try:
        loaded = config.load(layout, options.config)
    except ClaimdError as error:
        if not options.json:
            raise
        print(json.dumps({"schema": 1, "problem": error.problem.to_json()}))
        return error.problem.exit
    if options.json:
        print(json.dumps(config.describe(loaded), indent=2))
        return Exit.OK
    for key, value in _flat(loaded.config.model_dump(mode="json")):
        print(f"{key} = {json.dumps(value)}    # {loaded.sources.get(key, 'default')}")
    return Exit.OK


def _flat(values: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for key, value in values.items():
        if isinstance(value, dict):
            found += _flat(value, f"{prefix}{key}.")
        else:
            found.append((prefix + key, value))
    return found


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


def _complain(found: Problem) -> None:
    from .report import problem_lines

    print("\n".join(problem_lines(found)), file=sys.stderr)


def _read_json(path: str) -> dict[str, Any] | None:
    """A status file, or None when it is not there or not whole (it may be another user's, or older)."""
    try:
        with open(path, "rb") as file:
            document = json.loads(file.read(MAX_STATUS_BYTES))
    except (OSError, ValueError):
        return None
    return document if isinstance(document, dict) and document.get("schema") == 1 else None


def _now() -> datetime:
    return datetime.now(timezone.utc)
