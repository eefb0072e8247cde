"""The device's clock is wrong, or jumps at any boundary of the network; the time itself goes on.

Invariant: the machine's clock is not touched: a pass takes its time as an argument.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone
from pathlib import Path

from faults.calls import Counting
from faults.judge import Finding, Kind, judge
from faults.kills import end_of
from faults.rig import Clock, Rig, copy_of
from faults.scenarios import PLAIN, Scenario
from faults.table import Row
from material import NOW

EPOCH = datetime(1970, 1, 1, 0, 0, 40, tzinfo=timezone.utc) - NOW
FUTURE = datetime(2031, 1, 1, tzinfo=timezone.utc) - NOW
RIGHT = timedelta()


@dataclass(frozen=True)
class Jump:
    """At a boundary of the network the clock goes from one skew to another. `claims_used`: at most."""

    name: str
    before: timedelta
    after: timedelta
    claims_used: int


JUMPS = (
    # A clock that is right again finds the claim alive: nothing may be lost by it.
    Jump("now, then 1970", RIGHT, EPOCH, 0),
    # Nor by one that shows every claim as dead: the machine has not run that long since this one came alive.
    Jump("now, then 2031", RIGHT, FUTURE, 0),
)


def starts_wrong(place: Path) -> Row:
    """The clock is wrong from the start, for a while, and then right."""
    row = Row("clock: wrong at the start")
    for name, skew, claims_used in (("1970", EPOCH, 0), ("2031", FUTURE, 1)):
        rig = Rig.new(place / name)
        rig.clock.skew = skew
        findings: list[Finding] = []
        for _ in range(3):
            result = rig.one_pass()
            rig.advance(min(result.after_seconds or 5.0, 20.0))
        if rig.known().asked:
            findings.append(Finding(Kind.WASTED, "AWS was asked with a clock that can't be right"))
        if skew == EPOCH:
            findings += judge(rig.root, rig.known(), rig.live_claims)
        rig.clock.skew = RIGHT
        findings += end_of(rig, replace(PLAIN, claims_used=claims_used), kills=0)
        row.add(name, findings)
    return row


def jumps(scenario: Scenario, place: Path) -> Row:
    """At every boundary of every pass, both ways, and right again some passes later."""
    row = Row(f"clock: jumps, {scenario.name}")
    start = scenario.make(place / "start")
    counting = Counting()
    copy_of(start, place / "map").recover(None, counting.boundary)
    for number in range(1, len(counting.names) + 1):
        for jump in JUMPS:
            rig = copy_of(start, place / "point")
            where = f"{jump.name}, at boundary {number} ({counting.names[number - 1]})"
            row.add(where, _jump(rig, scenario, jump, number))
            shutil.rmtree(place / "point")
    return row


def _jump(rig: Rig, scenario: Scenario, jump: Jump, number: int) -> list[Finding]:
    jumping = _Jumping(rig.clock, number, jump.after)
    rig.clock.skew = jump.before
    for _ in range(6):
        result = rig.one_pass(None, jumping.boundary)
        if jumping.at >= number:
            break
        rig.advance(max(result.after_seconds or 0.0, 0.5))
    if jumping.at < number:
        return [Finding(Kind.STUCK, "the clock never jumped")]
    findings = judge(rig.root, rig.known())
    rig.advance(1)
    if not rig.is_active():
        rig.one_pass()  # one with the clock as wrong as it is
    rig.clock.skew = RIGHT
    allowed = replace(scenario, claims_used=scenario.claims_used + jump.claims_used)
    return findings + end_of(rig, allowed, kills=1)


class _Jumping:
    def __init__(self, clock: Clock, number: int, skew: timedelta) -> None:
        self._clock, self._number, self._skew = clock, number, skew
        self.at = 0

    def boundary(self, name: str) -> None:
        self.at += 1
        if self.at == self._number:
            self._clock.skew = self._skew
