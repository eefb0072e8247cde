"""A person's command waits a moment for the pass at work: the service's begins in the second of the drop."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from claimd import lock
from claimd.lock import PATIENCE_SECONDS, LockedError, for_a_moment


def opened(directory: Path) -> int:
    return os.open(directory, os.O_RDONLY | os.O_DIRECTORY)


@pytest.fixture
def mine(tmp_path: Path) -> Iterator[int]:
    fd = opened(tmp_path)
    yield fd
    os.close(fd)


@pytest.fixture
def another(tmp_path: Path) -> int:
    fd = opened(tmp_path)
    lock.take(fd)
    return fd


def test_it_is_taken_as_soon_as_it_is_free(mine: int, another: int) -> None:
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 3:
            os.close(another)

    said: list[str] = []
    assert lock.take(mine, for_a_moment(lambda: sum(slept), sleep, lambda: False, said.append)), "waited for"
    assert len(slept) == 3
    assert said == ["another pass is at work: this waits for its end"]


def test_what_is_free_is_not_waited_for(mine: int) -> None:
    assert not lock.take(mine)


@pytest.mark.parametrize("stops", [False, True])
def test_it_is_not_waited_for_any_longer(mine: int, another: int, *, stops: bool) -> None:
    slept: list[float] = []
    with pytest.raises(LockedError):
        lock.take(mine, for_a_moment(lambda: sum(slept), slept.append, lambda: stops, print))
    assert len(slept) == 1 if stops else sum(slept) >= PATIENCE_SECONDS
    os.close(another)


def test_the_service_waits_for_nobody_and_names_the_holder(mine: int, another: int) -> None:
    with pytest.raises(LockedError) as raised:
        lock.take(mine)
    assert raised.value.pid == str(os.getpid())
    os.close(another)


def test_whether_somebody_is_at_work_is_told_without_taking_it(tmp_path: Path, another: int) -> None:
    assert lock.is_held(str(tmp_path))
    os.close(another)
    assert not lock.is_held(str(tmp_path))
    mine = opened(tmp_path)
    assert not lock.take(mine), "who asked keeps nothing"
    os.close(mine)
    assert not lock.is_held(str(tmp_path / "missing"))
