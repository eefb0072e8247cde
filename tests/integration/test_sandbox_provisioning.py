"""The provisioning API on MQTT: what it accepts, rejects, and leaves behind."""

from __future__ import annotations

import json
from collections.abc import Callable

import mqtt5
import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509 import CertificateSigningRequestBuilder, Name

from claimd_sandbox.registry import Status
from claimd_sandbox.settings import OTHER_TEMPLATE, TEMPLATE, TokenUse
from sandbox_world import MakeWorld, Now, World

pytest_plugins = ("sandbox_world",)

CREATE = "$aws/certificates/create/json"
CREATE_CSR = "$aws/certificates/create-from-csr/json"
REGISTER = f"$aws/provisioning-templates/{TEMPLATE}/provision/json"

# The provisioning API


def test_the_flow_leaves_an_active_certificate_and_a_thing(world: World) -> None:
    client = world.claim()
    created = client.create()
    assert sorted(created) == [
        "certificateId",
        "certificateOwnershipToken",
        "certificatePem",
        "privateKey",
    ]
    outcome, answer = client.register(created, ThingName="flow")
    assert (outcome, answer) == ("accepted", {"deviceConfiguration": {}, "thingName": "flow"})
    certificate = world.sandbox.registry.certificate(created["certificateId"])
    assert certificate is not None
    assert (certificate.status, certificate.things) == (Status.ACTIVE, ("flow",))
    assert certificate.policies == ("pubsub",)


@pytest.mark.parametrize("make_key", [lambda: ec.generate_private_key(ec.SECP256R1()), None])
def test_a_csr_of_the_device(world: World, make_key: Callable[[], ec.EllipticCurvePrivateKey] | None) -> None:
    key = rsa.generate_private_key(65537, 2048) if make_key is None else make_key()
    csr = CertificateSigningRequestBuilder().subject_name(Name([])).sign(key, hashes.SHA256())
    pem = csr.public_bytes(serialization.Encoding.PEM).decode()
    client = world.claim()
    outcome, created = client.request(CREATE_CSR, {"certificateSigningRequest": pem})
    assert outcome == "accepted"
    assert "privateKey" not in created
    assert client.register(created, ThingName="csr")[0] == "accepted"
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    device = world.of_created(created, private.decode())
    assert device.connect("csr").reason_code == 0


@pytest.mark.parametrize("csr", [None, 7, "", "-----BEGIN CERTIFICATE REQUEST-----\nx\n"])
def test_a_bad_csr_is_rejected(world: World, csr: object) -> None:
    outcome, answer = world.claim().request(CREATE_CSR, {"certificateSigningRequest": csr})
    assert outcome == "rejected"
    assert (answer["statusCode"], answer["errorCode"]) == (400, "InvalidCertificateSigningRequest")


@pytest.mark.parametrize(
    ("parameters", "text"), [({}, "ThingName"), ({"ThingName": "x", "Colour": "red"}, "Colour")]
)
def test_parameters_that_do_not_fit_the_template(world: World, parameters: dict[str, str], text: str) -> None:
    client = world.claim()
    created = client.create()
    outcome, answer = client.register(created, **parameters)
    assert outcome == "rejected"
    assert sorted(answer) == ["errorCode", "errorMessage", "statusCode"]
    assert answer["statusCode"] == 400
    assert text in answer["errorMessage"]
    assert client.register(created, ThingName="later")[0] == "accepted"


def test_a_payload_that_is_no_json_object_is_rejected(world: World) -> None:
    client = world.claim()
    client.subscribe(f"{REGISTER}/rejected")
    for payload in (b"{", b"[]", b"\xff"):
        client.publish(REGISTER, payload)
        assert json.loads(client.message().payload)["statusCode"] == 400


def test_a_template_deleted_meanwhile_is_not_found(world: World) -> None:
    client = world.claim()
    world.sandbox.registry.delete_template(world.sandbox.settings.default_account.id, TEMPLATE)
    outcome, answer = client.request(REGISTER, {"certificateOwnershipToken": "x"})
    assert (outcome, answer["statusCode"]) == ("rejected", 404)


def test_names_that_are_no_parameter_and_device_configuration(world: World) -> None:
    client = world.claim(template=OTHER_TEMPLATE)
    created = client.create()
    outcome, answer = client.register(created, OTHER_TEMPLATE, SerialNumber="77")
    assert outcome == "accepted"
    assert answer["thingName"] == "Sandbox_77"
    assert answer["deviceConfiguration"] == {
        "FallbackUrl": "https://www.example.com/test-site",
        "LocationUrl": "https://example.aws",
    }


@pytest.mark.parametrize("use", list(TokenUse))
def test_a_token_from_another_claim_and_for_a_second_time(make_world: MakeWorld, use: TokenUse) -> None:
    world = make_world(token_use=use)
    created = world.claim("first").create()
    second = world.claim("second")
    assert second.register(created, ThingName="t")[0] == "accepted"
    outcome, answer = second.register(created, ThingName="t")
    if use is TokenUse.REUSABLE:
        assert outcome == "accepted"
    else:
        assert (outcome, answer["errorCode"]) == ("rejected", "InvalidCertificateOwnershipToken")


def test_a_token_and_its_certificate_lapse_after_an_hour(make_world: MakeWorld, now: Now) -> None:
    world = make_world(clock=now)
    client = world.claim()
    created = client.create()
    now.ahead = 3601.0
    outcome, answer = client.register(created, ThingName="late")
    assert (outcome, answer["errorCode"]) == ("rejected", "InvalidCertificateOwnershipToken")
    assert world.sandbox.registry.certificates == ()


def test_more_than_ten_requests_a_second_are_throttled(make_world: MakeWorld) -> None:
    world = make_world(operations_per_second=0.01)  # one in 100 s, on however slow a machine
    client = world.claim()
    client.subscribe(f"{CREATE}/accepted", f"{CREATE}/rejected")
    for _ in range(8):
        client.publish(CREATE, {})
    answers = [client.message() for _ in range(8)]
    rejected = [json.loads(item.payload) for item in answers if item.topic.endswith("/rejected")]
    assert rejected
    assert {item["statusCode"] for item in rejected} == {429}


def test_a_session_can_be_cut_when_its_claim_expires(make_world: MakeWorld, now: Now) -> None:
    world = make_world(cut_at_expiry=True, clock=now)
    client = world.claim("cut", life=2)
    assert client.expect(mqtt5.DisconnectPacket).reason_code == mqtt5.DisconnectReasonCode.NOT_AUTHORIZED
    assert world.record("cut").end == "the claim expired"
