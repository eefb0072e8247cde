"""AWS's own SDK completes the provisioning flow against the sandbox, on MQTT 5 and on 3.1.1."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import sdk_program
from claimd_sandbox.registry import Status
from claimd_sandbox.server import Sandbox, Settings
from claimd_sandbox.settings import OTHER_TEMPLATE, TEMPLATE

SECONDS = 5 * sdk_program.TIMEOUT


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    directory: Path = tmp_path_factory.mktemp("sandbox")
    with Sandbox.start(directory, Settings(connects_per_second=None, operations_per_second=None)) as running:
        yield running


def flow(what: Callable[..., dict[str, Any]], sandbox: Sandbox, **more: str) -> dict[str, Any]:
    """With a claim of its own."""
    claim = sandbox.create_claim()
    asked = {
        "port": sandbox.mqtt_port,
        "ca": str(sandbox.ca_file),
        "claim": [claim["certificatePem"], claim["keyPair"]["PrivateKey"]],
        **more,
    }
    ended = subprocess.run(
        [sys.executable, sdk_program.__file__, what.__name__],
        input=json.dumps(asked),
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    found: dict[str, Any] = json.loads(ended.stdout)
    return found


@pytest.mark.parametrize(
    ("what", "thing"),
    [(sdk_program.provisions_on_mqtt5, "sdk-5"), (sdk_program.provisions_on_mqtt311, "sdk-311")],
)
def test_the_v2_client_provisions(sandbox: Sandbox, what: Callable[..., dict[str, Any]], thing: str) -> None:
    found = flow(what, sandbox, template=TEMPLATE, thing=thing)
    assert (found["thing_name"], found["device_configuration"]) == (thing, {})
    certificate = sandbox.registry.certificate(found["certificate_id"])
    assert certificate is not None
    assert (certificate.status, certificate.things) == (Status.ACTIVE, (thing,))


def test_the_v2_client_reads_a_rejection(sandbox: Sandbox) -> None:
    found = flow(sdk_program.is_refused, sandbox, template=TEMPLATE, token="wrong")
    assert found == {"modeled": [400, "InvalidCertificateOwnershipToken"]}


def test_a_claim_may_not_use_another_template(sandbox: Sandbox) -> None:
    assert flow(sdk_program.is_refused, sandbox, template=OTHER_TEMPLATE, token="any") == {"modeled": None}


def test_the_sdk_gets_a_message_published_by_another_device(sandbox: Sandbox) -> None:
    found = flow(sdk_program.hears_another_device, sandbox, template=TEMPLATE, thing="sdk-pub")
    assert found == {"heard": ["hello"]}
