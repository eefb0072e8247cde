"""Every failure of the catalogue, provoked: the real command against a real peer, and how long it takes.

Used by tests/integration/test_explained.py, which asserts the code, and by `make explain`, which prints
the table. Invariant: what a provocation reports was printed by the command itself.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import signal
import string
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)

import material
import peers
from claimd.errors import Code
from claimd.intake import MAX_CLAIMS_OF_AN_OWNER
from claimd.pem import parse_certificate
from claimd_sandbox.server import Sandbox
from claimd_sandbox.settings import FOREIGN_ACCOUNT, OTHER_TEMPLATE, TEMPLATE, Refusal
from device import Device, wait_for
from proxies import ConnectProxy
from sandbox_world import World

NOBODY = 65534
ENDPOINT = 'endpoint = "localhost"'


def fields(text: str) -> set[str]:
    """The names of the fields in a text of the catalogue."""
    return {name for _, name, _, _ in string.Formatter().parse(text) if name is not None}


class NeedsRootError(Exception):
    """This machine does not let the peer be made."""


@dataclass(frozen=True)
class Observed:
    """What the command said, and after how long."""

    said: Mapping[str, Any]  # a problem as JSON has it
    seconds: float

    @property
    def code(self) -> str:
        return str(self.said["code"])


class Stage:
    """A device and the sandbox, for one provocation."""

    def __init__(self, directory: Path, sandbox: Sandbox) -> None:
        self.directory = directory
        self.sandbox = sandbox
        self.device = Device(directory / "root")
        self.last_claim: dict[str, Any] = {}
        self.configure()

    def configure(self, **changes: Any) -> None:
        values = {"port": self.sandbox.mqtt_port, "ca": self.sandbox.ca_file, "template": TEMPLATE} | changes
        self.device.configure(
            f"""endpoint = "{values.get("endpoint", "localhost")}"
port = {values["port"]}
ca_file = "{values["ca"]}"
[template]
name = "{values["template"]}"
[template.parameters]
{values.get("parameters", 'ThingName = "provoked"')}
[timeouts]
grace_seconds = 0.1
answer_seconds = {values.get("answer_seconds", 10)}
{values.get("tables", "")}
"""
        )

    def claim(self, **how: Any) -> dict[str, Any]:
        """Made by the sandbox and dropped."""
        made: dict[str, Any] = self.sandbox.create_claim(**how)
        self.device.put("claim.json", json.dumps(made))
        self.last_claim = made
        return made

    def ask(self) -> Observed:
        """One pass, as the watcher starts it."""
        began = time.monotonic()
        result = self.device.provision()
        took = time.monotonic() - began
        return Observed(result["problem"] or {"code": result["outcome"]}, took)

    def ask_wrapped(self, *before: str) -> Observed:
        """One pass below another program."""
        command = [*before, *self.device.command("provision", "--json")]
        began = time.monotonic()
        ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        took = time.monotonic() - began
        assert ended.stdout, ended.stderr
        return Observed(json.loads(ended.stdout.splitlines()[-1])["problem"], took)

    def faulty(self, words: str) -> Observed:
        """A claim and one fault of the sandbox."""
        self.claim()
        number = self.sandbox.faults.set(words)
        seen = self.ask()
        assert self.sandbox.faults.used(number), "the fault did not strike"
        return seen

    def peer(self, peer: peers.Peer, **changes: Any) -> Observed:
        """A claim and another server in the endpoint's place."""
        with peer:
            self.configure(port=peer.port, **changes)
            now = datetime.now(timezone.utc)
            made = material.pair(not_before=now - timedelta(minutes=2), not_after=now + timedelta(minutes=5))
            self.device.put("claim.pem", made.certificate + made.key)
            seen = self.ask()
            assert peer.visits, "nobody came to the peer"
            return seen

    def status(self, **also: Any) -> Mapping[str, Any]:
        return self.device.status()


@dataclass(frozen=True)
class Provocation:
    """`after`: why the cause can't be known within two seconds, where it can't."""

    code: Code
    peer: str
    provoke: Callable[[Stage], Observed]
    after: str = ""


# --- what lies in the drop directory


def _key_alone(stage: Stage) -> Observed:
    stage.device.put("key.pem", material.pair().key)
    return stage.ask()


def _certificate_alone(stage: Stage) -> Observed:
    stage.device.put("cert.pem", material.pair().certificate)
    return stage.ask()


def _mismatch(stage: Stage) -> Observed:
    stage.device.put("cert.pem", material.pair().certificate)
    stage.device.put("key.pem", material.pair().key)
    return stage.ask()


def _half(stage: Stage) -> Observed:
    text = material.pair().certificate
    stage.device.put("cert.pem", text[: len(text) // 2])
    return stage.ask()


def _photo(stage: Stage) -> Observed:
    stage.device.put("photo.jpg", b"\xff\xd8\xff\xe0 a photo")
    return stage.ask()


def _encrypted(stage: Stage) -> Observed:
    form, hidden = PrivateFormat.PKCS8, BestAvailableEncryption(b"secret")
    stage.device.put("key.pem", material.new_key().private_bytes(Encoding.PEM, form, hidden))
    return stage.ask()


def _unsupported(stage: Stage) -> Observed:
    key = ed25519.Ed25519PrivateKey.generate()
    stage.device.put("key.pem", key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return stage.ask()


def _large(stage: Stage) -> Observed:
    stage.device.put("backup.tar", b"x" * 4_000_000)
    return stage.ask()


def _link(stage: Stage) -> Observed:
    (stage.device.drop / "claim.json").symlink_to("/etc/shadow")
    return stage.ask()


# Root's capabilities are what lets root read everything; without them it is a user like any other.
_WITHOUT_RIGHTS = ("setpriv", "--bounding-set=-all", "--inh-caps=-all")


def _ask_without_rights(stage: Stage) -> Observed:
    if os.geteuid() != 0 or shutil.which("setpriv") is None:
        raise NeedsRootError
    return stage.ask_wrapped(*_WITHOUT_RIGHTS)


def _unreadable(stage: Stage) -> Observed:
    stage.claim()
    path = stage.device.drop / "claim.json"
    path.chmod(0o600)
    if os.geteuid() == 0:
        os.chown(path, NOBODY, NOBODY)
    return _ask_without_rights(stage)


def _no_drop_directory(stage: Stage) -> Observed:
    stage.device.drop.rmdir()
    return stage.ask()


# --- what the claim is


def _expired(stage: Stage) -> Observed:
    stage.claim(life=-5)
    return stage.ask()


def _ran_out(stage: Stage) -> Observed:
    """Long enough to be taken in alive, and the port stays closed."""
    stage.configure(port=peers.closed_port())
    for life in (4, 8, 16, 32, 64):  # on a busy machine it takes longer to be taken in
        made = stage.claim(life=life)
        seen = stage.ask()
        if seen.code == Code.CONNECTION_REFUSED.value:
            break
    assert seen.code == Code.CONNECTION_REFUSED.value
    end = parse_certificate(made["certificatePem"]).not_after
    wait_for(lambda: datetime.now(timezone.utc) >= end, "the end of the claim")
    return stage.ask()


def _early(stage: Stage) -> Observed:
    start = datetime.now(timezone.utc) + timedelta(minutes=30)
    made = material.pair(not_before=start, not_after=start + timedelta(minutes=7))
    stage.device.put("claim.pem", made.certificate + made.key)
    return stage.ask()


def _permanent(stage: Stage) -> Observed:
    made = material.device_pair()
    stage.device.put("cert.pem", made.certificate + made.key)
    return stage.ask()


def _spare(stage: Stage) -> Observed:
    for life in (200, 400):
        stage.device.put(f"{life}.json", json.dumps(stage.sandbox.create_claim(life=life)))
    stage.sandbox.faults.set("reject step=create-keys status=500 times=1")
    seen = stage.ask()
    return Observed(stage.status()["notes"][0], seen.seconds)


def _provisioned(stage: Stage) -> None:
    stage.claim()
    assert stage.device.provision()["exit"] == 0


def _many(stage: Stage) -> Observed:
    now = datetime.now(timezone.utc)
    for number in range(MAX_CLAIMS_OF_AN_OWNER + 1):
        made = material.pair(not_before=now - timedelta(minutes=2), not_after=now + timedelta(minutes=5))
        stage.device.put(f"{number}.pem", made.certificate + made.key)
    stage.device.configure("")
    seen = stage.ask()
    problems = [each["problem"] for each in stage.status()["drop"]]
    return Observed(problems[0], seen.seconds)


def _again(stage: Stage) -> Observed:
    _provisioned(stage)
    stage.device.put("again.json", json.dumps(stage.last_claim))
    return stage.ask()


def _not_needed(stage: Stage) -> Observed:
    _provisioned(stage)
    stage.claim()
    return stage.ask()


# --- configuration


def _not_configured(stage: Stage) -> Observed:
    stage.device.configure('endpoint = ""\n')
    stage.claim()
    return stage.ask()


def _misspelt(stage: Stage) -> Observed:
    stage.device.configure('endpiont = "localhost"\n')
    stage.claim()
    return stage.ask()


def _folder_for_a_file(stage: Stage) -> Observed:
    path = Path(stage.device.layout.config_file)
    path.unlink()
    path.mkdir()
    stage.claim()
    return stage.ask()


def _link_to_nothing(stage: Stage) -> Observed:
    drop_ins = Path(stage.device.layout.config_directory, "conf.d")
    drop_ins.mkdir(exist_ok=True)
    (drop_ins / "50-site.toml").symlink_to("gone.toml")
    stage.claim()
    return stage.ask()


def _no_such_fact(stage: Stage) -> Observed:
    stage.configure(parameters='ThingName = "{file:/etc/no-such-serial}"')
    stage.claim()
    return stage.ask()


def _no_roots(stage: Stage) -> Observed:
    stage.configure(ca=stage.directory / "no-such-file.pem")
    stage.claim()
    return stage.ask()


# --- the way to the endpoint


def _no_such_name(stage: Stage) -> Observed:
    stage.configure(endpoint="claimd.invalid")
    stage.claim()
    return stage.ask()


def _closed(stage: Stage) -> Observed:
    stage.configure(port=peers.closed_port())
    stage.claim()
    return stage.ask()


def _deaf(stage: Stage) -> Observed:
    with peers.deaf() as port:
        stage.configure(port=port)
        stage.claim()
        return stage.ask()


def _untrusted(stage: Stage) -> Observed:
    other = peers.TlsFiles(stage.directory / "other", "an inspecting proxy")
    return stage.peer(peers.tls(other.context()))


def _other_name(stage: Stage) -> Observed:
    files = peers.TlsFiles(stage.directory / "tls")
    return stage.peer(peers.tls(files.context("another.example")), ca=files.ca_file)


def _server_expired(stage: Stage) -> Observed:
    files = peers.TlsFiles(stage.directory / "tls")
    return stage.peer(peers.tls(files.context(ends=timedelta(days=-1))), ca=files.ca_file)


# --- what the endpoint said


def _foreign(stage: Stage) -> Observed:
    stage.claim(account=FOREIGN_ACCOUNT)
    return stage.ask()


def _other_template(stage: Stage) -> Observed:
    stage.claim(template=OTHER_TEMPLATE)
    return stage.ask()


def _no_right_to_publish(stage: Stage) -> Observed:
    files = peers.TlsFiles(stage.directory / "tls")
    return stage.peer(peers.refusing_publish(files.context()), ca=files.ca_file)


def _silence(stage: Stage) -> Observed:
    stage.configure(answer_seconds=1)
    return stage.faulty("lose-answer step=create-keys times=1")


def _junk(stage: Stage) -> Observed:
    files = peers.TlsFiles(stage.directory / "tls")
    return stage.peer(peers.answering(files.context(), b"{}"), ca=files.ca_file)


def _wrong_parameter(stage: Stage) -> Observed:
    stage.configure(parameters='Thing = "a typing error"')
    stage.claim()
    return stage.ask()


@contextlib.contextmanager
def _waiting_for_keys(stage: Stage) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A pass that has asked for its keys and gets no answer yet; its process and client id."""
    stage.configure(answer_seconds=20)
    stage.sandbox.faults.set("delay step=create-keys ms=60000 times=1")
    made = stage.claim()
    client_id = "claimd-" + parse_certificate(made["certificatePem"]).fingerprint
    process = subprocess.Popen(
        stage.device.command("provision", "--json"),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        wait_for(lambda: _asked(stage, client_id), "the request for keys")
        yield process, client_id
    finally:
        process.kill()
        process.communicate()


def _asked(stage: Stage, client_id: str) -> bool:
    return any(
        record.client_id == client_id and "< PUBLISH" in record.packets
        for record in stage.sandbox.connections
    )


def _said(process: subprocess.Popen[str], began: float) -> Observed:
    output, _ = process.communicate(timeout=60)
    return Observed(json.loads(output.splitlines()[-1])["problem"], time.monotonic() - began)


def _taken_over(stage: Stage) -> Observed:
    world = World(stage.sandbox, stage.directory)
    try:
        with _waiting_for_keys(stage) as (process, client_id):
            began = time.monotonic()
            other = world.of_claim()
            assert other.connect(client_id).reason_code == 0
            return _said(process, began)
    finally:
        world.close()


# --- the new identity


def _refused_identity(stage: Stage) -> Observed:
    return stage.faulty("refuse step=connect who=permanent code=0x87 times=1")


def _unproven_identity(stage: Stage) -> Observed:
    return stage.faulty("refuse step=connect who=permanent code=0x97 times=1")


def _damaged_identity(stage: Stage) -> Observed:
    _provisioned(stage)
    key = stage.device.identity / "private.key"
    key.write_bytes(key.read_bytes()[:100])
    seen = stage.ask()
    return (
        seen
        if seen.code == Code.IDENTITY_DAMAGED.value
        else Observed(stage.status()["problem"], seen.seconds)
    )


# --- through a proxy


def _no_proxy(stage: Stage) -> Observed:
    stage.configure(tables=f'[proxy]\nhost = "127.0.0.1"\nport = {peers.closed_port()}')
    stage.claim()
    return stage.ask()


def _proxy_asks_for_more(stage: Stage) -> Observed:
    with ConnectProxy("devices", "a password") as proxy:
        stage.configure(tables=f'[proxy]\nhost = "127.0.0.1"\nport = {proxy.port}')
        stage.claim()
        return stage.ask()


# --- this machine


def _other_machine(stage: Stage) -> Observed:
    Path(stage.device.layout.under("/etc/machine-id")).write_text("1" * 32)
    _provisioned(stage)
    Path(stage.device.layout.under("/etc/machine-id")).write_text("2" * 32)
    return stage.ask()


def _on_small_disk(stage: Stage) -> Observed:
    return _below_mount(stage, "mount -t tmpfs -o size=8k,nr_inodes=40,mode=0755 tmpfs")


def _on_read_only_disk(stage: Stage) -> Observed:
    return _below_mount(stage, "mount -t tmpfs -o ro tmpfs")


def _below_mount(stage: Stage, mount: str) -> Observed:
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        raise NeedsRootError
    stage.claim()
    state = stage.device.layout.state_directory
    return stage.ask_wrapped("unshare", "-m", "sh", "-c", f'{mount} "$0" && exec "$@"', state)


def _file_for_a_folder(stage: Stage) -> Observed:
    Path(stage.device.layout.state_directory, "claims").write_text("in the way\n")
    stage.claim()
    return stage.ask()


def _others_directory(stage: Stage) -> Observed:
    stage.claim()
    if os.geteuid() == 0:
        os.chown(stage.device.layout.state_directory, NOBODY, NOBODY)
    return _ask_without_rights(stage)


def _no_state_directory(stage: Stage) -> Observed:
    Path(stage.device.layout.state_directory).rmdir()
    return stage.ask()


def _newer_record(stage: Stage) -> Observed:
    Path(stage.device.layout.state_directory, "attempt.json").write_text('{"schema": 99}\n')
    stage.claim()
    return stage.ask()


def _second_pass(stage: Stage) -> Observed:
    lock = os.open(stage.device.layout.state_directory, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return stage.ask()
    finally:
        os.close(lock)


def _interrupted(stage: Stage) -> Observed:
    with _waiting_for_keys(stage) as (process, _):
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        return _said(process, began)


def _killed_worker(stage: Stage) -> Observed:
    stage.configure(answer_seconds=20)
    stage.sandbox.faults.set("delay step=create-keys ms=60000 times=1")
    stage.claim()
    stage.device.start()
    try:
        worker = wait_for(lambda: (stage.status()["service"] or {}).get("worker"), "a pass")
        began = time.monotonic()
        os.kill(worker["pid"], signal.SIGKILL)
        last = wait_for(lambda: (stage.status()["service"] or {}).get("last_pass"), "the pass ended")
        return Observed(last["problem"], time.monotonic() - began)
    finally:
        stage.device.stop()


def _stage(words: str) -> Callable[[Stage], Observed]:
    return lambda stage: stage.faulty(words)


_ANSWER = "answer_seconds, which is 1 s here"
_DROP, _DEVICE = "drop directory", "this machine"

# fmt: off
PROVOCATIONS = (
    Provocation(Code.CLAIM_KEY_MISSING, _DROP, _certificate_alone),
    Provocation(Code.CLAIM_CERTIFICATE_MISSING, _DROP, _key_alone),
    Provocation(Code.CLAIM_KEY_MISMATCH, _DROP, _mismatch),
    Provocation(Code.CLAIM_STILL_ARRIVING, _DROP, _half),
    Provocation(Code.CLAIM_NOT_RECOGNISED, _DROP, _photo),
    Provocation(Code.CLAIM_KEY_ENCRYPTED, _DROP, _encrypted),
    Provocation(Code.CLAIM_KEY_UNSUPPORTED, _DROP, _unsupported),
    Provocation(Code.CLAIM_FILE_TOO_LARGE, _DROP, _large),
    Provocation(Code.DROP_ENTRY_REFUSED, _DROP, _link),
    Provocation(Code.DROP_ENTRY_UNREADABLE, "another user's file, 0600", _unreadable),
    Provocation(Code.DROP_DIRECTORY_MISSING, _DROP, _no_drop_directory),
    Provocation(Code.CLAIM_EXPIRED, "a claim of the sandbox", _expired),
    Provocation(Code.CLAIM_RAN_OUT, "a closed port", _ran_out),
    Provocation(Code.CLAIM_NOT_YET_VALID, "a claim from the future", _early),
    Provocation(Code.CLAIM_IS_PERMANENT, "a device certificate", _permanent),
    Provocation(Code.CLAIM_SUPERSEDED, "sandbox", _spare),
    Provocation(Code.CLAIM_TOO_MANY, _DROP, _many),
    Provocation(Code.CLAIM_ALREADY_TAKEN_IN, "the same claim again", _again),
    Provocation(Code.CLAIM_NOT_NEEDED, "sandbox", _not_needed),
    Provocation(Code.NOT_CONFIGURED, "claimd.toml", _not_configured),
    Provocation(Code.CONFIG_INVALID, "claimd.toml", _misspelt),
    Provocation(Code.CONFIG_UNREADABLE, "claimd.toml is a folder", _folder_for_a_file),
    Provocation(Code.CONFIG_MISSING, "a link in conf.d to nothing", _link_to_nothing),
    Provocation(Code.PARAMETER_UNRESOLVED, "claimd.toml", _no_such_fact),
    Provocation(Code.CA_UNUSABLE, "ca_file", _no_roots),
    Provocation(Code.DNS_FAILED, "the machine's resolver", _no_such_name),
    Provocation(Code.CONNECTION_REFUSED, "a closed port", _closed),
    Provocation(Code.ENDPOINT_UNREACHABLE, "a port that drops SYN", _deaf, "silence is waited for: 2 s"),
    Provocation(Code.PROXY_UNREACHABLE, "a closed port", _no_proxy),
    Provocation(Code.PROXY_REFUSED, "CONNECT proxy, 407", _proxy_asks_for_more),
    Provocation(Code.TLS_UNTRUSTED_CA, "TLS server, another root", _untrusted),
    Provocation(Code.TLS_WRONG_HOST, "TLS server, another name", _other_name),
    Provocation(Code.TLS_SERVER_CERTIFICATE_TIME, "TLS server, expired", _server_expired),
    Provocation(Code.TLS_NO_ANSWER, "captive portal", lambda stage: stage.peer(peers.web_page())),
    Provocation(Code.TLS_FAILED, "a reset at ClientHello", lambda stage: stage.peer(peers.resetting())),
    Provocation(Code.CLAIM_NOT_ACCEPTED, "sandbox, another account's claim", _foreign),
    Provocation(Code.CONNECT_REFUSED, "sandbox", _stage("refuse step=connect code=0x97 times=1")),
    Provocation(Code.CONNECTION_LOST, "sandbox hangs up", _stage("hang-up step=create-keys times=1")),
    Provocation(Code.CLIENT_ID_TAKEN, "sandbox, a second client", _taken_over),
    Provocation(Code.SUBSCRIBE_REFUSED, "sandbox, another template's claim", _other_template),
    Provocation(Code.PUBLISH_REFUSED, "MQTT server, PUBACK 0x87", _no_right_to_publish),
    Provocation(Code.NO_ANSWER, "sandbox is silent", _silence, _ANSWER),
    Provocation(Code.ANSWER_INVALID, "MQTT server, answers {}", _junk),
    Provocation(Code.THROTTLED, "sandbox, 429", _stage("reject step=create-keys status=429 times=1")),
    Provocation(Code.AWS_UNAVAILABLE, "sandbox, 503", _stage("reject step=create-keys status=503 times=1")),
    Provocation(Code.TEMPLATE_NOT_FOUND, "sandbox, 404", _stage("reject step=register status=404 times=1")),
    Provocation(Code.PARAMETERS_REFUSED, "sandbox, 400", _wrong_parameter),
    Provocation(Code.REGISTRATION_DENIED, "sandbox, 403", _stage("reject step=register status=403 times=1")),
    Provocation(Code.TOKEN_INVALID, "sandbox, 400",
                _stage("reject step=register status=400 error=InvalidCertificateOwnershipToken times=1")),
    Provocation(Code.REQUEST_REFUSED, "sandbox, 403", _stage("reject step=create-keys status=403 times=1")),
    Provocation(Code.IDENTITY_REFUSED, "sandbox, CONNACK 0x87", _refused_identity),
    Provocation(Code.IDENTITY_UNPROVEN, "sandbox, CONNACK 0x97", _unproven_identity),
    Provocation(Code.IDENTITY_DAMAGED, "a truncated key", _damaged_identity),
    Provocation(Code.DISK_FULL, "tmpfs of 8 KiB", _on_small_disk),
    Provocation(Code.DISK_READ_ONLY, "tmpfs, read-only", _on_read_only_disk),
    Provocation(Code.DISK_FAILED, "a file where a folder is", _file_for_a_folder),
    Provocation(Code.PERMISSION_DENIED, "another user's folder", _others_directory),
    Provocation(Code.STATE_DIRECTORY_MISSING, _DEVICE, _no_state_directory),
    Provocation(Code.STATE_OF_ANOTHER_DEVICE, "another machine-id", _other_machine),
    Provocation(Code.ATTEMPT_UNREADABLE, "a record of schema 99", _newer_record),
    Provocation(Code.PASS_RUNNING, "a held lock", _second_pass),
    Provocation(Code.INTERRUPTED, "SIGTERM, sandbox is silent", _interrupted),
    Provocation(Code.PASS_CRASHED, "SIGKILL to the worker", _killed_worker),
)
# fmt: on

# The others, and how each of them is provoked.
ELSEWHERE: Mapping[Code, str] = {
    Code.CLAIM_DAMAGED: "tests/test_recovery.py: a kept claim that the disk has changed",
    Code.DROP_ENTRY_EXPOSED: "tests/test_intake.py: files and folders of mode 0666 and 0777",
    Code.STATUS_UNREADABLE: "tests/integration/test_floods.py: a status of schema 99",
    Code.IDENTITY_EXPIRES: "tests/integration/test_telling.py: a clock of 2049",
    Code.IDENTITY_EXPIRED: "tests/integration/test_telling.py: a clock of 2050",
    Code.CLOCK_WRONG: "tests/test_ready.py: a clock of 1970",
    Code.DROP_NOT_ALLOWED: "tests/test_cli_drop.py: an account that may not write there",
    Code.FOLDER_NOT_SWEPT: "tests/test_intake.py: a folder that has waited for a minute",
    Code.OLD_CERTIFICATE_ACTIVE: "tests/integration/test_replace.py: a replaced identity",
    Code.OLD_IDENTITY_SERVES: "tests/integration/test_replace.py: a replacement that is under way",
    Code.SERVICE_STOPPED: "tests/integration/test_answers.py: a device whose service was never started",
    Code.PASS_TIMED_OUT: "tests/test_service.py: a worker that hangs, with shorter limits",
    Code.INTERNAL_ERROR: "no input is known that does it; tests/test_verdict.py reads one",
}

# Both ways in which AWS may turn a claim away.
REFUSALS = (Refusal.ALERT, Refusal.HANG_UP, Refusal.CONNACK)
