"""What breaks the protocol or a limit is answered with its reason, and the connection is closed."""

from __future__ import annotations

from collections.abc import Callable

import mqtt5
import pytest

from sandbox_world import Client, MakeWorld, World

pytest_plugins = ("sandbox_world",)

MALFORMED, PROTOCOL_ERROR = 0x81, 0x82
CONNECT_5 = b"\x00\x04MQTT\x05\x02\x00\x3c\x00\x00\x01c"


def packet(first: int, body: bytes) -> bytes:
    assert len(body) < 128
    return bytes([first, len(body)]) + body


def reason_of_end(client: Client) -> int | None:
    """The reason of the CONNACK or DISCONNECT with which the server closed; None without one."""
    answer = client.receive()
    if answer is None:
        return None
    assert isinstance(answer, (mqtt5.ConnAckPacket, mqtt5.DisconnectPacket)), answer
    assert client.receive() is None
    return int(answer.reason_code)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (packet(0x10, CONNECT_5[:9]), MALFORMED),  # cut short
        (packet(0x10, CONNECT_5 + b"x"), MALFORMED),  # bytes after the end
        (packet(0x10, b"\x00\x04MQTT\x05\x03\x00\x3c\x00\x00\x01c"), MALFORMED),  # reserved flag
        (packet(0x10, b"\x00\x04MQTT\x05\x18\x00\x3c\x00\x00\x01c"), MALFORMED),  # will flags, no will
        (packet(0x10, b"\x00\x04MQTT\x05\x02\x00\x3c\x02\x01\x00\x00\x01c"), MALFORMED),  # foreign property
        (
            packet(0x10, b"\x00\x04MQTT\x05\x02\x00\x3c\x03\x21\x00\x00\x00\x01c"),
            PROTOCOL_ERROR,
        ),  # receive max 0
        (packet(0x10, b"\x00\x04MQTT\x05\x02\x00\x3c\x06\x21\x00\x01\x21\x00\x01\x00\x01c"), PROTOCOL_ERROR),
        (packet(0x10, b"\x00\x04MQTT\x05\x02\x00\x3c\x04\x15\x00\x01x\x00\x01c"), 0x8C),  # authentication
        (packet(0x10, b"\x00\x04MQTT\x05\x02\x00\x3c\x00\x00\x01\xff"), MALFORMED),  # not UTF-8
        (packet(0x10, b"\x00\x04MQTT\x05\x02\x00\x3c\x00\x00\x01\x00"), MALFORMED),  # U+0000
        (b"\x10\xff\xff\xff\xff\x01", None),  # a length of five bytes: nothing says that this is MQTT 5
        (b"\x10\xff\xff\xff\x7f", None),  # 256 MB announced
        (packet(0xC0, b""), None),  # PINGREQ before CONNECT
        (b"\x00\x00", None),
    ],
)
def test_a_bad_connect(world: World, data: bytes, reason: int | None) -> None:
    client = world.of_claim()
    client.send_bytes(data)
    assert reason_of_end(client) == reason


def test_an_unsupported_version_is_told_in_a_form_that_its_client_reads(world: World) -> None:
    client = world.of_claim()
    client.send_bytes(packet(0x10, b"\x00\x06MQIsdp\x03\x02\x00\x3c\x00\x01c"))
    assert client.receive_bytes() == b"\x20\x02\x00\x01"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (packet(0x10, CONNECT_5), PROTOCOL_ERROR),  # a second CONNECT
        (packet(0x20, b"\x00\x00\x00"), PROTOCOL_ERROR),  # a server's packet
        (packet(0xF0, b""), PROTOCOL_ERROR),  # AUTH
        (packet(0x00, b""), MALFORMED),
        (packet(0xC1, b""), MALFORMED),  # flags
        (packet(0xC0, b"x"), MALFORMED),
        (packet(0x36, b"\x00\x01a\x00\x01\x00"), MALFORMED),  # QoS 3
        (packet(0x34, b"\x00\x01a\x00\x01\x00"), 0x9B),  # QoS 2
        (packet(0x50, b"\x00\x01"), 0x9B),  # PUBREC
        (packet(0x32, b"\x00\x01a\x00\x00\x00"), MALFORMED),  # packet identifier 0
        (packet(0x38, b"\x00\x01a\x00"), MALFORMED),  # DUP at QoS 0
        (packet(0x31, b"\x00\x01a\x00"), 0x9A),  # RETAIN
        (packet(0x30, b"\x00\x00\x00"), 0x90),  # no topic
        (packet(0x30, b"\x00\x01#\x00"), 0x90),
        (packet(0x30, b"\x00\x00\x03\x23\x00\x09"), 0x94),  # topic alias 9
        (packet(0x30, b"\x00\x00\x03\x23\x00\x01"), PROTOCOL_ERROR),  # an alias that stands for nothing
        (packet(0x30, b"\x00\x01a\x02\x0b\x01"), PROTOCOL_ERROR),  # subscription identifier
        (packet(0x82, b"\x00\x01\x00"), PROTOCOL_ERROR),  # SUBSCRIBE to nothing
        (packet(0x82, b"\x00\x01\x00\x00\x01a\x03"), MALFORMED),  # QoS 3
        (packet(0x82, b"\x00\x01\x00\x00\x01a\x40"), MALFORMED),  # reserved option
        (packet(0x82, b"\x00\x01\x02\x0b\x01\x00\x01a\x00"), 0xA1),
        (packet(0x80, b"\x00\x01\x00\x00\x01a\x00"), MALFORMED),  # SUBSCRIBE needs flags 2
        (packet(0xA2, b"\x00\x01\x00"), PROTOCOL_ERROR),  # UNSUBSCRIBE from nothing
        (packet(0xE0, b"\x00\x05\x11\x00\x00\x00\x09"), PROTOCOL_ERROR),  # expiry raised from 0
        (packet(0x40, b"\x00"), MALFORMED),
    ],
)
def test_a_bad_packet_after_connect(world: World, data: bytes, reason: int) -> None:
    client = world.client(world.device("rude"))
    client.connect("rude")
    client.send_bytes(data)
    assert reason_of_end(client) == reason
    assert "protocol error" in str(world.record("rude").end)


def test_a_packet_in_single_bytes_is_read_like_any_other(world: World) -> None:
    client = world.of_claim()
    for byte in packet(0x10, CONNECT_5) + packet(0xC0, b""):
        client.send_bytes(bytes([byte]))
    assert client.expect(mqtt5.ConnAckPacket).reason_code == 0
    assert client.expect(mqtt5.PingRespPacket)


def test_a_payload_of_128_kib_is_the_largest(world: World) -> None:
    client = world.client(world.device("large"))
    client.connect("large")
    client.subscribe("echo")
    assert client.publish("echo", b"x" * 131_072) == 0
    assert len(client.message().payload) == 131_072
    client.send(mqtt5.PublishPacket("echo", payload=b"x" * 131_073, qos=mqtt5.QoS.AT_LEAST_ONCE, packet_id=9))
    assert client.expect(mqtt5.DisconnectPacket).reason_code == mqtt5.DisconnectReasonCode.PACKET_TOO_LARGE


def test_nothing_larger_than_the_client_takes_is_sent_to_it(world: World) -> None:
    credentials = world.device("small")
    client = world.client(credentials)
    client.connect("small", max_packet_size=100)
    client.subscribe("echo")
    client.publish("echo", b"x" * 200)
    client.publish("echo", b"y")
    assert client.message().payload == b"y"


def test_eight_topics_a_subscribe(world: World) -> None:
    client = world.client(world.device("many"))
    client.connect("many")
    assert client.subscribe(*(f"t/{n}" for n in range(8))) == [0] * 8
    assert client.subscribe(*(f"u/{n}" for n in range(9))) == [0x97] * 9


@pytest.mark.parametrize(
    ("topic", "code"),
    [
        ("/".join("a" * 9), 0x8F),
        ("/".join("a" * 8), 0),
        ("x" * 257, 0x8F),
        ("$share/g/a", 0x9E),
        ("$other/a", 0x87),
        ("$aws/things/t/shadow/update/accepted", 0),
    ],
)
def test_topic_filters(world: World, topic: str, code: int) -> None:
    client = world.client(world.device("filters"))
    client.connect("filters")
    assert client.subscribe(topic) == [code]


@pytest.mark.parametrize("topic", ["a#", "#/a", "a+/b", ""])
def test_topic_filters_with_a_wildcard_out_of_place(world: World, topic: str) -> None:
    client = world.client(world.device("filters"))
    client.connect("filters")
    client.send_bytes(packet(0x82, b"\x00\x01\x00\x00" + bytes([len(topic)]) + topic.encode() + b"\x00"))
    assert [int(code) for code in client.expect(mqtt5.SubAckPacket).reason_codes] == [0x8F]


def test_at_most_fifty_subscriptions_a_connection(world: World) -> None:
    client = world.client(world.device("greedy"))
    client.connect("greedy")
    codes = [code for n in range(13) for code in client.subscribe(*(f"{n}/{m}" for m in range(4)))]
    assert codes == [0] * 50 + [0x97] * 2


def test_a_silent_client_is_dropped_after_one_and_a_half_keep_alives(make_world: MakeWorld) -> None:
    world = make_world(min_keep_alive=1)
    client = world.claim("silent", connect={"keep_alive": 1})
    assert client.expect(mqtt5.DisconnectPacket).reason_code == mqtt5.DisconnectReasonCode.KEEP_ALIVE_TIMEOUT
    assert world.record("silent").end == "silent for 1.5 s"


def test_a_client_that_never_sends_connect_is_dropped(make_world: MakeWorld) -> None:
    world = make_world(connect_timeout=1.0)
    client = world.of_claim()
    assert client.receive() is None
    assert "no CONNECT" in str(world.sandbox.connections[-1].end)


def test_random_bytes_never_break_the_sandbox(world: World, seeded: Callable[[], bytes]) -> None:
    for _ in range(30):
        client = world.of_claim()
        client.send_bytes(seeded())
        client.close()
    assert world.claim("still-there")
    assert not [item for item in world.sandbox.connections if item.end == "the sandbox failed"]
