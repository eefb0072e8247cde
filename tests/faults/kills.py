"""Fork and kill: the process dies at every disk call and every boundary of the network, in turn.

For each point a warm child runs the device until SIGKILL takes it; the directory is judged; a second child
begins the recovery and is killed too, at a place that the seed chooses; the directory is judged again; and
the next passes must bring the device to rest by themselves.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from faults.calls import Counting, Killing, When
from faults.judge import Finding, Kind, judge, judge_the_end
from faults.rig import Rig, copy_of
from faults.scenarios import Scenario, with_seed
from faults.table import Row


@dataclass(frozen=True)
class Point:
    number: int
    when: When
    name: str


def points(names: list[str]) -> Iterator[Point]:
    for number, name in enumerate(names, 1):
        yield Point(number, When.BEFORE, name)
        yield Point(number, When.AFTER, name)
        if name == "write":
            yield Point(number, When.HALF, name)


def calls_of(rig: Rig, place: Path) -> list[str]:
    """The calls of a device that is left alone. It must come to rest, or nothing can be judged."""
    copy = copy_of(rig, place)
    counting = Counting()
    recovery = copy.recover(counting, counting.boundary)
    assert recovery.is_active, recovery.why
    findings = judge_the_end(copy.root, copy.known(), copy.claims)
    assert not findings, findings
    shutil.rmtree(place)
    return counting.names


def sweep(
    scenario: Scenario,
    place: Path,
    *,
    seeds: tuple[int, ...],
    every: int = 1,
    change: Rig | None = None,
    until: str | None = None,
) -> Row:
    """`every`: one point of so many, beginning elsewhere for each seed. `change`: a device made before.
    `until`: the boundary with which the part that is struck ends."""
    row = Row(f"kill -9: {scenario.name}")
    start = change or scenario.make(place / "start")
    for seed in seeds:
        rig = with_seed(start, seed)
        names = calls_of(rig, place / "map")
        chance = random.Random(f"{scenario.name} {seed}")
        part = names if until is None else names[: names.index(until)]
        for point in list(points(part))[seed % every :: every]:
            where = f"seed {seed}, {point.when.value} call {point.number} ({point.name})"
            findings, struck = strike(copy_of(rig, place / "point"), scenario, point, names, chance)
            row.add(where, findings, struck=struck)
            shutil.rmtree(place / "point")
    shutil.rmtree(start.root.parent)
    return row


def strike(
    rig: Rig, scenario: Scenario, point: Point, names: list[str], chance: random.Random
) -> tuple[list[Finding], int]:
    """The findings of one point, and how many kills there were. The first must happen."""
    findings: list[Finding] = []
    first = Killing(point.number, point.when)
    status = rig.recover_in_a_child(first, first.boundary)
    if not _was_killed(status):
        return [Finding(Kind.STUCK, f"the child was not killed: wait status {status}")], 0
    findings += judge(rig.root, rig.known(), rig.live_claims)
    # Somewhere in what is left of the way, or in the sweeping up.
    number = chance.randint(1, max(len(names) - point.number, 8))
    second = Killing(number, chance.choice(list(When)))
    # The recovery makes other temporary names than the pass that died.
    status = replace(rig, seed=rig.seed + 1000).recover_in_a_child(second, second.boundary)
    killed = _was_killed(status)
    rig.catch_up()
    if not killed and status != 0:
        findings.append(Finding(Kind.STUCK, f"the recovery broke: wait status {status}"))
    findings += judge(rig.root, rig.known(), rig.live_claims)
    findings += end_of(replace(rig, seed=rig.seed + 2000), scenario, kills=1 + killed)
    return findings, 1 + killed


def end_of(rig: Rig, scenario: Scenario, *, kills: int) -> list[Finding]:
    """Let it recover, and judge what it cost."""
    try:
        recovery = rig.recover()
    except Exception as error:
        return [Finding(Kind.STUCK, f"the pass broke: {type(error).__name__}: {error}")]
    if not recovery.is_active:
        return [Finding(Kind.STUCK, f"after {recovery.passes} passes: {recovery.why}")]
    findings = judge_the_end(rig.root, rig.known(), rig.claims[: rig.dropped])
    known = rig.known()
    extra = rig.dropped - 1 - scenario.claims_used - (scenario.registered - 1)
    if extra > 0:
        findings.append(Finding(Kind.WASTED, f"{extra} more claims were needed"))
    unused = len(known.issued) - len(known.activated)
    if unused > kills + scenario.unused:
        findings.append(Finding(Kind.WASTED, f"{unused} certificates were asked for and never used"))
    if len(known.activated) > scenario.registered:
        findings.append(Finding(Kind.WASTED, f"{len(known.activated)} certificates were registered"))
    return findings


def _was_killed(status: int) -> bool:
    return os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
