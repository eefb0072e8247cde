"""What the intake remembers from one pass to the next: claims taken in, and since when a file lies there.

Invariant: nothing depends on it but words, graces and how long a claim is given the benefit of the doubt.
It lies in /run and is gone after a reboot; one that is missing or damaged is an empty one. It holds
fingerprints, names and numbers, no keys.

Times are seconds of the clock that starts with the machine (CLOCK_BOOTTIME): the wall clock of a device jumps
by decades, and neither a file nor a claim must look that old because of it.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

_SCHEMA = 1
# With these bounds it stays far below what the store reads, whatever names somebody gives to files.
MAX_TAKEN = 32
MAX_NAMES = 8
MAX_SEEN = 1024


@dataclass(frozen=True)
class Moment:
    """The two clocks at one moment: the wall clock, aware, and seconds since the machine started."""

    wall: datetime
    elapsed: float


@dataclass(frozen=True)
class Taken:
    """A claim that was taken in, the names of the files that it came in, and whose they were (a user id).

    `at`: when, if the wall clock then showed a time at which the claim lives.
    """

    fingerprint: str
    public_key_id: str
    names: tuple[str, ...]
    not_after: str  # as a person reads it
    owner: int | None = None
    at: Moment | None = None


@dataclass(frozen=True)
class Seen:
    """A file as it was when it was first seen so: a change makes it a new one."""

    inode: int
    ctime_ns: int
    at: float


@dataclass(frozen=True)
class Ledger:
    """`taken`: oldest first. `seen`: by `place` of the name."""

    taken: tuple[Taken, ...] = ()
    seen: Mapping[str, Seen] = field(default_factory=dict)

    def with_taken(self, one: Taken, held: Collection[str] = ()) -> Ledger:
        """`held`: fingerprints of the claims on disk. Whose these are bounds how many one account may have,
        so that is remembered however many others come; their files' names are not."""
        one = replace(one, names=one.names[:MAX_NAMES])
        others = [each for each in self.taken if each.fingerprint != one.fingerprint]
        latest = others[max(0, len(others) + 1 - MAX_TAKEN) :]
        older = [replace(each, names=()) for each in others[: -len(latest)] if each.fingerprint in held]
        return replace(self, taken=(*older, *latest, one))

    def without_names(self, names: Collection[str]) -> Ledger:
        """These names are other files' now: what becomes of the claims is no longer told under them."""
        if not any(name in names for each in self.taken for name in each.names):
            return self
        kept = (replace(t, names=tuple(n for n in t.names if n not in names)) for t in self.taken)
        return replace(self, taken=tuple(kept))

    def time_for(self, fingerprint: str, not_after: datetime, now: Moment) -> datetime:
        """The time by which a claim is judged: the wall clock's, unless that has provably jumped ahead.

        Whoever delivered it alive proved that its end had not come. So now is at most as long after its
        end as the machine has run since: a wall clock that shows more is wrong, and the time that has
        passed counts.
        """
        at = next((taken.at for taken in self.taken if taken.fingerprint == fingerprint), None)
        if at is None:
            return now.wall
        passed = timedelta(seconds=max(0.0, now.elapsed - at.elapsed))
        return at.wall + passed if now.wall - not_after > passed else now.wall

    def with_seen(
        self, now: float, files: Iterable[tuple[str, int, int]], *, all_of_them: bool = True
    ) -> Ledger:
        """`files` that lie there now: name, inode, ctime. With `all_of_them` the others are forgotten."""
        seen: dict[str, Seen] = {} if all_of_them else dict(self.seen)
        for name, inode, ctime_ns in files:
            key = place(name)
            if len(seen) >= MAX_SEEN and key not in seen:
                continue
            before = self.seen.get(key)
            same = before is not None and (before.inode, before.ctime_ns) == (inode, ctime_ns)
            # A time that lies ahead is another boot's.
            known = before is not None and same and before.at <= now
            seen[key] = before if before is not None and known else Seen(inode, ctime_ns, now)
        return replace(self, seen=seen)


def place(name: str) -> str:
    """What stands for a file name here: names are long and anybody's words."""
    return hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:24]


def encode(ledger: Ledger) -> bytes:
    body = {
        "schema": _SCHEMA,
        "taken": [
            [t.fingerprint, t.public_key_id, list(t.names), t.not_after, t.owner, _written(t.at)]
            for t in ledger.taken
        ],
        "seen": {name: [s.inode, s.ctime_ns, s.at] for name, s in ledger.seen.items()},
    }
    return json.dumps(body).encode("ascii") + b"\n"


def decode(text: bytes) -> Ledger:
    """Never raises."""
    try:
        body = json.loads(text)
        if body["schema"] != _SCHEMA:
            return Ledger()
        taken = tuple(_taken(each) for each in body["taken"])
        seen = {str(name): _seen(each) for name, each in body["seen"].items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return Ledger()
    return Ledger(taken, seen)


def _taken(body: Any) -> Taken:
    fingerprint, public_key_id, names, not_after, owner, *at = body  # an earlier version wrote no `at`
    return Taken(
        str(fingerprint),
        str(public_key_id),
        tuple(str(name) for name in names),
        str(not_after),
        None if owner is None else int(owner),
        _moment(at[0]) if at and at[0] is not None else None,
    )


def _written(at: Moment | None) -> list[Any] | None:
    return None if at is None else [at.wall.isoformat(), at.elapsed]


def _moment(body: Any) -> Moment:
    wall, elapsed = body
    at = Moment(datetime.fromisoformat(wall), float(elapsed))
    if at.wall.tzinfo is None or not math.isfinite(at.elapsed):
        raise ValueError("no moment")
    return at


def _seen(body: Any) -> Seen:
    inode, ctime_ns, at = body
    return Seen(int(inode), int(ctime_ns), float(at))
