"""The fleet provisioning MQTT API without its input and output: topics, requests, answers.

Source: AWS IoT developer guide, "Device provisioning MQTT API". Payloads are UTF-8 JSON.
Invariant: an answer is either valid in every field or an AnswerInvalidError; no exception text
holds a part of a payload, because payloads hold keys.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Protocol

from . import placeholder
from .errors import Code, Problem, problem
from .model import Certificate, KeySource, PrivateKey, Secret, Target
from .pem import parse_certificate, parse_private_key

if TYPE_CHECKING:
    from collections.abc import Mapping

# 128 KiB is the service's own limit of a message (AWS IoT Core quotas, "Publish payload size").
MAX_PAYLOAD_BYTES = 128 * 1024
_CERTIFICATE_ID_DIGITS = 64
_HEX = frozenset("0123456789abcdef")
# ThingName: [a-zA-Z0-9:_-]+, at most 128 characters (AWS IoT API reference, CreateThing).
_THING_NAME_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789:_-")
_MAX_THING_NAME = 128
# Far below what json writes on any Python; a template's deviceConfiguration has one level.
_MAX_NESTING = 64


class Exchange(str, Enum):
    """The two requests of the flow; the value is what a person reads after "while"."""

    CREATE_KEYS = "asking for a certificate"
    REGISTER = "registering the device"


@dataclass(frozen=True)
class Topics:
    request: str

    @property
    def accepted(self) -> str:
        return self.request + "/accepted"

    @property
    def rejected(self) -> str:
        return self.request + "/rejected"


CREATE_KEYS_TOPICS = Topics("$aws/certificates/create/json")
CREATE_FROM_CSR_TOPICS = Topics("$aws/certificates/create-from-csr/json")


def create_topics(source: KeySource) -> Topics:
    return CREATE_FROM_CSR_TOPICS if source == "device" else CREATE_KEYS_TOPICS


def register_topics(template: str) -> Topics:
    return Topics(f"$aws/provisioning-templates/{template}/provision/json")


def answer_topics(template: str, source: KeySource = "aws") -> tuple[str, str, str, str]:
    """All four answer topics, so that one SUBSCRIBE precedes the first PUBLISH."""
    create, register = create_topics(source), register_topics(template)
    return (
        create.accepted,
        create.rejected,
        register.accepted,
        register.rejected,
    )


CREATE_KEYS_PAYLOAD = Secret(b"{}")


def create_from_csr_payload(request: str) -> Secret:
    """`request`: PKCS#10 in PEM."""
    return Secret(json.dumps({"certificateSigningRequest": request}).encode("utf-8"))


def register_payload(token: Secret, parameters: Mapping[str, str]) -> Secret:
    """The RegisterThing request; secret because whoever holds the token can register the certificate."""
    body = {"certificateOwnershipToken": token.reveal().decode("ascii"), "parameters": dict(parameters)}
    return Secret(json.dumps(body).encode("utf-8"))


class AnswerInvalidError(Exception):
    """An answer that can't be used. The text names the field, never its value."""


@dataclass(frozen=True)
class IssuedKeys:
    """What CreateKeysAndCertificate answers, or CreateCertificateFromCsr with the key that is ours already:
    PENDING_ACTIVATION until the token is used."""

    certificate_id: str
    certificate: Certificate
    key: PrivateKey
    token: Secret


@dataclass(frozen=True)
class Registration:
    """What RegisterThing answers. A template without a thing has no thing name, and that is valid."""

    thing_name: str | None
    device_configuration: Mapping[str, object]


@dataclass(frozen=True)
class Rejection:
    """A /rejected answer. `error_code` is an open set: decide on `status` alone."""

    status: int
    error_code: str
    message: str

    @property
    def detail(self) -> str:
        return f"{self.status} {self.error_code}: {self.message}"


def parse_issued_keys(payload: bytes) -> IssuedKeys:
    answer = _object(payload)
    certificate_id, certificate, token = _issued(answer)
    try:
        key = parse_private_key(_text(answer, "privateKey").encode("utf-8"))
    except ValueError as error:
        raise AnswerInvalidError(f"privateKey is no usable key: {error}") from None
    if certificate.public_key_id != key.public_key_id:
        raise AnswerInvalidError("privateKey does not belong to certificatePem")
    return IssuedKeys(certificate_id, certificate, key, token)


def parse_issued_certificate(payload: bytes, key: PrivateKey) -> IssuedKeys:
    """CreateCertificateFromCsr's answer. A certificate provider may answer with the customer's own authority,
    a chain and any validity: all of it is kept as it is."""
    certificate_id, certificate, token = _issued(_object(payload))
    if certificate.public_key_id != key.public_key_id:
        raise AnswerInvalidError("certificatePem was not made for this device's key")
    return IssuedKeys(certificate_id, certificate, key, token)


def _issued(answer: Mapping[str, object]) -> tuple[str, Certificate, Secret]:
    """What both answers hold."""
    certificate_id = _text(answer, "certificateId").lower()
    if len(certificate_id) != _CERTIFICATE_ID_DIGITS or not _HEX.issuperset(certificate_id):
        raise AnswerInvalidError("certificateId is not 64 hex digits")
    token = _text(answer, "certificateOwnershipToken")
    if not token.isascii() or not token.isprintable():
        raise AnswerInvalidError("certificateOwnershipToken has characters that a token does not have")
    try:
        certificate = parse_certificate(_text(answer, "certificatePem"))
    except ValueError as error:
        raise AnswerInvalidError(f"certificatePem is no certificate: {error}") from None
    return certificate_id, certificate, Secret(token.encode("ascii"))


def parse_registration(payload: bytes) -> Registration:
    answer = _object(payload)
    name = answer.get("thingName")
    if name is not None and not isinstance(name, str):
        raise AnswerInvalidError("thingName is no text")
    if name is not None and not _is_thing_name(name):
        raise AnswerInvalidError("thingName has characters that a thing name does not have")
    configuration = answer.get("deviceConfiguration")
    if configuration is None:
        configuration = {}
    if not isinstance(configuration, dict):
        raise AnswerInvalidError("deviceConfiguration is no object")
    if not _can_be_written(configuration):
        raise AnswerInvalidError("deviceConfiguration is nested too deeply or holds NaN or Infinity")
    if name is None and "deviceConfiguration" not in answer:
        # `{}` answers nothing: AWS sends at least deviceConfiguration.
        raise AnswerInvalidError("neither thingName nor deviceConfiguration is there")
    return Registration(name, configuration)


def parse_rejection(payload: bytes) -> Rejection:
    answer = _object(payload)
    status = answer.get("statusCode")
    if isinstance(status, bool) or not isinstance(status, int):
        raise AnswerInvalidError("statusCode is no number")
    return Rejection(status, str(answer.get("errorCode", "")), str(answer.get("errorMessage", "")))


def rejection_problem(rejection: Rejection, exchange: Exchange, template: str) -> Problem:
    """Name a refusal by its status code."""
    fields = {"detail": rejection.detail, "step": exchange.value, "template": template}
    if rejection.status == 429:
        return problem(Code.THROTTLED, **fields)
    if rejection.status >= 500:
        return problem(Code.AWS_UNAVAILABLE, **fields)
    if exchange is Exchange.REGISTER:
        if rejection.status == 400 and "token" in rejection.error_code.lower():
            return problem(Code.TOKEN_INVALID, **fields)
        by_status = {
            400: Code.PARAMETERS_REFUSED,
            403: Code.REGISTRATION_DENIED,
            404: Code.TEMPLATE_NOT_FOUND,
        }
        return problem(by_status.get(rejection.status, Code.REQUEST_REFUSED), **fields)
    return problem(Code.REQUEST_REFUSED, **fields)


def _object(payload: bytes) -> dict[str, object]:
    if len(payload) > MAX_PAYLOAD_BYTES:
        raise AnswerInvalidError("it is larger than 128 KiB")
    try:
        answer = json.loads(payload.decode("utf-8"))
    except (ValueError, RecursionError):
        raise AnswerInvalidError("it is no JSON") from None
    if not isinstance(answer, dict):
        raise AnswerInvalidError("it is no JSON object")
    return answer


def _text(answer: Mapping[str, object], field: str) -> str:
    value = answer.get(field)
    if not isinstance(value, str) or not value:
        raise AnswerInvalidError(f"{field} is missing or no text")
    return value


def _can_be_written(configuration: Mapping[str, object]) -> bool:
    """identity.json repeats it: Python may read deeper nesting than it writes, and numbers beyond JSON."""
    values: list[tuple[object, int]] = [(configuration, 1)]
    while values:
        value, depth = values.pop()
        if depth > _MAX_NESTING or (isinstance(value, float) and not math.isfinite(value)):
            return False
        if isinstance(value, dict):
            values += [(each, depth + 1) for each in value.values()]
        elif isinstance(value, list):
            values += [(each, depth + 1) for each in value]
    return True


def _is_thing_name(name: str) -> bool:
    return 0 < len(name) <= _MAX_THING_NAME and _THING_NAME_CHARACTERS.issuperset(name)


def identity_client_id(target: Target, thing_name: str | None, certificate_id: str) -> str:
    """The client id of the permanent identity; the certificate id stands in for an unknown thing name."""
    parts = placeholder.parse(target.identity_client_id, ("thing_name",))
    name = thing_name or certificate_id
    return "".join(part if isinstance(part, str) else name for part in parts)


class Trouble(str, Enum):
    """How a connection can go wrong, as far as the connection itself can tell."""

    UNREACHABLE = "unreachable"  # no TCP or TLS connection
    REFUSED = "refused"  # the server took the connection and refused us: certificate or CONNECT
    LOST = "lost"  # an open connection ended
    TAKEN_OVER = "taken-over"  # ended because the client id connected again elsewhere
    SUBSCRIBE_REFUSED = "subscribe-refused"
    PUBLISH_REFUSED = "publish-refused"
    NO_ANSWER = "no-answer"
    UNUSABLE = "unusable"  # the TLS library can't work with the credentials: nothing was sent
    STOPPED = "stopped"  # we were told to stop


class LinkError(Exception):
    """What an adapter raises for everything between CONNECT and the answer. No secret in it."""

    def __init__(self, trouble: Trouble, detail: str, *, code: int | None = None) -> None:
        super().__init__(f"{trouble.value}: {detail}")
        self.trouble = trouble
        self.detail = detail
        self.code = code  # an MQTT 5 reason code, when the server gave one


@dataclass(frozen=True)
class Credentials:
    """What a TLS client needs: a certificate (chain), its key, and whom to trust. All PEM."""

    certificate: str
    key: Secret
    roots: bytes


class Link(Protocol):
    """One MQTT connection that is used once and never reconnects by itself."""

    def wait_connected(self, seconds: float) -> bool:
        """True when CONNACK said yes, False when `seconds` are over. Raises LinkError."""

    def subscribe(self, topics: tuple[str, ...], seconds: float) -> None:
        """One SUBSCRIBE for all. Raises LinkError, also when one of them is refused."""

    def request(self, topics: Topics, payload: Secret, seconds: float) -> tuple[bool, bytes]:
        """One PUBLISH (QoS 1, no RETAIN), then its answer: (accepted?, payload). Raises LinkError."""

    def close(self) -> None:
        """Send DISCONNECT and let go. Never raises."""


class Transport(Protocol):
    """Opens links. `diagnose` names what stands between here and the endpoint without any credentials.

    It takes seconds, and raises LinkError for one reason: Trouble.STOPPED, told to stop meanwhile.
    """

    def open(
        self, host: str, port: int, client_id: str, credentials: Credentials, *, as_guest: bool = False
    ) -> Link:
        """`as_guest`: a session of somebody else may live under this client id, with messages waiting in
        it. It is not ended, its expiry is not lowered, and nothing in it is acknowledged.

        Raises LinkError(UNUSABLE) at once, as `check` does."""

    def check(self, credentials: Credentials) -> None:
        """Try them in the TLS library; nothing is sent. Raises LinkError(UNUSABLE): a key can pass every
        check of its numbers and be one that the library refuses."""

    def diagnose(self, host: str, port: int, roots: bytes) -> Problem | None: ...
