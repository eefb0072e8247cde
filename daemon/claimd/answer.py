"""What a technician reads in the result directory: a short text for each drop. Pure.

Invariant: the first line tells it all (READY, NOT READY, TAKEN IN, WAITING, BLOCKED, DONE, REFUSED or NOTED)
and the last one when. No text holds a secret or a character that a terminal obeys; no file name leaves its
folder.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from . import attempt as table
from .attempt import Record, State
from .errors import Code, Problem, general, printable, problem
from .model import short, spoken
from .words import labelled, wrapped

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from .attempt import Attempt, Outcome
    from .ledger import Taken

# A file name may have 255 bytes; ".txt" and what tells two long names apart belong to them.
MAX_NAME_BYTES = 180
LATEST = "latest.txt"
_WIDTH = 15
_PLAIN = " ._-+=()@,"
_LOOKS_TOLD_APART = re.compile(r"-[0-9a-f]{8}\Z")


@dataclass(frozen=True)
class Scene:
    """What the answers are made of. `held`: fingerprints of the claims on disk; `template`: as configured."""

    now: datetime
    record: Record
    identity: Mapping[str, Any] | None
    held: frozenset[str]
    drop_directory: str
    template: str | None = None


def file_name(dropped: str) -> str:
    """The name of the answer to a file; what lies in a folder is answered for under the folder's name."""
    name = dropped.split("/", 1)[0]
    plain = "".join(c if c.isalnum() or c in _PLAIN else "_" for c in name).strip(" .") or "_"
    encoded = plain.encode("utf-8")
    if len(encoded) > MAX_NAME_BYTES:
        plain = encoded[:MAX_NAME_BYTES].decode("utf-8", "ignore")
    if plain != name or plain + ".txt" == LATEST or _LOOKS_TOLD_APART.search(name):
        # Two names that look alike now, or one that would stand for another file: also a name that somebody
        # has chosen to end as the answer to another file does.
        plain += "-" + hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return plain + ".txt"


def of_readiness(trouble: Problem | None, drop_directory: str, start: str | None = None) -> list[str]:
    """`start`: the command that starts the service, when it is not running."""
    if start is not None:
        stopped = general(Code.SERVICE_STOPPED)
        also = [] if trouble is None else [*_explained(trouble), ""]
        return ["NOT READY", "", *also, *_explained(stopped, remedy=f"start it: {start}", commands=(start,))]
    if trouble is not None:
        return ["NOT READY", "", *_explained(trouble), "", *wrapped("claimd looks again by itself.")]
    return [
        "READY",
        "",
        *wrapped(f"This device waits for a claim. Copy it into {drop_directory}"),
        *wrapped("(what `aws iot create-provisioning-claim` prints, as it is, or its two parts as files)."),
    ]


def of_no_need(identity: Mapping[str, Any]) -> list[str]:
    """For who asks whether to drop a claim on a device that would destroy it unused."""
    return [
        *of_identity(identity),
        "",
        *wrapped(
            'It needs no claim: reprovision is "never" in the configuration, and a claim that is dropped now'
            " would be destroyed unused."
        ),
    ]


def of_identity(identity: Mapping[str, Any]) -> list[str]:
    """For a device that has been provisioned before."""
    return ["DONE", "", "This device has its permanent identity.", "", *_identity(identity)]


def of_claim(taken: Taken, scene: Scene) -> list[str]:
    """How far a claim that was taken in has come."""
    lines = _fate(taken, scene)
    names = ", ".join(printable(name) for name in taken.names[:2])
    more = f" and {len(taken.names) - 2} more" if len(taken.names) > 2 else ""
    return [*lines, "", *labelled("claim", f"{short(taken.fingerprint)} ({names}{more})", width=_WIDTH)]


def of_file(found: Problem, left_seconds: float | None) -> list[str]:
    """For a file that lies there and is no claim, or none yet."""
    waits = found.code in _MAY_BECOME_ONE
    lines = ["WAITING" if waits else "REFUSED", "", *_explained(found)]
    if left_seconds is not None:
        minutes = max(1, round(left_seconds / 60))
        about = "1 minute" if minutes == 1 else f"{minutes} minutes"
        lines += ["", *wrapped(f"If it stays as it is, the file is removed in about {about}.")]
    return lines


def of_destroyed(found: Problem, *, aside: bool) -> list[str]:
    """For a file that is gone without having become a claim."""
    if found.code is Code.CLAIM_ALREADY_TAKEN_IN:
        return ["NOTED", "", *_explained(found)]
    end = "The file was destroyed: no copy of it is on this device."
    if found.code is Code.DROP_ENTRY_EXPOSED:
        end = "It was destroyed."  # whoever could read it may have a copy
    if aside:
        end = "The file was kept aside in the drop directory, under a name that begins with .claimd-aside-."
    return ["REFUSED", "", *_explained(found), "", *wrapped(end)]


def text(lines: list[str], now: datetime) -> bytes:
    return ("\n".join((*lines, "", spoken(now))) + "\n").encode("utf-8", "replace")


_MAY_BECOME_ONE = frozenset(
    {
        Code.CLAIM_STILL_ARRIVING,
        Code.CLAIM_KEY_MISSING,
        Code.CLAIM_CERTIFICATE_MISSING,
        Code.FOLDER_NOT_SWEPT,
    }
)


def _fate(taken: Taken, scene: Scene) -> list[str]:
    attempt = scene.record.attempt
    outcome = next((o for o in reversed(scene.record.history) if o.claim == taken.fingerprint), None)
    if attempt is not None and attempt.state not in table.ENDED:
        said = _by_the_open(attempt, outcome, taken, scene)
        if said is not None:
            return said
    if outcome is not None:
        return _ended(outcome, taken, scene)
    if taken.fingerprint in scene.held:
        return ["TAKEN IN", "", *wrapped(f"The claim is kept by claimd. It lives until {taken.not_after}.")]
    return list(_SPARED)


def _by_the_open(attempt: Attempt, outcome: Outcome | None, taken: Taken, scene: Scene) -> list[str] | None:
    """What the open attempt makes of a claim; None where it has nothing to do with it."""
    used, is_kept = attempt.claim, taken.fingerprint in scene.held
    if used is not None and used.fingerprint == taken.fingerprint:
        return _under_way(attempt, taken)
    if attempt.state is State.REGISTERED:
        spared = outcome is not None and outcome.is_spare and outcome.at >= attempt.started_at
        return _too_late(attempt, taken) if is_kept or spared else None
    if used is None or not is_kept:
        return None
    spare = problem(
        Code.CLAIM_SUPERSEDED,
        claim=short(taken.fingerprint),
        not_after=taken.not_after,
        other=short(used.fingerprint),
    )
    return ["WAITING", "", *_explained(spare)]


_SPARED = (
    "DONE",
    "",
    *wrapped("Another claim was used; this one was not needed and was destroyed. Nothing to do."),
)


def _under_way(attempt: Attempt, taken: Taken) -> list[str]:
    found = attempt.problem
    if found is None:
        lines = ["TAKEN IN", "", *wrapped("The claim is being exchanged for the permanent identity.")]
    else:
        word = "BLOCKED" if attempt.state is State.BLOCKED else "WAITING"
        lines = [word, "", *_explained(found)]
    if attempt.retry_at is not None:
        lines += labelled("next try", spoken(attempt.retry_at), width=_WIDTH)
    if attempt.state is State.REGISTERED:
        return [*lines, "", *wrapped("The device is registered: no claim is needed any more.")]
    return [*lines, *labelled("claim lives", f"until {taken.not_after}", width=_WIDTH)]


def _too_late(attempt: Attempt, taken: Taken) -> list[str]:
    """Another claim has registered the device, whose identity is not proved yet: none can help it."""
    lines = ["TAKEN IN", "", *wrapped("Another claim has registered this device: its identity is tried now.")]
    if attempt.problem is not None:
        lines = _under_way(attempt, taken)
    return [*lines, "", *wrapped("This claim can't help: it is destroyed unused.")]


def _ended(outcome: Outcome, taken: Taken, scene: Scene) -> list[str]:
    if outcome.result == "active":
        lines = ["DONE", "", "The device has its permanent identity.", ""]
        lines += labelled("thing", printable(outcome.thing_name or "unknown"), width=_WIDTH)
        lines += labelled("certificate", outcome.certificate_id or "unknown", width=_WIDTH)
        return [
            *lines,
            "",
            *wrapped("The claim and its key are destroyed on this device. Nothing more to do."),
        ]
    if outcome.is_spare:
        return list(_SPARED)
    attempt = scene.record.attempt
    if attempt is not None and attempt.problem is not None and _is_about(attempt.problem, outcome):
        found = attempt.problem
    elif outcome.code in (Code.CLAIM_EXPIRED, Code.CLAIM_RAN_OUT):
        found = problem(
            Code.CLAIM_EXPIRED,
            claim=short(taken.fingerprint),
            not_after=taken.not_after,
            now=spoken(outcome.at),
        )
    elif outcome.code is Code.CLAIM_NOT_NEEDED and scene.identity is not None:
        identity = short(str(scene.identity.get("certificate_id")))
        found = problem(Code.CLAIM_NOT_NEEDED, claim=short(taken.fingerprint), identity=identity)
    else:
        found = general(outcome.code or Code.INTERNAL_ERROR)
    words = _explained(found.about(template=scene.template))
    return ["REFUSED", "", *words, "", *wrapped("The claim and its key are destroyed.")]


def _is_about(found: Problem, outcome: Outcome) -> bool:
    return found.code is outcome.code and found.fields.get("claim") == short(outcome.claim)


def _identity(identity: Mapping[str, Any]) -> list[str]:
    name = identity.get("thing_name")
    return [
        *labelled("thing", printable(str(name)) if name else "unknown", width=_WIDTH),
        *labelled("certificate", str(identity.get("certificate_id")), width=_WIDTH),
    ]


def _explained(
    found: Problem, *, remedy: str | None = None, commands: tuple[str, ...] | None = None
) -> list[str]:
    """`remedy`, `commands`: in place of the catalogue's, where more is known."""
    return [
        *wrapped(found.sentence),
        *labelled("likely cause", found.cause, width=_WIDTH),
        *labelled("what to do", remedy or found.remedy, width=_WIDTH, commands=commands or found.commands),
        *labelled("code", found.code.value, width=_WIDTH),
    ]


# A refusal stays in latest.txt for so long, before it says again whether the device is ready.
REMEMBERED = timedelta(minutes=10)
