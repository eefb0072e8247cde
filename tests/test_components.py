"""claimd version: what is named is what is imported."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path

from claimd import __version__, components


def version(*arguments: str) -> str:
    command = [sys.executable, "-m", "claimd", "version", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_the_version_alone() -> None:
    assert version() == f"claimd {__version__}\n"


def test_every_dependency_is_named_with_the_version_that_is_imported() -> None:
    first, *lines = version("--components").splitlines()
    assert first == f"claimd {__version__}"
    found = dict(line.split() for line in lines)
    assert list(found) == sorted(found)
    for name in ("awscrt", "awsiotsdk", "cryptography", "cffi", "pydantic", "pydantic-core", "watchdog"):
        assert found[name] == metadata.version(name)
    assert found["python"] == platform.python_version()
    assert ("tomli" in found) == (sys.version_info < (3, 11))
    # What only tests and the sandbox use is no part of claimd.
    assert not found.keys() & {"pytest", "awscli", "ruff", "mypy"}


def test_the_same_as_json() -> None:
    document = json.loads(version("--json"))
    assert (document["schema"], document["version"]) == (1, __version__)
    assert {each["name"]: each["version"] for each in document["components"]} == components.installed()


def test_a_package_s_bill_of_materials_counts(tmp_path: Path) -> None:
    own = tmp_path / "usr/lib/claimd/claimd/components.py"
    bill = tmp_path / "usr/share/claimd/sbom.cdx.json"
    bill.parent.mkdir(parents=True)
    bill.write_text(json.dumps({"components": [{"name": "awscrt", "version": "0.1", "type": "library"}]}))
    found = components.installed(str(own))
    assert found["awscrt"] == "0.1"
    assert "pydantic" not in found
    for damaged in ("{", "[]", '{"components": [{"name": "x"}]}', '{"components": 5}'):
        bill.write_text(damaged)
        assert components.installed(str(own))["pydantic"] == metadata.version("pydantic")
