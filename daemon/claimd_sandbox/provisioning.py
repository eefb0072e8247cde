"""The provisioning API: CreateKeysAndCertificate, CreateCertificateFromCsr, RegisterThing.

Payload in, `Answer` out; who may ask and who gets the answer is decided by the connection. Source: AWS
IoT Developer Guide, "Device provisioning MQTT API". Invariant: an accepted answer describes what the
registry already holds.
"""

from __future__ import annotations

import json
import threading
import time
from dataclasses import dataclass, field
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import NameOID

from claimd_sandbox.authority import Authority, CsrError
from claimd_sandbox.faults import THROTTLED, Fault, RateLimit
from claimd_sandbox.keys import private_pem
from claimd_sandbox.registry import Registry, TokenError
from claimd_sandbox.settings import Settings
from claimd_sandbox.template import ParameterError, TemplateError, evaluate, parse_template
from claimd_sandbox.topics import Operation, ProvisioningTopic


@dataclass(frozen=True)
class Answer:
    """What goes to /accepted (status 200) or /rejected; the payload may hold a private key."""

    status: int
    payload: bytes = field(repr=False)
    error: str | None = None
    certificate_id: str | None = None
    thing: str | None = None

    @property
    def outcome(self) -> str:
        return "accepted" if self.status == 200 else "rejected"


class _RejectedError(Exception):
    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code = status, code


def rejected(status: int, code: str, message: str) -> Answer:
    body = {"statusCode": status, "errorCode": code, "errorMessage": message}
    return Answer(status, json.dumps(body).encode(), error=code)


def rejected_by(fault: Fault) -> Answer:
    return rejected(fault.status, fault.error_code, fault.message)


class Provisioning:
    """Serves requests from any thread."""

    def __init__(self, settings: Settings, registry: Registry, authority: Authority) -> None:
        self._settings = settings
        self._registry = registry
        self._authority = authority
        self._lock = threading.Lock()
        self._limits: dict[tuple[str, Operation], RateLimit] = {}

    def serve(self, account: str, topic: ProvisioningTopic, payload: bytes) -> Answer:
        """Act on one request; blocks for as long as making a key takes."""
        if self._throttled(account, topic.operation):
            return rejected_by(THROTTLED)
        try:
            request = _request(payload)
            if topic.operation is Operation.CREATE_KEYS:
                return self._create_keys(account)
            if topic.operation is Operation.CREATE_FROM_CSR:
                return self._create_from_csr(account, request)
            assert topic.template is not None
            return self._register(account, topic.template, request)
        except _RejectedError as error:
            return rejected(error.status, error.code, str(error))

    def _throttled(self, account: str, operation: Operation) -> bool:
        rate = self._settings.operations_per_second
        if rate is None:
            return False
        with self._lock:
            limit = self._limits.setdefault((account, operation), RateLimit(rate))
            return not limit.take(time.monotonic())

    def _create_keys(self, account: str) -> Answer:
        issued, key = self._authority.issue_device(account, self._settings.clock())
        token = self._registry.add_certificate(account, issued)
        return _accepted(
            {
                "certificateId": issued.certificate_id,
                "certificatePem": issued.pem,
                "privateKey": private_pem(key),
                "certificateOwnershipToken": token,
            },
            issued.certificate_id,
        )

    def _create_from_csr(self, account: str, request: dict[str, Any]) -> Answer:
        csr = request.get("certificateSigningRequest")
        if not isinstance(csr, str):
            raise _RejectedError(
                400, "InvalidCertificateSigningRequest", "certificateSigningRequest is missing"
            )
        try:
            issued = self._authority.issue_for_csr(account, self._settings.clock(), csr)
        except CsrError as error:
            raise _RejectedError(400, "InvalidCertificateSigningRequest", str(error)) from error
        token = self._registry.add_certificate(account, issued)
        return _accepted(
            {
                "certificateId": issued.certificate_id,
                "certificatePem": issued.pem,
                "certificateOwnershipToken": token,
            },
            issued.certificate_id,
        )

    def _register(self, account: str, name: str, request: dict[str, Any]) -> Answer:
        template = self._registry.template(account, name)
        if template is None:
            raise _RejectedError(404, "ResourceNotFoundException", f"Provisioning template {name} not found")
        if not template.enabled:
            raise _RejectedError(
                400, "InvalidRequestException", f"Provisioning template {name} is not enabled"
            )
        token = request.get("certificateOwnershipToken")
        if not isinstance(token, str) or not token:
            raise _RejectedError(
                400, "InvalidCertificateOwnershipToken", "Certificate ownership token cannot be empty."
            )
        parameters = request.get("parameters", {})
        if not isinstance(parameters, dict) or not all(isinstance(v, str) for v in parameters.values()):
            raise _RejectedError(400, "InvalidParameters", "parameters is not a map of strings")
        try:
            certificate = self._registry.by_token(account, token)
            plan = evaluate(parse_template(template.body), parameters, _certificate_values(certificate.pem))
        except TokenError as error:
            raise _RejectedError(
                400,
                "InvalidCertificateOwnershipToken",
                "Certificate ownership token is invalid or has expired.",
            ) from error
        except ParameterError as error:
            raise _RejectedError(400, "InvalidParameters", str(error)) from error
        except TemplateError as error:
            raise _RejectedError(400, "InvalidTemplate", str(error)) from error
        registered = self._registry.register(certificate.certificate_id, name, plan)
        body: dict[str, Any] = {"deviceConfiguration": plan.device_configuration}
        if plan.thing_name is not None:
            body["thingName"] = plan.thing_name
        return _accepted(body, registered.certificate_id, plan.thing_name)


def _certificate_values(pem: str) -> dict[str, str]:
    """The AWS::IoT::Certificate::… values that a template may use."""
    certificate = x509.load_pem_x509_certificate(pem.encode("ascii"))
    der_id = certificate.fingerprint(hashes.SHA256()).hex()
    common_name = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value
    return {
        "AWS::IoT::Certificate::Id": der_id,
        "AWS::IoT::Certificate::CommonName": str(common_name),
        "AWS::IoT::Certificate::SerialNumber": str(certificate.serial_number),
    }


def _request(payload: bytes) -> dict[str, Any]:
    """The request's JSON object; an empty payload counts as {}."""
    try:
        request = json.loads(payload or b"{}")
    except (ValueError, RecursionError) as error:
        raise _RejectedError(400, "InvalidPayload", "The payload is not valid JSON") from error
    if not isinstance(request, dict):
        raise _RejectedError(400, "InvalidPayload", "The payload is not a JSON object")
    return request


def _accepted(body: dict[str, Any], certificate_id: str, thing: str | None = None) -> Answer:
    return Answer(200, json.dumps(body).encode(), certificate_id=certificate_id, thing=thing)
