"""The package itself, before any machine has it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from .world import TOP, built_package

pytestmark = pytest.mark.system


def test_a_second_build_gives_the_same_bytes(tmp_path: Path) -> None:
    """Elsewhere, later, and for somebody whose umask, language and time zone are others."""
    package = built_package()
    environment = {**os.environ, "TZ": "Pacific/Auckland", "LC_ALL": "de_DE.UTF-8", "LANG": "de_DE.UTF-8"}
    architecture = package.stem.rpartition("_")[2]
    build, output = tmp_path / "a place of its own", tmp_path / "output"
    subprocess.run(
        [
            *(sys.executable, str(TOP / "packaging/deb.py"), "--arch", architecture),
            *("--build", str(build), str(output)),
        ],
        env=environment,
        umask=0o077,
        check=True,
        stdout=subprocess.DEVNULL,
    )
    made = sorted(output.glob("*.deb"))
    assert [each.name for each in made] == [
        f"claimd-sandbox_{package.name.split('_')[1]}_all.deb",
        package.name,
    ]
    for each in made:
        assert each.read_bytes() == (package.parent / each.name).read_bytes(), each.name
