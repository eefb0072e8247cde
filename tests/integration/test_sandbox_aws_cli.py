"""The real `aws` command speaks to the sandbox, and claimd reads what it prints."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest

from claimd.model import Claim
from claimd.pem import pair_up, recognise
from claimd_sandbox.server import Sandbox, Settings
from claimd_sandbox.settings import (
    ACCESS_KEY,
    FOREIGN_ACCESS_KEY,
    OTHER_TEMPLATE,
    REGION,
    TEMPLATE,
    WORKSHOP_BODY,
    KeyKind,
)
from device import DEADLINE_SECONDS, Device

AWS = Path(sys.executable).parent / "aws"
ROLE = "arn:aws:iam::111122223333:role/provisioning"


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    settings = Settings(key_kind=KeyKind.EC, connects_per_second=None)
    with Sandbox.start(tmp_path_factory.mktemp("sandbox"), settings) as running:
        yield running


def aws(sandbox: Sandbox, *arguments: str, key: str | None = ACCESS_KEY) -> subprocess.CompletedProcess[str]:
    """`aws iot ...` as an installer types it, with the credentials of one of the sandbox's accounts."""
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(sandbox.directory),  # no configuration of whoever runs the tests
        "AWS_DEFAULT_REGION": REGION,
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_MAX_ATTEMPTS": "1",
        "AWS_PAGER": "",
    }
    if key is not None:
        environment |= {"AWS_ACCESS_KEY_ID": key, "AWS_SECRET_ACCESS_KEY": "not-verified"}
    return subprocess.run(
        [sys.executable, str(AWS), "--endpoint-url", sandbox.http_url, "iot", *arguments],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=DEADLINE_SECONDS,
    )


def answer(ended: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert ended.returncode == 0, ended.stderr
    document: dict[str, Any] = json.loads(ended.stdout)
    return document


def claim_of(output: str) -> Claim:
    """The one claim in a file that holds what the command printed."""
    pairing = pair_up({"claim": recognise("claim", output.encode())})
    ((claim, names),) = pairing.claims
    assert set(names) == {"claim"}
    return claim


def test_a_template_is_created_described_and_listed(sandbox: Sandbox) -> None:
    created = answer(
        aws(
            sandbox,
            *("create-provisioning-template", "--template-name", "Made-by_cli", "--enabled"),
            *("--template-body", WORKSHOP_BODY, "--provisioning-role-arn", ROLE, "--description", "d"),
        )
    )
    assert created["templateName"] == "Made-by_cli"
    assert created["templateArn"].endswith(":provisioningtemplate/Made-by_cli")
    described = answer(aws(sandbox, "describe-provisioning-template", "--template-name", "Made-by_cli"))
    assert described["enabled"] is True
    assert json.loads(described["templateBody"]) == json.loads(WORKSHOP_BODY)
    assert described["provisioningRoleArn"] == ROLE
    listed = answer(aws(sandbox, "list-provisioning-templates"))
    names = {item["templateName"] for item in listed["templates"]}
    assert names == {TEMPLATE, OTHER_TEMPLATE, "Made-by_cli"}


def test_the_endpoint(sandbox: Sandbox) -> None:
    found = answer(aws(sandbox, "describe-endpoint", "--endpoint-type", "iot:Data-ATS"))
    assert found == {"endpointAddress": "localhost"}
    foreign = answer(
        aws(sandbox, "describe-endpoint", "--endpoint-type", "iot:Data-ATS", key=FOREIGN_ACCESS_KEY)
    )
    assert foreign != found, "the access key says whose account is asked"


def create_claim(sandbox: Sandbox, *options: str) -> str:
    ended = aws(sandbox, "create-provisioning-claim", "--template-name", TEMPLATE, *options)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


@pytest.mark.parametrize("output", ["json", "text"])
def test_claimd_reads_a_claim_as_it_is_printed(sandbox: Sandbox, output: str) -> None:
    """Version 1 of the command knows no YAML; that shape is among the tests of recognition."""
    claim = claim_of(create_claim(sandbox, "--output", output))
    assert claim.certificate.not_after > datetime.now(timezone.utc)


def test_a_claim_in_json_has_the_documented_members(sandbox: Sandbox) -> None:
    printed = create_claim(sandbox)
    document = json.loads(printed)
    assert list(document) == ["certificateId", "certificatePem", "keyPair", "expiration"]
    assert sorted(document["keyPair"]) == ["PrivateKey", "PublicKey"]
    assert document["expiration"] == claim_of(printed).certificate.not_after.timestamp()


def test_two_queried_members_are_a_claim(sandbox: Sandbox) -> None:
    """The workshop's way: `--query`, and one file each."""
    query = "[certificatePem, keyPair.PrivateKey]"
    claim_of(create_claim(sandbox, "--query", query, "--output", "text"))


def test_what_is_printed_provisions_a_device(sandbox: Sandbox, tmp_path: Path) -> None:
    device = Device(tmp_path / "root")
    device.configure((sandbox.directory / "claimd.toml").read_text())
    device.put("claim", create_claim(sandbox))
    assert device.provision()["outcome"] == "active"


def test_a_template_that_is_not_there(sandbox: Sandbox) -> None:
    ended = aws(sandbox, "create-provisioning-claim", "--template-name", "Missing")
    assert ended.returncode != 0
    assert "(ResourceNotFoundException)" in ended.stderr
    assert "CreateProvisioningClaim" in ended.stderr


def test_a_fault_is_an_answer_of_its_own(sandbox: Sandbox) -> None:
    sandbox.faults.set("reject step=claim status=429 times=1")
    ended = aws(sandbox, "create-provisioning-claim", "--template-name", TEMPLATE)
    assert ended.returncode != 0
    assert "(ThrottlingException)" in ended.stderr


def test_a_template_of_another_account_is_not_seen(sandbox: Sandbox) -> None:
    ended = aws(
        sandbox, "describe-provisioning-template", "--template-name", OTHER_TEMPLATE, key=FOREIGN_ACCESS_KEY
    )
    assert "(ResourceNotFoundException)" in ended.stderr


def test_what_claimd_cannot_read_of_an_error(sandbox: Sandbox) -> None:
    """`aws ... > drop/claim 2>&1` without credentials: the file holds a complaint, and claimd says so."""
    ended = aws(sandbox, "create-provisioning-claim", "--template-name", TEMPLATE, key=None)
    assert ended.returncode != 0
    material = recognise("claim", ended.stderr.encode())
    assert not material.certificates and not material.keys
    assert material.problems
