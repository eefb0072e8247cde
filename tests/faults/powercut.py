"""Power cuts, replayed: every state that a legal file system may show after the power went.

What is legal: of a directory's names, any part of what changed since its last fsync that keeps the order
of changes to one name; of a file, its data and mode as of its last fsync, or the data since then dropped,
zeroed, torn or whole. A directory's fsync says nothing about its own name in its parent, nor about the
data of its files. Real file systems promise more (ext4 commits in order); claimd must not need it.

Invariant: `cuts` depends on the trace alone. /run is gone after every cut.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from faults.cloud import MemoryJournal
from faults.judge import Finding, judge
from faults.kills import end_of
from faults.rig import Clock, Rig
from faults.scenarios import Scenario
from faults.table import Row
from faults.trace import Entry, Op, RecordedJournal, Recorder, Tree, stepping

# claimd never leaves more to chance at one moment. A trace that lacks an fsync does: of that so many are
# tried, those in which the later changes arrived and the earlier ones did not before the others.
MOST_STATES_A_CUT = 400
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
    # /run is not on a disk: what is written there is gone after any cut.
    kept = tuple(e for e in recorder.entries if not e.step[1].startswith("write_volatile"))
    return Trace(recorder.start, kept, before, rig, scenario)


# -- which states a cut can leave


@dataclass(frozen=True)
class Cut:
    """`after` entries were carried out; `tree` is what is found."""

    after: int
    tree: Tree
    events: tuple[str, ...]

    def key(self) -> str:
        found = hashlib.sha256(repr(self.events).encode())
        for path, node in self.tree.listing():
            found.update(repr((path, node.mode, node.data, node.names is None, node.is_link)).encode())
        return found.hexdigest()


def cuts(
    start: Tree, entries: Sequence[Entry], before: Sequence[str] = (), *, whole: bool = True
) -> Iterator[Cut]:
    """Every state after every prefix; the same state may come again. `whole`: too many is an error."""
    # `safe` is what must be there; `pending` what may or may not have reached the disk.
    safe = start.copy()
    names: dict[int, list[Entry]] = {}
    files: dict[int, list[Entry]] = {}
    events = list(before)
    yield from _states(0, safe, names, files, tuple(events), whole)
    for number, entry in enumerate(entries, 1):
        if entry.op is Op.EVENT:
            events.append(entry.data.decode("ascii"))
        elif entry.op is Op.SYNC:
            for done in (*names.pop(entry.node, ()), *files.pop(entry.node, ())):
                safe.apply(done)
        elif entry.op in (Op.WRITE, Op.CHMOD):
            files.setdefault(entry.node, []).append(entry)
        else:
            names.setdefault(entry.directory, []).append(entry)
        yield from _states(number, safe, names, files, tuple(events), whole)


def _states(
    number: int,
    safe: Tree,
    names: dict[int, list[Entry]],
    files: dict[int, list[Entry]],
    events: tuple[str, ...],
    whole: bool,
) -> Iterator[Cut]:
    by_names = [list(_subsets(pending)) for pending in names.values()]
    count = 0
    for choice in itertools.product(*by_names):
        tree = safe.copy()
        for entry in itertools.chain(*choice):
            tree.apply(entry)
        reachable = _reachable(tree)
        open_files = [node for node in files if node in reachable]
        for contents in itertools.product(*(_contents(safe, node, files[node]) for node in open_files)):
            made = tree.copy()
            for node, (data, mode) in zip(open_files, contents, strict=True):
                made.nodes[node].data, made.nodes[node].mode = data, mode
            count += 1
            if count > MOST_STATES_A_CUT and not whole:
                return
            assert count <= MOST_STATES_OF_CLAIMD, "too much is left to chance to try it all"
            yield Cut(number, made, events)


def _subsets(pending: Sequence[Entry]) -> Iterator[tuple[Entry, ...]]:
    """What may have reached the disk of one directory's changes: changes of one name keep their order."""
    groups: list[tuple[set[str], list[Entry]]] = []
    for entry in pending:
        touched = {entry.name, entry.to} - {""}
        joined = [entry]
        for group in [g for g in groups if g[0] & touched]:
            groups.remove(group)
            touched |= group[0]
            joined = [*group[1], *joined]
        groups.append((touched, joined))
    prefixes = [[tuple(g[1][:n]) for n in range(len(g[1]) + 1)] for g in groups]
    for choice in itertools.product(*prefixes):
        yield tuple(itertools.chain(*choice))


def _contents(safe: Tree, number: int, pending: Sequence[Entry]) -> list[tuple[bytes, int]]:
    """What may be found of a file that was not synced: its data and its mode."""
    old = safe.nodes[number]
    new = b"".join(e.data for e in pending if e.op is Op.WRITE)
    modes = dict.fromkeys([old.mode, *(e.mode for e in pending if e.op is Op.CHMOD)])
    half = len(new) // 2
    added = dict.fromkeys([b"", bytes(len(new)), new[:half], new[:half] + bytes(len(new) - half), new])
    return [(old.data + data, mode) for data in added for mode in modes]


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


def replay_twice(trace: Trace, court: Court, *, every: int) -> Row:
    """A second cut, at every place of the recovery from one first cut of so many."""
    row = Row(f"power cut, and one in the recovery: {trace.scenario.name}")
    firsts: set[str] = set()
    for first in cuts(trace.start, trace.entries, trace.before):
        key = first.key()
        if key in firsts:
            continue
        firsts.add(key)
        again = court.recovery(trace, first) if len(firsts) % every == 0 else None
        if again is None:
            continue
        for second in cuts(again.start, again.entries, again.before):
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
    for cut in cuts(trace.start, change.entries, trace.before, whole=False):
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
