"""Power cuts on a real ext4: a small file system on a loop device, shut down by ioctl at any disk call.

    python -m faults.ext4 EVERY        prints a row as JSON; needs root and loop devices

EXT4_IOC_SHUTDOWN with NOLOGFLUSH stops the file system where it is: what was not committed is gone, as
after a power cut; the next mount replays the journal. Everything happens in a mount namespace and on
device nodes of our own, so that nothing is left when this process ends, however it ends.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import logging
import os
import shutil
import signal
import stat
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from faults.calls import Counting, PlainCalls, Wrapped
from faults.cloud import FileJournal
from faults.judge import Finding, Kind, judge
from faults.kills import end_of
from faults.rig import Clock, Rig
from faults.scenarios import LOST_REGISTER, PLAIN, Scenario
from faults.table import Row

NAME = "power cut: real ext4, shutdown ioctl"
_SHUTDOWN = 0x8004587D  # _IOR('X', 125, __u32): fs/ext4/ext4.h
_NO_LOG_FLUSH = 2
_GET_FREE, _CLEAR = 0x4C82, 0x4C01  # linux/loop.h
_CONTROL, _LOOP_MAJOR = (10, 237), 7
_NEW_NAMESPACE = 0x00020000  # CLONE_NEWNS: sched.h
_PRIVATE, _RECURSIVE = 1 << 18, 1 << 14  # MS_PRIVATE, MS_REC
_SIZE = 8 * 1024 * 1024
_libc = ctypes.CDLL(None, use_errno=True)


class RealCalls(PlainCalls):
    def fsync(self, fd: int) -> None:
        os.fsync(fd)


class Cutting(Wrapped):
    """The power goes before the call with a number."""

    def __init__(self, number: int, mount: str) -> None:
        super().__init__(RealCalls())
        self._wanted, self._mount, self._at = number, mount, 0

    def around(self, name: str, do: Any, half: Any) -> int | None:
        self._at += 1
        if self._at == self._wanted:
            fd = os.open(self._mount, os.O_RDONLY)
            fcntl.ioctl(fd, _SHUTDOWN, struct.pack("I", _NO_LOG_FLUSH))
            os.kill(os.getpid(), signal.SIGKILL)
        result: int | None = do()
        return result

    def boundary(self, name: str) -> None:
        self.around(name, lambda: None, None)


def why_not() -> str | None:
    """None where this can run."""
    if os.geteuid() != 0:
        return "skipped: only root can mount"
    if shutil.which("mkfs.ext4") is None:
        return "skipped: no mkfs.ext4"
    try:
        with tempfile.TemporaryDirectory() as place:
            node = os.path.join(place, "control")
            os.mknod(node, 0o600 | stat.S_IFCHR, os.makedev(*_CONTROL))
            os.close(os.open(node, os.O_RDWR))
    except OSError:
        return "skipped: no loop devices here"
    return None


@contextmanager
def loop_device(place: Path) -> Iterator[str]:
    """A node of our own for a loop device with an empty ext4 on it."""
    image, control = place / "image", str(place / "control")
    with image.open("wb") as file:
        file.truncate(_SIZE)
    make = ["mkfs.ext4", "-q", "-F", "-b", "1024", "-m", "0", "-E", "lazy_itable_init=0", str(image)]
    subprocess.run(make, check=True)
    os.mknod(control, 0o600 | stat.S_IFCHR, os.makedev(*_CONTROL))
    with open(control, "rb") as opened:
        number = fcntl.ioctl(opened, _GET_FREE)
    node = str(place / "loop")
    os.mknod(node, 0o600 | stat.S_IFBLK, os.makedev(_LOOP_MAJOR, number))
    subprocess.run(["losetup", node, str(image)], check=True)
    try:
        yield node
    finally:
        with open(node, "rb") as opened:
            fcntl.ioctl(opened, _CLEAR)


@contextmanager
def mounted(node: str, where: Path) -> Iterator[None]:
    _check(_libc.mount(node.encode(), str(where).encode(), b"ext4", 0, None))
    try:
        yield
    finally:
        _check(_libc.umount2(str(where).encode(), 0))


def _check(result: int) -> None:
    if result != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def sweep(place: Path, plan: Sequence[tuple[Scenario, int]]) -> Row:
    """`plan`: scenarios, and of each one call of so many."""
    row = Row(NAME)
    where = place / "mnt"
    where.mkdir()
    with loop_device(place) as node:
        empty = Path(node).read_bytes()
        for scenario, every in plan:
            _restore(node, empty)
            with mounted(node, where):
                rig = replace(scenario.make(where), journal=FileJournal(str(place / "journal")))
                rig.journal.append(json.dumps({"event": "dropped", "count": 1}))
                os.sync()
            start = Path(node).read_bytes()
            with mounted(node, where):
                counting = Counting()
                assert replace(rig, clock=Clock()).recover(counting, counting.boundary).is_active
            for number in range(1, len(counting.names) + 1, every):
                _restore(node, start)
                (place / "journal").unlink()
                findings, struck = _strike(replace(rig, clock=Clock()), scenario, node, where, number)
                row.add(
                    f"{scenario.name}, call {number} ({counting.names[number - 1]})", findings, struck=struck
                )
    return row


def _restore(node: str, data: bytes) -> None:
    with open(node, "r+b", buffering=0) as device:
        device.write(data)
        os.fsync(device.fileno())


def _strike(rig: Rig, scenario: Scenario, node: str, where: Path, number: int) -> tuple[list[Finding], int]:
    with mounted(node, where):
        cutting = Cutting(number, str(where))
        status = rig.recover_in_a_child(cutting, cutting.boundary)
    if not (os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL):
        return [Finding(Kind.STUCK, f"the power did not go: wait status {status}")], 0
    with mounted(node, where):
        # /run does not outlive the power.
        for left in (rig.root / "run/claimd").iterdir():
            left.unlink()
        findings = judge(rig.root, rig.known(), rig.live_claims)
        return findings + end_of(replace(rig, seed=9), scenario, kills=1), 1


def row_of_a_program(every: int) -> Row:
    """The sweep in a process of its own, because a mount namespace is for good."""
    reason = why_not()
    if reason is not None:
        return Row(NAME, note=reason)
    command = [sys.executable, "-m", "faults.ext4", str(every)]
    ended = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=_environment())
    said = json.loads(ended.stdout.splitlines()[-1])
    return Row(**{**said, "found": {Kind(kind): count for kind, count in said["found"].items()}})


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


def main() -> None:
    logging.disable()
    every = int(sys.argv[1])
    memory = "/dev/shm" if os.path.isdir("/dev/shm") else None
    _check(_libc.unshare(_NEW_NAMESPACE))
    _check(_libc.mount(None, b"/", None, _PRIVATE | _RECURSIVE, None))
    with tempfile.TemporaryDirectory(prefix="claimd-ext4-", dir=memory) as place:
        row = sweep(Path(place), [(PLAIN, every), (LOST_REGISTER, every * 2)])
    print(json.dumps(asdict(row)))


if __name__ == "__main__":
    main()
