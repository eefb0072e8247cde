"""What a process gives up of itself. In processes of their own: there is no way back."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from claimd import system

NOBODY = 65534
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can hand a capability on")


def run(code: str, *arguments: str) -> str:
    # The codec beforehand: an ordinary user may be unable to read the directory that Python lies in.
    start = "import encodings.ascii, os, threading; from claimd import system; "
    command = [sys.executable, "-c", start + code, *arguments]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout.strip()


# As the unit's AmbientCapabilities leave it: an ordinary user with one capability.
WITH_ONE = f"system._prctl(8, 1); os.setuid({NOBODY}); system._capset(1 << system.CAP_DAC_READ_SEARCH); "


def test_no_core_dump_and_no_ptrace() -> None:
    code = (
        "import resource; system.hide_memory();"
        "print(system._libc.prctl(3, 0, 0, 0, 0), resource.getrlimit(resource.RLIMIT_CORE))"
    )
    assert run(code) == "0 (0, 0)"


@as_root
def test_the_capability_is_used_and_then_gone(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("s")
    secret.chmod(0)
    code = WITH_ONE + (
        "import sys; print(open(sys.argv[1]).read(), len(system.held_capabilities()));"
        "system.give_up_capabilities(); print(system.held_capabilities(), os.access(sys.argv[1], os.R_OK))"
    )
    assert run(code, str(secret)).splitlines() == ["s 1", "{} False"]


@as_root
def test_it_can_not_be_had_again() -> None:
    code = WITH_ONE + (
        "system.give_up_capabilities()\ntry:\n system._capset(4)\nexcept OSError as e:\n print(e.strerror)"
    )
    assert run(code) == "capset: Operation not permitted"


@as_root
def test_a_thread_that_keeps_it_is_seen() -> None:
    """capset(2) is per thread: one that exists already would keep what was given up."""
    code = WITH_ONE + (
        "go = threading.Event(); threading.Thread(target=go.wait, daemon=True).start()\n"
        "try:\n system.give_up_capabilities()\nexcept RuntimeError as e:\n print(str(e)[:30])\n"
        "go.set()"
    )
    assert run(code) == "capabilities were not given up"


ORDINARY = f"os.geteuid() or os.setuid({NOBODY}); "


def test_an_ordinary_user_holds_none_and_gives_up_none() -> None:
    assert run(ORDINARY + "system.give_up_capabilities(); print(system.held_capabilities())") == "{}"


def test_an_ordinary_user_stays_who_he_is() -> None:
    code = "u = os.getuid(); system.become_service_user(); print(u == os.getuid())"
    assert run(ORDINARY + code) == "True"


def test_every_thread_is_looked_at() -> None:
    held = system.held_capabilities()
    assert set(held) <= set(os.listdir("/proc/self/task"))
