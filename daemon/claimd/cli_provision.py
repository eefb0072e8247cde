"""The commands that do the work: run, provision."""

from __future__ import annotations

import argparse
import gc
import json
import os
import signal
import sys
from typing import TYPE_CHECKING, Any

from .errors import Exit
from .terminal import complain, now, read_document, tell

if TYPE_CHECKING:
    from datetime import datetime

    from .model import Layout
    from .terminal import Commands
    from .world import Result


def add_to(commands: Commands) -> None:
    run = commands.add_parser("run", help="watch the drop directory (what the service does)")
    run.set_defaults(command=_run)

    provision = commands.add_parser(
        "provision", help="one pass: take in what was dropped, go as far as it goes"
    )
    provision.add_argument("--json", action="store_true", help="print one JSON object on the last line")
    provision.add_argument(
        "--adopt",
        action="store_true",
        help="this is the same device, though its /etc/machine-id was made anew: go on with what is there",
    )
    provision.set_defaults(command=_provision)


def _run(options: argparse.Namespace, layout: Layout) -> int:
    from .service import run

    return run(layout, options.config)


def _provision(options: argparse.Namespace, layout: Layout) -> int:
    from . import logs, system

    # A pass lives for seconds: to go through all that was imported costs more than it would bring.
    gc.disable()
    system.hide_memory()
    if not layout.root:
        system.become_service_user()
    os.umask(0o027)
    from .ensure import Request, ensure

    logs.to_journal()
    stop = _StopSignal()
    result = ensure(
        Request(
            layout=layout,
            config_file=options.config,
            by_hand=not options.json,
            stopping=stop.requested,
            progress=_quiet if options.json else _Progress(layout).show,
            adopt=options.adopt,
        )
    )
    if options.json:
        tell([json.dumps(_result_document(result))], sys.stdout)
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
        tell([f"{_claim_left(self._layout):>12}  {sentence}"], sys.stdout)


def _claim_left(layout: Layout) -> str:
    from .report import remaining_of

    document = read_document(layout.status_file)
    attempt = document.get("attempt") if document else None
    claim = attempt.get("claim") if isinstance(attempt, dict) else None
    if not isinstance(claim, dict):
        return ""
    return remaining_of(claim, now())


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
        "notes": [note.to_json() for note in result.notes],
    }


def _tried_in(result: Result, at: datetime) -> float | None:
    """Seconds until something is tried. The next pass may come for the claim's end only, or to tidy up."""
    from . import attempt as table
    from .errors import Code
    from .screen import NOT_TRIED_AGAIN

    attempt, found = result.record.attempt, result.problem
    if found is None:
        return None
    if attempt is not None and attempt.state not in table.ENDED:
        if attempt.retry_at is not None:
            return table.due_in_seconds(attempt, at)
        if attempt.state is table.State.BLOCKED or found.code is Code.INTERRUPTED:
            return None
    return None if found.code.value in NOT_TRIED_AGAIN else result.after_seconds


def _say_result(result: Result) -> None:
    from .report import problem_lines

    if result.problem is not None:
        complain(result.problem)
        seconds = _tried_in(result, now())
        if seconds is not None:
            again = f"  next try:     in {seconds:.0f} s (the service does it by itself)"
            tell([again], sys.stderr)
    elif result.exit is Exit.OK and result.record.attempt is not None:
        attempt = result.record.attempt
        who = attempt.thing_name or "the device"
        tell([f"done: {who} has its identity, certificate {attempt.certificate_id}"], sys.stdout)
    else:
        tell(["nothing to do: no claim was dropped"], sys.stdout)
    for note in result.notes:
        tell(problem_lines(note), sys.stdout)
