""".ci/system-packages: what an ordinary user is told, and how root installs."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from device import wait_for

SCRIPT = Path(__file__).resolve().parent.parent / ".ci" / "system-packages"


def program(directory: Path, name: str, script: str) -> None:
    path = directory / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def ask(directory: Path, what: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """With these programs found before the machine's own."""
    return subprocess.run(
        [str(SCRIPT), what],
        env={**os.environ, "PATH": f"{directory}:{os.environ['PATH']}", **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_it_is_silent_when_all_is_there(tmp_path: Path) -> None:
    ended = ask(tmp_path, "demo")
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")


@pytest.mark.parametrize("missing", ["demo", "test"])
def test_an_ordinary_user_gets_the_one_command(tmp_path: Path, missing: str) -> None:
    program(tmp_path, "id", "echo 1000")
    program(tmp_path, "apt-get", f"touch {tmp_path}/called")
    ended = ask(tmp_path, missing, PYTHON="/bin/false")
    assert ended.returncode == 1
    command = ended.stderr.splitlines()[1].strip()
    assert command.startswith("sudo apt-get install -y --no-install-recommends python3-venv")
    assert ("python3-dev" in command) == (missing == "test")
    assert not (tmp_path / "called").exists()


def test_without_apt_the_packages_are_named(tmp_path: Path) -> None:
    for name in ("sh", "id", "test"):
        program(tmp_path, name, f'exec /bin/{name} "$@"')
    ended = ask(tmp_path, "demo", PYTHON="/bin/false", PATH=str(tmp_path))
    assert ended.returncode == 1
    assert "missing here, by the names of their Debian packages: python3-venv" in ended.stderr


def test_a_mirror_that_is_out_of_reach_is_not_mistaken_for_a_failed_test(tmp_path: Path) -> None:
    program(tmp_path, "id", "echo 0")
    program(tmp_path, "apt-get", f"echo $1 >> {tmp_path}/called; echo 'E: Failed to fetch' >&2; exit 100")
    ended = ask(tmp_path, "demo", PYTHON="/bin/false", POLICY_RC_D=str(tmp_path / "policy"))
    assert ended.returncode == 1
    assert (tmp_path / "called").read_text().split() == ["install", "update"]
    said = ended.stderr.splitlines()
    assert said[-4:-2] == [
        "E: Failed to fetch",
        "the system packages could not be installed, apt says why above; nothing was built or tested.",
    ]
    assert said[-1].strip().startswith("sudo apt-get install -y --no-install-recommends python3-venv")
    assert not (tmp_path / "policy").exists()


# The one line that keeps Debian's packages from starting their services.
BAN = "exit 101"


def as_root(directory: Path, apt_get: str) -> dict[str, str]:
    program(directory, "id", "echo 0")
    program(directory, "apt-get", apt_get)
    return {
        **os.environ,
        "PATH": f"{directory}:{os.environ['PATH']}",
        "PYTHON": "/bin/false",
        "POLICY_RC_D": str(directory / "policy"),
    }


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda how: how.name)
def test_a_signal_leaves_no_ban_on_starting_services(tmp_path: Path, how: signal.Signals) -> None:
    """As Ctrl-C in make does it: to the whole group, in the middle of the installation."""
    banned = tmp_path / "banned"
    environment = as_root(tmp_path, f"cp {tmp_path}/policy {banned}; exec sleep 300")
    # A test run in the background ignores Ctrl-C, and so would what it starts.
    command = ["env", f"--default-signal={how.name[3:]}", str(SCRIPT), "demo"]
    with subprocess.Popen(
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    ) as run:
        try:
            wait_for(lambda: banned.exists() and BAN in banned.read_text(), "the installation")
        finally:
            os.killpg(run.pid, how)
    assert run.returncode == 128 + how
    assert not (tmp_path / "policy").exists()


def test_the_ban_of_a_run_that_was_killed_is_lifted_by_the_next(tmp_path: Path) -> None:
    environment = as_root(tmp_path, f"cp {tmp_path}/policy {tmp_path}/banned; kill -9 $PPID")
    killed = subprocess.run([str(SCRIPT), "demo"], env=environment, capture_output=True, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert BAN in (tmp_path / "policy").read_text()
    ended = subprocess.run(
        [str(SCRIPT), "demo"],
        env=as_root(tmp_path, f"cp {tmp_path}/policy {tmp_path}/again"),
        capture_output=True,
        check=False,
    )
    assert ended.returncode == 0
    assert (tmp_path / "again").read_bytes() == (tmp_path / "banned").read_bytes()
    assert not (tmp_path / "policy").exists()


def test_a_machine_s_own_policy_stays(tmp_path: Path) -> None:
    """A container image brings one like ours."""
    own = f"#!/bin/sh\n{BAN}\n"
    (tmp_path / "policy").write_text(own)
    environment = as_root(tmp_path, "true")
    ended = subprocess.run([str(SCRIPT), "demo"], env=environment, capture_output=True, check=False)
    assert ended.returncode == 0
    assert (tmp_path / "policy").read_text() == own
