"""Registered, and AWS refuses the new identity: named, kept, tried again slowly, cured without a claim.

The sandbox plays the three causes: a template that leaves the certificate INACTIVE, a policy that denies
Connect, a policy that allows another client id than the configured one.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from claimd_sandbox.registry import Status
from claimd_sandbox.server import Sandbox, Settings
from claimd_sandbox.settings import WORKSHOP_BODY, ConnectRule, KeyKind, TemplateSpec, default_accounts
from device import Device, configuration

APPROVED_LATER = "InactiveUntilApproved"
DENIED = "PolicyDeniesConnect"
OWN_ID = "PolicyWantsTheThingsName"


def _settings() -> Settings:
    inactive = WORKSHOP_BODY.replace('"ACTIVE"', '"INACTIVE"')
    assert inactive != WORKSHOP_BODY
    own, *others = default_accounts()
    more = (
        TemplateSpec(APPROVED_LATER, inactive),
        TemplateSpec(DENIED, WORKSHOP_BODY, ConnectRule.DENY),
        TemplateSpec(OWN_ID, WORKSHOP_BODY, ConnectRule.THING_NAME),
    )
    own = replace(own, templates=own.templates + more)
    return Settings(key_kind=KeyKind.EC, connects_per_second=None, accounts=(own, *others))


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    with Sandbox.start(tmp_path_factory.mktemp("sandbox"), _settings()) as running:
        yield running


@pytest.fixture
def device(tmp_path: Path) -> Device:
    return Device(tmp_path / "root")


def _approve(sandbox: Sandbox, certificate_id: str) -> None:
    sandbox.registry.set_status(sandbox.settings.default_account.id, certificate_id, Status.ACTIVE)


def _allow(sandbox: Sandbox, certificate_id: str) -> None:
    account = sandbox.settings.default_account.id
    sandbox.registry.set_connect_rule(account, ConnectRule.ALLOW, certificate_id=certificate_id)


@dataclass(frozen=True)
class Cause:
    """`cure`: what somebody with the rights does in the account."""

    template: str
    cure: Callable[[Sandbox, str], None]
    identity: str = ""


CAUSES = {
    "inactive": Cause(APPROVED_LATER, _approve),
    "denied": Cause(DENIED, _allow),
    "client id": Cause(OWN_ID, _allow, '[identity]\nclient_id = "somebody-else"'),
}
every_cause = pytest.mark.parametrize("cause", CAUSES.values(), ids=CAUSES)


def _drop(device: Device, sandbox: Sandbox, cause: Cause, on_refusal: str, reprovision: str = "never") -> str:
    """Configure and drop a claim; the thing's name."""
    thing = f"thing-{device.root.parent.name}"
    device.configure(
        configuration(
            sandbox,
            thing=thing,
            template=cause.template,
            more=f'reprovision = "{reprovision}"',
            tables=f'[verify]\non_refusal = "{on_refusal}"\n{cause.identity}',
        )
    )
    device.put("claim.json", json.dumps(sandbox.create_claim(template=cause.template)))
    return thing


def _keys(device: Device) -> dict[str, bytes]:
    return {path: data for path, data in device.files().items() if path.endswith("private.key")}


def _certificates(sandbox: Sandbox, thing: str) -> list[str]:
    found = sandbox.registry.principals(sandbox.settings.default_account.id, thing)
    return [certificate.certificate_id for certificate in found]


@every_cause
def test_it_is_named_and_kept_and_cured_without_a_claim(
    device: Device, sandbox: Sandbox, cause: Cause
) -> None:
    thing = _drop(device, sandbox, cause, "wait")
    result = device.provision()
    assert (result["outcome"], result["exit"], result["next"]) == ("identity-refused", 69, "again")
    certificate = result["certificate_id"]
    assert f"--certificate-id {certificate} --new-status ACTIVE" in result["problem"]["remedy"]
    assert device.dropped() == [] and device.status()["claims"] == [], "it needs no claim any more"
    kept = _keys(device)
    assert len(kept) == 1

    for _ in range(4):
        assert device.run("provision").returncode == 69
        attempt = device.record()["attempt"]
        assert (attempt["state"], attempt["certificate_id"]) == ("registered", certificate)
    waiting = device.provision()
    assert (waiting["outcome"], waiting["next"]) == ("identity-refused", "again")
    assert result["after_seconds"] < 3 and waiting["after_seconds"] > 10, "slower and slower"
    assert device.status()["state"] == "refused"
    assert not device.identity.is_symlink(), "with wait nobody is given an identity that can't connect"
    assert _keys(device) == kept
    assert _certificates(sandbox, thing) == [certificate], "no second certificate was made"

    cause.cure(sandbox, certificate)
    assert device.run("provision").returncode == 0
    status = device.status()
    assert (status["state"], status["problem"]) == ("provisioned", None)
    assert os.readlink(device.identity) == certificate
    assert _keys(device) == kept


@every_cause
def test_it_serves_all_the_same_and_says_so(device: Device, sandbox: Sandbox, cause: Cause) -> None:
    """With "activate", and no earlier identity: applications try for themselves."""
    _drop(device, sandbox, cause, "activate")
    for _ in range(2):
        assert device.run("provision").returncode == 69
        assert not device.identity.is_symlink(), "a fresh certificate may be refused for some seconds"
    certificate = device.record()["attempt"]["certificate_id"]
    assert device.run("provision").returncode == 69, "in place is not proved"
    assert os.readlink(device.identity) == certificate
    status = device.status()
    assert (status["state"], status["problem"]["code"]) == ("refused", "identity-refused")
    assert status["attempt"]["state"] == "registered"
    said = " ".join(device.run("status").stdout.split())
    assert "refused, see below; the identity is in place, but has not connected yet" in said
    assert "AWS refuses its new identity" in said and "a new one is on its way" not in said
    assert device.run("wait", "--timeout", "5").returncode == 69, "no earlier identity serves"
    assert device.provision()["next"] == "again", "the service does not give up"

    cause.cure(sandbox, certificate)
    assert device.run("provision").returncode == 0
    status = device.status()
    assert (status["state"], status["problem"]) == ("provisioned", None)
    assert "refuses" not in device.run("status").stdout
    assert [line["result"] for line in device.record()["history"]] == ["active"]


@every_cause
def test_an_earlier_identity_goes_on_serving(device: Device, sandbox: Sandbox, cause: Cause) -> None:
    """Whatever on_refusal says: a replace that is not proved replaces nothing."""
    _drop(device, sandbox, Cause("TrustedUserProvisioningTemplate", cause.cure), "activate")
    assert device.provision()["exit"] == 0
    old = os.readlink(device.identity)
    before = _keys(device)

    _drop(device, sandbox, cause, "activate", "replace")
    for _ in range(3):
        assert device.run("provision").returncode == 3
        assert os.readlink(device.identity) == old
    status = device.status()
    assert (status["state"], status["problem"]["code"]) == ("provisioned", "identity-refused")
    assert "old-identity-serves" in [note["code"] for note in status["notes"]]
    assert before.items() <= _keys(device).items() and len(_keys(device)) == 2

    new = device.record()["attempt"]["certificate_id"]
    cause.cure(sandbox, new)
    assert device.run("provision").returncode == 0
    assert os.readlink(device.identity) == new
    status = device.status()
    assert status["problem"] is None
    assert [note["code"] for note in status["notes"]] == ["old-certificate-active"]


def test_a_second_claim_does_not_disturb_it(device: Device, sandbox: Sandbox) -> None:
    """It would make another certificate, which would be refused as well."""
    cause = CAUSES["inactive"]
    thing = _drop(device, sandbox, cause, "wait")
    assert device.provision()["outcome"] == "identity-refused"
    kept = _keys(device)
    _drop(device, sandbox, cause, "wait")
    assert device.run("provision").returncode == 69
    assert _keys(device) == kept and len(_certificates(sandbox, thing)) == 1
    _approve(sandbox, _certificates(sandbox, thing)[0])
    assert device.run("provision").returncode == 0
