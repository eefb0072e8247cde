"""What claimd says: status.json, one screen for a person, one line for the watcher. Pure.

Invariant: every sentence is made from the same document that `status --json` prints, so that
text and JSON can't disagree. No secret reaches this module.
"""

from __future__ import annotations

import textwrap
from datetime import datetime
from typing import TYPE_CHECKING, Any

from . import attempt as table
from .attempt import Attempt, Record, State
from .errors import Code, Exit, Kind, Problem, general, printable, problem
from .model import DeviceState, short, spoken
from .record import outcome_to_json, time_to_json
from .words import COLUMNS, labelled, wrapped

if TYPE_CHECKING:
    from collections.abc import Mapping

STATUS_SCHEMA = 1
_WAITING_CODES = frozenset(
    {
        Code.CLAIM_KEY_MISSING,
        Code.CLAIM_CERTIFICATE_MISSING,
        Code.CLAIM_STILL_ARRIVING,
        Code.CLAIM_NOT_YET_VALID,
    }
)


def status_document(
    *,
    now: datetime,
    record: Record,
    identity: Mapping[str, Any] | None,
    drop: Mapping[str, Problem],
    claims: tuple[tuple[str, datetime], ...],
    trouble: Problem | None,
    drop_directory: str,
) -> dict[str, Any]:
    """The worker's half of the status. `claims`: fingerprint and notAfter of those kept on disk."""
    attempt = record.attempt
    shown = trouble or (attempt.problem if attempt else None) or _first_of_drop(drop)
    state = _state(attempt, identity is not None, shown)
    return {
        "schema": STATUS_SCHEMA,
        "updated_at": time_to_json(now),
        "state": state.value,
        "identity": None if identity is None else dict(identity),
        "attempt": None if attempt is None else _attempt(attempt),
        "claims": [{"fingerprint": f, "not_after": time_to_json(end)} for f, end in claims],
        "drop": [{"file": printable(name), "problem": p.to_json()} for name, p in sorted(drop.items())],
        "problem": None if shown is None else shown.to_json(),
        "notes": [note.to_json() for note in _spares(attempt, claims)],
        "drop_directory": drop_directory,
        "history": [outcome_to_json(o) for o in record.history],
    }


def _spares(attempt: Attempt | None, claims: tuple[tuple[str, datetime], ...]) -> list[Problem]:
    """Claims that lie in reserve behind the one that the attempt uses."""
    if attempt is None or attempt.claim is None:
        return []
    mine = attempt.claim.fingerprint
    return [
        problem(Code.CLAIM_SUPERSEDED, claim=short(spare), not_after=spoken(end), other=short(mine))
        for spare, end in claims
        if spare != mine
    ]


def _first_of_drop(drop: Mapping[str, Problem]) -> Problem | None:
    """The one to show: what can still become a claim before what can't."""
    ordered = sorted(drop.items(), key=lambda item: (item[1].code not in _WAITING_CODES, item[0]))
    return ordered[0][1] if ordered else None


def _state(attempt: Attempt | None, provisioned: bool, shown: Problem | None) -> DeviceState:
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
        else {"fingerprint": claim.fingerprint, "not_after": time_to_json(claim.not_after)},
        "certificate_id": attempt.certificate_id,
        "thing_name": attempt.thing_name,
        "failures": attempt.failures,
        "next_try_at": time_to_json(attempt.retry_at),
        "stages": [{"state": s.value, "at": time_to_json(at)} for s, at in attempt.stages],
    }


def merged(worker: Mapping[str, Any] | None, watcher: Mapping[str, Any] | None) -> dict[str, Any]:
    """`claimd status --json`: the worker's document with the watcher's beside it, under `service`.

    A device that nothing was dropped on yet has no worker's document: then the state is made here.
    """
    document: dict[str, Any] = {
        "schema": STATUS_SCHEMA,
        "updated_at": None,
        "state": DeviceState.UNPROVISIONED.value,
        "identity": None,
        "attempt": None,
        "claims": [],
        "drop": [],
        "problem": None,
        "notes": [],
        "history": [],
    }
    if worker is not None:
        document.update(worker)
    document["service"] = None if watcher is None else dict(watcher)
    if watcher is not None and document["problem"] is None:
        document["problem"] = _service_problem(watcher)
    return document


def _service_problem(watcher: Mapping[str, Any]) -> Any:
    """What keeps the service from working, when the worker itself has nothing to say."""
    configuration = watcher.get("configuration")
    if isinstance(configuration, dict) and configuration.get("problem"):
        return configuration["problem"]
    last = watcher.get("last_pass")
    if isinstance(last, dict) and last.get("outcome") in ("crashed", "timed-out"):
        return last.get("problem")
    return None


_STATE_WORDS = {
    DeviceState.UNPROVISIONED: "no identity yet: waiting for a claim",
    DeviceState.WAITING: "waiting",
    DeviceState.PROVISIONING: "provisioning: a claim is being exchanged for an identity",
    DeviceState.BLOCKED: "blocked: the claim is kept until this is cured",
    DeviceState.REFUSED: "refused",
    DeviceState.PROVISIONED: "provisioned: this device has its permanent identity",
}

_LABEL_COLUMNS = 14


def status_lines(document: Mapping[str, Any], now: datetime) -> list[str]:
    """`claimd status` for a person: label and value, one screen."""
    lines = [_line("state", _STATE_WORDS[DeviceState(document["state"])])]
    identity = document["identity"]
    if identity is not None:
        name = identity.get("thing_name")
        unknown = "unknown (its name was lost with an answer; see: aws iot list-principal-things)"
        lines.append(_line("thing", name or ("none" if identity.get("thing_name_known") else unknown)))
        lines.append(_line("certificate", str(identity.get("certificate_id"))))
        lines.append(_line("valid until", str(identity.get("certificate_not_after"))))
        lines.append(_line("endpoint", f"{identity.get('endpoint')} as {identity.get('client_id')}"))
    attempt = document["attempt"]
    if attempt is not None and State(attempt["state"]) not in table.ENDED:
        lines += _attempt_lines(attempt, now)
    found = document["problem"]
    if found is not None:
        lines.append(_line("problem", f"{found['message']}  [{found['code']}]"))
        lines.append(_line("likely cause", found["cause"]))
        lines.append(_line("what to do", found["remedy"]))
    for entry in document["drop"]:
        if found is None or entry["problem"]["message"] != found["message"]:
            lines.append(_line("dropped", entry["problem"]["message"]))
    lines += [_line("note", note["message"]) for note in document["notes"]]
    lines += _service_lines(document["service"])
    if document["state"] == DeviceState.UNPROVISIONED.value and found is None:
        lines.append(
            _line("what to do", f"copy a claim into {document.get('drop_directory', 'the drop directory')}")
        )
    for outcome in list(reversed(document["history"]))[:5]:
        lines.append(_line("earlier", _outcome_line(outcome)))
    return lines


def _attempt_lines(attempt: Mapping[str, Any], now: datetime) -> list[str]:
    stage = attempt["state"].replace("-", " ")
    lines = [_line("attempt", f"{stage}, since {attempt['stages'][-1]['at']}")]
    claim = attempt["claim"]
    if claim is not None:
        left = remaining(datetime.fromisoformat(claim["not_after"]), now)
        lines.append(_line("claim", f"{short(claim['fingerprint'])}, {left}"))
    if attempt["next_try_at"] is not None:
        lines.append(_line("next try", attempt["next_try_at"]))
    return lines


def _service_lines(service: Mapping[str, Any] | None) -> list[str]:
    if service is None:
        return [_line("service", "not running (start it: sudo systemctl start claimd)")]
    watch = service.get("watch")
    return [_line("service", f"{service.get('state')}, process {service.get('pid')}, by {watch}")]


def _outcome_line(outcome: Mapping[str, Any]) -> str:
    claim = f"claim {short(outcome['claim'])}" if outcome["claim"] else "a claim"
    end = {"active": "became the identity", "failed": "failed", "not-needed": "was not needed"}
    why = f" [{outcome['code']}]" if outcome["code"] else ""
    thing = f" {outcome['thing_name']}" if outcome["thing_name"] else ""
    return f"{outcome['at']}  {claim} {end.get(outcome['result'], outcome['result'])}{thing}{why}"


def remaining(not_after: datetime, now: datetime) -> str:
    """How long a claim still lives, as a technician reads it."""
    seconds = int((not_after - now).total_seconds())
    if seconds <= 0:
        return "expired"
    return f"{seconds // 60}:{seconds % 60:02d} left"


def _line(label: str, value: str) -> str:
    return f"{label + ':':<{_LABEL_COLUMNS}}{value}"


def problem_lines(found: Problem) -> list[str]:
    """A failure on a terminal: what happened, why, what to do, and the code to quote."""
    return [
        *wrapped(f"claimd: {found.happened}", rest="  "),
        *labelled("  likely cause", found.cause, width=16),
        *labelled("  what to do", found.remedy, width=16, commands=found.commands),
        *labelled("  code", f"{found.code.value} (claimd explain {found.code.value})", width=16),
    ]


def explained(code: Code, here: Mapping[str, Any] | None = None) -> list[str]:
    """`claimd explain CODE`; `here`: this device's problem, when it is of this code."""
    found = general(code)
    lines = [
        code.value,
        *labelled("  what happened", found.happened, width=17),
        *labelled("  likely cause", found.cause, width=17),
        *labelled("  what to do", found.remedy, width=17, commands=found.commands),
        *labelled("  by itself", _BY_ITSELF[found.kind], width=17),
        *labelled("  exit code", f"{int(found.exit)} ({_EXIT_WORDS[found.exit]})", width=17),
        *labelled("  documentation", found.documentation, width=17),
    ]
    if here is not None:
        commands = here.get("commands", ())
        lines += [
            "on this device now",
            *labelled("  what happened", here["message"], width=17),
            *labelled("  what to do", here["remedy"], width=17, commands=commands),
        ]
    return lines


def explained_list() -> list[str]:
    """`claimd explain --list`: a line a code, cut to the screen."""
    width = max(len(code.value) for code in Code) + 1
    return [
        f"{code.value:<{width}} {_cut(general(code).happened.removesuffix(': DETAIL'), COLUMNS - width - 1)}"
        for code in Code
    ]


def _cut(text: str, columns: int) -> str:
    return textwrap.shorten(text, columns, placeholder=" ...")


_BY_ITSELF = {
    Kind.RETRY: "claimd tries again until it works, or until the claim expires",
    Kind.BLOCKED: "claimd waits, and keeps the claim, until this is cured",
    Kind.UNUSABLE: "nothing: the claim is destroyed",
    Kind.WAITING: "claimd waits and goes on when something changes",
}

_EXIT_WORDS = {
    Exit.OK: "done",
    Exit.USAGE: "wrong use of the command",
    Exit.OLD_IDENTITY_SERVES: "no new identity, the old one serves",
    Exit.NOTHING_TO_DO: "nothing to do",
    Exit.CLAIM_UNUSABLE: "the claim can't be used",
    Exit.REFUSED: "refused or blocked by AWS",
    Exit.BUG: "an error in claimd",
    Exit.DISK: "the disk",
    Exit.RETRY: "not now, tried again",
    Exit.PERMISSION: "permission",
    Exit.CONFIGURATION: "the configuration",
    Exit.TIMEOUT: "time is up",
}
