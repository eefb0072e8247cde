"""Starting processes, and what they cost in memory, time and wake-ups."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from device import Device, wait_for
from watcher import wakeups

RUNS = 7
IDLE_SECONDS = 10.0
WORKER = "import claimd.cli, claimd.ensure, claimd.mqtt"
WATCHER = (
    "from claimd.spare import spare; spare('inspect'); import claimd.service, claimd.watch;"
    "claimd.watch._new_observer()"
)
SDK = "from awsiot import iotidentity, mqtt5_client_builder; from awscrt import mqtt_request_response"


@dataclass(frozen=True)
class Memory:
    """In kilobytes."""

    rss: int
    pss: int


@dataclass(frozen=True)
class Start:
    """From exec to the end: seconds on the clock, and of a core."""

    wall: float
    cpu: float


@dataclass(frozen=True)
class Idle:
    memory: Memory
    wakeups: int
    seconds: float
    threads: int


def memory_of(pid: int) -> Memory:
    values = {}
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]:
        name, value, *_ = line.split()
        values[name] = int(value)
    return Memory(values["Rss:"], values["Pss:"])


def bare_interpreter() -> Memory:
    code = "print(flush=True); input()"
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", code], stdin=pipe, stdout=pipe) as process:
        assert process.stdout is not None
        process.stdout.readline()
        found = memory_of(process.pid)
        process.communicate(b"\n")
    return found


def settled(device: Device) -> None:
    """The service has made its first pass and read its configuration."""

    def is_settled() -> bool:
        service = device.status()["service"]
        return bool(
            service
            and service["state"] == "watching"
            and service["last_pass"]
            and (service["configuration"]["ok"] or service["configuration"]["problem"])
        )

    wait_for(is_settled, "the first pass")


def idle_service(seconds: float = IDLE_SECONDS) -> Idle:
    with tempfile.TemporaryDirectory() as directory:
        device = Device(Path(directory) / "root")
        device.start()
        try:
            assert device.service is not None
            pid = device.service.pid
            settled(device)
            time.sleep(2)  # what the start left to be done
            before = wakeups(pid)
            time.sleep(seconds)
            threads = len(list(Path(f"/proc/{pid}/task").iterdir()))
            return Idle(memory_of(pid), wakeups(pid) - before, seconds, threads)
        finally:
            device.stop()


def start_of(*arguments: str) -> Start:
    """The median of some starts of this Python; the first one fills the caches and is left out."""
    found = []
    for _ in range(RUNS + 1):
        began = time.perf_counter()
        process = subprocess.Popen([sys.executable, *arguments], stdout=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        assert process.returncode == 0, arguments
        found.append(Start(time.perf_counter() - began, usage.ru_utime + usage.ru_stime))
    counted = found[1:]
    return Start(statistics.median(s.wall for s in counted), statistics.median(s.cpu for s in counted))
