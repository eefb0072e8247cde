"""The pure floor's own tests go through every line and every branch of it.

Measured in a process of its own: the tests of the pure modules alone, so that no flow above them makes
a line look tested.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tomli

import claimd

TESTS = Path(__file__).parent
SOURCES = Path(claimd.__file__).parent
FLOOR = (
    "access",
    "agenda",
    "answer",
    "attempt",
    "catalogue",
    "codes",
    "der",
    "documents",
    "endpoint",
    "errors",
    "fleet",
    "inquiry",
    "inspection",
    "ledger",
    "model",
    "news",
    "pem",
    "placeholder",
    "record",
    "redaction",
    "report",
    "screen",
    "settings",
    "shapes",
    "traces",
    "verdict",
    "waiting",
    "words",
)
# The catalogue's words are tested as errors, the settings through the files that set them.
ELSEWHERE = {
    "catalogue": ["errors"],
    "codes": ["errors"],
    "settings": ["config"],
    "words": ["screen", "errors"],
}
# They start the real aws command, half a minute of it, and reach nothing that other tests don't.
LEFT_OUT = "not TheAwsCommand"


def files_for(module: str) -> list[str]:
    return [str(TESTS / f"test_{name}.py") for name in ELSEWHERE.get(module, [module])]


def test_no_module_of_the_ground_floor_is_forgotten() -> None:
    with open(TESTS.parent / "pyproject.toml", "rb") as file:
        contracts = tomli.load(file)["tool"]["importlinter"]["contracts"]
    (ground,) = (contract["layers"][-1] for contract in contracts if contract["id"] == "floors")
    assert sorted(FLOOR) == sorted(ground.split(" : "))


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    directory = tmp_path_factory.mktemp("coverage")
    environment = {
        **os.environ,
        "COVERAGE_FILE": str(directory / "data"),
        "PYTHONPATH": os.pathsep.join(filter(None, [str(SOURCES.parent), os.environ.get("PYTHONPATH")])),
    }
    environment.pop("PYTEST_XDIST_WORKER", None)
    files = sorted({test for module in FLOOR for test in files_for(module)})
    run = [sys.executable, "-m", "coverage", "run", "--branch", f"--source={SOURCES}", "-m", "pytest"]
    options = ["-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-k", LEFT_OUT, f"--rootdir={TESTS.parent}"]
    basetemp = f"--basetemp={directory / 'tmp'}"
    ended = subprocess.run(
        [*run, *options, basetemp, *files],
        cwd=TESTS.parent,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout[-3000:] + ended.stderr[-1000:]
    report = directory / "report.json"
    tell = [sys.executable, "-m", "coverage", "json", "-q", "-o", str(report)]
    subprocess.run(tell, cwd=TESTS.parent, env=environment, check=True)
    found: dict[str, Any] = json.loads(report.read_text())["files"]
    return {Path(path).stem: one for path, one in found.items()}


@pytest.mark.parametrize("module", FLOOR)
def test_every_line_and_branch(measured: dict[str, Any], module: str) -> None:
    found = measured[module]
    missed = (found["missing_lines"], found["missing_branches"])
    assert missed == ([], []), f"{module}.py: lines, branches"
    assert found["summary"]["covered_lines"] > 0


def test_it_can_fail(measured: dict[str, Any]) -> None:
    """What these tests don't touch is seen as such."""
    assert measured["preflight"]["missing_lines"]
