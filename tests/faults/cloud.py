"""AWS IoT as one device sees it, in this process: a `fleet.Transport`, and the judge of what was activated.

    journal -> Cloud.open -> a link: CONNECT, SUBSCRIBE, CreateKeys | CreateCertificateFromCsr, RegisterThing

Invariant: what a device was told, or acted on without being told, is in the journal first. So a device
that is killed in the middle of a call leaves a cloud that knows what it had done. An ownership token
registers once: the documentation promises no more, and it is the harder of the two readings.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import Enum
from typing import Any, Protocol

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from claimd.errors import Problem
from claimd.fleet import Credentials, LinkError, Topics, Trouble
from claimd.model import Secret
from claimd.pem import parse_certificate
from material import DEVICE_NOT_AFTER, NOW, Pair, authority, pair

THING = "thing-under-test"
TOKEN_LIFE = timedelta(hours=1)


class Journal(Protocol):
    """What the cloud remembers."""

    def append(self, event: str) -> None: ...

    def events(self) -> Sequence[str]: ...


class FileJournal:
    """One event a line, appended with one write: it survives the writer's death by a signal."""

    def __init__(self, path: str) -> None:
        self._path = path

    def append(self, event: str) -> None:
        fd = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.write(fd, event.encode("ascii") + b"\n")
        finally:
            os.close(fd)

    def events(self) -> Sequence[str]:
        try:
            with open(self._path, encoding="ascii") as file:
                return file.read().splitlines()
        except FileNotFoundError:
            return ()


class MemoryJournal:
    def __init__(self, events: Iterable[str] = ()) -> None:
        self._events = list(events)

    def append(self, event: str) -> None:
        self._events.append(event)

    def events(self) -> Sequence[str]:
        return self._events


class What(str, Enum):
    """What the cloud can be asked to do to one request instead of answering it."""

    LOSE_REQUEST = "lose-request"  # it never came
    LOSE_ANSWER = "lose-answer"  # it was acted on, the connection ends before the answer
    UNAVAILABLE = "unavailable"  # /rejected with 500, not acted on
    THROTTLED = "throttled"  # /rejected with 429, not acted on
    REFUSED_PARAMETERS = "refused-parameters"  # /rejected with 400, not acted on
    REFUSED_AFTER = "refused-after"  # acted on, and answered with 500 all the same


@dataclass(frozen=True)
class Fault:
    """Strikes the `nth` request (from 0) of a step: "create" or "register"."""

    step: str
    nth: int
    what: What


@functools.cache
def device_pairs() -> tuple[Pair, ...]:
    """Keys that the cloud hands out, made once: a key costs more than a whole pass."""
    return tuple(pair(not_before=NOW, not_after=DEVICE_NOT_AFTER) for _ in range(8))


def certificate_id(number: int) -> str:
    return hashlib.sha256(b"certificate %d" % number).hexdigest()


@dataclass
class Known:
    """The cloud's state, read from its journal. `issued`: by id, the public key's id."""

    issued: dict[str, str] = field(default_factory=dict)
    activated: set[str] = field(default_factory=set)
    tokens: dict[str, str] = field(default_factory=dict)  # token: certificate id
    asked: dict[str, int] = field(default_factory=dict)  # step: how often
    issued_at: dict[str, datetime] = field(default_factory=dict)
    connected: int = 0


def known(events: Iterable[str]) -> Known:
    state = Known()
    for line in events:
        event = json.loads(line)
        kind = event["event"]
        if kind == "issued":
            state.issued[event["id"]] = event["key"]
            state.tokens[event["token"]] = event["id"]
            state.issued_at[event["id"]] = datetime.fromisoformat(event["at"])
        elif kind == "activated":
            state.activated.add(event["id"])
        elif kind == "asked":
            state.asked[event["step"]] = state.asked.get(event["step"], 0) + 1
        elif kind == "connected":
            state.connected += 1
    return state


def _nothing(boundary: str) -> None:
    """No fault at this boundary."""


class Cloud:
    """The transport of one pass. `boundary` is called before and after what reaches the network."""

    def __init__(
        self,
        journal: Journal,
        now: Callable[[], datetime],
        *,
        claims: Iterable[str] = (),
        faults: tuple[Fault, ...] = (),
        boundary: Callable[[str], None] = _nothing,
        token_registers_again: bool = False,
    ) -> None:
        """`claims`: PEM certificates of the claims that the account knows."""
        self.journal = journal
        self.now = now
        self.claims = {parse_certificate(pem).public_key_id: parse_certificate(pem) for pem in claims}
        self.faults = faults
        self.boundary = boundary
        self.token_registers_again = token_registers_again

    def open(
        self, host: str, port: int, client_id: str, credentials: Credentials, *, as_guest: bool = False
    ) -> CloudLink:
        self.boundary("dial")
        return CloudLink(self, credentials)

    def check(self, credentials: Credentials) -> None:
        """Every key of this cloud is a good one."""

    def diagnose(self, host: str, port: int, roots: bytes) -> Problem | None:
        return None

    def known(self) -> Known:
        return known(self.journal.events())

    def note(self, event: str, **values: str) -> None:
        self.journal.append(json.dumps({"event": event, **values}))

    def fault(self, step: str) -> What | None:
        """Counts the request; what happens to it."""
        nth = self.known().asked.get(step, 0)
        self.note("asked", step=step)
        return next((f.what for f in self.faults if f.step == step and f.nth == nth), None)


class CloudLink:
    def __init__(self, cloud: Cloud, credentials: Credentials) -> None:
        self._cloud = cloud
        self._certificate = parse_certificate(credentials.certificate)
        self._key = self._certificate.public_key_id

    def wait_connected(self, seconds: float) -> bool:
        self._cloud.boundary("before connect")
        if not self._is_welcome():
            raise LinkError(Trouble.REFUSED, "TLS alert")
        self._cloud.note("connected")
        self._cloud.boundary("after connect")
        return True

    def _is_welcome(self) -> bool:
        claim = self._cloud.claims.get(self._key)
        if claim is not None:
            return self._cloud.now() < claim.not_after
        state = self._cloud.known()
        return any(state.issued[i] == self._key for i in state.activated)

    def subscribe(self, topics: tuple[str, ...], seconds: float) -> None:
        self._cloud.boundary("before subscribe")
        self._cloud.boundary("after subscribe")

    def request(self, topics: Topics, payload: Secret, seconds: float) -> tuple[bool, bytes]:
        step = "register" if topics.request.endswith("/provision/json") else "create"
        self._cloud.boundary(f"before {step}")
        what = self._cloud.fault(step)
        if what is What.LOSE_REQUEST:
            raise LinkError(Trouble.LOST, "connection reset")
        if what is What.UNAVAILABLE:
            return _rejected(500, "INTERNAL_FAILURE")
        if what is What.THROTTLED:
            return _rejected(429, "THROTTLED")
        if what is What.REFUSED_PARAMETERS:
            return _rejected(400, "InvalidParameters")
        body = json.loads(payload.reveal())
        answer = self._register(body) if step == "register" else self._create(body)
        self._cloud.boundary(f"after {step}")
        if what is What.LOSE_ANSWER:
            raise LinkError(Trouble.LOST, "connection reset")
        if what is What.REFUSED_AFTER:
            return _rejected(500, "INTERNAL_FAILURE")
        return answer

    def close(self) -> None:
        self._cloud.boundary("hang up")

    def _create(self, body: dict[str, Any]) -> tuple[bool, bytes]:
        number = len(self._cloud.known().issued)
        name = certificate_id(number)
        token = hashlib.sha256(b"token %d" % number).hexdigest()
        answer = {"certificateId": name, "certificateOwnershipToken": token}
        if "certificateSigningRequest" in body:
            answer["certificatePem"] = _sign(body["certificateSigningRequest"])
        else:
            made = device_pairs()[number % len(device_pairs())]
            answer |= {"certificatePem": made.certificate, "privateKey": made.key}
        key = parse_certificate(answer["certificatePem"]).public_key_id
        self._cloud.note("issued", id=name, key=key, token=token, at=self._cloud.now().isoformat())
        return True, json.dumps(answer).encode("ascii")

    def _register(self, body: dict[str, Any]) -> tuple[bool, bytes]:
        state, now = self._cloud.known(), self._cloud.now()
        name = state.tokens.get(body["certificateOwnershipToken"])
        lapsed = name is None or now - state.issued_at[name] >= TOKEN_LIFE
        used_up = name in state.activated and not self._cloud.token_registers_again
        if name is None or lapsed or used_up:
            return _rejected(400, "InvalidCertificateOwnershipToken")
        self._cloud.note("activated", id=name)
        answer = {"thingName": THING, "deviceConfiguration": {"site": "north"}}
        return True, json.dumps(answer).encode("ascii")


def _rejected(status: int, code: str) -> tuple[bool, bytes]:
    body = {"statusCode": status, "errorCode": code, "errorMessage": "by the model"}
    return False, json.dumps(body).encode("ascii")


def _sign(request: str) -> str:
    """The answer to CreateCertificateFromCsr."""
    public = x509.load_pem_x509_csr(request.encode("ascii")).public_key()
    info = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return _signed(info)


@functools.cache
def _signed(public_key_info: bytes) -> str:
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.serialization import load_der_public_key

    public: Any = load_der_public_key(public_key_info)
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(authority().certificate.subject)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW)
        .not_valid_after(DEVICE_NOT_AFTER)
    )
    return builder.sign(authority().key, hashes.SHA256()).public_bytes(Encoding.PEM).decode("ascii")
