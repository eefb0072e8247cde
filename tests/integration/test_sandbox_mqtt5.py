"""Who may connect to the sandbox, and what a claim may do."""

from __future__ import annotations

import mqtt5
import pytest

from claimd_sandbox.registry import Status
from claimd_sandbox.settings import FOREIGN_ACCOUNT, OTHER_TEMPLATE, TEMPLATE, ConnectRule, Refusal
from sandbox_world import MakeWorld, Now, World

pytest_plugins = ("sandbox_world",)

CREATE = "$aws/certificates/create/json"
REGISTER = f"$aws/provisioning-templates/{TEMPLATE}/provision/json"

# Connecting


def test_connack_states_the_limits_of_aws(world: World) -> None:
    client = world.of_claim()
    answer = client.connect("limits", keep_alive=0)
    assert answer.reason_code == mqtt5.ConnAckReasonCode.SUCCESS
    assert answer.max_qos == mqtt5.QoS.AT_LEAST_ONCE
    assert answer.server_keep_alive == 1200
    assert answer.topic_alias_max == 8
    assert not answer.subscription_id_available
    assert not answer.shared_subscription_available


def test_short_and_long_keep_alives_are_changed(world: World) -> None:
    for asked, given in ((5, 30), (30, None), (1200, None), (1201, 1200)):
        client = world.of_claim()
        assert client.connect(f"keep-{asked}", keep_alive=asked).server_keep_alive == given


def test_an_empty_client_id_gets_one(world: World) -> None:
    client = world.of_claim()
    answer = client.connect("")
    assert answer.reason_code == 0
    assert answer.assigned_client_id


@pytest.mark.parametrize("client_id", ["$claim", "x" * 129])
def test_a_client_id_that_aws_does_not_take(world: World, client_id: str) -> None:
    client = world.of_claim()
    answer = client.connect(client_id)
    assert answer.reason_code == mqtt5.ConnAckReasonCode.CLIENT_ID_NOT_VALID
    assert client.receive() is None


def test_a_client_id_of_128_bytes_is_taken(world: World) -> None:
    assert world.claim("x" * 128)


def test_one_connect_a_second_a_client_id(make_world: MakeWorld) -> None:
    world = make_world(connects_per_second=0.01)  # one in 100 s, on however slow a machine
    world.claim("often")
    second = world.of_claim()
    assert second.connect("often").reason_code == mqtt5.ConnAckReasonCode.QUOTA_EXCEEDED
    assert world.claim("seldom")


def test_an_expired_claim_is_refused_and_the_journal_says_so(world: World) -> None:
    client = world.of_claim(life=-60)
    assert client.connect("late").reason_code == mqtt5.ConnAckReasonCode.NOT_AUTHORIZED
    assert "expired" in str(world.record("late").end)


def test_a_foreign_claim_is_refused_as_such(world: World) -> None:
    client = world.of_claim(account=FOREIGN_ACCOUNT)
    assert client.connect("foreign").reason_code == mqtt5.ConnAckReasonCode.NOT_AUTHORIZED
    assert FOREIGN_ACCOUNT in str(world.record("foreign").end)


def test_a_pending_certificate_is_refused_until_it_is_registered(world: World) -> None:
    claim = world.claim()
    created = claim.create()
    answer = world.of_created(created).connect("pending")
    assert answer.reason_code == mqtt5.ConnAckReasonCode.NOT_AUTHORIZED
    assert "PENDING_ACTIVATION" in str(world.record("pending").end)
    claim.register(created, ThingName="pending")
    assert world.of_created(created).connect("pending").reason_code == 0


def test_a_refused_certificate_is_hung_up_on_by_default(make_world: MakeWorld) -> None:
    world = make_world(refusal=Refusal.ALERT)
    created = world.claim().create()
    client = world.of_created(created)
    client.send(mqtt5.ConnectPacket("pending", clean_start=True))
    assert client.receive() is None


def test_registered_but_refused(world: World) -> None:
    credentials = world.device("refused")
    registry, account = world.sandbox.registry, world.sandbox.settings.default_account.id
    (certificate,) = registry.certificates

    def outcome(client_id: str) -> int:
        return int(world.client(credentials).connect(client_id).reason_code)

    assert outcome("refused") == 0
    registry.set_connect_rule(account, ConnectRule.DENY, template=TEMPLATE)
    assert outcome("refused") == mqtt5.ConnAckReasonCode.NOT_AUTHORIZED
    registry.set_connect_rule(account, ConnectRule.THING_NAME, certificate_id=certificate.certificate_id)
    assert outcome("refused") == 0
    assert outcome("another") == mqtt5.ConnAckReasonCode.NOT_AUTHORIZED
    registry.set_status(account, certificate.certificate_id, Status.INACTIVE)
    assert outcome("refused") == mqtt5.ConnAckReasonCode.NOT_AUTHORIZED
    registry.set_status(account, certificate.certificate_id, Status.ACTIVE)
    assert outcome("refused") == 0


def test_a_fresh_certificate_can_be_refused_for_a_while(make_world: MakeWorld, now: Now) -> None:
    world = make_world(activation_delay=60.0, clock=now)
    credentials = world.device("fresh")
    assert world.client(credentials).connect("fresh").reason_code != 0
    now.ahead = 61.0
    assert world.client(credentials).connect("fresh").reason_code == 0


# A claim's rights


def test_a_claim_may_use_its_own_templates_topics_only(world: World) -> None:
    client = world.claim()
    own = [f"{topic}/{end}" for topic in (CREATE, REGISTER) for end in ("accepted", "rejected")]
    assert client.subscribe(*own) == [0, 0, 0, 0]
    other = f"$aws/provisioning-templates/{OTHER_TEMPLATE}/provision/json"
    assert client.subscribe(f"{other}/accepted", "room", "#", f"{CREATE}/+", CREATE) == [0x87] * 5
    assert client.publish(other, {}) == 0x87
    assert client.publish("room", b"x") == 0x87
    assert client.publish(f"{CREATE}/accepted", b"x") == 0x87


def test_a_denied_publish_without_an_acknowledgement_ends_the_connection(world: World) -> None:
    client = world.claim()
    client.send(mqtt5.PublishPacket("room", payload=b"x"))
    assert client.expect(mqtt5.DisconnectPacket).reason_code == mqtt5.DisconnectReasonCode.NOT_AUTHORIZED


def test_an_answer_goes_to_its_requester_alone(world: World) -> None:
    listener, requester = world.claim("listener"), world.claim("requester")
    listener.subscribe(f"{CREATE}/accepted")
    others = requester.create()
    # Were that answer to come here as well, it would come before the answer to this request.
    assert listener.create()["certificateId"] != others["certificateId"]
    assert not listener.kept


def test_an_answer_without_a_subscription_goes_nowhere(world: World) -> None:
    client = world.claim()
    assert client.publish(CREATE, {}) == 0
    assert client.subscribe(f"{REGISTER}/accepted") == [0]
    world.wait_for(lambda: bool(world.sandbox.operations))
    assert not world.sandbox.operations[0].delivered
