"""The primitive types of MQTT's wire format, and MQTT 5's properties.

Pure. Invariant: `Reader` never reads beyond its bytes; whatever is wrong raises MqttError with the
reason that MQTT 5 gives for it (section 1.5 for the types, 2.2.2 for properties).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

from claimd_sandbox.packets import NO_PROPERTIES, Kind, MqttError, Properties, Reason

MAX_VARIABLE_INT = 268_435_455  # four bytes of seven bits: MQTT 5 section 1.5.5


def malformed(text: str) -> MqttError:
    return MqttError(Reason.MALFORMED_PACKET, text)


class Reader:
    """Takes typed values from the front of a packet's body."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def left(self) -> int:
        return len(self._data) - self._at

    def take(self, count: int) -> bytes:
        if count > self.left:
            raise malformed("a field reaches beyond the end of the packet")
        taken = self._data[self._at : self._at + count]
        self._at += count
        return taken

    def rest(self) -> bytes:
        return self.take(self.left)

    def byte(self) -> int:
        return self.take(1)[0]

    def short(self) -> int:
        return int.from_bytes(self.take(2), "big")

    def long(self) -> int:
        return int.from_bytes(self.take(4), "big")

    def binary(self) -> bytes:
        return self.take(self.short())

    def text(self) -> str:
        """A UTF-8 string; U+0000 and surrogates are malformed (section 1.5.4)."""
        try:
            text = self.binary().decode("utf-8")
        except UnicodeDecodeError as error:
            raise malformed("a string is not UTF-8") from error
        if "\0" in text:
            raise malformed("a string contains U+0000")
        return text

    def variable_int(self) -> int:
        value = shift = 0
        for _ in range(4):
            byte = self.byte()
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
            shift += 7
        raise malformed("a variable byte integer is longer than four bytes")


def variable_int(value: int) -> bytes:
    if not 0 <= value <= MAX_VARIABLE_INT:
        raise ValueError("the value does not fit a variable byte integer")
    encoded = bytearray()
    while True:
        value, digit = divmod(value, 0x80)
        encoded.append(digit | 0x80 if value else digit)
        if not value:
            return bytes(encoded)


def binary(value: bytes) -> bytes:
    return struct.pack(">H", len(value)) + value


def text(value: str) -> bytes:
    return binary(value.encode("utf-8"))


class _Type(Enum):
    BYTE = 1
    SHORT = 2
    LONG = 3
    VARIABLE = 4
    BINARY = 5
    TEXT = 6
    PAIR = 7


WILL = 0  # the will's own properties inside CONNECT; no packet type has this number


@dataclass(frozen=True)
class _Property:
    id: int
    name: str
    type: _Type
    packets: frozenset[int]
    flag: bool = False  # only 0 and 1 are allowed
    positive: bool = False  # 0 is a protocol error


def _property(
    id_: int, name: str, kind: _Type, *packets: int, flag: bool = False, positive: bool = False
) -> _Property:
    return _Property(id_, name, kind, frozenset(packets), flag, positive)


_ANYWHERE = (
    WILL,
    Kind.CONNECT,
    Kind.CONNACK,
    Kind.PUBLISH,
    Kind.PUBACK,
    Kind.SUBSCRIBE,
    Kind.SUBACK,
    Kind.UNSUBSCRIBE,
    Kind.UNSUBACK,
    Kind.DISCONNECT,
    Kind.AUTH,
)

# MQTT 5 table 2-4.
_TABLE = (
    _property(0x01, "payload_format", _Type.BYTE, Kind.PUBLISH, WILL, flag=True),
    _property(0x02, "message_expiry", _Type.LONG, Kind.PUBLISH, WILL),
    _property(0x03, "content_type", _Type.TEXT, Kind.PUBLISH, WILL),
    _property(0x08, "response_topic", _Type.TEXT, Kind.PUBLISH, WILL),
    _property(0x09, "correlation_data", _Type.BINARY, Kind.PUBLISH, WILL),
    _property(0x0B, "subscription_id", _Type.VARIABLE, Kind.PUBLISH, Kind.SUBSCRIBE, positive=True),
    _property(0x11, "session_expiry", _Type.LONG, Kind.CONNECT, Kind.CONNACK, Kind.DISCONNECT),
    _property(0x12, "assigned_client_id", _Type.TEXT, Kind.CONNACK),
    _property(0x13, "server_keep_alive", _Type.SHORT, Kind.CONNACK),
    _property(0x15, "authentication_method", _Type.TEXT, Kind.CONNECT, Kind.CONNACK, Kind.AUTH),
    _property(0x16, "authentication_data", _Type.BINARY, Kind.CONNECT, Kind.CONNACK, Kind.AUTH),
    _property(0x17, "request_problem_information", _Type.BYTE, Kind.CONNECT, flag=True),
    _property(0x18, "will_delay", _Type.LONG, WILL),
    _property(0x19, "request_response_information", _Type.BYTE, Kind.CONNECT, flag=True),
    _property(0x1A, "response_information", _Type.TEXT, Kind.CONNACK),
    _property(0x1C, "server_reference", _Type.TEXT, Kind.CONNACK, Kind.DISCONNECT),
    _property(
        0x1F,
        "reason_string",
        _Type.TEXT,
        *(Kind.CONNACK, Kind.PUBACK, Kind.SUBACK, Kind.UNSUBACK, Kind.DISCONNECT, Kind.AUTH),
    ),
    _property(0x21, "receive_maximum", _Type.SHORT, Kind.CONNECT, Kind.CONNACK, positive=True),
    _property(0x22, "topic_alias_maximum", _Type.SHORT, Kind.CONNECT, Kind.CONNACK),
    _property(0x23, "topic_alias", _Type.SHORT, Kind.PUBLISH),
    _property(0x24, "maximum_qos", _Type.BYTE, Kind.CONNACK, flag=True),
    _property(0x25, "retain_available", _Type.BYTE, Kind.CONNACK, flag=True),
    _property(0x26, "user", _Type.PAIR, *_ANYWHERE),
    _property(0x27, "maximum_packet_size", _Type.LONG, Kind.CONNECT, Kind.CONNACK, positive=True),
    _property(0x28, "wildcard_available", _Type.BYTE, Kind.CONNACK, flag=True),
    _property(0x29, "subscription_ids_available", _Type.BYTE, Kind.CONNACK, flag=True),
    _property(0x2A, "shared_available", _Type.BYTE, Kind.CONNACK, flag=True),
)
_BY_ID = {item.id: item for item in _TABLE}


def _read_value(reader: Reader, kind: _Type) -> int | bytes | str | tuple[str, str]:
    if kind is _Type.BYTE:
        return reader.byte()
    if kind is _Type.SHORT:
        return reader.short()
    if kind is _Type.LONG:
        return reader.long()
    if kind is _Type.VARIABLE:
        return reader.variable_int()
    if kind is _Type.BINARY:
        return reader.binary()
    if kind is _Type.TEXT:
        return reader.text()
    return reader.text(), reader.text()


def read_properties(reader: Reader, packet: int) -> Properties:
    """The properties of a packet of type `packet` (or `WILL`)."""
    body = Reader(reader.take(reader.variable_int()))
    if not body.left:
        return NO_PROPERTIES
    values: dict[str, Any] = {}
    user: list[tuple[str, str]] = []
    while body.left:
        number = body.variable_int()
        known = _BY_ID.get(number)
        if known is None or packet not in known.packets:
            raise malformed(f"property {number:#04x} does not belong in this packet")
        value = _read_value(body, known.type)
        if isinstance(value, tuple):
            user.append(value)
            continue
        if known.name in values:
            raise MqttError(Reason.PROTOCOL_ERROR, f"property {known.name} occurs twice")
        if (known.flag and value not in (0, 1)) or (known.positive and value == 0):
            raise MqttError(Reason.PROTOCOL_ERROR, f"property {known.name} has a value that is not allowed")
        values[known.name] = value
    return replace(NO_PROPERTIES, user=tuple(user), **values)


def properties(value: Properties, packet: int) -> bytes:
    """The wire form of a packet's properties, with their length."""
    body = bytearray()
    for item in _TABLE:
        if item.type is _Type.PAIR:
            for key, content in value.user:
                body += bytes([item.id]) + text(key) + text(content)
            continue
        content = getattr(value, item.name)
        if content is None:
            continue
        assert packet in item.packets, f"{item.name} does not belong in this packet"
        body += bytes([item.id]) + _write_value(content, item.type)
    return variable_int(len(body)) + bytes(body)


def _write_value(value: Any, kind: _Type) -> bytes:
    if kind is _Type.BYTE:
        return struct.pack(">B", value)
    if kind is _Type.SHORT:
        return struct.pack(">H", value)
    if kind is _Type.LONG:
        return struct.pack(">I", value)
    if kind is _Type.VARIABLE:
        return variable_int(value)
    return binary(value) if kind is _Type.BINARY else text(value)
