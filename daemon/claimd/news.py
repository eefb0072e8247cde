"""What is new since it was last told: the entries of the journal that people and programs match. Pure.

Invariant: an entry is made from two states, never from what happened between them. So what a killed pass
did not tell is told by the next one, and what was told is not told again.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import Enum
from typing import TYPE_CHECKING, Any

from .codes import Code, Exit, Kind
from .errors import general, problem
from .model import spoken

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .errors import Problem

# As the standard library's logging counts; 25 lies between its INFO and its WARNING: syslog's notice.
INFO, NOTICE, WARNING, ERROR = 20, 25, 30, 40


class MessageId(str, Enum):
    """Of the journal's MESSAGE_ID (systemd.journal-fields(7)). They never change."""

    PROVISIONED = "2282588d730549b8b4effdcb3af376ee"
    REFUSED = "e8a40033ae8549c0a404747c49614296"
    BLOCKED = "a34bc1f6e09c4792a0e46cb5270c8e1e"
    EXPIRY_NEAR = "fd6d1dbddc194d9b840c689603068038"


@dataclass(frozen=True)
class Entry:
    """A line of the journal with its fields."""

    sentence: str
    level: int
    fields: Mapping[str, str]


# ---- expiry. AWS's own certificates live until the end of 2049; those of a certificate provider as short
# as the provider likes.

# Days before the end; each is warned of once, 0 is the end itself.
THRESHOLD_DAYS = (30, 7, 1, 0)
# A clock that jumps (a device without a battery, until it reaches a time server) is found by looking again.
LONGEST_LOOK = timedelta(days=7)


def threshold(not_after: datetime, now: datetime) -> int | None:
    """The last threshold that was crossed; None long before the end."""
    # What is left is compared, no date is reckoned: a certificate may end in the year 1, which has no before.
    crossed = [days for days in THRESHOLD_DAYS if not_after - now <= timedelta(days=days)]
    return min(crossed) if crossed else None


def look_again_seconds(not_after: datetime, now: datetime) -> float | None:
    """When the next threshold should be looked for; None after the end."""
    left = [not_after - now - timedelta(days=days) for days in THRESHOLD_DAYS]
    ahead = [each for each in left if each > timedelta(0)]
    return min(*ahead, LONGEST_LOOK).total_seconds() if ahead else None


def expiry(not_after: datetime, now: datetime) -> Problem | None:
    """What the status says about the certificate's end."""
    crossed = threshold(not_after, now)
    return None if crossed is None else _expiry(crossed, not_after)


def _expiry(crossed: int, not_after: datetime) -> Problem:
    code = Code.IDENTITY_EXPIRED if crossed == 0 else Code.IDENTITY_EXPIRES
    return problem(code, not_after=spoken(not_after))


# ---- what was told


@dataclass(frozen=True)
class Told:
    """`certificate_id`: the identity that was announced; `days`: the threshold that was warned of for it."""

    certificate_id: str | None = None
    days: int | None = None


def encode(told: Told) -> bytes:
    document = {"schema": 1, "certificate_id": told.certificate_id, "threshold_days": told.days}
    return json.dumps(document).encode("ascii") + b"\n"


def decode(data: bytes) -> Told:
    """Raises ValueError."""
    document = json.loads(data)
    if not isinstance(document, dict) or document.get("schema") != 1:
        raise ValueError("not a document of schema 1")
    name, days = document.get("certificate_id"), document.get("threshold_days")
    if not isinstance(name, str | None) or (days is not None and days not in THRESHOLD_DAYS):
        raise ValueError("a member is not what claimd writes")
    return Told(name, days)


# ---- entries


def stage(name: str, sentence: str, certificate_id: str | None, thing_name: str | None) -> Entry:
    return Entry(sentence, INFO, _fields(CLAIMD_STAGE=name, **_identity(certificate_id, thing_name)))


def of_identity(identity: Mapping[str, Any], told: Told, now: datetime) -> tuple[list[Entry], Told]:
    """What is to be told about the identity that serves, and what is told then."""
    entries = []
    name, thing = identity["certificate_id"], identity["thing_name"]
    who = _identity(name, thing)
    if told.certificate_id != name:
        sentence = f"provisioned: {thing or 'this device'} has its identity, certificate {name}"
        fields = _fields(MESSAGE_ID=MessageId.PROVISIONED.value, CLAIMD_STAGE="active", **who)
        entries.append(Entry(sentence, NOTICE, fields))
        told = Told(certificate_id=name)
    not_after = datetime.fromisoformat(identity["certificate_not_after"])
    crossed = threshold(not_after, now)
    if crossed is not None and (told.days is None or crossed < told.days):
        found = _expiry(crossed, not_after)
        fields = _fields(MESSAGE_ID=MessageId.EXPIRY_NEAR.value, CLAIMD_ERROR_CODE=found.code.value, **who)
        level = ERROR if crossed == 0 else WARNING
        entries.append(Entry(f"{found.happened}; what to do: {found.remedy}", level, fields))
    # Also upwards: a clock that was wrong is right now, and each threshold is still ahead.
    return entries, replace(told, days=crossed)


# No claim will come of these, though another file may follow: status and result say refused as well. Not of a
# file that is nothing of a claim, which may be anything, also the beginning of a slow copy.
_REFUSED = {code for code in Code if general(code).exit is Exit.CLAIM_UNUSABLE} - {Code.CLAIM_NOT_RECOGNISED}
_REFUSED |= {Code.IDENTITY_REFUSED}


def of_trouble(before: Mapping[str, Any] | None, after: Mapping[str, Any]) -> list[Entry]:
    """What stands in the way now and did not before. Both as in status.json; None: there was none."""
    found, attempt = after["problem"], after["attempt"]
    was = None if before is None else before.get("problem")
    if found is None or (isinstance(was, dict) and _same(was, found)):
        return []
    explained = general(Code(found["code"]))
    who = {} if attempt is None else _identity(attempt["certificate_id"], attempt["thing_name"])
    fields: dict[str, str | None] = {"CLAIMD_ERROR_CODE": found["code"], **who}
    if attempt is not None:
        fields["CLAIMD_STAGE"] = attempt["state"]
    level = WARNING
    if explained.kind is Kind.BLOCKED:
        fields["MESSAGE_ID"], level = MessageId.BLOCKED.value, ERROR
    elif explained.kind is Kind.UNUSABLE or Code(found["code"]) in _REFUSED:
        fields["MESSAGE_ID"], level = MessageId.REFUSED.value, ERROR
    elif explained.kind is Kind.WAITING:
        level = NOTICE
    sentence = f"{found['message']}; what to do: {found['remedy']}"
    if attempt is not None and attempt["next_try_at"] is not None:
        sentence += f"; next try: {spoken(datetime.fromisoformat(attempt['next_try_at']))}"
    return [Entry(sentence, level, _fields(**fields))]


def _same(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    return (one.get("code"), one.get("message")) == (other["code"], other["message"])


def _identity(certificate_id: str | None, thing_name: str | None) -> dict[str, str | None]:
    return {"CLAIMD_CERTIFICATE_ID": certificate_id, "CLAIMD_THING_NAME": thing_name}


def _fields(**fields: str | None) -> dict[str, str]:
    return {name: value for name, value in fields.items() if value is not None}
