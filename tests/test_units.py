"""The units as the service manager reads them, without booting one."""

from __future__ import annotations

import configparser
import os
import re
import shutil
import stat
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

PACKAGING = Path(__file__).parents[1] / "packaging"
UNITS = sorted(path.name for path in (PACKAGING / "systemd").iterdir())
# Half of what systemd itself calls "OK"; PrivateUsers= and PrivateNetwork= can't be had.
MOST_EXPOSURE_TENTHS = 15

# What the units order themselves by and start; verify wants each of them to exist.
_TARGETS = [
    "basic",
    "local-fs",
    "multi-user",
    "network",
    "nss-lookup",
    "paths",
    "shutdown",
    "sysinit",
    "time-set",
    "umount",
]
_PROGRAMS = ("usr/bin/claimd", "usr/bin/systemd-tmpfiles", "bin/sh", "bin/kill")

pytestmark = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed"
)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root with nothing in it but what the units name."""
    root = tmp_path_factory.mktemp("root")
    units = root / "usr/lib/systemd/system"
    units.mkdir(parents=True)
    for target in _TARGETS:
        (units / f"{target}.target").write_text("[Unit]\nDescription=as on a device\n")
    for name in UNITS:
        shutil.copy(PACKAGING / "systemd" / name, units)
    for name in _PROGRAMS:
        program = root / name
        program.parent.mkdir(parents=True, exist_ok=True)
        program.write_text("#!/bin/sh\n")
        program.chmod(0o755)
    return root


def _verify(root: Path, *names: str) -> subprocess.CompletedProcess[str]:
    units = [str(root / "usr/lib/systemd/system" / name) for name in names]
    return subprocess.run(
        ["systemd-analyze", "verify", "--man=no", f"--root={root}", *units],
        capture_output=True,
        text=True,
        check=False,
    )


def test_every_unit_is_understood(root: Path) -> None:
    """An unknown directive is a warning and exit 0, so silence is what counts."""
    ended = _verify(root, *UNITS)
    assert (ended.returncode, ended.stdout + ended.stderr) == (0, "")


def test_a_misspelt_directive_is_seen(root: Path) -> None:
    text = (PACKAGING / "systemd/claimd.service").read_text().replace("KillMode=", "KilMode=")
    (root / "usr/lib/systemd/system/misspelt.service").write_text(text)
    assert "KilMode" in _verify(root, "misspelt.service").stderr


def _security(root: Path, name: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            "systemd-analyze",
            "security",
            "--offline=true",
            f"--threshold={MOST_EXPOSURE_TENTHS}",
            f"--root={root}",
            name,
        ],
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_service_is_closed_to_what_it_does_not_need(root: Path) -> None:
    ended = _security(root, "claimd.service")
    assert ended.returncode == 0, ended.stdout + ended.stderr


def test_an_open_service_is_seen(root: Path) -> None:
    text = (PACKAGING / "systemd/claimd.service").read_text().replace("ProtectSystem=strict", "")
    (root / "usr/lib/systemd/system/open.service").write_text(text)
    assert _security(root, "open.service").returncode != 0


def test_every_directive_has_its_reason() -> None:
    """A comment stands above each directive or the block that it belongs to; the header alone is none."""
    for name in UNITS:
        commented = False
        for line in (PACKAGING / "systemd" / name).read_text().splitlines():
            if not line:
                commented = False
            elif line.startswith("#"):
                commented = True
            elif line.startswith("["):
                # The section's own few words (Description=, Documentation=) explain themselves.
                commented = line in ("[Unit]", "[Install]", "[Path]", "[Service]")
            else:
                assert commented, f"{name}: {line}"


def test_one_capability_and_no_more() -> None:
    unit = configparser.RawConfigParser(strict=False, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read(PACKAGING / "systemd/claimd.service")
    service = unit["Service"]
    assert service["CapabilityBoundingSet"] == service["AmbientCapabilities"] == "CAP_DAC_READ_SEARCH"
    assert (service["User"], service["Type"], service["KillMode"]) == ("claimd", "notify", "mixed")


needs_root = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("systemd-tmpfiles") is None,
    reason="only root makes owners",
)


@dataclass(frozen=True)
class Slot:
    """A root as one slot of an A/B update: its own /etc, and a /var that outlives it."""

    root: Path

    def make(self, first_id: int) -> None:
        """Users with ids of its own, then the directories, as at boot and before the service starts."""
        for kind in ("sysusers", "tmpfiles"):
            folder = self.root / f"usr/lib/{kind}.d"
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copy(PACKAGING / f"{kind}.d/claimd.conf", folder)
        etc = self.root / "etc"
        shutil.rmtree(etc, ignore_errors=True)
        etc.mkdir()
        (etc / "passwd").write_text("root:x:0:0::/:/bin/sh\n")
        groups = ("claimd-identity", "claimd-drop", "claimd")
        (etc / "group").write_text(
            "root:x:0:\n" + "".join(f"{name}:x:{first_id + n}:\n" for n, name in enumerate(groups))
        )
        self._run("systemd-sysusers")
        self._run("systemd-tmpfiles", "--create")
        (script,) = re.findall(
            r"^ExecStartPre=\+-/bin/sh -c '(chown .*)'$",
            (PACKAGING / "systemd/claimd.service").read_text(),
            re.M,
        )
        owner = f"{self.id_of('passwd', 'claimd')}:{self.id_of('group', 'claimd')}"
        script = script.replace("claimd:claimd", owner).replace(" /var/", f" {self.root}/var/")
        subprocess.run(["sh", "-c", script], check=False)

    def _run(self, *command: str) -> None:
        ended = subprocess.run(
            [*command, f"--root={self.root}", "claimd.conf"], capture_output=True, text=True, check=False
        )
        # Names in an ACL are looked up on the machine at work; `make attack` has a machine that knows them.
        # And systemd 262 leaves files of another owner to the service.
        known = ("d:g:claimd-drop", "Detected unsafe path transition")
        said = [line for line in ended.stderr.splitlines() if not any(words in line for words in known)]
        refused = "Detected unsafe path transition" in ended.stderr
        assert ended.returncode == (73 if refused else 0) and "Failed" not in "".join(said), ended.stderr

    def id_of(self, file: str, name: str) -> int:
        lines = (self.root / "etc" / file).read_text().splitlines()
        return next(int(line.split(":")[2]) for line in lines if line.startswith(name + ":"))

    def shown(self, path: str) -> tuple[str, str, str]:
        """Mode, owner and group by their names in this slot."""
        found = os.lstat(self.root / path)
        users = {self.id_of("passwd", name): name for name in ("root", "claimd")}
        groups = {
            self.id_of("group", name): name for name in ("root", "claimd", "claimd-drop", "claimd-identity")
        }
        return (
            f"{stat.S_IMODE(found.st_mode):04o}",
            users.get(found.st_uid, str(found.st_uid)),
            groups.get(found.st_gid, str(found.st_gid)),
        )


EXPECTED = {
    "run/claimd": ("0755", "claimd", "claimd"),
    "var/spool/claimd": ("0750", "root", "claimd-drop"),
    "var/spool/claimd/drop": ("1777", "claimd", "claimd"),
    "var/spool/claimd/result": ("2750", "claimd", "claimd-drop"),
    "var/lib/claimd": ("0711", "claimd", "claimd"),
    "var/lib/claimd/identity": ("2750", "claimd", "claimd-identity"),
}
CERTIFICATE_ID = "ab" * 32


@needs_root
def test_directories_as_designed_also_when_another_slot_has_other_ids(tmp_path: Path) -> None:
    slot = Slot(tmp_path)
    slot.make(700)
    assert {path: slot.shown(path) for path in EXPECTED} == EXPECTED
    assert "claimd-drop:x:701:claimd" in (tmp_path / "etc/group").read_text()

    state = tmp_path / "var/lib/claimd"
    generation = state / "identity" / CERTIFICATE_ID
    generation.mkdir(mode=0o750)
    (state / "claims").mkdir(mode=0o700)
    (state / "attempt.json").write_text("{}")
    (state / "attempt.json").chmod(0o600)
    (generation / "private.key").write_text("key")
    (generation / "private.key").chmod(0o640)
    (state / "identity/current").symlink_to(CERTIFICATE_ID)
    slot.make(800)

    written = {
        "var/lib/claimd/attempt.json": ("0600", "claimd", "claimd"),
        "var/lib/claimd/claims": ("0700", "claimd", "claimd"),
        f"var/lib/claimd/identity/{CERTIFICATE_ID}": ("2750", "claimd", "claimd-identity"),
        f"var/lib/claimd/identity/{CERTIFICATE_ID}/private.key": ("0640", "claimd", "claimd-identity"),
        "var/lib/claimd/identity/current": ("0777", "claimd", "claimd-identity"),
    }
    expected = EXPECTED | written
    assert {path: slot.shown(path) for path in expected} == expected


@needs_root
def test_what_is_dropped_is_readable_for_its_owner_alone(tmp_path: Path) -> None:
    """Whatever the copying program's umask and mode say: by the directory's default ACL."""
    Slot(tmp_path).make(700)
    dropped = tmp_path / "var/spool/claimd/drop/claim.json"
    os.close(os.open(dropped, os.O_CREAT | os.O_WRONLY, 0o666))
    assert stat.S_IMODE(dropped.stat().st_mode) == 0o600


def test_nobody_asks_the_kernel_for_set_id_bits() -> None:
    """The unit's RestrictSUIDSGID= refuses the whole call: mkdir(2) with one of them, chmod(2), open(2)."""
    source = Path(__file__).parents[1] / "daemon/claimd"
    asked = re.compile(r"0o[246][0-7]{3}\b")
    found = [
        f"{path.name}: {text}" for path in source.glob("*.py") for text in asked.findall(path.read_text())
    ]
    assert found == []
