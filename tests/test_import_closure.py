"""What the watcher has in memory for years, measured in a process of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from device import Device, wait_for

# Each is megabytes, or a program that a service of years has no use for.
FORBIDDEN: tuple[str, ...] = (
    "argparse",
    "asyncio",
    "awscrt",
    "awsiot",
    "concurrent",
    "cryptography",
    "datetime",
    "dis",
    "email",
    "hashlib",
    "http",
    "pydantic",
    "random",
    "secrets",
    "ssl",
    "subprocess",
    "systemd",
    "tempfile",
    "tomli",
    "tomllib",
)

if sys.version_info < (3, 14):
    FORBIDDEN += ("ast",)  # from then on dataclasses needs it itself, by way of annotationlib

# Python imports a module of this name at its start (the `site` module of the standard library). Here it
# has every process write down, at its end, what it has imported.
RECORDER = """
import atexit, os, sys

def write_down():
    with open({directory!r} + "/" + str(os.getpid()), "w") as file:
        file.write("\\n".join(sys.modules))

atexit.register(write_down)
"""


def _closure(device: Device, directory: Path, also: str = "") -> set[str]:
    """The modules of a watcher that has done all it ever does: watched by inotify, read the configuration,
    run a pass, taken a reload, written its files, stopped."""
    recorder = directory / "recorder"
    recorder.mkdir()
    recorder.joinpath("sitecustomize.py").write_text(also + RECORDER.format(directory=str(directory)))
    search = os.pathsep.join([str(recorder), *filter(None, [os.environ.get("PYTHONPATH")])])
    watcher = subprocess.Popen(
        [sys.executable, "-m", "claimd", "--root", str(device.root), "run"],
        env={**os.environ, "PYTHONPATH": search},
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_for(lambda: _has_worked(device, 1), "a first pass")
        watcher.send_signal(signal.SIGHUP)
        wait_for(lambda: _has_worked(device, 2), "a pass after the reload")
        watcher.send_signal(signal.SIGTERM)
        assert watcher.wait(60) == 0
    finally:
        watcher.kill()
        watcher.wait()
    return set((directory / str(watcher.pid)).read_text().splitlines())


def _has_worked(device: Device, passes: int) -> bool:
    service = device.status()["service"] or {}
    return bool(
        service.get("passes", 0) >= passes
        and service["watch"] == "inotify"
        and service["configuration"]["problem"] is not None
    )


@pytest.fixture
def device(tmp_path: Path) -> Device:
    return Device(tmp_path / "root")


def test_the_watcher_imports_next_to_nothing(device: Device, tmp_path: Path) -> None:
    modules = _closure(device, tmp_path)
    assert {"claimd.service", "watchdog.observers.inotify", "json", "logging"} <= modules
    heavy = {name for name in modules if name.partition(".")[0] in FORBIDDEN}
    assert heavy == set()


def test_the_measurement_sees_what_is_imported(device: Device, tmp_path: Path) -> None:
    assert "argparse" in _closure(device, tmp_path, "import argparse\n")
