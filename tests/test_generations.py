"""Which earlier identity goes, and when, on a real store."""

from __future__ import annotations

import errno
import json
import os
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from claimd import generations
from claimd.attempt import Outcome, Record
from claimd.documents import identity_document
from claimd.durable import Disk
from claimd.generations import LEAST_AGE, Retention
from claimd.model import Layout
from claimd.store import Store
from material import NOW, issued

DAY = timedelta(days=1)
# Seconds since the machine started.
LONG_UP = 1e6


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = Store(Layout(str(tmp_path)), Disk())
    os.makedirs(made.layout.state_directory)
    made.prepare()
    return made


def name(number: int) -> str:
    return f"{number:02x}" * 32


def replaced(store: Store, *registered_at: datetime) -> None:
    """Identity 0, and one more for each time, each having replaced the one before; the last one serves."""
    for number, at in enumerate((NOW - 900 * DAY, *registered_at)):
        store.stage(issued(name(number)), b"roots")
        certificate = store.load_staged(name(number)).certificate
        store.complete(
            name(number),
            identity_document(
                certificate_id=name(number),
                certificate=certificate,
                endpoint="e.example",
                port=8883,
                template="T",
                client_id="c",
                thing_name="thing",
                thing_name_known=True,
                device_configuration=None,
                registered_at=at,
                replaces=name(number - 1) if number else None,
                replaced_thing=None,
            ),
        )
    store.activate(name(len(registered_at)))


def test_the_old_go_by_age_and_by_number(store: Store) -> None:
    replaced(store, NOW - 40 * DAY, NOW - 20 * DAY, NOW - 10 * DAY, NOW - LEAST_AGE / 2)
    due = generations.remove_old(store, Record(), Retention(generations=2, days=30.0), NOW, LONG_UP)
    # 0 is too old, 1 one too many; 2 and 3 were replaced 10 days and half an hour ago.
    assert sorted(store.staged()) == [name(2), name(3), name(4)]
    assert due == (20 * DAY).total_seconds()


def test_what_was_replaced_a_moment_ago_stays_whatever_the_number(store: Store) -> None:
    replaced(store, NOW - LEAST_AGE / 2)
    due = generations.remove_old(store, Record(), Retention(generations=0, days=0.0), NOW, LONG_UP)
    assert sorted(store.staged()) == [name(0), name(1)]
    assert due == (LEAST_AGE / 2).total_seconds()


def test_nobody_knows_how_long_ago_a_wrong_clock_was(store: Store) -> None:
    replaced(store, datetime(1970, 1, 1, 0, 3, tzinfo=timezone.utc))
    due = generations.remove_old(store, Record(), Retention(generations=0, days=1.0), NOW, LONG_UP)
    assert sorted(store.staged()) == [name(0), name(1)]
    assert due is None


def test_the_age_counts_from_the_switch(store: Store) -> None:
    """A replacement that waited for its approval: the old identity served until a second ago."""
    replaced(store, NOW - 40 * DAY)
    switched = Outcome(NOW, "f1" * 32, "active", name(1), "thing", None)
    record = Record().with_outcome(switched)
    due = generations.remove_old(store, record, Retention(generations=2, days=30.0), NOW, LONG_UP)
    assert sorted(store.staged()) == [name(0), name(1)]
    assert due == (30 * DAY).total_seconds()


def test_whatever_somebody_put_there_goes_with_it(store: Store, tmp_path: Path) -> None:
    replaced(store, NOW - 40 * DAY)
    inside = Path(store.layout.identity_directory) / name(0) / "backup" / "older"
    inside.mkdir(parents=True)
    (inside / "key").write_text("a copy")
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("stays")
    (inside.parent / "link").symlink_to(outside)
    generations.remove_old(store, Record(), Retention(generations=2, days=30.0), NOW, LONG_UP)
    assert os.listdir(store.layout.identity_directory).count("current") == 1
    assert store.staged() == [name(1)]
    assert (outside / "precious").exists()
    store.prepare()


def test_one_that_can_t_be_read_keeps_the_others_from_nothing(store: Store) -> None:
    class BadSector(Store):
        def document(self, certificate_id: str) -> dict[str, Any] | None:
            if certificate_id == name(0):
                raise OSError(errno.EIO, "Input/output error")
            return super().document(certificate_id)

    replaced(store, NOW - 50 * DAY, NOW - 40 * DAY)
    generations.remove_old(BadSector(store.layout, Disk()), Record(), Retention(2, 30.0), NOW, LONG_UP)
    assert sorted(store.staged()) == [name(0), name(2)]


def test_who_was_replaced_twice_counts_from_the_later_one(store: Store) -> None:
    """Somebody led `current` back to it in between."""
    replaced(store, NOW - 40 * DAY, NOW)
    path = Path(store.layout.identity_directory) / name(2)
    document = json.loads((path / "identity.json").read_text()) | {"replaces_certificate_id": name(0)}
    store.complete(name(2), document)
    found = {each.certificate_id: each.replaced_at for each in generations.earlier(store, Record())}
    assert found[name(0)] == NOW


def test_nothing_is_removed_on_the_word_of_a_clock_that_the_network_has_not_set_yet(store: Store) -> None:
    """A machine without a battery for its clock may start in 2031."""
    replaced(store, NOW - 40 * DAY)
    due = generations.remove_old(store, Record(), Retention(2, 30.0), NOW, 10.0)
    assert due == LEAST_AGE.total_seconds() - 10.0
    assert name(0) in store.staged()
    generations.remove_old(store, Record(), Retention(2, 30.0), NOW, LEAST_AGE.total_seconds())
    assert name(0) not in store.staged()
