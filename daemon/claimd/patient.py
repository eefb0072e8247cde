"""The device that `claimd doctor` looks at: where things lie, and what earlier checks have found out.

Invariant: nothing here writes, and no claim is opened. A value is there once the check that finds it has
succeeded; a check that uses it names that one in its `needs`.
"""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from . import proxy

if TYPE_CHECKING:
    from .config import Loaded
    from .model import Layout
    from .proxy import Proxy
    from .store import Identity

# A manager or a tool that hangs is itself a finding.
_TOOL_SECONDS = 5


@dataclass
class Patient:
    layout: Layout
    config_file: str | None
    loaded: Loaded | None = None
    roots: bytes = b""
    addresses: list[tuple[Any, Any]] = field(default_factory=list)
    port: int = 0
    identity: Identity | None = None

    @property
    def configured(self) -> Loaded:
        assert self.loaded is not None, "the check needs config-parse"
        return self.loaded

    @property
    def way(self) -> Proxy | None:
        """Raises ClaimdError when its password can't be read."""
        return proxy.read(self.configured.config.proxy, self.layout)

    @property
    def near(self) -> tuple[str, int]:
        """Where a connection goes to first: the proxy, or the endpoint itself."""
        c = self.configured.config
        return (c.proxy.host, c.proxy.port) if c.proxy.host else (c.endpoint, c.ports[0])

    @property
    def is_machine(self) -> bool:
        """The machine itself, not a directory given by --root: only then owners and units are judged."""
        return not self.layout.root

    @staticmethod
    def now() -> datetime:
        return datetime.now(timezone.utc)

    @staticmethod
    def ask(*command: str) -> str | None:
        """What a tool of the system prints, or None where it is not there or does not answer."""
        try:
            ended = subprocess.run(
                command, capture_output=True, text=True, timeout=_TOOL_SECONDS, check=False, errors="replace"
            )
        except (OSError, subprocess.TimeoutExpired):
            return None
        return ended.stdout if ended.returncode == 0 else None


def text_of(path: str) -> str | None:
    """A file of /proc or /sys, or None."""
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            return file.read(1024 * 1024)
    except OSError:
        return None


def file_system(path: str) -> tuple[str, str]:
    """(type, mount options) of the file system that holds `path`, by the longest mount point."""
    real = os.path.realpath(path)
    best = ("", "unknown", "")
    for line in (text_of("/proc/self/mountinfo") or "").splitlines():
        before, _, after = line.partition(" - ")
        parts, kind = before.split(), after.split()
        if len(parts) < 6 or not kind:
            continue
        mount = parts[4].replace("\\040", " ")
        inside = real == mount or real.startswith(mount.rstrip("/") + "/")
        if inside and len(mount) >= len(best[0]):
            best = (mount, kind[0], parts[5])
    return best[1], best[2]
