"""A TCP relay that makes a connection long, or breaks it at a chosen TLS record.

    with Relay(sandbox.mqtt_port, delay=0.025) as relay:      a round trip of 50 ms
    relay.arm(Cut(Direction.DOWN, 3, How.RESET), skip=1)      the second connection from now on breaks

A relay can't delay a SYN. The round trip that TCP's own handshake would take is added to the
client's first bytes, so that the sum is right. Invariant: bytes pass in order, a TLS record
as a whole; what was cut is counted, so that a test can assert that its cut happened.

Times are seconds since the epoch, as in the sandbox's journal.
"""

from __future__ import annotations

import asyncio
import selectors
import socket
import struct
import threading
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from enum import Enum
from types import TracebackType
from typing import Any

CHUNK = 65536
RECORD_HEADER = 5  # type, version, length: RFC 8446 section 5.1
LINGER_RESET = struct.pack("ii", 1, 0)  # close(2) then sends RST instead of FIN: socket(7), SO_LINGER


class Direction(str, Enum):
    UP = "up"  # client to server
    DOWN = "down"


class How(str, Enum):
    """What happens in the place of the record that does not get through."""

    RESET = "reset"  # RST to both
    FIN = "fin"  # an orderly end of TCP to both, without TLS's own
    HALF = "half"  # its first half, then as FIN
    CORRUPT = "corrupt"  # its last byte is another; everything else passes
    STALL = "stall"  # silence in both directions, connections open


@dataclass(frozen=True)
class Cut:
    """`after` records of `direction` pass; the next is where it breaks.

    So UP cuts before the server could act on that record, DOWN after it acted and before the
    client learnt it, and everything earlier is through on both sides.
    """

    direction: Direction
    after: int
    how: How


@dataclass(frozen=True)
class Record:
    """A TLS record as it reached the relay, before its delay."""

    at: float
    direction: Direction
    size: int


@dataclass(frozen=True)
class Passage:
    """One connection through the relay."""

    opened: float
    records: tuple[Record, ...] = ()
    cut: bool = False
    closed: bool = False

    def count(self, direction: Direction) -> int:
        return sum(record.direction is direction for record in self.records)

    @property
    def flights(self) -> tuple[Record, ...]:
        """The first record of every run in one direction: two flights are a round trip."""
        pairs = zip((None, *self.records), self.records, strict=False)
        return tuple(new for old, new in pairs if old is None or old.direction is not new.direction)


class RecordSplitter:
    """A byte stream of TLS, record by record."""

    def __init__(self) -> None:
        self.rest = b""  # of a record that is not whole

    def feed(self, data: bytes) -> list[bytes]:
        self.rest += data
        whole = []
        while len(self.rest) >= RECORD_HEADER:
            end = RECORD_HEADER + int.from_bytes(self.rest[3:RECORD_HEADER], "big")
            if len(self.rest) < end:
                break
            whole.append(self.rest[:end])
            self.rest = self.rest[end:]
        return whole


@dataclass
class _Armed:
    cut: Cut
    skip: int
    times: int


class Relay:
    """Listens on a free port of loopback, in a thread of its own, and passes on to `target_port`."""

    def __init__(self, target_port: int, *, target_host: str = "127.0.0.1", delay: float = 0.0) -> None:
        """`delay`: seconds, one way, in both directions."""
        self.delay = delay
        self.target = (target_host, target_port)
        self.port = 0
        self._lock = threading.Lock()
        self._armed: _Armed | None = None
        self._passages: list[Passage] = []
        self._loop = asyncio.SelectorEventLoop(
            # epoll's timeouts are whole milliseconds, rounded up: on every flight of a connection.
            selectors.SelectSelector()
        )
        self._stopping = asyncio.Event()
        self._started = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="relay", daemon=True)

    def __enter__(self) -> Relay:
        self._thread.start()
        self._started.wait()
        if self._failure is not None:
            self._thread.join()
            raise self._failure
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join()

    # What a test asks for, from its own thread

    def arm(self, cut: Cut, *, skip: int = 0, times: int = 1) -> None:
        """Break `times` connections, after the next `skip` have passed unharmed; replaces an earlier cut."""
        with self._lock:
            self._armed = _Armed(cut, skip, times)

    def disarm(self) -> None:
        with self._lock:
            self._armed = None

    @property
    def passages(self) -> tuple[Passage, ...]:
        with self._lock:
            return tuple(self._passages)

    @property
    def cuts(self) -> int:
        """How many connections were really broken."""
        return sum(passage.cut for passage in self.passages)

    # What a connection asks for, from the relay's thread

    def opened(self) -> tuple[int, Cut | None]:
        """Number of a new connection, and where it is to break."""
        with self._lock:
            self._passages.append(Passage(time.time()))
            return len(self._passages) - 1, self._next_cut()

    def note(self, number: int, change: Callable[[Passage], Passage]) -> None:
        with self._lock:
            self._passages[number] = change(self._passages[number])

    def _next_cut(self) -> Cut | None:
        armed = self._armed
        if armed is None:
            return None
        if armed.skip:
            armed.skip -= 1
            return None
        armed.times -= 1
        if armed.times == 0:
            self._armed = None
        return armed.cut

    def _run(self) -> None:
        try:
            self._loop.run_until_complete(self._serve())
        except OSError as error:
            self._failure = error
        finally:
            self._loop.close()
            self._started.set()

    async def _serve(self) -> None:
        connections: set[asyncio.Task[None]] = set()

        async def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            connections.add(task)
            try:
                await _Connection(self, writer).run(reader)
            except asyncio.CancelledError:
                pass  # the relay stops
            finally:
                connections.discard(task)

        server = await asyncio.start_server(accepted, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        self._started.set()
        await self._stopping.wait()
        server.close()
        for task in connections:
            task.cancel()
        if connections:
            await asyncio.wait(connections)


class _BrokenError(Exception):
    """This connection passes nothing on any more."""


class _Connection:
    def __init__(self, relay: Relay, client: asyncio.StreamWriter) -> None:
        self._relay = relay
        self._number, self._cut = relay.opened()
        self._client = client
        self._server: asyncio.StreamWriter | None = None
        self._broken = False

    async def run(self, from_client: asyncio.StreamReader) -> None:
        try:
            try:
                from_server, self._server = await asyncio.open_connection(*self._relay.target)
            except OSError:
                _reset(self._client)
                return
            await _both(
                self._pass_on(Direction.UP, from_client, self._server),
                self._pass_on(Direction.DOWN, from_server, self._client),
            )
        finally:
            self._relay.note(self._number, lambda passage: replace(passage, closed=True))
            for writer in self._ends():
                writer.close()

    async def _pass_on(
        self, direction: Direction, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """One direction, until its end has arrived at the other side."""
        pending: asyncio.Queue[tuple[float, bytes | None]] = asyncio.Queue()
        await _both(self._read(direction, reader, pending), self._deliver(direction, writer, pending))

    async def _read(
        self,
        direction: Direction,
        reader: asyncio.StreamReader,
        pending: asyncio.Queue[tuple[float, bytes | None]],
    ) -> None:
        loop, delay, splitter = asyncio.get_running_loop(), self._relay.delay, RecordSplitter()
        # Before its first byte the client would have waited for TCP's handshake.
        handshake = 2 * delay if direction is Direction.UP else 0.0
        while True:
            try:
                data = await reader.read(CHUNK)
            except ConnectionError:
                self._reset_both()
                data = b""
            due = loop.time() + handshake + delay
            if not data:
                if splitter.rest:
                    pending.put_nowait((due, splitter.rest))
                pending.put_nowait((due, None))
                return
            for whole in splitter.feed(data):
                self._seen(direction, len(whole))
                pending.put_nowait((due, whole))
            handshake = 0.0

    def _seen(self, direction: Direction, size: int) -> None:
        record = Record(time.time(), direction, size)
        self._relay.note(self._number, lambda passage: replace(passage, records=(*passage.records, record)))

    async def _deliver(
        self,
        direction: Direction,
        writer: asyncio.StreamWriter,
        pending: asyncio.Queue[tuple[float, bytes | None]],
    ) -> None:
        loop, passed = asyncio.get_running_loop(), 0
        while True:
            # In the order of the queue: a record is never due before the one ahead of it was passed.
            due, data = await pending.get()
            await asyncio.sleep(due - loop.time())
            if data is None:
                if not self._broken:
                    _end(writer)
                return
            if self._broken:
                continue  # what still comes is read, so that nobody's close turns into a reset
            cut = self._cut
            if cut is not None and cut.direction is direction and cut.after == passed:
                self._break(cut.how, data, writer)
            else:
                writer.write(data)
            passed += 1

    def _break(self, how: How, data: bytes, writer: asyncio.StreamWriter) -> None:
        self._relay.note(self._number, lambda passage: replace(passage, cut=True))
        if how is How.CORRUPT:
            writer.write(data[:-1] + bytes([data[-1] ^ 0xFF]))
            return
        if how is How.RESET:
            self._reset_both()
            return
        self._broken = True
        if how is How.HALF:
            writer.write(data[: len(data) // 2])
        if how is not How.STALL:
            for end in self._ends():
                _end(end)

    def _reset_both(self) -> None:
        self._broken = True
        for writer in self._ends():
            _reset(writer)

    def _ends(self) -> list[asyncio.StreamWriter]:
        return [self._client] if self._server is None else [self._client, self._server]


async def _both(one: Coroutine[Any, Any, None], other: Coroutine[Any, Any, None]) -> None:
    await asyncio.gather(one, other)


def _end(writer: asyncio.StreamWriter) -> None:
    """FIN after what was written; the other direction stays open."""
    if not writer.is_closing() and writer.can_write_eof():
        try:
            writer.write_eof()
        except OSError:
            pass  # the peer was quicker


def _reset(writer: asyncio.StreamWriter) -> None:
    if writer.is_closing():
        return
    raw: socket.socket = writer.get_extra_info("socket")
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_RESET)
    writer.transport.abort()
