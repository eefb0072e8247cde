"""A selection of `claimd forget` struck and cut off, and what that finds in one that is broken on purpose."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from faults import mutants
from faults.forgetting import FORGET, FORGOTTEN, cut_off, killed, written_down
from faults.judge import Kind
from faults.kills import sweep
from faults.powercut import Court, cuts
from faults.rig import Rig


def test_killed_it_is_finished_by_the_next_pass_or_was_not_begun(memory: Path) -> None:
    row = killed(memory, seeds=(1,), every=7)
    assert row.objections() == []
    assert row.struck >= row.points == row.recovered > 15


def test_every_power_cut_is_survived(memory: Path) -> None:
    row = cut_off(memory)
    assert row.objections() == []
    assert row.points == row.recovered > 20


class TestTheTeeth:
    def test_the_intent_is_taken_back_too_early(self, memory: Path) -> None:
        rig = replace(FORGET.make(memory / "start"), keeper=mutants.HastyStore)
        row = sweep(FORGET, memory, seeds=(1,), every=3, change=rig, until=FORGOTTEN)
        assert row.found[Kind.LOST] > 0

    def test_a_disk_that_does_not_sync(self, memory: Path) -> None:
        def broken(rig: Rig) -> Rig:
            return replace(rig, disk=mutants.NoDirectorySyncDisk)

        trace = written_down(memory / "device", broken)
        (memory / "court").mkdir()
        court = Court(memory / "court")
        states = cuts(trace.start, trace.entries, trace.before, most=150)
        assert any(f.kind is Kind.LOST for cut in states for f in court.judge(trace, cut)[0])
