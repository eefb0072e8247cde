"""Sessions, messages, wills and takeovers between permanent identities."""

from __future__ import annotations

import mqtt5

from sandbox_world import Client, MakeWorld, Now, World
from wire import topic_filter

pytest_plugins = ("sandbox_world",)

SESSION = {"clean_start": False, "session_expiry_interval": 600}
TAKEN_OVER = mqtt5.DisconnectReasonCode.SESSION_TAKEN_OVER


def connected(world: World, thing: str, client_id: str | None = None, **connect: object) -> Client:
    """A provisioned device that has connected."""
    client = world.client(world.device(thing))
    assert client.connect(client_id or thing, **connect).reason_code == 0
    return client


def test_messages_go_to_whoever_subscribed(world: World) -> None:
    credentials = world.device("pair")
    sender, listener, deaf = (world.client(credentials) for _ in range(3))
    for client, name in ((sender, "sender"), (listener, "listener"), (deaf, "deaf")):
        client.connect(name)
    assert listener.subscribe("room/+/light", "hall/#", qos=1) == [1, 1]
    assert deaf.subscribe("other") == [0]
    assert sender.publish("room/1/light", b"on", content_type="text/plain", user_properties=[("a", "b")]) == 0
    assert sender.publish("room/1/heat", b"nobody listens") == 0
    assert sender.publish("hall", b"low") == 0
    first, second = listener.message(), listener.message()
    assert (first.topic, first.payload, first.content_type) == ("room/1/light", b"on", "text/plain")
    assert first.user_properties == [("a", "b")]
    assert second.topic == "hall"
    sender.publish("other", b"end")
    assert deaf.message().payload == b"end"


def test_a_wildcard_does_not_reach_reserved_topics(world: World) -> None:
    client = connected(world, "wild")
    client.subscribe("#")
    client.publish("$aws/things/wild/shadow/update", b"{}")
    client.publish("plain", b"x")
    assert client.message().topic == "plain"


def test_a_client_can_ask_not_to_hear_itself(world: World) -> None:
    client = connected(world, "echo")
    client.send(mqtt5.SubscribePacket(50, [topic_filter("own", no_local=True), topic_filter("end")]))
    client.expect(mqtt5.SubAckPacket)
    client.publish("own", b"1")
    client.publish("end", b"2")
    assert client.message().topic == "end"


def test_unsubscribing(world: World) -> None:
    client = connected(world, "un")
    client.subscribe("a", "b")
    client.send(mqtt5.UnsubscribePacket(9, ["a", "never"]))
    answer = client.expect(mqtt5.UnsubAckPacket)
    assert [int(code) for code in answer.reason_codes] == [0, 0x11]
    client.publish("a", b"1")
    client.publish("b", b"2")
    assert client.message().topic == "b"


def test_a_topic_alias_stands_for_its_topic(world: World) -> None:
    client = connected(world, "alias")
    client.subscribe("long/topic")
    client.publish("long/topic", b"1", topic_alias=3)
    client.publish("", b"2", topic_alias=3)
    assert [client.message().payload for _ in range(2)] == [b"1", b"2"]


def test_a_second_connection_takes_the_client_id_over(world: World) -> None:
    credentials = world.device("one")
    first, second = world.client(credentials), world.client(credentials)
    first.connect("one")
    second.connect("one")
    assert first.expect(mqtt5.DisconnectPacket).reason_code == TAKEN_OVER
    assert first.receive() is None
    second.send(mqtt5.PingReqPacket())
    assert second.expect(mqtt5.PingRespPacket)


def test_the_same_client_id_in_two_accounts_is_no_takeover(world: World) -> None:
    accounts = world.sandbox.settings.accounts
    first = world.claim("shared")
    other = world.client_of_account(accounts[1])
    assert other.connect("shared").reason_code == 0
    first.send(mqtt5.PingReqPacket())
    assert first.expect(mqtt5.PingRespPacket)


def test_messages_wait_for_a_persistent_session(world: World) -> None:
    credentials = world.device("away")
    away, sender = world.client(credentials), world.client(credentials)
    assert not away.connect("away", **SESSION).session_present
    away.subscribe("news", qos=1)
    away.disconnect()
    world.record("away")
    sender.connect("sender")
    for number in range(3):
        sender.publish("news", b"%d" % number)
    back = world.client(credentials)
    assert back.connect("away", **SESSION).session_present
    assert [back.message().payload for _ in range(3)] == [b"0", b"1", b"2"]


def test_what_was_not_acknowledged_comes_again(world: World) -> None:
    credentials = world.device("lossy")
    first, sender = world.client(credentials), world.client(credentials)
    first.connect("lossy", **SESSION)
    first.subscribe("news", qos=1)
    sender.connect("sender")
    sender.publish("news", b"once")
    lost = first.expect(mqtt5.PublishPacket)  # not acknowledged
    first.close()
    again = world.client(credentials)
    again.connect("lossy", **SESSION)
    message = again.message()
    assert (message.payload, message.duplicate, message.packet_id) == (b"once", True, lost.packet_id)
    assert not lost.duplicate


def test_a_client_gets_no_more_at_a_time_than_it_asked_for(world: World) -> None:
    credentials = world.device("narrow")
    client, sender = world.client(credentials), world.client(credentials)
    client.connect("narrow", receive_max=1)
    client.subscribe("news", qos=1)
    sender.connect("sender")
    for number in range(3):
        sender.publish("news", b"%d" % number)
    first = client.expect(mqtt5.PublishPacket)
    client.send(mqtt5.PingReqPacket())
    client.expect(mqtt5.PingRespPacket)
    assert not client.kept
    client.send(mqtt5.PubAckPacket(first.packet_id or 0))
    assert [client.message().payload for _ in range(2)] == [b"1", b"2"]


def test_a_session_ends_at_its_expiry(make_world: MakeWorld, now: Now) -> None:
    world = make_world(clock=now)
    credentials = world.device("short")
    first = world.client(credentials)
    first.connect("short", **SESSION)
    first.disconnect()
    world.record("short")
    now.ahead = 599.0
    second = world.client(credentials)
    assert second.connect("short", **SESSION).session_present
    second.send(mqtt5.DisconnectPacket(session_expiry_interval=10))
    second.close()
    world.wait_for(
        lambda: sum(r.client_id == "short" and r.closed is not None for r in world.sandbox.connections) == 2
    )
    now.ahead = 610.0
    assert not world.client(credentials).connect("short", **SESSION).session_present


def test_a_clean_start_ends_the_session(world: World) -> None:
    credentials = world.device("clean")
    for clean, present in ((False, False), (False, True), (True, False), (False, True)):
        client = world.client(credentials)
        answer = client.connect("clean", clean_start=clean, session_expiry_interval=600)
        assert answer.session_present is present


def test_the_session_expiry_is_cut_to_the_limit(world: World) -> None:
    client = world.client(world.device("long"))
    assert client.connect("long", session_expiry_interval=999_999).session_expiry_interval == 3600


def test_a_will_is_sent_when_a_client_is_lost_and_not_when_it_leaves(world: World) -> None:
    credentials = world.device("willing")
    listener = world.client(credentials)
    listener.connect("listener")
    listener.subscribe("wills/#")

    def with_will(client_id: str) -> Client:
        client = world.client(credentials)
        client.connect(client_id, will=mqtt5.Will(f"wills/{client_id}", payload=b"gone"))
        return client

    with_will("leaves").disconnect()
    world.record("leaves")
    with_will("lost").close()
    assert listener.message().topic == "wills/lost"
    asks = with_will("asks")
    asks.send(mqtt5.DisconnectPacket(reason_code=mqtt5.DisconnectReasonCode.DISCONNECT_WITH_WILL_MESSAGE))
    assert listener.message().topic == "wills/asks"


def test_a_takeover_sends_the_will_at_once_or_not_at_all_when_it_is_delayed(world: World) -> None:
    credentials = world.device("taken")
    listener = world.client(credentials)
    listener.connect("listener")
    listener.subscribe("wills/#")
    for delay in (60, 0):
        first, second = world.client(credentials), world.client(credentials)
        will = mqtt5.Will(f"wills/{delay}", payload=b"gone", will_delay_interval=delay)
        first.connect("taken", will=will, **SESSION)
        second.connect("taken", **SESSION)
        assert first.expect(mqtt5.DisconnectPacket).reason_code == TAKEN_OVER
    assert listener.message().topic == "wills/0"


def test_a_delayed_will_is_sent_when_nobody_comes_back(world: World) -> None:
    credentials = world.device("delayed")
    listener = world.client(credentials)
    listener.connect("listener")
    listener.subscribe("wills/#")
    client = world.client(credentials)
    client.connect("delayed", will=mqtt5.Will("wills/1", payload=b"gone", will_delay_interval=1), **SESSION)
    client.close()
    assert listener.message().payload == b"gone"


def test_verifying_under_a_live_consumers_client_id_loses_nothing(world: World) -> None:
    """What a replace does to a consumer: one takeover, and every queued message arrives afterwards."""
    credentials = world.device("consumer")
    consumer, sender = world.client(credentials), world.client(credentials)
    consumer.connect("consumer", **SESSION)
    consumer.subscribe("commands", qos=1)
    verifier = world.client(credentials)
    assert verifier.connect("consumer", **SESSION).session_present
    assert consumer.expect(mqtt5.DisconnectPacket).reason_code == TAKEN_OVER
    sender.connect("sender")
    sender.publish("commands", b"while verifying")
    verifier.disconnect()
    sender.publish("commands", b"while away")
    back = world.client(credentials)
    assert back.connect("consumer", **SESSION).session_present
    assert [back.message().payload for _ in range(2)] == [b"while verifying", b"while away"]
