"""Power cuts, replayed: every state that a legal file system may show after the power went.

What is legal: of a directory's names, any part of what changed since its last fsync that keeps the order
of changes to one name; of a file, its data and mode as of its last fsync, or the data since then dropped,
zeroed, torn or whole. A directory's fsync says nothing about its own name in its parent, nor about the
data of its files. Real file systems promise more (ext4 commits in order); claimd must not need it.

Invariant: `cuts` depends on the trace alone. /run is gone after every cut.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from faults.cloud import MemoryJournal
from faults.judge import Finding, judge
from faults.kills import end_of
from faults.rig import Clock, Rig
from faults.scenarios import Scenario
from faults.table import Row
from faults.trace import BALLAST, VOLATILE, Entry, Op, RecordedJournal, Recorder, Tree, stepping

# claimd never leaves more to chance at one moment. A trace that lacks an fsync does: of that so many are
# tried, those in which the later changes arrived and the earlier ones did not before the others.
MOST_STATES_A_CUT = 150
MOST_STATES_OF_CLAIMD = 10_000


@dataclass(frozen=True)
class Trace:
    start: Tree
    entries: tuple[Entry, ...]
    before: tuple[str, ...]  # the cloud's events before the trace began
    rig: Rig
    scenario: Scenario


def record(scenario: Scenario, place: Path, change: Callable[[Rig], Rig] = lambda rig: rig) -> Trace:
    """Let a device come to rest, and write down how."""
    return written_down(change(scenario.make(place)), scenario)


def written_down(rig: Rig, scenario: Scenario) -> Trace:
    before = tuple(rig.journal.events())
    recorder = Recorder(rig.root)
    assert isinstance(rig.disk, type)
    watched = replace(rig, journal=RecordedJournal(recorder, before), disk=stepping(recorder, rig.disk))
    recovery = watched.recover(recorder)
    assert recovery.is_active, recovery.why
    # What is written to /run, or for people alone, is gone after any cut.
    kept = tuple(e for e in recorder.entries if not e.step[1].startswith(VOLATILE))
    return Trace(recorder.start, kept, before, rig, scenario)


# -- which states a cut can leave


@dataclass(frozen=True)
class Cut:
    """`after` entries were carried out. `names`: the tree by its names; `contents`: what is in open files."""

    after: int
    events: tuple[str, ...]
    names: Tree
    contents: tuple[tuple[int, bytes, int], ...]

    @functools.cached_property
    def tree(self) -> Tree:
        made = self.names.copy()
        for node, data, mode in self.contents:
            made.nodes[node] = replace(made.nodes[node], data=data, mode=mode)
        return made

    def key(self) -> str:
        found = hashlib.sha256(repr(self.events).encode())
        for path, node in self.tree.listing():
            found.update(repr((path, node.mode, node.data, node.names is None, node.is_link)).encode())
        return found.hexdigest()


@dataclass
class _Moment:
    """`safe` is what must be there; `names` and `files` what may or may not have reached the disk."""

    safe: Tree
    names: dict[int, list[Entry]] = field(default_factory=dict)
    files: dict[int, list[Entry]] = field(default_factory=dict)
    events: tuple[str, ...] = ()
    version: int = 0  # of `safe`
    probes: set[int] = field(default_factory=set)  # directories

    def carry_out(self, entry: Entry) -> None:
        if entry.op is Op.EVENT:
            self.events = (*self.events, entry.data.decode("ascii"))
        elif entry.op is Op.SYNC:
            self.safe, self.version = self.safe.copy(), self.version + 1
            for done in (*self.names.pop(entry.node, ()), *self.files.pop(entry.node, ())):
                self.safe.apply(done)
        elif entry.op in (Op.WRITE, Op.CHMOD):
            self.files.setdefault(entry.node, []).append(entry)
        else:
            self.names.setdefault(entry.directory, []).append(entry)
            if entry.op is Op.MKDIR and entry.step[1].startswith("probe "):
                self.probes.add(entry.node)


def cuts(
    start: Tree, entries: Sequence[Entry], before: Sequence[str] = (), *, most: int | None = None
) -> Iterator[Cut]:
    """Every state after every prefix; the same state may come again. `most`: so many a prefix, no more."""
    moment = _Moment(start, events=tuple(before))
    seen: set[object] = set()
    yield from _states(0, moment, most, seen)
    for number, entry in enumerate(entries, 1):
        moment.carry_out(entry)
        yield from _states(number, moment, most, seen)


def _states(number: int, moment: _Moment, most: int | None, seen: set[object]) -> Iterator[Cut]:
    """`seen`: what an earlier moment gave already, with nothing synced in between."""
    by_names = [
        # What a probe's own directory holds makes no difference: it goes as a whole.
        [tuple(pending)] if pending[0].directory in moment.probes else list(_subsets(pending))
        for pending in moment.names.values()
    ]
    count = 0
    for choice in itertools.product(*by_names):
        chosen = tuple(itertools.chain.from_iterable(choice))
        tree = moment.safe.copy()
        for entry in chosen:
            tree.apply(entry)
        there = _reachable(tree)
        open_files = [node for node in moment.files if node in there]
        variants = (_contents(moment.safe, node, moment.files[node]) for node in open_files)
        for contents in itertools.product(*variants):
            count += 1
            if most is not None and count > most:
                return
            assert count <= MOST_STATES_OF_CLAIMD, "too much is left to chance to try it all"
            mark = (moment.version, tuple(map(id, chosen)), contents, len(moment.events))
            if mark not in seen:
                seen.add(mark)
                yield Cut(number, moment.events, tree, contents)


def _subsets(pending: Sequence[Entry]) -> Iterator[tuple[Entry, ...]]:
    """What may have reached the disk of one directory's changes: changes of one name keep their order."""
    groups: list[tuple[set[str], list[Entry]]] = []
    for entry in pending:
        touched = {"ballast"} if entry.is_ballast else {entry.name, entry.to} - {""}
        joined = [entry]
        for group in [g for g in groups if g[0] & touched]:
            groups.remove(group)
            touched |= group[0]
            joined = [*group[1], *joined]
        groups.append((touched, joined))
    prefixes = [[tuple(g[1][:n]) for n in range(len(g[1]) + 1)] for g in groups]
    for choice in itertools.product(*prefixes):
        yield tuple(itertools.chain(*choice))


def _contents(safe: Tree, number: int, pending: Sequence[Entry]) -> list[tuple[int, bytes, int]]:
    """What may be found of a file that was not synced: its number, data and mode."""
    old = safe.nodes[number]
    new = b"".join(e.data for e in pending if e.op is Op.WRITE)
    if new == BALLAST:
        return [(number, old.data + new, old.mode)]
    modes = dict.fromkeys([old.mode, *(e.mode for e in pending if e.op is Op.CHMOD)])
    half = len(new) // 2
    added = dict.fromkeys([b"", bytes(len(new)), new[:half], new[:half] + bytes(len(new) - half), new])
    return [(number, old.data + data, mode) for data in added for mode in modes]


def _reachable(tree: Tree) -> set[int]:
    found, todo = set(), [0]
    while todo:
        number = todo.pop()
        found.add(number)
        todo += (tree.nodes[number].names or {}).values()
    return found


# -- what claimd makes of them


class Court:
    """Judges states, each once: most cuts leave what an earlier one left."""

    def __init__(self, place: Path) -> None:
        self._place = place
        self._known: dict[str, list[Finding]] = {}
        self.tried = 0

    def judge(self, trace: Trace, cut: Cut, *, power_cuts: int = 1) -> tuple[list[Finding], bool]:
        """The findings, and whether this state is a new one."""
        key = trace.scenario.name + cut.key()
        if key in self._known:
            return self._known[key], False
        self.tried += 1
        rig = self.device(trace, cut)
        findings = judge(rig.root, rig.known(), rig.live_claims)
        findings += end_of(rig, trace.scenario, kills=power_cuts)
        self._known[key] = findings
        return findings, True

    def device(self, trace: Trace, cut: Cut) -> Rig:
        """The device as it comes up after the cut."""
        root = self._place / "root"
        shutil.rmtree(root, ignore_errors=True)
        materialise(cut.tree, root, trace.rig.root)
        journal = MemoryJournal(cut.events)
        rig = replace(trace.rig, root=root, journal=journal, clock=Clock(trace.rig.clock.at), seed=7)
        rig.catch_up()
        return rig

    def recovery(self, trace: Trace, cut: Cut) -> Trace | None:
        """How the device comes to rest after the cut, written down in its turn."""
        rig = self.device(trace, cut)
        return None if rig.is_active() else written_down(rig, trace.scenario)


def materialise(tree: Tree, root: Path, old_root: Path) -> None:
    for path, node in tree.listing():
        place = f"{root}{path}"
        if node.names is not None:
            os.mkdir(place)
            os.chmod(place, node.mode)
        elif path.startswith("/run/"):
            continue
        elif node.is_link:
            os.symlink(node.data.decode(), place)
        else:
            data = node.data
            if path.startswith("/etc/"):
                data = data.replace(str(old_root).encode(), str(root).encode())
            fd = os.open(place, os.O_WRONLY | os.O_CREAT, node.mode)
            os.write(fd, data)
            os.fchmod(fd, node.mode)
            os.close(fd)


def replay(trace: Trace, court: Court, *, every: int = 1) -> Row:
    """Judge every new state of a trace; with `every`, one of so many."""
    row = Row(f"power cut: {trace.scenario.name}")
    seen = 0
    for cut in cuts(trace.start, trace.entries, trace.before):
        seen += 1
        if seen % every:
            continue
        findings, is_new = court.judge(trace, cut)
        if is_new:
            row.add(where(trace, cut), findings)
    return row


def replay_twice(trace: Trace, court: Court, *, every: int, second_every: int = 1) -> Row:
    """A second cut, at one place of so many, in the recovery from one first cut of so many."""
    row = Row(f"power cut, and one in the recovery: {trace.scenario.name}")
    for first in itertools.islice(cuts(trace.start, trace.entries, trace.before), 0, None, every):
        again = court.recovery(trace, first)
        if again is None:
            continue
        for second in itertools.islice(cuts(again.start, again.entries, again.before), 0, None, second_every):
            findings, is_new = court.judge(again, second, power_cuts=2)
            if is_new:
                row.add(f"{where(trace, first)}, then {where(again, second)}", findings, struck=2)
    return row


def where(trace: Trace, cut: Cut) -> str:
    label = trace.entries[cut.after - 1].label if cut.after else "the start"
    return f"after operation {cut.after} ({label})"


# -- the teeth: a trace with one promise taken out


@dataclass(frozen=True)
class Change:
    """A trace with one thing changed. `label` is the same for every trace in which it can be changed."""

    label: str
    entries: tuple[Entry, ...]


def without_each_sync(trace: Trace) -> Iterator[Change]:
    for number, entry in enumerate(trace.entries):
        if entry.op is Op.SYNC:
            yield Change(f"without {entry.label}", (*trace.entries[:number], *trace.entries[number + 1 :]))


def with_each_rename_early(trace: Trace) -> Iterator[Change]:
    """A rename before the fsync that stands ahead of it."""
    for number, (one, other) in enumerate(itertools.pairwise(trace.entries)):
        if one.op is Op.SYNC and other.op is Op.RENAME:
            swapped = (*trace.entries[:number], other, one, *trace.entries[number + 2 :])
            yield Change(f"{other.label} before {one.label}", swapped)


def with_each_pair_of_steps_swapped(trace: Trace) -> Iterator[Change]:
    """A step and the next one, in the wrong order."""
    steps = [(key, tuple(group)) for key, group in itertools.groupby(trace.entries, key=lambda e: e.step)]
    for number in range(len(steps) - 1):
        (one, first), (other, second) = steps[number], steps[number + 1]
        before = itertools.chain.from_iterable(group for _, group in steps[:number])
        rest = itertools.chain.from_iterable(group for _, group in steps[number + 2 :])
        yield Change(f"{other[1]} before {one[1]}", (*before, *second, *first, *rest))


def with_each_step_behind_the_next_request(trace: Trace) -> Iterator[Change]:
    """A write that is made only after AWS was asked what it should have preceded."""
    steps = [(key, tuple(group)) for key, group in itertools.groupby(trace.entries, key=lambda e: e.step)]
    for number, (one, first) in enumerate(steps):
        if one[1].startswith("aws"):
            continue
        requests = [
            n for n in range(number + 1, len(steps)) if steps[n][0][1] in ("aws create", "aws register")
        ]
        for request in requests[:1]:
            order = [*steps[:number], *steps[number + 1 : request + 1], (one, first), *steps[request + 1 :]]
            moved = tuple(itertools.chain.from_iterable(group for _, group in order))
            yield Change(f"{one[1]} behind {steps[request][0][1]}", moved)


def is_caught(trace: Trace, change: Change, court: Court) -> str | None:
    """The first finding that the changed trace leads to. Up to the change it is judged as the whole trace."""
    pairs = itertools.zip_longest(trace.entries, change.entries)
    same = next(number for number, (one, other) in enumerate(pairs) if one is not other)
    for cut in cuts(trace.start, change.entries, trace.before, most=MOST_STATES_A_CUT):
        findings = court.judge(trace, cut)[0] if cut.after > same else []
        if findings:
            return f"after operation {cut.after}: {findings[0]}"
    return None


def caught(trace: Trace, changes: Iterable[Change], court: Court) -> dict[str, str | None]:
    """By label: how each change was caught; one label may stand for several changes, all caught or not."""
    found: dict[str, str | None] = {}
    for change in changes:
        how = is_caught(trace, change, court)
        if change.label not in found or how is None:
            found[change.label] = how
    return found
