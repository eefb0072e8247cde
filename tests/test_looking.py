"""Looking until the drop directory holds still, and no longer than there is nothing better to do."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

import material
from claimd import attempt as table
from claimd.attempt import ClaimRecord, Record
from claimd.connect import InterruptedPassError
from claimd.drop import Drop
from claimd.durable import Disk
from claimd.errors import Code
from claimd.intake import Intake, Rules
from claimd.ledger import Moment
from claimd.looking import Patience, elapsed, look
from claimd.model import Layout
from claimd.store import Store

FOREVER = 3600.0


class World:
    def __init__(self, root: Path) -> None:
        self.layout = Layout(str(root))
        for path in (self.layout.state_directory, self.layout.drop_directory, self.layout.run_directory):
            os.makedirs(path)
        self.place = Path(self.layout.drop_directory)
        self.store = Store(self.layout, Disk())
        self.store.prepare()
        self.looks = 0
        self.acts: dict[int, Callable[[], object]] = {}

    def clock(self) -> Moment:
        """Asked for once a look: what happens before that look happens here."""
        self.looks += 1
        self.acts.pop(self.looks, lambda: None)()
        return Moment(datetime.now(timezone.utc), elapsed())

    def look(self, grace: float = FOREVER, stopping: Callable[[], bool] = lambda: False) -> Intake:
        drop = Drop(self.layout.drop_directory, Disk(), own_files=True)
        return look(drop, self.store, Rules(), Patience(grace, stopping), self.clock)[0]


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path / "root")


def fresh() -> material.Pair:
    now = datetime.now(timezone.utc).replace(microsecond=0)
    return material.pair(not_before=now - timedelta(minutes=2), not_after=now + timedelta(minutes=5))


def test_nothing_there_is_one_look(world: World) -> None:
    assert world.look() == Intake((), (), {}, incomplete=False, signature=frozenset())
    assert world.looks == 1


def test_the_other_half_is_waited_for(world: World) -> None:
    pair = fresh()
    (world.place / "cert").write_text(pair.certificate)
    world.acts[5] = lambda: (world.place / "key").write_text(pair.key)
    assert world.look().kept == (pair.claim,)


def test_the_grace_ends_it(world: World) -> None:
    (world.place / "cert").write_text(fresh().certificate)
    found = world.look(grace=0.0)
    assert found.incomplete and found.problems["cert"].code is Code.CLAIM_KEY_MISSING


def test_being_told_to_stop_ends_it(world: World) -> None:
    (world.place / "cert").write_text(fresh().certificate)
    with pytest.raises(InterruptedPassError):
        world.look(stopping=lambda: world.looks > 3)


@pytest.mark.parametrize("work", ["a kept claim", "an open attempt"])
def test_with_work_to_do_nobody_is_waited_for(world: World, work: str) -> None:
    """Somebody who goes on writing would else hold every pass up."""
    if work == "a kept claim":
        world.store.secure_claim(fresh().claim)
    else:
        begun = table.begin(ClaimRecord.of(fresh().claim), datetime.now(timezone.utc), None)
        world.store.save_record(Record(begun))
    (world.place / "cert").write_text(fresh().certificate)
    began = time.monotonic()
    assert world.look().incomplete
    assert world.looks == 1 and time.monotonic() - began < FOREVER


def test_the_ledger_outlives_the_pass(world: World) -> None:
    pair = fresh()
    (world.place / "claim").write_text(pair.certificate + pair.key)
    world.look()
    assert [taken.fingerprint for taken in world.store.load_ledger().taken] == [pair.claim.fingerprint]
    (world.place / "again").write_text(pair.key)
    assert world.look().destroyed["again"].code is Code.CLAIM_ALREADY_TAKEN_IN


def test_a_ledger_that_can_t_be_written_costs_nothing_but_words(world: World) -> None:
    pair = fresh()
    (world.place / "claim").write_text(pair.certificate + pair.key)
    Path(world.layout.run_directory).rmdir()
    assert world.look().kept == (pair.claim,)
