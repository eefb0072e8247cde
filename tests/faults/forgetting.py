"""`claimd forget`, struck at every call and cut off at every moment: all of it goes, or nothing does.

Its device has an identity that serves and a replacement under way: a kept claim, a staged key, a record.
Invariant of the judgement: until the intent is on disk nothing may be missing; from then on only what is no
longer there is excused; and once the intent is taken back nothing may be left that names what was forgotten.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from pathlib import Path

from claimd.durable import Calls
from claimd.forget import forgotten
from claimd.model import Layout
from faults import kills
from faults.calls import Killing, When
from faults.cloud import Known
from faults.powercut import Court, Trace, record, replay
from faults.rig import Rig
from faults.scenarios import REPLACE, Scenario
from faults.table import Row
from material import Pair

# The boundary at which the command has ended.
FORGOTTEN = "forgotten"
_SAID = json.dumps({"event": "told to forget"})


@dataclass
class Forgetful(Rig):
    """Somebody says `claimd forget`, once, and drops the next claim when the device waits for one.

    `certificates` and `kept_claims` (how many of `claims`): what the device had when that was said.
    """

    certificates: frozenset[str] = frozenset()
    kept_claims: int = 0

    def be_told(self, calls: Calls | None, boundary: Callable[[str], None]) -> None:
        if _SAID in self.journal.events():
            return
        self.journal.append(_SAID)
        with forgotten(self.keeper(Layout(str(self.root)), self.disk_of(calls, self.chance()))):
            pass
        boundary(FORGOTTEN)

    def known(self) -> Known:
        """Without what was forgotten: nobody misses that."""
        state = super().known()
        if not self._excuses():
            return state
        gone = {name for name in self.certificates if not (self._state / "identity" / name).exists()}
        issued = {name: key for name, key in state.issued.items() if name not in gone}
        return replace(state, issued=issued, activated=state.activated - gone)

    @property
    def live_claims(self) -> tuple[Pair, ...]:
        excused = self.claims[: self.kept_claims] if self._excuses() else ()
        return tuple(each for each in super().live_claims if each not in excused)

    @property
    def _state(self) -> Path:
        return self.root / "var/lib/claimd"

    def _excuses(self) -> bool:
        """The intent is on disk, or all is done: then nothing is left that names what there was."""
        if (self._state / "forgetting").exists():
            return True
        names = [*self.certificates, *(each.claim.fingerprint for each in self.claims[: self.kept_claims])]
        for path in self._state.rglob("*"):
            if path.name in names:
                return False
            if path.is_file() and any(name.encode("ascii") in path.read_bytes() for name in names):
                return False
        return True


def _in_a_replacement(place: Path) -> Rig:
    rig = REPLACE.make(place)
    at = kills.calls_of(rig, place / "map").index("before register") + 1
    killing = Killing(at, When.BEFORE)
    assert rig.pass_in_a_child(killing, killing.boundary)
    store = rig.store()
    staged = frozenset(store.staged())
    assert len(staged) == 2 and store.claim_names() and store.current_link() in staged
    named = {each.name: getattr(rig, each.name) for each in fields(Rig)}
    return Forgetful(**named, certificates=staged, kept_claims=rig.dropped)


FORGET = Scenario("claimd forget", _in_a_replacement, claims_used=1, registered=2)


def killed(place: Path, *, seeds: tuple[int, ...], every: int = 1) -> Row:
    return kills.sweep(FORGET, place, seeds=seeds, every=every, until=FORGOTTEN)


def written_down(place: Path, change: Callable[[Rig], Rig] = lambda rig: rig) -> Trace:
    """Up to the end of the command."""
    trace = record(FORGET, place, change)
    end = next(n for n, e in enumerate(trace.entries) if e.step[1] == "remove_file forgetting")
    last = trace.entries[end].step
    return replace(trace, entries=tuple(e for e in trace.entries if e.step <= last))


def cut_off(place: Path, *, every: int = 1) -> Row:
    (place / "court").mkdir()
    return replay(written_down(place / "device"), Court(place / "court"), every=every)
