"""The service in a process of its own, with a shell script in the place of the worker.

The script does what `<kind>.sh` says, for kind `provision` and `show`; a test writes those. It notes every
call, its environment and its descriptors.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from claimd.service import Pace
from device import DEADLINE_SECONDS, Device, wait_for

NOTHING_TO_DO = {"schema": 1, "outcome": "idle", "exit": 4, "next": "nothing", "after_seconds": None}
CONFIGURED = {"schema": 1, "values": {"timeouts": {"pass_seconds": 30}}, "sha256": "0" * 64}
# No tick and no poll comes in a test that does not ask for one: what happens then happened by an event.
STILL = Pace(tick=3600, poll=3600)

PROGRAM = """#!/bin/sh
case "$*" in *provision*) kind=provision ;; *) kind=show ;; esac
env >'{directory}'/$kind.environment
ls -l /proc/self/fd >'{directory}'/$kind.descriptors
echo "$$ $*" >>'{directory}'/$kind.calls
. '{directory}'/$kind.sh
"""


def prints(document: Mapping[str, Any], exit_code: int = 0) -> str:
    """A script that prints a document on its last line, as the worker does."""
    return f"cat <<'END'\n{json.dumps(document)}\nEND\nexit {exit_code}\n"


class Manager:
    """The service manager's end of sd_notify: a real datagram socket."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind("\0" + address[1:] if address.startswith("@") else address)
        self._socket.setblocking(False)
        self.messages: list[str] = []

    def drain(self) -> list[str]:
        with contextlib.suppress(BlockingIOError):
            while True:
                self.messages.append(self._socket.recv(65536).decode())
        return self.messages

    def wait_for(self, start: str, *, after: int = 0) -> str:
        """The first message, from the number `after` on, that begins so."""

        def found() -> str | None:
            return next((m for m in self.drain()[after:] if m.startswith(start)), None)

        message: str = wait_for(found, f"the message {start!r}")
        return message

    def close(self) -> None:
        self._socket.close()


class Watcher:
    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.device = Device(directory / "root")
        self.program = directory / "claimd"
        self.program.write_text(PROGRAM.format(directory=directory))
        self.program.chmod(0o755)
        self.worker(prints(NOTHING_TO_DO, 4))
        self.shower(prints(CONFIGURED))
        self.process: subprocess.Popen[str] | None = None
        self.manager: Manager | None = None

    def worker(self, script: str) -> None:
        """What `claimd provision` does from now on."""
        self._write("provision.sh", script)

    def shower(self, script: str) -> None:
        """What `claimd config show` does from now on."""
        self._write("show.sh", script)

    def _write(self, name: str, script: str) -> None:
        # A shell that reads the old one goes on with the old one.
        new = self.directory / f"{name}.new"
        new.write_text(script)
        new.replace(self.directory / name)

    def start(
        self,
        pace: Pace = STILL,
        *,
        config_file: str | None = None,
        prefix: tuple[str, ...] = (),
        command: tuple[str, ...] | None = None,
        **environment: str,
    ) -> None:
        told = {
            "root": str(self.device.root),
            "config_file": config_file,
            "command": command or (str(self.program),),
            "pace": asdict(pace),
        }
        program = str(Path(__file__).with_name("watcher_program.py"))
        if self.manager is not None:
            environment["NOTIFY_SOCKET"] = self.manager.address
        self.process = subprocess.Popen(
            [*prefix, sys.executable, program, json.dumps(told)],
            env={**os.environ, **environment},
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            text=True,
        )

    def start_and_settle(self, pace: Pace = STILL, **more: Any) -> int:
        """Started, its first pass over, its configuration read; gives the number of passes."""
        self.start(pace, **more)
        wait_for(lambda: self.is_settled(), "the first pass")
        return self.passes()

    def is_settled(self) -> bool:
        facts = self.facts()
        configuration = facts.get("configuration", {})
        read = configuration.get("ok") or configuration.get("problem")
        return bool(facts.get("state") == "watching" and facts["last_pass"] and read)

    def calls(self, kind: str = "provision") -> list[str]:
        path = self.directory / f"{kind}.calls"
        return path.read_text().splitlines() if path.exists() else []

    def passes(self) -> int:
        return len(self.calls())

    def pid_of_worker(self) -> int:
        return int(self.calls()[-1].split()[0])

    def wait_for_pass(self, after: int) -> None:
        wait_for(lambda: self.passes() > after, f"a pass after the first {after}")

    def assert_reads_again(self, change: Callable[[], object]) -> None:
        """A change of the configuration's files is noticed."""
        before = len(self.calls("show"))
        change()
        wait_for(lambda: len(self.calls("show")) > before, "the configuration read again")

    def facts(self) -> dict[str, Any]:
        """supervisor.json; empty while there is none."""
        try:
            facts: dict[str, Any] = json.loads(Path(self.device.layout.supervisor_file).read_text())
        except FileNotFoundError:
            return {}
        return facts

    def wait_for_fact(self, condition: Callable[[dict[str, Any]], Any], what: str) -> dict[str, Any]:
        def found() -> dict[str, Any] | None:
            facts = self.facts()
            return facts if facts and condition(facts) else None

        facts: dict[str, Any] = wait_for(found, what)
        return facts

    def send(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def stop(self) -> str:
        """SIGTERM; its journal. The service ends well, or the test fails."""
        process, self.process = self.process, None
        assert process is not None
        process.send_signal(signal.SIGTERM)
        _, journal = process.communicate(timeout=DEADLINE_SECONDS)
        assert process.returncode == 0, journal
        return journal

    def end(self) -> None:
        """Whatever the test left."""
        if self.process is not None:
            self.process.kill()
            self.process.communicate()
        if self.manager is not None:
            self.manager.close()


@pytest.fixture
def watcher(tmp_path: Path) -> Iterator[Watcher]:
    made = Watcher(tmp_path)
    yield made
    made.end()


@pytest.fixture
def managed(watcher: Watcher) -> Iterator[Watcher]:
    """With a service manager that listens. Its socket's path must be short: unix(7) takes 108 bytes."""
    directory = tempfile.mkdtemp()
    watcher.manager = Manager(f"{directory}/notify")
    yield watcher
    shutil.rmtree(directory)


def is_alive(pid: int) -> bool:
    """A zombie is dead enough: it runs nothing."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


def wakeups(pid: int) -> int:
    """How often any thread of a process went to sleep of its own will, and so was woken."""
    counted = 0
    for status in Path(f"/proc/{pid}/task").glob("*/status"):
        for line in status.read_text().splitlines():
            if line.startswith("voluntary_ctxt_switches:"):
                counted += int(line.split()[1])
    return counted
