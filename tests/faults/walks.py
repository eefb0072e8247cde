"""Walks: chance strings kills, a sick disk, lost answers, wrong clocks, claims and configurations together.

The sweeps strike every place once or twice, from a state that a scenario makes; a walk strikes on and on,
in states that no scenario begins in. After each act the directory is judged. In the end everything is well
again, and the device must come to rest by itself, with no more than the claims that a person drops then.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

from claimd.attempt import ENDED
from claimd.errors import ClaimdError
from faults.calls import Failing, Killing, When
from faults.cloud import Fault, What
from faults.errnos import ERRNOS
from faults.judge import Finding, Kind, judge, judge_the_end
from faults.rig import CONFIGURATION, MICROSECOND, Rig
from faults.table import Row
from material import Pair, pair

ACTS = 40
# A first pass makes some 360 calls and boundaries (dial 137, create 156, register 230, the link 306), an
# idle one 17.
FARTHEST_CALLS = (15, 60, 200, 360)
LONGEST_REST = 60
_MINUTE = timedelta(minutes=1)
# Earlier identities stay: the judge looks for every key that AWS has activated.
_RETENTION = "[retention]\ngenerations = 100\ndays = 3650\n"


@dataclass
class Walk:
    """`said`: what was done, in order. `struck`: kills and failed calls that really happened."""

    rig: Rig
    chance: random.Random
    said: list[str] = field(default_factory=list)
    struck: int = 0
    has_lied: bool = False  # its clock: a claim that still lives was told to be over
    number: int = 0

    def act(self) -> list[Finding]:
        act, share = zip(*_ACTS, strict=True)
        (chosen,) = self.chance.choices(act, share)
        self.said.append(chosen(self))
        lives = () if self.has_lied else self.rig.live_claims
        return judge(self.rig.root, self.rig.known(), lives)

    def pass_of_the_service(self) -> str:
        return f"a pass: {self._ended()}"

    def pass_by_hand(self) -> str:
        return f"a pass by hand: {self._ended(by_hand=True)}"

    def _ended(self, *, by_hand: bool = False) -> str:
        self._new_names()
        result = self.rig.one_pass(by_hand=by_hand)
        return "done" if result.problem is None else result.problem.code.value

    def _new_names(self) -> None:
        self.rig.seed += 1

    def killed_pass(self) -> str:
        self._new_names()
        at, when = self._some_call(), self.chance.choice(list(When))
        killing = Killing(at, when)
        killed = self.rig.pass_in_a_child(killing, killing.boundary)
        self.struck += killed
        return f"killed {when.value} call {at}" if killed else "a pass that was over before its kill"

    def pass_on_a_sick_disk(self) -> str:
        self._new_names()
        at, error = self._some_call(), self.chance.choice(ERRNOS)
        failing = Failing(at, error, persistent=self.chance.random() < 0.5)
        result = self.rig.one_pass(failing, failing.boundary)
        self.struck += min(failing.struck, 1)
        return f"errno {error} at call {at}: {result.problem.code.value if result.problem else 'done'}"

    def _some_call(self) -> int:
        return self.chance.randint(1, self.chance.choice(FARTHEST_CALLS))

    def cloud_in_trouble(self) -> str:
        step, what = self.chance.choice(("create", "register", "register")), self.chance.choice(list(What))
        asked = self.rig.known().asked.get(step, 0)
        self.rig.faults += tuple(Fault(step, asked + n, what) for n in range(self.chance.randint(1, 3)))
        return f"the next {step}: {what.value}"

    def time(self) -> str:
        seconds = self.chance.choice((1.0, 3.0, 20.0, 70.0, 310.0, 3700.0, 90_000.0))
        self.rig.advance(seconds)
        return f"{seconds} s pass"

    def restart(self) -> str:
        """What lies in /run is gone, and the time since the start begins anew."""
        for path in (self.rig.root / "run/claimd").iterdir():
            path.unlink()
        self.rig.clock.started = self.rig.clock.at
        return "the machine starts anew"

    def wrong_clock(self) -> str:
        days = self.chance.choice((0, 0, -20_000, -1, 2000))
        self.rig.clock.skew = timedelta(days=days)
        self.has_lied |= days > 0
        return f"the clock is {days} days off"

    def claim(self) -> str:
        life = self.chance.choice((4.0, 5.0, 5.0, 90.0, -1.0)) * _MINUTE
        self._drop(self._new_claim(life))
        return f"a claim that lives {life}"

    def claim_again(self) -> str:
        self.rig.drop(self.chance.randrange(self.rig.dropped))
        return "an earlier claim again"

    def worthless(self) -> str:
        made = self._new_claim(5 * _MINUTE)
        whole = made.certificate + made.key
        half = self.chance.random() < 0.5
        self.number += 1
        path = self.rig.root / f"var/spool/claimd/drop/worthless-{self.number}.pem"
        path.write_text(whole[: len(whole) - 60] if half else whole)
        return "half a claim" if half else "a claim of another account"

    def configuration(self) -> str:
        more = [f'reprovision = "{self.chance.choice(("never", "replace"))}"']
        more.append(f'key_source = "{self.chance.choice(("aws", "aws", "device"))}"')
        if self.chance.random() < 0.15:
            more.append("no_such_key = 1")
        self._configure("\n".join(more), self.chance.choice(("TheTemplate", "TheTemplate", "Another")))
        return f"configured: {'; '.join(more)}"

    def _configure(self, more: str, template: str = "TheTemplate") -> None:
        etc = self.rig.root / "etc/claimd"
        text = CONFIGURATION.format(ca=etc / "ca.pem", more=more).replace("TheTemplate", template)
        (etc / "claimd.toml").write_text(text + _RETENTION)

    def _new_claim(self, life: timedelta) -> Pair:
        made = min(self.rig.clock.at, self.rig.clock.at + life - _MINUTE)
        return pair(not_before=made - 2 * _MINUTE, not_after=self.rig.clock.at + life + MICROSECOND)

    def _drop(self, claim: Pair) -> None:
        self.rig.claims += (claim,)
        self.rig.drop(len(self.rig.claims) - 1)

    # -- the end

    def rest(self) -> list[Finding]:
        """All is well from here on: pass after pass as each says, and a claim when one is needed."""
        self.rig.faults, self.rig.clock.skew = (), timedelta()
        self._configure('reprovision = "replace"')
        for _ in range(LONGEST_REST):
            self._new_names()
            result = self.rig.one_pass()
            if self._is_at_rest():
                self._new_names()
                self.rig.one_pass()
                return judge_the_end(self.rig.root, self.rig.known(), self.rig.claims)
            if self.rig.waits_for_a_claim():
                self._drop(self._new_claim(5 * _MINUTE))
                self.rig.advance(1.0)  # the drop wakes it
            elif result.after_seconds is None:
                return [Finding(Kind.STUCK, "it waits for nothing")]
            else:
                self.rig.advance(max(result.after_seconds, 1.0))
        why = "no end" if result.problem is None else result.problem.happened
        return [Finding(Kind.STUCK, f"after {LONGEST_REST} passes: {why}")]

    def _is_at_rest(self) -> bool:
        attempt = self.rig.store().load_record().attempt
        return (attempt is None or attempt.state in ENDED) and self._serves()

    def _serves(self) -> bool:
        try:
            return self.rig.store().current() is not None
        except ClaimdError:
            return False


_ACTS: tuple[tuple[Callable[[Walk], str], int], ...] = (
    (Walk.pass_of_the_service, 6),
    (Walk.pass_by_hand, 2),
    (Walk.killed_pass, 6),
    (Walk.pass_on_a_sick_disk, 4),
    (Walk.cloud_in_trouble, 4),
    (Walk.time, 6),
    (Walk.restart, 1),
    (Walk.wrong_clock, 1),
    (Walk.claim, 4),
    (Walk.claim_again, 1),
    (Walk.worthless, 1),
    (Walk.configuration, 2),
)


def sweep(place: Path, *, walks: int, every: int = 1) -> Row:
    row = Row("walks")
    for seed in range(1, walks + 1, every):
        one(place / str(seed), seed, row)
        shutil.rmtree(place / str(seed))
    return row


def one(place: Path, seed: int, row: Row, rig: Rig | None = None) -> Walk:
    """A walk to its first finding or to its end; its acts are what the finding is said of."""
    chance = random.Random(seed)
    walk = Walk(rig or Rig.new(place, (pair(),), seed=seed * 1000), chance)
    findings: list[Finding] = []
    try:
        while not findings and len(walk.said) < ACTS:
            findings = walk.act()
        findings = findings or walk.rest()
    except Exception as error:
        findings = [Finding(Kind.STUCK, f"the pass broke: {type(error).__name__}: {error}")]
    row.add(f"walk {seed}: {', '.join(walk.said)}", findings, struck=walk.struck)
    return walk


def job(place: Path, every: int) -> list[Row]:
    return [sweep(place, walks=200, every=every)]
