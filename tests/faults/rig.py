"""A device below a directory, the cloud model and a clock that only moves when told: one pass at a time.

`Rig.one_pass` is `ensure` itself, from the lock to status.json, with faulty disk calls put in. Invariant:
nothing of a pass is kept in memory between two of them, so a pass in a child that was killed and the next
one in this process see each other on disk alone, as two processes of a device do.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path

from claimd.attempt import State
from claimd.durable import Calls, Disk
from claimd.ensure import Outside, Request, ensure
from claimd.errors import ClaimdError, Exit
from claimd.model import Layout
from claimd.store import Store
from claimd.world import Result
from faults.calls import PlainCalls
from faults.cloud import Cloud, Fault, FileJournal, Journal, Known, known
from material import NOW, Pair, authority, pair

TEMPLATE = "TheTemplate"
CONFIGURATION = """\
endpoint = "localhost"
port = 8883
ca_file = "{ca}"
{more}
[template]
name = "TheTemplate"
[template.parameters]
ThingName = "thing-under-test"
[timeouts]
grace_seconds = 0
"""
MACHINE_ID = "0123456789abcdef" * 2 + "\n"
# Passes until a device has recovered: far more than it may need, so that a loop ends.
LONGEST_RECOVERY = 40
MICROSECOND = timedelta(microseconds=1)


@dataclass
class Clock:
    """Moves when told, and by a microsecond a look. `at` is the time; the device's own is off by `skew`."""

    at: datetime = NOW
    skew: timedelta = timedelta()
    started: datetime = NOW - timedelta(seconds=1000)

    def __call__(self) -> datetime:
        return self.true() + self.skew

    def true(self) -> datetime:
        self.at += MICROSECOND  # no two readings are equal, as on a machine
        return self.at

    def elapsed(self) -> float:
        """Seconds since the machine started, whatever the device takes the time for."""
        return (self.at - self.started).total_seconds()

    def advance(self, seconds: float) -> None:
        self.at += timedelta(seconds=seconds)


@dataclass(frozen=True)
class Recovery:
    """How a device came to rest. `claims_used`: how many had to be dropped beyond the first."""

    is_active: bool
    passes: int
    claims_used: int
    why: str


@dataclass
class Rig:
    root: Path
    claims: tuple[Pair, ...]
    journal: Journal
    faults: tuple[Fault, ...] = ()
    more: str = ""
    clock: Clock = field(default_factory=Clock)
    seed: int = 1
    dropped: int = 1  # how many of `claims` have been dropped
    token_registers_again: bool = False
    disk: Callable[[Calls, Callable[[], str]], Disk] = Disk
    keeper: Callable[[Layout, Disk], Store] = Store

    @classmethod
    def new(cls, place: Path, claims: tuple[Pair, ...] | None = None, **more: object) -> Rig:
        """A configured device with the first claim in its drop directory; the journal beside it."""
        given = claims or default_claims()
        rig = cls(place / "root", given, FileJournal(str(place / "journal")), **more)  # type: ignore[arg-type]
        rig.furnish()
        return rig

    def furnish(self) -> None:
        for path, mode in (
            ("etc/claimd", 0o755),
            ("var/lib/claimd", 0o711),
            ("var/spool/claimd/drop", 0o1777),
            ("run/claimd", 0o755),
        ):
            (self.root / path).mkdir(parents=True)
            (self.root / path).chmod(mode)
        ca = self.root / "etc/claimd/ca.pem"
        ca.write_bytes(authority().pem)
        (self.root / "etc/machine-id").write_text(MACHINE_ID)
        (self.root / "etc/claimd/claimd.toml").write_text(CONFIGURATION.format(ca=ca, more=self.more))
        self.drop(0)

    def drop(self, number: int) -> None:
        claim = self.claims[number]
        path = self.root / f"var/spool/claimd/drop/claim-{number}.pem"
        path.write_text(claim.certificate + claim.key)
        self.dropped = max(self.dropped, number + 1)
        self.journal.append(json.dumps({"event": "dropped", "count": self.dropped}))

    def advance(self, seconds: float) -> None:
        """Time passes, for whoever reads the journal too."""
        self.clock.advance(seconds)
        self.journal.append(json.dumps({"event": "time", "at": self.clock.at.isoformat()}))

    def catch_up(self) -> None:
        """Take over what a child had seen of time and of claims before it was killed."""
        for line in self.journal.events():
            event = json.loads(line)
            if event["event"] == "time":
                self.clock.at = max(self.clock.at, datetime.fromisoformat(event["at"]))
            elif event["event"] == "dropped":
                self.dropped = max(self.dropped, event["count"])

    @property
    def live_claims(self) -> tuple[Pair, ...]:
        """What was dropped and has not expired."""
        now = self.clock.at
        return tuple(p for p in self.claims[: self.dropped] if p.claim.certificate.not_after > now)

    def known(self) -> Known:
        return known(self.journal.events())

    def cloud(self, boundary: Callable[[str], None]) -> Cloud:
        return Cloud(
            self.journal,
            self.clock.true,
            claims=[p.certificate for p in self.claims],
            faults=self.faults,
            boundary=boundary,
            token_registers_again=self.token_registers_again,
        )

    def chance(self) -> random.Random:
        return random.Random(f"{self.seed} {self.clock.at}")

    def disk_of(self, calls: Calls | None, chance: random.Random) -> Disk:
        return self.disk(
            calls if calls is not None else PlainCalls(), lambda: f"{chance.getrandbits(64):016x}"
        )

    def one_pass(
        self,
        calls: Calls | None = None,
        boundary: Callable[[str], None] = lambda name: None,
        *,
        by_hand: bool = False,
    ) -> Result:
        chance = self.chance()
        disk = self.disk_of(calls, chance)
        request = Request(
            Layout(str(self.root)),
            None,
            by_hand=by_hand,
            stopping=lambda: False,
            progress=lambda stage, sentence: None,
        )
        cloud = self.cloud(boundary)
        outside = Outside(
            disk,
            self.keeper,
            self.clock,
            chance.random,
            lambda seconds: cloud,
            self.advance,
            self.clock.elapsed,
        )
        return ensure(request, outside)

    def pass_in_a_child(self, calls: Calls, boundary: Callable[[str], None]) -> bool:
        """Whether it was killed. Any other end than a good one raises ChildProcessError."""
        status = self._in_a_child(lambda: self.one_pass(calls, boundary))
        if status == 0:
            return False
        if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
            return True
        raise ChildProcessError(f"the pass broke: wait status {status}")

    def recover_in_a_child(self, calls: Calls, boundary: Callable[[str], None]) -> int:
        """The child's wait status: 0 when it came to rest."""
        return self._in_a_child(lambda: self.recover(calls, boundary))

    def _in_a_child(self, do: Callable[[], object]) -> int:
        """The child's wait status. It never comes back into the caller's code."""
        pid = os.fork()
        if pid == 0:
            try:
                do()
                os._exit(0)
            except BaseException:
                traceback.print_exc(file=sys.__stderr__)
            finally:
                os._exit(1)
        status = os.waitpid(pid, 0)[1]
        self.catch_up()
        return status

    def be_told(self, calls: Calls | None, boundary: Callable[[str], None]) -> None:
        """What a person tells the device before its watcher goes on: of most devices nothing."""

    def recover(
        self,
        calls: Calls | None = None,
        boundary: Callable[[str], None] = lambda name: None,
        passes: int = LONGEST_RECOVERY,
    ) -> Recovery:
        """As the watcher does: pass after pass when each says so, with the next claim when one is needed."""
        self.be_told(calls, boundary)
        used, why = 0, ""
        for count in range(1, passes + 1):
            result = self.one_pass(calls, boundary)
            why = "" if result.problem is None else result.problem.happened
            if self.is_active() and result.exit in (Exit.OK, Exit.NOTHING_TO_DO):
                return Recovery(True, count, used, why)
            idle = result.exit is Exit.NOTHING_TO_DO and result.problem is None
            if self.waits_for_a_claim() and self.dropped < len(self.claims):
                self.drop(self.dropped)
                used += 1
            elif result.after_seconds is not None and not idle:
                self.advance(max(result.after_seconds, 0.5))
            else:
                return Recovery(False, count, used, why or "it waits for nothing")
        return Recovery(False, passes, used, f"no end: {why}")

    def store(self) -> Store:
        return Store(Layout(str(self.root)), Disk(PlainCalls()))

    def is_active(self) -> bool:
        try:
            attempt = self.store().load_record().attempt
            return attempt is not None and attempt.state is State.ACTIVE
        except ClaimdError:
            return False

    def waits_for_a_claim(self) -> bool:
        try:
            attempt = self.store().load_record().attempt
        except ClaimdError:
            return False
        return attempt is None or attempt.claim is None or attempt.state is State.FAILED


def default_claims() -> tuple[Pair, ...]:
    return _CLAIMS


# The later ones are for a device that asks for the next claim; they live longer than any test's clock runs.
_CLAIMS = (
    pair(),
    pair(not_before=NOW - timedelta(minutes=2), not_after=NOW + timedelta(hours=3)),
    pair(not_before=NOW - timedelta(minutes=2), not_after=NOW + timedelta(hours=6)),
)


def copy_of(rig: Rig, place: Path) -> Rig:
    """The same device elsewhere, with its journal; the configuration's paths point into the copy."""
    root = place / "root"
    shutil.copytree(rig.root, root, symlinks=True)
    journal = FileJournal(str(place / "journal"))
    for event in rig.journal.events():
        journal.append(event)
    configuration = root / "etc/claimd/claimd.toml"
    configuration.write_text(configuration.read_text().replace(str(rig.root), str(root)))
    return replace(rig, root=root, journal=journal, clock=Clock(rig.clock.at))
