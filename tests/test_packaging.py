"""The package's own parts, without building it: `make deb` and `make system-test` do that."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import deb
import manpages

TOP = Path(__file__).parents[1]
PACKAGING = TOP / "packaging"
COMPONENTS = [
    deb.Component("awscrt", "0.36.1", "Apache-2.0", ("Copyright Amazon\n\nmore",)),
    deb.Component("pydantic-core", "2.50.5", "MIT", ()),
]


def test_the_lock_is_by_hash_and_names_no_registry() -> None:
    text = deb.LOCK.read_text()
    entries = [line for line in text.splitlines() if re.match(r"[a-z]", line)]
    assert {line.split("==")[0] for line in entries} >= {"awscrt", "cryptography", "pydantic", "watchdog"}
    assert "://" not in text
    assert len(re.findall(r"--hash=sha256:[0-9a-f]{64}", text)) > len(entries)


def test_the_bill_of_materials_is_the_same_every_time() -> None:
    document = deb.sbom(COMPONENTS)
    assert document == json.loads(json.dumps(deb.sbom(list(COMPONENTS))))
    assert (document["bomFormat"], document["specVersion"]) == ("CycloneDX", "1.5")
    assert [one["purl"] for one in document["components"]] == [
        "pkg:pypi/awscrt@0.36.1",
        "pkg:pypi/pydantic-core@2.50.5",
    ]


def test_a_licence_is_kept_in_its_own_words() -> None:
    text = deb._licence(COMPONENTS[0])
    assert text.endswith(" Copyright Amazon\n .\n more\n")
    assert "usr/lib/claimd/awscrt*" in text


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("debian")
    manpages.write(TOP, folder, "1.2.3", 0)
    return folder


def test_the_pages_name_every_key_and_every_command(pages: Path) -> None:
    keys = (pages / "claimd.toml.5").read_text()
    for line in (TOP / "etc/claimd.toml").read_text().splitlines():
        key = re.fullmatch(r"#?([\w-]+) = .+", line)
        if key:
            assert key.group(1) in keys.replace("\\-", "-"), line
    commands = (pages / "claimd.8").read_text()
    for word in ("provision", "config check", "hooks", "\\-\\-again", "/etc/claimd/purge\\-identity"):
        assert word in commands


def test_the_pages_are_typeset_without_a_complaint(pages: Path) -> None:
    for page in pages.glob("*.[58]"):
        for line in page.read_text().splitlines():
            assert not re.match(r"[.'](?!TH |SH |PP$|TP$|B |RS$|RE$|IP$|EX$|EE$)", line), (page.name, line)


def _launch(tmp_path: Path, newest: str) -> subprocess.CompletedProcess[str]:
    """The launcher, told that the newest Python it knows is another one."""
    text = (PACKAGING / "launcher/claimd").read_text()
    launcher = tmp_path / "claimd"
    launcher.write_text(
        text.replace("NEWEST = (3, 10), (3, 14)", f"NEWEST = (3, 1), {newest}")
        .replace("/usr/lib/claimd", str(TOP / "daemon"))
        .replace("/usr/bin/python3.", str(tmp_path / "python3."))
    )
    command = [sys.executable, str(launcher), "--version"]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_python_that_is_too_new_is_named_and_an_older_one_is_used(tmp_path: Path) -> None:
    assert _launch(tmp_path, "(3, 99)").stdout.startswith("claimd ")
    refused = _launch(tmp_path, "(3, 2)")
    assert refused.returncode == 78
    assert "an identity that the device has stays in force" in refused.stderr
    older = tmp_path / "python3.2"
    older.write_text('#!/bin/sh\necho "older: $*"\n')
    older.chmod(0o755)
    assert _launch(tmp_path, "(3, 2)").stdout == f"older: -I {tmp_path / 'claimd'} --version\n"


def test_what_maintainers_run_is_valid_shell() -> None:
    scripts = [*(PACKAGING / "debian").glob("claimd.p*"), PACKAGING / "launcher/claimd.rtupdate"]
    assert len(scripts) == 4
    for script in scripts:
        subprocess.run(["sh", "-n", str(script)], check=True)


def test_nothing_makes_apt_remove_claimd_when_python_is_newer() -> None:
    control = (PACKAGING / "debian/control").read_text()
    assert "python3 (>= 3.10)" in control and "python3 (<<" not in control
    assert os.access(PACKAGING / "debian/rules", os.X_OK)


def test_accounts_that_can_only_drop_find_what_they_need_in_the_package(tmp_path: Path) -> None:
    (tmp_path / "etc/claimd").mkdir(parents=True)
    deb.install_own_files(tmp_path)
    examples = tmp_path / "usr/share/doc/claimd/examples/sshd"
    assert {path.name for path in examples.iterdir()} == {"README.md", "claimd-upload.conf"}
    (command,) = re.findall(
        r"^\s*ForceCommand (/\S+/\S+)", (examples / "claimd-upload.conf").read_text(), re.M
    )
    assert os.access(f"{tmp_path}{command}", os.X_OK)
