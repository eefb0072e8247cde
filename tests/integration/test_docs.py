"""The documentation: every command in it is run, or checked against the program that takes it."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import awscli.botocore.session
import pytest
from awscli.botocore import xform_name

import peers
from claimd import cli
from claimd.errors import Code, general
from claimd.screen import status_lines
from claimd_sandbox import cli as sandbox_cli
from claimd_sandbox.server import Sandbox, Settings
from claimd_sandbox.settings import KeyKind
from device import wait_for
from material import NOW
from pages import DOCS, FAILURES, failures_page
from provocations import Stage
from states import STATES

ROLES = ("technician", "fleet-engineer", "support", "integrator")
# Answers of commands that are run on a device that has its identity.
ENDS = {
    "status": {0},
    "explain": {0},
    "config": {0},
    "doctor": {0, 1},
    "ready": {4},  # the device has its identity
    "wait": {0},
    "report": {0},
}
# Programs of the system, with the words that may follow.
SYSTEM = re.compile(
    r"systemd-tmpfiles --create claimd\.conf|systemctl ((re)?start claimd|status claimd-sweep\.path)"
    r"|chmod (-R u=rwX,go=rX|a\+rX) \S+"
    r"|date -u|date -u -s \S+|date -u -s '[^']*'|apt install --reinstall ca-certificates|getent hosts \S+"
    r"|timedatectl set-ntp true|df -[hi] \S+|dmesg|mount -o remount,rw \S+|usermod -aG claimd-drop \S+"
    r"|scp claim\.json DEVICE:/var/spool/claimd/drop/|ip route|systemd-machine-id-setup|journalctl .*"
)


def blocks(page: str, language: str) -> list[str]:
    text = (DOCS / f"{page}.md").read_text()
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def commands() -> list[tuple[str, str]]:
    """(where, command) of every page and of every remedy."""
    found = [
        (page, line)
        for page in ROLES
        for block in blocks(page, "sh")
        for line in block.splitlines()
        if line.strip()
    ]
    return found + [(code.value, command) for code in Code for command in general(code).commands]


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    settings = Settings(key_kind=KeyKind.EC, connects_per_second=None)
    with Sandbox.start(tmp_path_factory.mktemp("sandbox"), settings) as running:
        yield running


@pytest.fixture(scope="module")
def provisioned(tmp_path_factory: pytest.TempPathFactory, sandbox: Sandbox) -> Stage:
    stage = Stage(tmp_path_factory.mktemp("device"), sandbox)
    stage.claim()
    assert stage.device.provision()["exit"] == 0
    return stage


def test_the_catalogue_of_failures_is_current() -> None:
    assert FAILURES.read_text() == failures_page(), "run: make docs"


@pytest.mark.parametrize("where_and_what", commands(), ids=lambda one: f"{one[0]}: {one[1][:50]}")
def test_a_command_is_one_that_its_program_takes(where_and_what: tuple[str, str]) -> None:
    _, command = where_and_what
    words = shlex.split(command.split(" > ")[0].split(" | ")[0])
    if words[0] == "sudo":
        words = words[1:]
    if words[0] == "claimd":
        cli._parser().parse_args(words[1:])
    elif words[0] == "claimd-sandbox":
        sandbox_cli._parser().parse_args(words[1:])
    elif words[0] == "aws":
        check_aws(words[1:])
    else:
        assert SYSTEM.fullmatch(shlex.join(words)) or SYSTEM.fullmatch(" ".join(words)), command


def check_aws(words: list[str]) -> None:
    """The service has the operation, and the operation these parameters: AWS's own API model says so."""
    service, operation, *options = words
    model = awscli.botocore.session.get_session().get_service_model(service)
    names = {xform_name(name, "-"): name for name in model.operation_names}
    assert operation in names, operation
    shape = model.operation_model(names[operation]).input_shape
    members = {f"--{xform_name(name, '-')}" for name in (shape.members if shape else {})}
    given = {word for word in options if word.startswith("--")}
    assert given <= members | {"--region", "--output", "--endpoint-url"}, given - members


OURS = {c.removeprefix("sudo ") for w, c in commands() if w in ROLES}
RUN = sorted(c for c in OURS if c.startswith("claimd ") and "--follow" not in c)


@pytest.mark.parametrize("command", [c for c in RUN if c.split()[1] in ENDS and "0a1b2c" not in c])
def test_a_command_of_the_pages_runs_on_a_device(command: str, provisioned: Stage, tmp_path: Path) -> None:
    words = shlex.split(command)[1:]
    run = subprocess.run(
        provisioned.device.command(*words),
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=60,
        check=False,
    )
    assert run.returncode in ENDS[words[0]], run.stderr
    assert run.stdout and "Traceback" not in run.stderr


def test_every_page_is_linked_from_the_readme() -> None:
    readme = (DOCS.parent / "README.md").read_text()
    for page in (*ROLES, "failures"):
        assert f"docs/{page}.md" in readme


def test_the_technician_s_page_prints_on_one() -> None:
    lines = (DOCS / "technician.md").read_text().splitlines()
    assert len(lines) <= 66 and max(map(len, lines)) <= 120


def test_the_technician_s_page_says_what_to_do_about_what_a_technician_meets() -> None:
    """Each row begins with words that the status has, and every failure of theirs has a row."""
    rows = re.findall(r"^\| (.+?) \| .+ \|$", (DOCS / "technician.md").read_text(), re.MULTILINE)[1:]
    phrases = [phrase for row in rows for phrase in row.split(", ")]
    said = {code: _without_fields(code) for code in Code}
    blocked = status_lines({**STATES["fresh"], "state": "blocked", "service": None}, NOW)
    shown = " ".join(" ".join(blocked).split())
    unknown = [
        each for each in phrases if each not in shown and not any(each in one for one in said.values())
    ]
    assert rows and not unknown
    for code in MET_BY_TECHNICIANS:
        assert any(phrase in said[code] for phrase in phrases), code


def _without_fields(code: Code) -> str:
    found = general(code)
    return re.sub(r" \([^)]*\)| CLAIM\b", "", f"{found.happened} {found.cause}")


MET_BY_TECHNICIANS = (
    Code.CLAIM_KEY_MISSING,
    Code.CLAIM_CERTIFICATE_MISSING,
    Code.CLAIM_KEY_MISMATCH,
    Code.CLAIM_NOT_RECOGNISED,
    Code.CLAIM_EXPIRED,
    Code.CLAIM_NOT_YET_VALID,
    Code.CLAIM_NOT_NEEDED,
    Code.CLAIM_NOT_ACCEPTED,
    Code.DNS_FAILED,
    Code.CONNECTION_REFUSED,
    Code.ENDPOINT_UNREACHABLE,
)


def test_the_python_of_the_integrator_s_page(provisioned: Stage) -> None:
    (code,) = blocks("integrator", "python")
    code += """
with socket.create_connection((host, port)) as tcp, context.wrap_socket(tcp, server_hostname=host) as secure:
    print(secure.version(), client_id)
"""
    there = {**os.environ, "CLAIMD_IDENTITY": str(provisioned.device.identity)}
    run = subprocess.run(
        [sys.executable, "-c", "import socket\n" + code],
        capture_output=True,
        text=True,
        env=there,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.split() == ["TLSv1.3", "provoked"]


def test_the_device_client_s_configuration_is_json() -> None:
    (text,) = blocks("integrator", "json")
    assert json.loads(text)["fleet-provisioning"] == {"enabled": False}


@pytest.mark.skipif(
    shutil.which("mosquitto", path=f"{os.environ['PATH']}:/usr/sbin") is None, reason="needs it"
)
def test_the_mosquitto_bridge_connects(provisioned: Stage, tmp_path: Path) -> None:
    (text,) = blocks("integrator", "conf")
    text = text.replace("ENDPOINT:8883", f"localhost:{provisioned.sandbox.mqtt_port}")
    text = text.replace("CLIENT-ID", "provoked").replace(
        "/var/lib/claimd/identity/current", str(provisioned.device.identity)
    )
    port = peers.free_port()
    (tmp_path / "bridge.conf").write_text(
        f"listener {port} 127.0.0.1\nallow_anonymous true\nuser root\n{text}"
    )
    program = shutil.which("mosquitto", path=f"{os.environ['PATH']}:/usr/sbin")
    assert program is not None
    before = len(provisioned.sandbox.connections)
    process = subprocess.Popen([program, "-c", str(tmp_path / "bridge.conf")], stderr=subprocess.DEVNULL)
    try:
        wait_for(
            lambda: any(
                record.client_id == "provoked" and "> CONNACK" in " ".join(record.packets)
                for record in provisioned.sandbox.connections[before:]
            ),
            "the bridge connected",
        )
        with socket.create_connection(("127.0.0.1", port), 5):
            pass
    finally:
        process.kill()
        process.wait()
