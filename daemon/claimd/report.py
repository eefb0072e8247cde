"""What claimd says: status.json, and the document that `claimd status --json` prints. Pure.

Invariant: its members are those of status.schema.json, which is versioned: within schema 1 members may
come, none may go or change its meaning. No secret reaches this module.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from . import attempt as table
from .attempt import Attempt, Record, State
from .errors import Code, Exit, Problem, general, printable, problem
from .model import DeviceState, short, spoken
from .news import expiry
from .record import outcome_to_json, time_to_json
from .words import labelled, wrapped

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

STATUS_SCHEMA = 1
# Of a flood so many files are named, as in the result directory.
MAX_NAMED = 32
# Who writes status.json and who reads it agree on this. An identity.json has at most 1 MiB, what is said of
# 32 files 200 KB with the longest names, and little more than 1 MB whatever their words are.
MAX_STATUS_BYTES = 4 * 1024 * 1024
_WAITING_CODES = frozenset(
    {
        Code.CLAIM_KEY_MISSING,
        Code.CLAIM_CERTIFICATE_MISSING,
        Code.CLAIM_STILL_ARRIVING,
        Code.CLAIM_NOT_YET_VALID,
    }
)

# From REGISTERED on nothing is left to do for another claim.
_WITHOUT_SPARES = frozenset({*table.ENDED, State.REGISTERED})


def status_document(
    *,
    now: datetime,
    record: Record,
    identity: Mapping[str, Any] | None,
    drop: Mapping[str, Problem],
    claims: tuple[tuple[str, datetime], ...],
    trouble: Problem | None,
    drop_directory: str,
    notes: tuple[Problem, ...] = (),
    template: str | None = None,
) -> dict[str, Any]:
    """The worker's half of the status. `claims`: fingerprint and notAfter of those kept on disk.

    `template`: the configured one, for the commands that name it.
    """

    def said_of(found: Problem) -> dict[str, object]:
        return found.about(template=template).to_json()

    attempt = record.attempt
    shown = trouble or (attempt.problem if attempt else None) or _first_of_drop(drop)
    said = None if attempt is None else _attempt(attempt)
    serves = identity is not None and not is_unproven(identity, said)
    state = _state(attempt, serves, shown)
    return {
        "schema": STATUS_SCHEMA,
        "updated_at": time_to_json(now),
        "state": state.value,
        "identity": None if identity is None else dict(identity),
        "attempt": said,
        "claims": [{"fingerprint": f, "not_after": time_to_json(end)} for f, end in claims],
        "drop": [{"file": printable(name), "problem": said_of(p)} for name, p in _named(drop)],
        "drop_more": max(0, len(drop) - MAX_NAMED),
        "problem": None if shown is None else said_of(shown),
        "notes": [said_of(note) for note in (*_spares(attempt, claims), *notes, *_expiry(identity, now))],
        "drop_directory": drop_directory,
        "history": [outcome_to_json(o) for o in record.history],
    }


def encoded(document: Mapping[str, Any]) -> bytes:
    """As status.json holds it, at most MAX_STATUS_BYTES: indented for people while it is of a human size.

    Raises ValueError when it is larger all the same.
    """
    for indent, separators in ((1, None), (None, (",", ":"))):
        text = json.dumps(document, indent=indent, separators=separators).encode("ascii") + b"\n"
        if len(text) <= MAX_STATUS_BYTES:
            return text
    raise ValueError(f"the status has more than {MAX_STATUS_BYTES} bytes")


def decoded(data: bytes) -> dict[str, Any]:
    """Raises ValueError, whose text is for a person."""
    if len(data) > MAX_STATUS_BYTES:
        raise ValueError(f"it has more than {MAX_STATUS_BYTES} bytes")
    try:
        document = json.loads(data)
    except ValueError as error:
        raise ValueError("it is no JSON document") from error
    if not isinstance(document, dict) or document.get("schema") != STATUS_SCHEMA:
        raise ValueError("it is not what this version of claimd writes")
    return document


def _named(drop: Mapping[str, Problem]) -> list[tuple[str, Problem]]:
    """What can still become a claim before what can't, else in the order of the look."""
    ordered = sorted(drop.items(), key=lambda item: item[1].code not in _WAITING_CODES)
    return sorted(ordered[:MAX_NAMED], key=lambda item: item[0])


def _spares(attempt: Attempt | None, claims: tuple[tuple[str, datetime], ...]) -> list[Problem]:
    """Claims that lie in reserve behind the one that the attempt uses."""
    if attempt is None or attempt.claim is None or attempt.state in _WITHOUT_SPARES:
        return []
    mine = attempt.claim.fingerprint
    return [
        problem(Code.CLAIM_SUPERSEDED, claim=short(spare), not_after=spoken(end), other=short(mine))
        for spare, end in claims
        if spare != mine
    ]


def _expiry(identity: Mapping[str, Any] | None, now: datetime) -> list[Problem]:
    if identity is None:
        return []
    found = expiry(datetime.fromisoformat(identity["certificate_not_after"]), now)
    return [] if found is None else [found]


def _first_of_drop(drop: Mapping[str, Problem]) -> Problem | None:
    """The one to show: what can still become a claim before what can't."""
    ordered = sorted(drop.items(), key=lambda item: (item[1].code not in _WAITING_CODES, item[0]))
    return ordered[0][1] if ordered else None


def is_unproven(identity: Mapping[str, Any] | None, attempt: Mapping[str, Any] | None) -> bool:
    """By the status: whether AWS refuses so far the identity that is in place (`verify.on_refusal`)."""
    return (
        identity is not None
        and attempt is not None
        and attempt["state"] == State.REGISTERED.value
        and attempt["certificate_id"] == identity.get("certificate_id")
    )


def _state(attempt: Attempt | None, provisioned: bool, shown: Problem | None) -> DeviceState:
    if shown is not None and shown.code is Code.STATE_OF_ANOTHER_DEVICE:
        return DeviceState.BLOCKED  # an identity that lies here is not this device's
    if provisioned:
        return DeviceState.PROVISIONED
    if attempt is not None and attempt.state not in table.ENDED:
        if attempt.state is State.BLOCKED:
            return DeviceState.BLOCKED
        if attempt.problem is None:
            return DeviceState.PROVISIONING
        if attempt.problem.code is Code.IDENTITY_REFUSED:
            return DeviceState.REFUSED
        return DeviceState.WAITING
    if shown is None:
        return DeviceState.UNPROVISIONED
    return DeviceState.WAITING if shown.code in _WAITING_CODES else DeviceState.REFUSED


def _attempt(attempt: Attempt) -> dict[str, Any]:
    claim = attempt.claim
    return {
        "state": attempt.state.value,
        "started_at": time_to_json(attempt.started_at),
        "claim": None
        if claim is None
        else {
            "fingerprint": claim.fingerprint,
            "not_before": time_to_json(claim.not_before),
            "not_after": time_to_json(claim.not_after),
        },
        "certificate_id": attempt.certificate_id,
        "thing_name": attempt.thing_name,
        "failures": attempt.failures,
        "next_try_at": time_to_json(attempt.retry_at),
        "stages": [{"state": s.value, "at": time_to_json(at)} for s, at in attempt.stages],
    }


def merged(
    worker: Mapping[str, Any] | None,
    watcher: Mapping[str, Any] | None,
    *,
    drop_directory: str,
    dropped: Sequence[str] | None,
) -> dict[str, Any]:
    """`claimd status --json`: the worker's document with the watcher's beside it, under `service`.

    A device that nothing was dropped on yet has no worker's document: then the state is made here.
    `dropped`: the names that lie in the drop directory now, None when it can't be listed.
    """
    document: dict[str, Any] = {
        "schema": STATUS_SCHEMA,
        "updated_at": None,
        "state": DeviceState.UNPROVISIONED.value,
        "identity": None,
        "attempt": None,
        "claims": [],
        "drop": [],
        "drop_more": 0,
        "problem": None,
        "notes": [],
        "history": [],
        "drop_directory": drop_directory,
    }
    if worker is not None:
        document.update(worker)
    document["dropped"] = None if dropped is None else [printable(name) for name in sorted(dropped)]
    if dropped is not None:
        # What was taken away since the last pass looked is no longer there to complain about.
        there = set(document["dropped"])
        if not there:
            document["drop_more"] = 0
        _take_away(document, [one for one in document["drop"] if _outer(one["file"]) not in there])
    document["service"] = None if watcher is None else dict(watcher)
    if watcher is not None and document["problem"] is None:
        document["problem"] = _service_problem(watcher)
    return document


def _take_away(document: dict[str, Any], gone: Sequence[Mapping[str, Any]]) -> None:
    """Files that are no longer there: neither they nor what was wrong with them."""
    document["drop"] = [one for one in document["drop"] if one not in gone]
    if document["problem"] not in [one["problem"] for one in gone]:
        return
    waiting = {code.value for code in _WAITING_CODES}
    left = [one["problem"] for one in document["drop"]]
    left.sort(key=lambda found: found["code"] not in waiting)
    document["problem"] = left[0] if left else None
    if document["state"] in (DeviceState.WAITING.value, DeviceState.REFUSED.value):
        state = DeviceState.WAITING if left and left[0]["code"] in waiting else DeviceState.REFUSED
        some = left or document["drop_more"]
        document["state"] = (state if some else DeviceState.UNPROVISIONED).value


def _outer(name: str) -> str:
    """The folder of a file in a folder."""
    return name.partition("/")[0]


# A pass that ended so could not write its own status: it died, or found no place for its state.
_NO_WORD_OF_THE_WORKER = frozenset({Code.PASS_CRASHED.value, Code.PASS_TIMED_OUT.value}) | {
    code.value for code in Code if general(code).exit is Exit.DISK
}


def _service_problem(watcher: Mapping[str, Any]) -> Any:
    """What keeps the service from working, when the worker itself has nothing to say."""
    configuration = watcher.get("configuration")
    if isinstance(configuration, dict) and configuration.get("problem"):
        return configuration["problem"]
    last = watcher.get("last_pass")
    if isinstance(last, dict) and last.get("outcome") in _NO_WORD_OF_THE_WORKER:
        return last.get("problem")
    return None


def remaining(not_after: datetime, now: datetime, not_before: datetime | None) -> str:
    """How long a claim still lives, as a technician reads it: no number by a clock that is behind.

    `not_before`: None when it is unknown.
    """
    if not_before is not None and now < not_before:
        return "not valid yet"
    seconds = int((not_after - now).total_seconds())
    if seconds <= 0:
        return "expired"
    return f"{seconds // 60}:{seconds % 60:02d} left"


def remaining_of(claim: Mapping[str, Any], now: datetime) -> str:
    """`claim`: the attempt's, of a status; an older worker's does not say from when on it is valid."""
    begin = claim.get("not_before")
    not_before = None if begin is None else datetime.fromisoformat(begin)
    return remaining(datetime.fromisoformat(claim["not_after"]), now, not_before)


@dataclass(frozen=True)
class Advice:
    """Said in place of the catalogue's words, where more is known. `command` may be empty."""

    cause: str
    remedy: str
    command: str = ""


def problem_lines(found: Problem, advice: Advice | None = None) -> list[str]:
    """A failure on a terminal: what happened, why, what to do, and the code to quote."""
    cause, remedy, commands = found.cause, found.remedy, found.commands
    if advice is not None:
        cause, remedy = advice.cause, f"{advice.remedy} {advice.command}".rstrip()
        commands = (advice.command,) if advice.command else ()
    command = f"claimd explain {found.code.value}"
    return [
        *wrapped(f"claimd: {found.happened}", rest="  "),
        *labelled("  likely cause", cause, width=16),
        *labelled("  what to do", remedy, width=16, commands=commands),
        *labelled("  code", f"{found.code.value} ({command})", width=16, commands=[command]),
    ]
