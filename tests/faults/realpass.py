"""One pass with the real SDK in a warm child, killed at a boundary of the network when it is told so.

Started as a program it reads a line of JSON a pass and answers each with one: the SDK is imported once, its
threads begin in the child alone. `Passes` is the other end of that pipe.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from types import TracebackType
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from claimd.ensure import ConfigurationFiles, Outside, Request, ensure
from claimd.errors import Problem
from claimd.fleet import Credentials, Link, Topics
from claimd.looking import elapsed
from claimd.model import Layout, Secret


@dataclass(frozen=True)
class Order:
    """`kill_at`: the number of a boundary, from 1; 0 is none. `ahead`: seconds that the clock is ahead."""

    root: str
    kill_at: int = 0
    ahead: float = 0.0


@dataclass(frozen=True)
class Ended:
    """`status`: the child's wait status. Without a result it was killed."""

    status: int
    boundaries: tuple[str, ...]
    exit: int | None
    outcome: str
    after_seconds: float | None

    @property
    def was_killed(self) -> bool:
        return os.WIFSIGNALED(self.status) and os.WTERMSIG(self.status) == signal.SIGKILL


class Boundaries:
    """Counts what reaches the network, before and after; kills at one of them."""

    def __init__(self, kill_at: int) -> None:
        self._kill_at = kill_at
        self.names: list[str] = []

    def around(self, name: str, do: Callable[[], Any]) -> Any:
        self._pass(f"before {name}")
        try:
            return do()
        finally:
            self._pass(f"after {name}")

    def _pass(self, name: str) -> None:
        self.names.append(name)
        if len(self.names) == self._kill_at:
            os.kill(os.getpid(), signal.SIGKILL)


class WatchedTransport:
    def __init__(self, transport: Any, boundaries: Boundaries) -> None:
        self._transport = transport
        self._boundaries = boundaries

    def open(
        self, host: str, port: int, client_id: str, credentials: Credentials, *, as_guest: bool = False
    ) -> Link:
        opened = self._boundaries.around(
            "open",
            lambda: self._transport.open(host, port, client_id, credentials, as_guest=as_guest),
        )
        return WatchedLink(opened, self._boundaries)

    def check(self, credentials: Credentials) -> None:
        self._transport.check(credentials)

    def diagnose(self, host: str, port: int, roots: bytes) -> Problem | None:
        found: Problem | None = self._transport.diagnose(host, port, roots)
        return found


class WatchedLink:
    def __init__(self, link: Link, boundaries: Boundaries) -> None:
        self._link = link
        self._boundaries = boundaries

    def wait_connected(self, seconds: float) -> bool:
        return bool(self._boundaries.around("connect", lambda: self._link.wait_connected(seconds)))

    def subscribe(self, topics: tuple[str, ...], seconds: float) -> None:
        self._boundaries.around("subscribe", lambda: self._link.subscribe(topics, seconds))

    def request(self, topics: Topics, payload: Secret, seconds: float) -> tuple[bool, bytes]:
        name = "register" if topics.request.endswith("/provision/json") else "create"
        answer: tuple[bool, bytes] = self._boundaries.around(
            name, lambda: self._link.request(topics, payload, seconds)
        )
        return answer

    def close(self) -> None:
        self._boundaries.around("close", self._link.close)


def _run(order: Order) -> dict[str, Any]:
    """In the child."""
    from claimd.mqtt import CrtTransport

    boundaries = Boundaries(order.kill_at)
    way = ConfigurationFiles(Layout(order.root), None).proxy()
    request = Request(
        Layout(order.root),
        None,
        by_hand=False,
        stopping=lambda: False,
        progress=lambda stage, sentence: None,
    )
    outside = Outside(
        now=lambda: datetime.now(timezone.utc) + timedelta(seconds=order.ahead),
        elapsed=lambda: elapsed() + order.ahead,
        transport=lambda seconds: WatchedTransport(CrtTransport(seconds, lambda: False, way), boundaries),
    )
    result = ensure(request, outside)
    return {
        "boundaries": boundaries.names,
        "exit": int(result.exit),
        "outcome": "" if result.problem is None else result.problem.code.value,
        "after_seconds": result.after_seconds,
    }


def _serve() -> None:
    import logging

    import claimd.mqtt  # noqa: F401  warm, and without threads

    logging.disable()
    for line in sys.stdin:
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                os.write(writer, json.dumps(_run(Order(**json.loads(line)))).encode())
                os._exit(0)
            finally:
                os._exit(1)
        os.close(writer)
        with os.fdopen(reader, "rb") as said:
            text = said.read()
        status = os.waitpid(pid, 0)[1]
        found = json.loads(text) if text else {}
        print(json.dumps({"status": status, **found}), flush=True)


class Passes:
    """The program above, as a context."""

    def __enter__(self) -> Passes:
        command = [sys.executable, str(Path(__file__).resolve())]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()

    def run(self, order: Order) -> Ended:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(asdict(order)) + "\n")
        self._process.stdin.flush()
        said = json.loads(self._process.stdout.readline())
        return Ended(
            said["status"],
            tuple(said.get("boundaries", ())),
            said.get("exit"),
            said.get("outcome", ""),
            said.get("after_seconds"),
        )


if __name__ == "__main__":
    _serve()
