"""MQTT control packets as values.

Pure. One set of classes serves MQTT 3.1.1 and 5: what 3.1.1 lacks (properties, reason codes) stays
at its default. Invariant: a packet that exists has been checked by the decoder.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum


class Version(IntEnum):
    """The protocol level in CONNECT."""

    V311 = 4
    V5 = 5


class Reason(IntEnum):
    """MQTT 5 reason codes (MQTT 5 section 2.4) that the sandbox sends or reads."""

    SUCCESS = 0x00
    GRANTED_QOS_1 = 0x01
    DISCONNECT_WITH_WILL = 0x04
    NO_SUBSCRIPTION_EXISTED = 0x11
    UNSPECIFIED = 0x80
    MALFORMED_PACKET = 0x81
    PROTOCOL_ERROR = 0x82
    UNSUPPORTED_VERSION = 0x84
    CLIENT_ID_NOT_VALID = 0x85
    NOT_AUTHORIZED = 0x87
    SERVER_UNAVAILABLE = 0x88
    SERVER_SHUTTING_DOWN = 0x8B
    BAD_AUTHENTICATION_METHOD = 0x8C
    KEEP_ALIVE_TIMEOUT = 0x8D
    SESSION_TAKEN_OVER = 0x8E
    TOPIC_FILTER_INVALID = 0x8F
    TOPIC_NAME_INVALID = 0x90
    RECEIVE_MAXIMUM_EXCEEDED = 0x93
    TOPIC_ALIAS_INVALID = 0x94
    PACKET_TOO_LARGE = 0x95
    QUOTA_EXCEEDED = 0x97
    PAYLOAD_FORMAT_INVALID = 0x99
    RETAIN_NOT_SUPPORTED = 0x9A
    QOS_NOT_SUPPORTED = 0x9B
    SHARED_SUBSCRIPTIONS_NOT_SUPPORTED = 0x9E
    SUBSCRIPTION_IDS_NOT_SUPPORTED = 0xA1


class MqttError(Exception):
    """The client broke the protocol, or asked for what is not given."""

    def __init__(self, reason: Reason, text: str) -> None:
        super().__init__(text)
        self.reason = reason


class Kind(IntEnum):
    """Packet types (MQTT 5 section 2.1.2)."""

    CONNECT = 1
    CONNACK = 2
    PUBLISH = 3
    PUBACK = 4
    PUBREC = 5
    PUBREL = 6
    PUBCOMP = 7
    SUBSCRIBE = 8
    SUBACK = 9
    UNSUBSCRIBE = 10
    UNSUBACK = 11
    PINGREQ = 12
    PINGRESP = 13
    DISCONNECT = 14
    AUTH = 15


@dataclass(frozen=True)
class Properties:
    """MQTT 5 properties (section 2.2.2.2); None where one is absent."""

    payload_format: int | None = None
    message_expiry: int | None = None
    content_type: str | None = None
    response_topic: str | None = None
    correlation_data: bytes | None = None
    subscription_id: int | None = None
    session_expiry: int | None = None
    assigned_client_id: str | None = None
    server_keep_alive: int | None = None
    authentication_method: str | None = None
    authentication_data: bytes | None = None
    request_problem_information: int | None = None
    will_delay: int | None = None
    request_response_information: int | None = None
    response_information: str | None = None
    server_reference: str | None = None
    reason_string: str | None = None
    receive_maximum: int | None = None
    topic_alias_maximum: int | None = None
    topic_alias: int | None = None
    maximum_qos: int | None = None
    retain_available: int | None = None
    user: tuple[tuple[str, str], ...] = ()
    maximum_packet_size: int | None = None
    wildcard_available: int | None = None
    subscription_ids_available: int | None = None
    shared_available: int | None = None


NO_PROPERTIES = Properties()


@dataclass(frozen=True)
class Will:
    topic: str
    payload: bytes = field(repr=False)
    qos: int
    retain: bool
    properties: Properties = NO_PROPERTIES


@dataclass(frozen=True)
class Connect:
    version: Version
    client_id: str
    clean_start: bool
    keep_alive: int
    will: Will | None = None
    username: str | None = None
    password: bytes | None = field(default=None, repr=False)
    properties: Properties = NO_PROPERTIES


@dataclass(frozen=True)
class ConnAck:
    """`code` is a reason code on MQTT 5, a return code on 3.1.1."""

    session_present: bool
    code: int
    properties: Properties = NO_PROPERTIES


@dataclass(frozen=True)
class Publish:
    topic: str
    payload: bytes = field(repr=False)
    qos: int = 0
    packet_id: int | None = None
    retain: bool = False
    dup: bool = False
    properties: Properties = NO_PROPERTIES


@dataclass(frozen=True)
class PubAck:
    packet_id: int
    reason: int = Reason.SUCCESS


@dataclass(frozen=True)
class Filter:
    """One topic filter of a SUBSCRIBE with its options."""

    topic: str
    qos: int
    no_local: bool = False
    retain_as_published: bool = False


@dataclass(frozen=True)
class Subscribe:
    packet_id: int
    filters: tuple[Filter, ...]
    properties: Properties = NO_PROPERTIES


@dataclass(frozen=True)
class SubAck:
    packet_id: int
    codes: tuple[int, ...]


@dataclass(frozen=True)
class Unsubscribe:
    packet_id: int
    topics: tuple[str, ...]


@dataclass(frozen=True)
class UnsubAck:
    packet_id: int
    codes: tuple[int, ...]


@dataclass(frozen=True)
class PingReq:
    pass


@dataclass(frozen=True)
class PingResp:
    pass


@dataclass(frozen=True)
class Disconnect:
    reason: int = Reason.SUCCESS
    properties: Properties = NO_PROPERTIES


FromClient = Connect | Publish | PubAck | Subscribe | Unsubscribe | PingReq | Disconnect
FromServer = ConnAck | Publish | PubAck | SubAck | UnsubAck | PingResp | Disconnect
