"""SIGKILL at real system calls of the real command, by strace's fault injection.

`strace -f -e trace=S -e inject=S:signal=KILL:when=N` lets call N of S begin and kills the process before it
has an effect. Never with --seccomp-bpf, which silently injects nothing. Invariant: the exit status is -9
each time, or the point is an error; the interpreter is the real one, for a shim's calls would be counted.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from device import Device
from faults.judge import Finding, Kind, judge
from faults.network import Bench, Benches, Strike
from faults.table import Row

# What changes the disk, each by every name that it has on the machines that claimd runs on.
CALLS = ("fsync", "fchmod", "write", "rename", "unlink", "mkdir", "rmdir", "symlink")
AT_CALLS = {"rename": "renameat", "unlink": "unlinkat", "mkdir": "mkdirat", "symlink": "symlinkat"}
SECONDS = 120.0
WAKING_WRITES = 6


def is_there() -> bool:
    """Whether strace is installed and may trace here."""
    if shutil.which("strace") is None:
        return False
    tried = subprocess.run(["strace", "-qq", "-e", "trace=none", "true"], capture_output=True, check=False)
    return tried.returncode == 0


@dataclass(frozen=True)
class Point:
    call: str
    number: int

    def __str__(self) -> str:
        return f"{self.call} {self.number}"


def _command(device: Device) -> list[str]:
    return [
        os.path.realpath(sys.executable),
        "-m",
        "claimd",
        "--root",
        str(device.root),
        "provision",
        "--json",
    ]


def _environment() -> dict[str, str]:
    """The real interpreter finds what the virtual environment has."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


def counts(bench: Bench) -> list[Point]:
    """How often the main thread makes each call when it is left alone: strace counts by thread."""
    device = bench.device()
    names = ",".join(f"?{name}" for name in (*CALLS, *AT_CALLS.values()))
    log = bench.place / "strace"
    command = ["strace", "-f", "-qq", "-o", str(log), "-e", f"trace={names}", *_command(device)]
    ended = subprocess.run(
        command, capture_output=True, text=True, timeout=SECONDS, env=_environment(), check=False
    )
    assert ended.returncode == 0, ended.stderr
    lines = log.read_text().splitlines()
    main = lines[0].split()[0]
    found: dict[str, int] = {}
    for line in lines:
        match = re.match(rf"{main} +(\w+)\(", line)
        if match:
            found[match.group(1)] = found.get(match.group(1), 0) + 1
    # The SDK wakes its threads with writes, a few more or fewer each time: the last ones may not come.
    found["write"] -= min(found.get("write", 0), WAKING_WRITES)
    return [Point(call, number) for call, most in sorted(found.items()) for number in range(1, most + 1)]


class KillCall(Strike):
    def __call__(self, bench: Bench, device: Device, point: object) -> tuple[list[Finding], int]:
        assert isinstance(point, Point)
        inject = f"inject={point.call}:signal=KILL:when={point.number}"
        command = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", f"trace={point.call}", "-e", inject]
        ended = subprocess.run(
            [*command, *_command(device)],
            capture_output=True,
            text=True,
            timeout=SECONDS,
            env=_environment(),
            check=False,
        )
        if ended.returncode != -9:
            last = ended.stdout.splitlines()[-1:] or [ended.stderr[-200:]]
            return [Finding(Kind.STUCK, f"it was not killed: {ended.returncode} {last[0]}")], 0
        findings = judge(device.root, bench.known(), bench.claims)
        return findings + bench.end_of(device, faults=1), 1


def sweep(place: Path, *, benches: int = 2, every: int = 1) -> Row:
    row = Row("kill -9: real calls of the real command (strace)")
    if not is_there():
        row.note = "skipped: no strace that may trace here"
        return row
    points: list[Point] = []

    class Count(Strike):
        def __call__(self, bench: Bench, device: Device, point: object) -> tuple[list[Finding], int]:
            points.extend(counts(bench))
            return [], 1

    list(Benches(place / "map", 1).run([0], Count()))
    for point, findings, struck in Benches(place, benches).run(points[::every], KillCall()):
        row.add(str(point), findings, struck=struck)
    return row
