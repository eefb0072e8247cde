"""A selection of the replayed power cuts, and what they find in a claimd that is broken on purpose."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from claimd.durable import Disk
from faults import cpp, mutants, powercut
from faults.judge import Kind
from faults.powercut import Change, Court, Trace, caught, cuts, record, replay, replay_twice
from faults.rig import Rig
from faults.scenarios import DEVICE_KEY, LOST_REGISTER, PLAIN, REPLACE, Scenario
from faults.trace import Tree

# One state of so many; `make faults` takes all, and all second cuts.
SELECTION = 37


@pytest.fixture
def court(memory: Path) -> Court:
    (memory / "court").mkdir()
    return Court(memory / "court")


@pytest.mark.parametrize("scenario", [PLAIN, LOST_REGISTER, DEVICE_KEY, REPLACE], ids=lambda s: s.name)
def test_every_power_cut_is_survived(scenario: Scenario, memory: Path, court: Court) -> None:
    row = replay(record(scenario, memory / "device"), court, every=SELECTION)
    assert row.objections() == []
    assert row.recovered == row.points > 20


def test_a_second_cut_in_the_recovery_is_survived(memory: Path, court: Court) -> None:
    row = replay_twice(record(PLAIN, memory / "device"), court, every=900, second_every=120)
    assert row.objections() == []
    assert row.recovered == row.points > 30


def test_the_trace_is_what_happened(memory: Path) -> None:
    """Playing the recording on the start gives the tree that is on disk."""
    trace = record(PLAIN, memory / "device")
    tree = trace.start.copy()
    for entry in trace.entries:
        tree.apply(entry)
    there = Tree.read(memory / "device/root")

    def listing(of: Tree) -> list[tuple[str, int, bytes]]:
        return [
            (p, n.mode, n.data)
            for p, n in of.listing()
            if not p.startswith(("/run/", "/var/spool/claimd/result/"))
        ]

    assert listing(tree) == listing(there)


def test_the_c_plus_plus_client_s_order_is_bad_in_most_states(memory: Path) -> None:
    row = cpp.replay(memory / "client")
    assert row.points > 400
    assert row.bad > row.points / 2


class TestTheTeeth:
    """One promise taken away, in the recording or in the code: the replay finds a state that is bad."""

    def first_caught(
        self, trace: Trace, changes: Callable[[Trace], Iterator[Change]], label: str, court: Court
    ) -> str:
        wanted = [c for c in changes(trace) if c.label == label]
        assert wanted, f"nothing in the recording is called {label!r}"
        return caught(trace, itertools.islice(wanted, 1), court)[label] or ""

    @pytest.mark.parametrize(
        "label",
        [
            "without make_tree claims/ID: sync private.key",
            "without make_tree claims/ID: sync directory",
            "without write_file attempt.json (registering): sync",
            "without write_file attempt.json (registering): sync directory",
        ],
    )
    def test_without_one_fsync(self, label: str, memory: Path, court: Court) -> None:
        trace = record(PLAIN, memory / "device")
        assert self.first_caught(trace, powercut.without_each_sync, label, court)

    def test_the_key_is_stored_behind_the_registration(self, memory: Path, court: Court) -> None:
        trace = record(PLAIN, memory / "device")
        changes = powercut.with_each_step_behind_the_next_request
        assert self.first_caught(trace, changes, "make_tree identity/ID behind aws register", court)

    @pytest.mark.parametrize("disk", [mutants.NoFileSyncDisk, mutants.NoDirectorySyncDisk])
    def test_a_disk_that_does_not_sync(self, disk: type[Disk], memory: Path, court: Court) -> None:
        def broken(rig: Rig) -> Rig:
            return replace(rig, disk=disk)

        trace = record(PLAIN, memory / "device", broken)
        bad = set()
        for cut in itertools.islice(cuts(trace.start, trace.entries, trace.before, most=150), 0, None, 97):
            findings, _ = court.judge(trace, cut)
            bad |= {finding.kind for finding in findings}
            if bad & {Kind.LOST, Kind.HALF}:
                break
        assert bad & {Kind.LOST, Kind.HALF}
