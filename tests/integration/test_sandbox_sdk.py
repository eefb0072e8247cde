"""AWS's own SDK completes the provisioning flow against the sandbox, on MQTT 5 and on 3.1.1."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import awsiot
import pytest
from awscrt import mqtt, mqtt5, mqtt_request_response
from awsiot import iotidentity, mqtt5_client_builder, mqtt_connection_builder

from claimd_sandbox.registry import Status
from claimd_sandbox.server import Sandbox, Settings
from claimd_sandbox.settings import OTHER_TEMPLATE, TEMPLATE

TIMEOUT = 35.0  # seconds: the SDK reports a failed TLS handshake only after up to 28


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    directory: Path = tmp_path_factory.mktemp("sandbox")
    with Sandbox.start(directory, Settings(connects_per_second=None, operations_per_second=None)) as running:
        yield running


def mqtt5_client(sandbox: Sandbox, certificate: str, key: str, client_id: str) -> Any:
    """A connected MQTT 5 client."""
    outcome: Future[None] = Future()

    def succeeded(_: Any) -> None:
        if not outcome.done():
            outcome.set_result(None)

    def failed(data: Any) -> None:
        if not outcome.done():
            outcome.set_exception(data.exception)

    client = mqtt5_client_builder.mtls_from_bytes(
        certificate.encode(),
        key.encode(),
        endpoint="localhost",
        port=sandbox.mqtt_port,
        ca_filepath=str(sandbox.ca_file),
        client_id=client_id,
        on_lifecycle_connection_success=succeeded,
        on_lifecycle_connection_failure=failed,
    )
    client.start()
    try:
        outcome.result(TIMEOUT)
    except BaseException:
        client.stop()
        raise
    return client


def mqtt311_connection(sandbox: Sandbox, certificate: str, key: str, client_id: str) -> Any:
    connection = mqtt_connection_builder.mtls_from_bytes(
        certificate.encode(),
        key.encode(),
        endpoint="localhost",
        port=sandbox.mqtt_port,
        ca_filepath=str(sandbox.ca_file),
        client_id=client_id,
        clean_session=True,
    )
    connection.connect().result(TIMEOUT)
    return connection


def identity_client(transport: Any) -> Any:
    return iotidentity.IotIdentityClientV2(transport, mqtt_request_response.ClientOptions(4, 0, int(TIMEOUT)))


def provision(transport: Any, thing: str) -> tuple[Any, Any]:
    client = identity_client(transport)
    created = client.create_keys_and_certificate(iotidentity.CreateKeysAndCertificateRequest()).result(
        TIMEOUT
    )
    registered = client.register_thing(
        iotidentity.RegisterThingRequest(
            template_name=TEMPLATE,
            certificate_ownership_token=created.certificate_ownership_token,
            parameters={"ThingName": thing},
        )
    ).result(TIMEOUT)
    return created, registered


def test_the_v2_client_provisions_on_mqtt5(sandbox: Sandbox) -> None:
    claim = sandbox.create_claim()
    client = mqtt5_client(
        sandbox, claim["certificatePem"], claim["keyPair"]["PrivateKey"], "any-client-id-of-a-claim"
    )
    created, registered = provision(client, "sdk-5")
    client.stop(mqtt5.DisconnectPacket())

    assert registered.thing_name == "sdk-5"
    assert registered.device_configuration == {}
    certificate = sandbox.registry.certificate(created.certificate_id)
    assert certificate is not None
    assert certificate.status is Status.ACTIVE
    assert certificate.things == ("sdk-5",)
    permanent = mqtt5_client(sandbox, created.certificate_pem, created.private_key, "sdk-5")
    permanent.stop(mqtt5.DisconnectPacket())


def test_the_v2_client_provisions_on_mqtt311(sandbox: Sandbox) -> None:
    claim = sandbox.create_claim()
    connection = mqtt311_connection(
        sandbox, claim["certificatePem"], claim["keyPair"]["PrivateKey"], "sdk-311-claim"
    )
    created, registered = provision(connection, "sdk-311")
    connection.disconnect().result(TIMEOUT)

    assert registered.thing_name == "sdk-311"
    permanent = mqtt311_connection(sandbox, created.certificate_pem, created.private_key, "sdk-311")
    permanent.disconnect().result(TIMEOUT)


def test_the_v2_client_reads_a_rejection(sandbox: Sandbox) -> None:
    claim = sandbox.create_claim()
    client = mqtt5_client(sandbox, claim["certificatePem"], claim["keyPair"]["PrivateKey"], "sdk-rejected")
    identity = identity_client(client)
    request = iotidentity.RegisterThingRequest(
        template_name=TEMPLATE, certificate_ownership_token="wrong", parameters={"ThingName": "x"}
    )
    with pytest.raises(awsiot.V2ServiceException) as caught:
        identity.register_thing(request).result(TIMEOUT)
    client.stop(mqtt5.DisconnectPacket())
    assert caught.value.modeled_error.status_code == 400
    assert caught.value.modeled_error.error_code == "InvalidCertificateOwnershipToken"


def test_a_claim_may_not_use_another_template(sandbox: Sandbox) -> None:
    claim = sandbox.create_claim()
    client = mqtt5_client(sandbox, claim["certificatePem"], claim["keyPair"]["PrivateKey"], "sdk-other")
    identity = identity_client(client)
    request = iotidentity.RegisterThingRequest(
        template_name=OTHER_TEMPLATE, certificate_ownership_token="any", parameters={}
    )
    with pytest.raises(awsiot.V2ServiceException) as caught:
        identity.register_thing(request).result(TIMEOUT)
    client.stop(mqtt5.DisconnectPacket())
    assert caught.value.modeled_error is None


def test_the_sdk_gets_a_message_published_by_another_device(sandbox: Sandbox) -> None:
    claim = sandbox.create_claim()
    first = mqtt5_client(sandbox, claim["certificatePem"], claim["keyPair"]["PrivateKey"], "sdk-pub-claim")
    created, _ = provision(first, "sdk-pub")
    first.stop(mqtt5.DisconnectPacket())

    heard: list[bytes] = []
    arrived = threading.Event()

    def on_message(topic: str, payload: bytes, **_: Any) -> None:
        heard.append(payload)
        arrived.set()

    listener = mqtt311_connection(sandbox, created.certificate_pem, created.private_key, "sdk-listener")
    subscribed, _ = listener.subscribe("room/+", mqtt.QoS.AT_LEAST_ONCE, on_message)
    subscribed.result(TIMEOUT)
    sender = mqtt5_client(sandbox, created.certificate_pem, created.private_key, "sdk-sender")
    sent = sender.publish(mqtt5.PublishPacket(topic="room/1", payload=b"hello", qos=mqtt5.QoS.AT_LEAST_ONCE))
    sent.result(TIMEOUT)
    assert arrived.wait(TIMEOUT)
    sender.stop(mqtt5.DisconnectPacket())
    listener.disconnect().result(TIMEOUT)
    assert heard == [b"hello"]
