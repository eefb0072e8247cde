"""A short selection of `make attack`, where there are root and namespaces; the whole by its marker."""

from __future__ import annotations

import subprocess

import pytest

import premises
from attack.table import NEEDED_TOOLS, PARTS

WHY_NOT = premises.missing(*NEEDED_TOOLS)
pytestmark = pytest.mark.skipif(WHY_NOT is not None, reason=str(WHY_NOT))


def attack(*options: str) -> subprocess.CompletedProcess[str]:
    return premises.enter("attack.table", options, capture_output=True)


@pytest.mark.parametrize("part", PARTS)
def test_a_part_in_small(part: str) -> None:
    races = ("--reads", "10000", "--attack", "swap", "--attack", "link over", "--attack", "pipes")
    small = (*races, "--files", "1000", "--plant", "hard links", "--plant", "hostile names")
    done = attack("--part", part, *small)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "all as expected" in done.stdout


@pytest.mark.attack
def test_all_of_it() -> None:
    done = attack()
    assert done.returncode == 0, done.stdout + done.stderr
