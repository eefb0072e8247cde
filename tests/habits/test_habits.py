"""A selection of `make habits`, where there are root, an sshd and namespaces; all of it by its marker."""

from __future__ import annotations

import subprocess

import pytest

import premises
from habits.clients import NEEDED_TOOLS

WHY_NOT = premises.missing(*NEEDED_TOOLS)
pytestmark = pytest.mark.skipif(WHY_NOT is not None, reason=str(WHY_NOT))

SELECTION = (("scp -p", "two pem"), ("scp -r", "json v1"), ("scp, sed -i, chmod", "swapped"))


def table(*options: str) -> subprocess.CompletedProcess[str]:
    return premises.enter("habits.table", options, capture_output=True)


@pytest.mark.parametrize(("client", "shape"), SELECTION)
def test_a_way_of_copying_ends_in_an_identity(client: str, shape: str) -> None:
    done = table("--client", client, "--shape", shape)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 clients × 1 shapes, each as tina: 0 failed" in done.stdout


@pytest.mark.habits
def test_every_way_of_copying_with_every_shape() -> None:
    done = table()
    assert done.returncode == 0, done.stdout + done.stderr
