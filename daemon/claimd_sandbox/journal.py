"""What happened: every connection with its packets and its end, every operation with its outcome.

Invariant: holds names, numbers and reasons; no payload, no key, no token. Snapshots are frozen and may
be taken from any thread.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from dataclasses import asdict, dataclass, field, replace
from typing import Any

log = logging.getLogger("claimd_sandbox")

MAX_CONNECTIONS = 10_000
MAX_OPERATIONS = 20_000
MAX_PACKETS = 500  # of one connection; a consumer may stay for hours


@dataclass(frozen=True)
class ConnectionRecord:
    """One TCP connection to the MQTT port; None for what it did not get to."""

    number: int
    peer: str
    opened: float
    closed: float | None = None
    tls_version: str | None = None
    server_name: str | None = None
    alpn: tuple[str, ...] = ()  # offered
    handshake_error: str | None = None  # explained
    certificate_id: str | None = None
    principal: str | None = None  # claim, permanent; None: none that may connect
    account: str | None = None
    version: int | None = None  # 4: MQTT 3.1.1, 5: MQTT 5
    client_id: str | None = None
    clean_start: bool | None = None
    session_expiry: int | None = None  # as asked for, seconds
    session_present: bool | None = None
    keep_alive: int | None = None
    username: str | None = None
    connack: int | None = None
    packets: tuple[str, ...] = ()  # in order: "< CONNECT" from the client, "> CONNACK" to it
    end: str | None = None  # why it ended

    def received(self, kind: str) -> int:
        return self.packets.count(f"< {kind}")

    def sent(self, kind: str) -> int:
        return self.packets.count(f"> {kind}")


@dataclass(frozen=True)
class OperationRecord:
    """One request of the provisioning API."""

    at: float
    connection: int
    operation: str  # create-keys, create-csr, register
    template: str | None
    status: int  # 200 when accepted
    error: str | None
    certificate_id: str | None
    thing: str | None
    delivered: bool  # the answer went out to a subscription of the requester


@dataclass
class _Open:
    record: ConnectionRecord
    packets: list[str] = field(default_factory=list)

    def snapshot(self) -> ConnectionRecord:
        return replace(self.record, packets=tuple(self.packets))


class Journal:
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._next = 1
        self._connections: dict[int, _Open] = {}
        self._operations: deque[OperationRecord] = deque(maxlen=MAX_OPERATIONS)

    def open(self, peer: str, now: float) -> int:
        with self._lock:
            number, self._next = self._next, self._next + 1
            self._connections[number] = _Open(ConnectionRecord(number, peer, now))
            if len(self._connections) > MAX_CONNECTIONS:
                del self._connections[next(iter(self._connections))]
        return number

    def note(self, number: int, **changes: Any) -> None:
        """Set fields of a connection's record."""
        with self._lock:
            if number in self._connections:
                item = self._connections[number]
                item.record = replace(item.record, **changes)

    def packet(self, number: int, packet: str) -> None:
        with self._lock:
            item = self._connections.get(number)
            if item is not None and len(item.packets) < MAX_PACKETS:
                item.packets.append(packet)

    def close(self, number: int, now: float, end: str) -> None:
        """The connection is over; logs it in one line."""
        self.note(number, closed=now, end=end)
        with self._lock:
            item = self._connections.get(number)
            record = None if item is None else item.snapshot()
        if record is not None:
            log.info(
                "connection %d from %s: client id %r, %s certificate %s: %s",
                number,
                record.peer,
                record.client_id,
                record.principal or "no usable",
                (record.certificate_id or "-")[:12],
                record.handshake_error or end,
            )

    def operation(self, record: OperationRecord) -> None:
        with self._lock:
            self._operations.append(record)
        log.info(
            "connection %d: %s: %s%s",
            record.connection,
            record.operation,
            "accepted" if record.status == 200 else f"rejected, {record.status} {record.error}",
            "" if record.delivered else "; the answer went nowhere",
        )

    @property
    def connections(self) -> tuple[ConnectionRecord, ...]:
        with self._lock:
            return tuple(item.snapshot() for item in self._connections.values())

    @property
    def operations(self) -> tuple[OperationRecord, ...]:
        with self._lock:
            return tuple(self._operations)

    def to_json(self) -> dict[str, Any]:
        return {
            "connections": [asdict(record) for record in self.connections],
            "operations": [asdict(record) for record in self.operations],
        }
