"""AWS's own SDK for devices, as a program: sdk_program.py FLOW, with the flow's arguments as JSON on stdin.

Prints what came of it as one line of JSON, and ends there and then: the SDK's native threads have crashed
while its clients were taken down (aws-crt-python 0.36.1, a segmentation fault in a test run of hours), which
must end neither the tests nor a flow that was over.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from concurrent.futures import Future
from typing import Any

import awsiot
from awscrt import mqtt, mqtt5, mqtt_request_response
from awsiot import iotidentity, mqtt5_client_builder, mqtt_connection_builder

TIMEOUT = 35.0  # seconds: the SDK reports a failed TLS handshake only after up to 28
# Nothing is taken down before the end.
_kept: list[Any] = []


class Server:
    def __init__(self, port: int, ca: str) -> None:
        self._at = {"endpoint": "localhost", "port": port, "ca_filepath": ca}

    def mqtt5(self, certificate: str, key: str, client_id: str) -> Any:
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
            client_id=client_id,
            on_lifecycle_connection_success=succeeded,
            on_lifecycle_connection_failure=failed,
            **self._at,
        )
        _kept.append(client)
        client.start()
        outcome.result(TIMEOUT)
        return client

    def mqtt311(self, certificate: str, key: str, client_id: str) -> Any:
        connection = mqtt_connection_builder.mtls_from_bytes(
            certificate.encode(), key.encode(), client_id=client_id, clean_session=True, **self._at
        )
        _kept.append(connection)
        connection.connect().result(TIMEOUT)
        return connection


def _identity_client(transport: Any) -> Any:
    client = iotidentity.IotIdentityClientV2(
        transport, mqtt_request_response.ClientOptions(4, 0, int(TIMEOUT))
    )
    _kept.append(client)
    return client


def _provision(transport: Any, template: str, thing: str) -> tuple[Any, dict[str, Any]]:
    client = _identity_client(transport)
    request = iotidentity.CreateKeysAndCertificateRequest()
    created = client.create_keys_and_certificate(request).result(TIMEOUT)
    registered = client.register_thing(
        iotidentity.RegisterThingRequest(
            template_name=template,
            certificate_ownership_token=created.certificate_ownership_token,
            parameters={"ThingName": thing},
        )
    ).result(TIMEOUT)
    return created, {
        "certificate_id": created.certificate_id,
        "thing_name": registered.thing_name,
        "device_configuration": registered.device_configuration,
    }


def provisions_on_mqtt5(server: Server, claim: tuple[str, str], template: str, thing: str) -> dict[str, Any]:
    client = server.mqtt5(*claim, "any-client-id-of-a-claim")
    created, found = _provision(client, template, thing)
    client.stop(mqtt5.DisconnectPacket())
    server.mqtt5(created.certificate_pem, created.private_key, thing).stop(mqtt5.DisconnectPacket())
    return found


def provisions_on_mqtt311(
    server: Server, claim: tuple[str, str], template: str, thing: str
) -> dict[str, Any]:
    connection = server.mqtt311(*claim, f"{thing}-claim")
    created, found = _provision(connection, template, thing)
    connection.disconnect().result(TIMEOUT)
    permanent = server.mqtt311(created.certificate_pem, created.private_key, thing)
    permanent.disconnect().result(TIMEOUT)
    return found


def is_refused(server: Server, claim: tuple[str, str], template: str, token: str) -> dict[str, Any]:
    """`modeled`: the answer on /rejected; null where none came."""
    client = server.mqtt5(*claim, "sdk-refused")
    request = iotidentity.RegisterThingRequest(
        template_name=template, certificate_ownership_token=token, parameters={"ThingName": "x"}
    )
    try:
        _identity_client(client).register_thing(request).result(TIMEOUT)
    except awsiot.V2ServiceException as error:
        modeled = error.modeled_error
        return {"modeled": modeled and [modeled.status_code, modeled.error_code]}
    raise AssertionError("it was accepted")


def hears_another_device(server: Server, claim: tuple[str, str], template: str, thing: str) -> dict[str, Any]:
    created, _ = _provision(server.mqtt5(*claim, f"{thing}-claim"), template, thing)
    heard: list[str] = []
    arrived = threading.Event()

    def on_message(topic: str, payload: bytes, **_: Any) -> None:
        heard.append(payload.decode())
        arrived.set()

    mine = (created.certificate_pem, created.private_key)
    subscribed, _ = server.mqtt311(*mine, "sdk-listener").subscribe(
        "room/+", mqtt.QoS.AT_LEAST_ONCE, on_message
    )
    subscribed.result(TIMEOUT)
    packet = mqtt5.PublishPacket(topic="room/1", payload=b"hello", qos=mqtt5.QoS.AT_LEAST_ONCE)
    server.mqtt5(*mine, "sdk-sender").publish(packet).result(TIMEOUT)
    arrived.wait(TIMEOUT)
    return {"heard": heard}


FLOWS = {
    flow.__name__: flow
    for flow in (provisions_on_mqtt5, provisions_on_mqtt311, is_refused, hears_another_device)
}


if __name__ == "__main__":
    asked = json.load(sys.stdin)
    said = FLOWS[sys.argv[1]](Server(asked.pop("port"), asked.pop("ca")), **asked)
    print(json.dumps(said), flush=True)
    os._exit(0)
