"""An HTTP proxy that opens tunnels by CONNECT, with basic authentication: small, real, and of its own.

    with ConnectProxy(user="u", password="p", ports={443: sandbox.mqtt_port}) as proxy: ...

It keeps who asked for what and what it answered. `stop()` cuts every tunnel, as a proxy that dies does.
"""

from __future__ import annotations

import asyncio
import base64
import socket
import threading
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

from typing_extensions import Self


@dataclass
class ConnectProxy:
    """`user`: whom it asks for; empty: anybody. `forbidden`: ports that get 403."""

    user: str = ""
    password: str = ""
    forbidden: frozenset[int] = frozenset()
    port: int = 0
    asked: list[tuple[str, int]] = field(default_factory=list)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """On the port of the last time, if there was one."""
        listener = socket.create_server(("127.0.0.1", self.port))
        self.port = listener.getsockname()[1]
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._server = self._run(lambda: asyncio.start_server(self._serve, sock=listener))
        self._running = True

    def stop(self) -> None:
        if not getattr(self, "_running", False):
            return
        self._running = False
        self._run(self._end)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _run(self, make: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        return asyncio.run_coroutine_threadsafe(make(), self._loop).result()

    async def _end(self) -> None:
        self._server.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            lines = head.decode("latin-1").split("\r\n")
            method, place, _ = lines[0].split(" ")
            assert method == "CONNECT", lines[0]
            host, _, port = place.rpartition(":")
            status = self._judge(lines[1:], int(port))
            self.asked.append((place, status))
            if status != 200:
                writer.write(f"HTTP/1.1 {status} No\r\nContent-Length: 0\r\n\r\n".encode())
                await writer.drain()
                return
            try:
                far_reader, far_writer = await asyncio.open_connection(host, int(port))
            except OSError:
                writer.write(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n")
                await writer.drain()
                return
            try:
                writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
                await asyncio.gather(_copy(reader, far_writer), _copy(far_reader, writer))
            finally:
                far_writer.close()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    def _judge(self, headers: list[str], port: int) -> int:
        if self.user:
            wanted = base64.b64encode(f"{self.user}:{self.password}".encode()).decode()
            given = [line.partition(": ")[2] for line in headers if line.lower().startswith("proxy-auth")]
            if given != [f"Basic {wanted}"]:
                return 407
        return 403 if port in self.forbidden else 200


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.close()
