"""When `claimd wait` is over, and how. Pure.

Invariant: an identity that was there before is never the success of a claim that came later. What is
judged is the status document, and the names in the drop directory that no pass has looked at yet.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from . import attempt as table
from .attempt import State
from .errors import CATALOGUE, Code, Exit
from .model import short
from .report import is_unproven

if TYPE_CHECKING:
    from collections.abc import Mapping

# As many as a person would copy from the screen; fewer could name two claims.
SHORTEST_FINGERPRINT = 6
# A fresh certificate or claim may be refused for some seconds until AWS has spread it; what is refused so
# often in a row needs somebody, though the service goes on trying.
_REFUSALS = 3
# What lies in the drop directory and may still become a claim.
_UNFINISHED = frozenset(
    {
        Code.CLAIM_KEY_MISSING.value,
        Code.CLAIM_CERTIFICATE_MISSING.value,
        Code.CLAIM_STILL_ARRIVING.value,
        Code.CLAIM_NOT_YET_VALID.value,
    }
)
# A claim that ended this shortly before says more than what else lies in the drop directory.
_JUST_NOW = timedelta(minutes=5)
_FOR_SOMEBODY = "this needs somebody to act"
_SPAN = re.compile(r"(\d{1,6})(s|m|h)?")
_UNITS = {None: 1, "s": 1, "m": 60, "h": 3600}


@dataclass(frozen=True)
class Goal:
    """What is waited for: one claim, or whatever was dropped last. `seen`: outcomes that don't count.

    `before`: the last claim's outcome before a pass that was at work, for when that comes upon nothing;
    `since`: when that pass began.
    """

    fingerprint: str | None
    seen: frozenset[tuple[str, str]]
    before: tuple[str, str] | None = None
    since: datetime | None = None


@dataclass(frozen=True)
class Ending:
    exit: Exit
    sentence: str
    problem: Mapping[str, Any] | None = None


def seconds(text: str) -> int:
    """`90`, `90s`, `5m`, `1h`; ValueError otherwise."""
    found = _SPAN.fullmatch(text)
    if not found:
        raise ValueError("takes a time such as 90, 90s, 5m or 1h")
    return int(found.group(1)) * _UNITS[found.group(2)]


def fingerprint(text: str) -> str:
    """As a person copies it, in any case and with colons; ValueError when it can't be one."""
    plain = text.replace(":", "").lower()
    if not re.fullmatch(rf"[0-9a-f]{{{SHORTEST_FINGERPRINT},64}}", plain):
        raise ValueError(f"takes the first {SHORTEST_FINGERPRINT} to 64 hex digits of a claim's fingerprint")
    return plain


def goal(document: Mapping[str, Any], unseen: bool, wanted: str | None) -> Goal:
    """`unseen`: something lies in the drop directory that no pass has looked at."""
    if wanted is not None:
        return Goal(wanted, frozenset())
    history = list(document["history"])
    before = since = None
    if not (unseen or _is_open(document)) and history and _failed_beside_junk(document, history[-1]):
        history = history[:-1]
    elif not (unseen or _is_open(document) or document["drop"]):
        worker = _worker(document)
        if worker is None:
            # Nothing is on its way: the newest drop is the one that ended last.
            history = history[:-1]
        else:
            # A pass whose claim has ended a moment ago and that is not over: it was the newest drop.
            since = datetime.fromisoformat(worker["started_at"])
            before = next((_key(o) for o in reversed(history) if o["claim"]), None)
            history = [o for o in history if datetime.fromisoformat(o["at"]) < since]
    return Goal(None, frozenset(_key(o) for o in history), before, since)


def ending(document: Mapping[str, Any], unseen: bool, wanted: Goal) -> Ending | None:
    """None: go on waiting."""
    found = document["problem"]
    if found is not None and found["code"] == Code.STATE_OF_ANOTHER_DEVICE.value:
        # Nothing is taken in until a person says whose it is; what ended here is the other device's success.
        return Ending(Exit.REFUSED, _FOR_SOMEBODY, found)
    if wanted.fingerprint is not None:
        outcome = _outcome_of(document, wanted.fingerprint)
        if outcome is not None and not _is_spare_of_the_open(document, outcome):
            return _of_outcome(document, outcome)
        if (
            outcome is not None
            or _attempt_is_for(document, wanted.fingerprint)
            or _is_kept(document, wanted.fingerprint)
        ):
            return _stuck(document)
        return None
    new = [o for o in document["history"] if o["claim"] and _key(o) not in wanted.seen]
    for outcome in new:
        if outcome["result"] == "active":
            return _of_outcome(document, outcome)
    stuck = _stuck(document)
    if stuck is not None:
        return stuck
    if unseen or _pending(document):
        return None
    if new:
        return _of_outcome(document, new[-1])
    return _of_copy(document) or _of_junk(document) or _of_the_one_before(document, wanted)


def _of_the_one_before(document: Mapping[str, Any], wanted: Goal) -> Ending | None:
    """The pass that was at work is over and had nothing to do: what ended before it was the newest drop.

    One that has told nothing was ended before it could: what it had taken in is on its way.
    """
    found = [o for o in document["history"] if _key(o) == wanted.before]
    if document["drop"] or not found or wanted.since is None:
        return None
    told = datetime.fromisoformat(document["updated_at"]) > wanted.since
    return _of_outcome(document, found[-1]) if told else None


def _outcome_of(document: Mapping[str, Any], wanted: str) -> Mapping[str, Any] | None:
    found = [o for o in document["history"] if o["claim"].startswith(wanted)]
    return found[-1] if found else None


def _attempt_is_for(document: Mapping[str, Any], wanted: str) -> bool:
    attempt = document["attempt"]
    claim = attempt and attempt["claim"]
    return bool(claim) and claim["fingerprint"].startswith(wanted)


def _is_kept(document: Mapping[str, Any], wanted: str) -> bool:
    """A spare: what holds up the attempt holds it up as well."""
    return any(claim["fingerprint"].startswith(wanted) for claim in document["claims"])


def _is_spare_of_the_open(document: Mapping[str, Any], outcome: Mapping[str, Any]) -> bool:
    """Another claim has registered the device, and how that ends is not known yet."""
    attempt = document["attempt"]
    if attempt is None or State(attempt["state"]) is not State.REGISTERED:
        return False
    since = datetime.fromisoformat(outcome["at"]) >= datetime.fromisoformat(attempt["started_at"])
    return since and outcome["result"] == "not-needed" and outcome["code"] is None


def _pending(document: Mapping[str, Any]) -> bool:
    """A claim is at work, in reserve, or a pass is looking right now."""
    return _worker(document) is not None or _is_open(document)


def _worker(document: Mapping[str, Any]) -> Mapping[str, Any] | None:
    service = document["service"]
    found: Mapping[str, Any] | None = None if service is None else service.get("worker")
    return found


def _is_open(document: Mapping[str, Any]) -> bool:
    """A claim is at work or in reserve."""
    attempt = document["attempt"]
    if attempt is not None and State(attempt["state"]) not in table.ENDED:
        return attempt["claim"] is not None or State(attempt["state"]) is State.REGISTERED
    return bool(document["claims"])


def _stuck(document: Mapping[str, Any]) -> Ending | None:
    """What no waiting cures: somebody has to do something."""
    attempt = document["attempt"]
    if attempt is None:
        return None
    found = document["problem"]
    if State(attempt["state"]) in table.ENDED:
        return None
    tries = attempt["failures"]
    refused = _exit(found and found["code"]) is Exit.REFUSED and tries >= _REFUSALS
    wrong = _exit(found and found["code"]) is Exit.CONFIGURATION and not _may_appear(found, tries)
    tried_again = attempt["next_try_at"] is not None and tries < _REFUSALS
    blocked = State(attempt["state"]) is State.BLOCKED and not tried_again
    if blocked or refused or wrong:
        return Ending(_or_old(document, Exit.REFUSED), _FOR_SOMEBODY, found)
    return None


def _may_appear(found: Mapping[str, Any] | None, tries: int) -> bool:
    """What the configuration names may be there in a moment, and is looked for meanwhile."""
    code = found and found["code"]
    return code in (Code.CA_UNUSABLE.value, Code.PARAMETER_UNRESOLVED.value) and tries < _REFUSALS


def _of_outcome(document: Mapping[str, Any], outcome: Mapping[str, Any]) -> Ending:
    claim = short(outcome["claim"])
    if outcome["result"] == "active":
        thing = outcome["thing_name"] or "the device"
        return Ending(Exit.OK, f"done: {thing} has its identity, certificate {outcome['certificate_id']}")
    if outcome["result"] == "not-needed":
        history = document["history"]
        later = (o for o in history[history.index(outcome) + 1 :] if o["result"] == "active")
        used = next(later, None) if outcome["code"] is None else None
        if used is not None:  # of a spare: what came of the claim that was used is the answer
            return _of_outcome(document, used)
        return Ending(
            Exit.OLD_IDENTITY_SERVES, f"the claim {claim} was not needed: this device has its identity"
        )
    own = _exit(outcome["code"])
    exit_code = Exit.CLAIM_UNUSABLE if own is Exit.CLAIM_UNUSABLE else Exit.REFUSED
    why = f" [{outcome['code']}]" if outcome["code"] else ""
    found = document["problem"]
    same = found if found is not None and found["code"] == outcome["code"] else None
    return Ending(_or_old(document, exit_code), f"the claim {claim} failed{why}", same)


def _failed_beside_junk(document: Mapping[str, Any], last: Mapping[str, Any]) -> bool:
    """Both were there when the last pass looked. An identity is never the success of what lies there."""
    if not document["drop"] or last["result"] != "failed" or _worker(document) is not None:
        return False
    looked, ended = (datetime.fromisoformat(at) for at in (document["updated_at"], last["at"]))
    return looked - ended < _JUST_NOW and not _holds_unfinished(document)


def _of_copy(document: Mapping[str, Any]) -> Ending | None:
    """A claim that had been taken in was copied again: what it came to is the answer."""
    found = document["problem"]
    if found is None or found["code"] != Code.CLAIM_ALREADY_TAKEN_IN.value:
        return None
    outcome = _outcome_of(document, found["fields"]["claim"])
    return None if outcome is None else _of_outcome(document, outcome)


def _holds_unfinished(document: Mapping[str, Any]) -> bool:
    return any(one["problem"]["code"] in _UNFINISHED for one in document["drop"])


def _of_junk(document: Mapping[str, Any]) -> Ending | None:
    """Files that a pass has looked at and that are no claim."""
    if not document["drop"] or _holds_unfinished(document):
        return None
    found = document["drop"][0]["problem"]
    return Ending(_or_old(document, Exit.CLAIM_UNUSABLE), "what was dropped is no claim", found)


def _exit(code: Any) -> Exit | None:
    """The exit code of a failure; None for none, and for one that a newer claimd wrote."""
    return CATALOGUE[Code(code)].exit if code in {c.value for c in Code} else None


def _or_old(document: Mapping[str, Any], exit_code: Exit) -> Exit:
    serves = document["identity"] is not None and not is_unproven(document["identity"], document["attempt"])
    return Exit.OLD_IDENTITY_SERVES if serves else exit_code


def _key(outcome: Mapping[str, Any]) -> tuple[str, str]:
    return outcome["at"], outcome["claim"]
