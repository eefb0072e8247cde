"""A device below a temporary root, and the claimd command as a person or the watcher runs it."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from claimd.model import Layout
from claimd_sandbox.server import Sandbox

# Far above what a pass takes; a slow machine is no failure.
DEADLINE_SECONDS = 180.0


NOBODY = 65534


@functools.cache
def as_nobody() -> list[str]:
    """What stands before a command so that another account runs it. Skips the test where none can.

    A clone below /root is closed to it: then it may read everything, and still write nothing but its own.
    """
    account = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
    reading = ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]
    if os.geteuid() == 0 and shutil.which("setpriv") is not None:
        for found in (account, [*account, *reading]):
            command = [*found, sys.executable, "-c", "import claimd"]
            if subprocess.run(command, capture_output=True, check=False).returncode == 0:
                return found
    pytest.skip("no second account can run this clone's Python")


CONFIGURATION = """
endpoint = "localhost"
port = {port}
ca_file = "{ca}"
{more}
[template]
name = "{template}"
[template.parameters]
{parameters}
{tables}
[timeouts]
grace_seconds = 0.3
{timeouts}
"""


def wait_for(condition: Callable[[], Any], what: str, seconds: float = DEADLINE_SECONDS) -> Any:
    """The condition's first true value."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        value = condition()
        if value:
            return value
        time.sleep(0.02)
    raise AssertionError(f"{what}: not within {seconds:g} s")


@dataclass
class Device:
    root: Path
    service: subprocess.Popen[str] | None = field(default=None)

    def __post_init__(self) -> None:
        for path in ("etc/claimd", "var/lib/claimd", "var/spool/claimd/drop", "run/claimd"):
            (self.root / path).mkdir(parents=True, exist_ok=True)

    @property
    def layout(self) -> Layout:
        return Layout(str(self.root))

    @property
    def drop(self) -> Path:
        return Path(self.layout.drop_directory)

    @property
    def identity(self) -> Path:
        return Path(self.layout.current_identity)

    def configure(self, text: str) -> None:
        """Replace the configuration as an editor does: a new file, renamed."""
        path = Path(self.layout.config_file)
        new = path.with_suffix(".new")
        new.write_text(text)
        new.replace(path)

    def put(self, name: str, text: str | bytes) -> Path:
        path = self.drop / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    def dropped(self) -> list[str]:
        return sorted(os.listdir(self.drop))

    def run(self, *arguments: str, timeout: float = DEADLINE_SECONDS) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*arguments), capture_output=True, text=True, timeout=timeout, check=False
        )

    def provision(self) -> dict[str, Any]:
        """One pass as the watcher starts it; the object on its last line."""
        ended = self.run("provision", "--json")
        assert ended.stdout, ended.stderr
        result: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
        assert result["exit"] == ended.returncode, (result, ended.stderr)
        return result

    def status(self) -> dict[str, Any]:
        ended = self.run("status", "--json")
        assert ended.returncode == 0, ended.stderr
        document: dict[str, Any] = json.loads(ended.stdout)
        return document

    def code(self) -> str | None:
        """The code of the problem that status shows."""
        found = self.status()["problem"]
        return None if found is None else str(found["code"])

    def record(self) -> Mapping[str, Any]:
        text = (self.root / "var/lib/claimd/attempt.json").read_text()
        record: dict[str, Any] = json.loads(text)
        return record

    def start(self) -> None:
        """The service, as the unit starts it, without a manager."""
        self.service = subprocess.Popen(
            self.command("run"), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )

    def stop(self) -> str:
        """SIGTERM; what the service had written to its journal."""
        if self.service is None:
            return ""
        self.service.send_signal(signal.SIGTERM)
        _, journal = self.service.communicate(timeout=DEADLINE_SECONDS)
        self.service = None
        return journal

    def wait_for_state(self, state: str) -> dict[str, Any]:
        def reached() -> dict[str, Any] | None:
            status = self.status()
            last[:] = [status]
            return status if status["state"] == state else None

        last: list[dict[str, Any]] = []
        try:
            found: dict[str, Any] = wait_for(reached, f"state {state}")
        except AssertionError as error:
            raise AssertionError(f"{error}; at last: {json.dumps(last, indent=1)}") from error
        return found

    def files(self) -> dict[str, bytes]:
        """Every regular file below the root, by path."""
        found = {}
        for directory, _, names in os.walk(self.root):
            for name in names:
                path = Path(directory) / name
                if path.is_file() and not path.is_symlink():
                    with contextlib.suppress(FileNotFoundError):  # a temporary name of the service's
                        found[str(path.relative_to(self.root))] = path.read_bytes()
        return found

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "claimd", "--root", str(self.root), *arguments]


def configuration(sandbox: Sandbox, *, thing: str = "thing", **changes: Any) -> str:
    values = {
        "port": sandbox.mqtt_port,
        "ca": sandbox.ca_file,
        "template": "TrustedUserProvisioningTemplate",
        "parameters": f'ThingName = "{thing}"',
        "more": "",
        "tables": "",
        "timeouts": "",
        **changes,
    }
    return CONFIGURATION.format(**values)


def key_of(claim: dict[str, Any]) -> str:
    return str(claim["keyPair"]["PrivateKey"])


def assert_gone(device: Device, claim: dict[str, Any]) -> None:
    """The claim's key is nowhere below the root: not even its middle line."""
    line = key_of(claim).splitlines()[1].encode()
    assert [path for path, data in device.files().items() if line in data] == []
