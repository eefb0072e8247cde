""".ci/run: what a change has to pass, and what it says at its end."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

RUN = Path(__file__).resolve().parent.parent / ".ci" / "run"
TARGETS = re.search(r"^targets=\((.*?)\)", RUN.read_text(), re.DOTALL | re.MULTILINE)
assert TARGETS is not None
NAMES = [word for line in TARGETS.group(1).splitlines() for word in line.partition("#")[0].split()]
CLOSING = "============ 3 passed in 0.12s ============"


def run(directory: Path, ends: str) -> subprocess.CompletedProcess[str]:
    """With a make that prints what pytest does and then ends as `ends` says; $1 is the target."""
    make = directory / "make"
    make.write_text(f'#!/bin/bash\nshift\necho "{CLOSING}"\necho "$1" >> {directory}/made\n{ends}\n')
    make.chmod(0o755)
    environment = {**os.environ, "PATH": f"{directory}:{os.environ['PATH']}"}
    return subprocess.run([str(RUN)], env=environment, capture_output=True, text=True, check=False)


def test_it_makes_the_tests_first() -> None:
    assert NAMES[0] == "test"


def test_it_passes_when_every_target_does(tmp_path: Path) -> None:
    ended = run(tmp_path, "exit 0")
    assert ended.returncode == 0
    assert (tmp_path / "made").read_text().split() == NAMES
    assert ended.stdout.splitlines()[-2:] == [f"make {NAMES[-1]}: passed", CLOSING]


# 2 is what make makes of pytest's exit codes, 5 (no tests) among them.
@pytest.mark.parametrize("code", [1, 2, 5])
@pytest.mark.parametrize("name", NAMES)
def test_it_fails_when_one_target_does_and_makes_the_others(tmp_path: Path, name: str, code: int) -> None:
    ended = run(tmp_path, f'[ "$1" != {name} ] || exit {code}')
    assert ended.returncode == 1
    assert (tmp_path / "made").read_text().split() == NAMES
    assert f"make {name}: FAILED\n{CLOSING}\n" in ended.stdout
