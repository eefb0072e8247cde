"""MQTT 3.1.1 and 5 packets from bytes, and to bytes, as a server reads and writes them.

Pure. Invariant: `decode` accepts exactly what the standards allow a client to send; everything else
raises MqttError. Section numbers are those of MQTT 5 unless they say 3.1.1.
"""

from __future__ import annotations

import struct

from claimd_sandbox import wire
from claimd_sandbox.packets import (
    NO_PROPERTIES,
    ConnAck,
    Connect,
    Disconnect,
    Filter,
    FromClient,
    FromServer,
    Kind,
    MqttError,
    PingReq,
    PingResp,
    PubAck,
    Publish,
    Reason,
    SubAck,
    Subscribe,
    UnsubAck,
    Unsubscribe,
    Version,
    Will,
)
from claimd_sandbox.wire import Reader, malformed

# The fixed header's flags where the standard fixes them (section 2.1.3).
_FIXED_FLAGS = {Kind.PUBREL: 0b0010, Kind.SUBSCRIBE: 0b0010, Kind.UNSUBSCRIBE: 0b0010}


class Splitter:
    """Cuts a byte stream into packets: (first byte, body)."""

    def __init__(self, max_packet: int) -> None:
        self._buffer = bytearray()
        self._max = max_packet

    def feed(self, data: bytes) -> None:
        self._buffer += data

    def next(self) -> tuple[int, bytes] | None:
        """The next whole packet, or None when more bytes are needed."""
        length = shift = 0
        for index in range(1, 5):
            if index >= len(self._buffer):
                return None
            byte = self._buffer[index]
            length |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
        else:
            raise malformed("the remaining length is longer than four bytes")
        if 1 + index + length > self._max:
            raise MqttError(Reason.PACKET_TOO_LARGE, f"a packet of {length} bytes is too large")
        end = 1 + index + length
        if len(self._buffer) < end:
            return None
        first, body = self._buffer[0], bytes(self._buffer[1 + index : end])
        del self._buffer[:end]
        return first, body


def kind_of(first: int) -> Kind:
    try:
        return Kind(first >> 4)
    except ValueError as error:
        raise malformed("packet type 0 is reserved") from error


def decode(first: int, body: bytes, version: Version) -> FromClient:
    """One packet; CONNECT is read by `decode_connect`, which learns the version."""
    kind, flags = kind_of(first), first & 0x0F
    reader = Reader(body)
    if kind is Kind.PUBLISH:
        return _publish(flags, reader, version)
    if flags != _FIXED_FLAGS.get(kind, 0):
        raise malformed(f"{kind.name} has wrong flags")
    packet: FromClient
    if kind is Kind.PUBACK:
        packet = _puback(reader, version)
    elif kind is Kind.SUBSCRIBE:
        packet = _subscribe(reader, version)
    elif kind is Kind.UNSUBSCRIBE:
        packet = _unsubscribe(reader, version)
    elif kind is Kind.PINGREQ:
        packet = PingReq()
    elif kind is Kind.DISCONNECT:
        packet = _disconnect(reader, version)
    elif kind in (Kind.PUBREC, Kind.PUBREL, Kind.PUBCOMP):
        raise MqttError(Reason.QOS_NOT_SUPPORTED, "QoS 2 is not supported")
    else:
        raise MqttError(Reason.PROTOCOL_ERROR, f"a client may not send {kind.name} here")
    if reader.left:
        raise malformed(f"{kind.name} has bytes after its end")
    return packet


def is_connect_5(first: int, body: bytes) -> bool:
    """Whether this begins as a CONNECT of MQTT 5, so that its sender understands reason codes."""
    return kind_of(first) is Kind.CONNECT and body.startswith(b"\0\4MQTT\5")


def decode_connect(first: int, body: bytes) -> Connect:
    """The first packet of a connection (section 3.1)."""
    if kind_of(first) is not Kind.CONNECT or first & 0x0F:
        raise MqttError(Reason.PROTOCOL_ERROR, "the first packet is not a CONNECT")
    reader = Reader(body)
    name, level = reader.text(), reader.byte()
    if name != "MQTT" or level not in (Version.V311, Version.V5):
        raise MqttError(Reason.UNSUPPORTED_VERSION, f"protocol level {level} is not supported")
    version = Version(level)
    flags, keep_alive = reader.byte(), reader.short()
    if flags & 0x01:
        raise malformed("CONNECT has its reserved flag set")
    own = wire.read_properties(reader, Kind.CONNECT) if version is Version.V5 else NO_PROPERTIES
    client_id = reader.text()
    will = _will(flags, reader, version)
    username = reader.text() if flags & 0x80 else None
    if flags & 0x40 and username is None and version is Version.V311:
        raise malformed("CONNECT has a password but no user name")
    password = reader.binary() if flags & 0x40 else None
    if reader.left:
        raise malformed("CONNECT has bytes after its end")
    return Connect(version, client_id, bool(flags & 0x02), keep_alive, will, username, password, own)


def _will(flags: int, reader: Reader, version: Version) -> Will | None:
    qos, retain = flags >> 3 & 0x03, bool(flags & 0x20)
    if not flags & 0x04:
        if qos or retain:
            raise malformed("CONNECT has will flags but no will")
        return None
    if qos == 3:
        raise malformed("the will has QoS 3")
    own = wire.read_properties(reader, wire.WILL) if version is Version.V5 else NO_PROPERTIES
    return Will(reader.text(), reader.binary(), qos, retain, own)


def _packet_id(reader: Reader) -> int:
    packet_id = reader.short()
    if not packet_id:
        raise malformed("the packet identifier is 0")
    return packet_id


def _publish(flags: int, reader: Reader, version: Version) -> Publish:
    qos, dup = flags >> 1 & 0x03, bool(flags & 0x08)
    if qos == 3 or (dup and not qos):
        raise malformed("PUBLISH has wrong flags")
    topic = reader.text()
    packet_id = _packet_id(reader) if qos else None
    own = wire.read_properties(reader, Kind.PUBLISH) if version is Version.V5 else NO_PROPERTIES
    if own.subscription_id is not None:
        raise MqttError(Reason.PROTOCOL_ERROR, "a client may not send a subscription identifier in PUBLISH")
    return Publish(topic, reader.rest(), qos, packet_id, bool(flags & 0x01), dup, own)


def _puback(reader: Reader, version: Version) -> PubAck:
    packet_id = _packet_id(reader)
    reason = reader.byte() if version is Version.V5 and reader.left else Reason.SUCCESS
    if version is Version.V5 and reader.left:
        wire.read_properties(reader, Kind.PUBACK)
    return PubAck(packet_id, reason)


def _subscribe(reader: Reader, version: Version) -> Subscribe:
    packet_id = _packet_id(reader)
    own = wire.read_properties(reader, Kind.SUBSCRIBE) if version is Version.V5 else NO_PROPERTIES
    filters: list[Filter] = []
    while reader.left:
        topic, options = reader.text(), reader.byte()
        allowed = 0b0011_1111 if version is Version.V5 else 0b0000_0011
        if options & ~allowed or options & 0x03 == 3 or options >> 4 & 0x03 == 3:
            raise malformed("SUBSCRIBE has wrong options")
        filters.append(Filter(topic, options & 0x03, bool(options & 0x04), bool(options & 0x08)))
    if not filters:
        raise MqttError(Reason.PROTOCOL_ERROR, "SUBSCRIBE has no topic filter")
    return Subscribe(packet_id, tuple(filters), own)


def _unsubscribe(reader: Reader, version: Version) -> Unsubscribe:
    packet_id = _packet_id(reader)
    if version is Version.V5:
        wire.read_properties(reader, Kind.UNSUBSCRIBE)
    topics: list[str] = []
    while reader.left:
        topics.append(reader.text())
    if not topics:
        raise MqttError(Reason.PROTOCOL_ERROR, "UNSUBSCRIBE has no topic filter")
    return Unsubscribe(packet_id, tuple(topics))


def _disconnect(reader: Reader, version: Version) -> Disconnect:
    if version is Version.V311 or not reader.left:
        return Disconnect()
    reason = reader.byte()
    own = wire.read_properties(reader, Kind.DISCONNECT) if reader.left else NO_PROPERTIES
    return Disconnect(reason, own)


def encode(packet: FromServer, version: Version) -> bytes:
    """The wire form of a server's packet."""
    five = version is Version.V5
    first, body = 0, b""
    if isinstance(packet, ConnAck):
        first, body = Kind.CONNACK << 4, struct.pack(">BB", packet.session_present, packet.code)
        body += wire.properties(packet.properties, Kind.CONNACK) if five else b""
    elif isinstance(packet, Publish):
        first, body = _encode_publish(packet, version)
    elif isinstance(packet, PubAck):
        first, body = Kind.PUBACK << 4, struct.pack(">H", packet.packet_id)
        # The reason may be left out when it is success (section 3.4.2.1).
        body += bytes([packet.reason]) if five and packet.reason else b""
    elif isinstance(packet, SubAck):
        first, body = Kind.SUBACK << 4, struct.pack(">H", packet.packet_id)
        body += (b"\0" if five else b"") + bytes(packet.codes)
    elif isinstance(packet, UnsubAck):
        first, body = Kind.UNSUBACK << 4, struct.pack(">H", packet.packet_id)
        body += b"\0" + bytes(packet.codes) if five else b""
    elif isinstance(packet, PingResp):
        first = Kind.PINGRESP << 4
    else:
        assert five, "an MQTT 3.1.1 server has no DISCONNECT"
        first, body = Kind.DISCONNECT << 4, bytes([packet.reason])
        body += wire.properties(packet.properties, Kind.DISCONNECT)
    return bytes([first]) + wire.variable_int(len(body)) + body


def _encode_publish(packet: Publish, version: Version) -> tuple[int, bytes]:
    first = Kind.PUBLISH << 4 | packet.dup << 3 | packet.qos << 1 | packet.retain
    body = wire.text(packet.topic)
    if packet.qos:
        assert packet.packet_id is not None
        body += struct.pack(">H", packet.packet_id)
    if version is Version.V5:
        body += wire.properties(packet.properties, Kind.PUBLISH)
    return first, body + packet.payload
