"""The HTTP calls of AWS IoT's control plane that provisioning needs, as the aws CLI makes them.

Paths, members and error names are those of the service model "iot 2015-05-28" that the CLI carries. The
signature is not verified, but there must be one: its access key id says whose account is meant.
"""

from __future__ import annotations

import asyncio
import re
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from claimd_sandbox.authority import Authority
from claimd_sandbox.faults import Faults, Step, Who
from claimd_sandbox.httpserver import Request, Response
from claimd_sandbox.keys import private_pem, public_pem
from claimd_sandbox.registry import Certificate, Registry, RegistryError, Status, Template
from claimd_sandbox.settings import REGION, AccountSpec, Settings
from claimd_sandbox.template import TemplateError

_CREDENTIAL = re.compile(r"AWS4-HMAC-SHA256 .*Credential=([^/,\s]+)/")
# The HTTP status of each error, from the service model.
_STATUS = {
    "ResourceNotFoundException": 404,
    "InvalidRequestException": 400,
    "ThrottlingException": 400,
    "ResourceAlreadyExistsException": 409,
    "CertificateStateException": 406,
    "DeleteConflictException": 409,
    "UnauthorizedException": 401,
    "ServiceUnavailableException": 503,
    "InternalFailureException": 500,
    "MissingAuthenticationTokenException": 403,
}
_FOR_STATUS = {
    400: "InvalidRequestException",
    401: "UnauthorizedException",
    403: "UnauthorizedException",
    404: "ResourceNotFoundException",
    429: "ThrottlingException",
    503: "ServiceUnavailableException",
}


def create_claim(
    settings: Settings,
    registry: Registry,
    authority: Authority,
    *,
    account: str,
    template: str,
    life: float | None = None,
) -> dict[str, Any]:
    """CreateProvisioningClaim: its answer, with the claim's private key. Raises RegistryError."""
    found = registry.template(account, template)
    if found is None:
        raise RegistryError("ResourceNotFoundException", f"Provisioning template {template} not found")
    if not found.enabled:
        raise RegistryError("InvalidRequestException", f"Provisioning template {template} is not enabled")
    issued, key = authority.issue_claim(
        account, settings.clock(), settings.claim_life if life is None else life
    )
    registry.add_claim(account, template, issued)
    return {
        "certificateId": issued.certificate_id,
        "certificatePem": issued.pem,
        "keyPair": {"PublicKey": public_pem(key), "PrivateKey": private_pem(key)},
        "expiration": float(issued.not_after),
    }


@dataclass(frozen=True)
class _Call:
    """One request with the account that it is for, and the path's variable segments."""

    request: Request
    account: AccountSpec
    names: tuple[str, ...]


class AwsApi:
    def __init__(self, settings: Settings, registry: Registry, authority: Authority, faults: Faults) -> None:
        self._settings, self._registry = settings, registry
        self._authority, self._faults = authority, faults
        # `*` is a variable segment.
        self._routes: dict[tuple[str, str], Callable[[_Call], Any]] = {
            ("GET", "endpoint"): self._describe_endpoint,
            ("POST", "provisioning-templates"): self._create_template,
            ("GET", "provisioning-templates"): self._list_templates,
            ("GET", "provisioning-templates/*"): self._describe_template,
            ("DELETE", "provisioning-templates/*"): self._delete_template,
            ("POST", "provisioning-templates/*/provisioning-claim"): self._create_claim,
            ("GET", "things"): self._list_things,
            ("GET", "things/*"): self._describe_thing,
            ("GET", "things/*/principals"): self._list_thing_principals,
            ("DELETE", "things/*/principals"): self._detach_thing_principal,
            ("GET", "principals/things"): self._list_principal_things,
            ("GET", "certificates"): self._list_certificates,
            ("GET", "certificates/*"): self._describe_certificate,
            ("PUT", "certificates/*"): self._update_certificate,
            ("DELETE", "certificates/*"): self._delete_certificate,
        }

    async def handle(self, request: Request) -> Response:
        credential = _CREDENTIAL.match(request.headers.get("authorization", ""))
        if credential is None:
            return _error("MissingAuthenticationTokenException", "Missing Authentication Token")
        route, names = self._route(request)
        if route is None:
            return _error("ResourceNotFoundException", f"the sandbox does not serve {request.method} here")
        if route == self._create_claim:
            refused = await self._claim_faults()
            if refused is not None:
                return refused
        call = _Call(request, self._settings.account_by_access_key(credential.group(1)), names)
        try:
            # A claim's key may have to be made: not in the event loop.
            body = await asyncio.get_running_loop().run_in_executor(None, route, call)
        except RegistryError as error:
            return _error(error.code, str(error))
        except (TemplateError, ValueError) as error:
            return _error("InvalidRequestException", str(error))
        return Response(200, body, {"x-amzn-RequestId": str(uuid.uuid4())})

    def _route(self, request: Request) -> tuple[Callable[[_Call], Any] | None, tuple[str, ...]]:
        for (method, pattern), route in self._routes.items():
            wanted = pattern.split("/")
            if method != request.method or len(wanted) != len(request.path):
                continue
            pairs = list(zip(wanted, request.path, strict=True))
            if all(level in ("*", given) for level, given in pairs):
                return route, tuple(given for level, given in pairs if level == "*")
        return None, ()

    async def _claim_faults(self) -> Response | None:
        effects = self._faults.at(Step.CLAIM, Who.ANY)
        await asyncio.sleep(effects.delay_before + effects.delay_after)
        if effects.reject is None:
            return None
        code = effects.reject.error or _FOR_STATUS.get(effects.reject.status, "InternalFailureException")
        return _error(code, effects.reject.message)

    # Provisioning

    def _describe_endpoint(self, call: _Call) -> Any:
        kind = call.request.query.get("endpointType", "iot:Data")
        if kind not in ("iot:Data", "iot:Data-ATS"):
            raise RegistryError(
                "InvalidRequestException", f"endpointType {kind} is not served by the sandbox"
            )
        return {"endpointAddress": endpoint_of(call.account, self._settings)}

    def _create_template(self, call: _Call) -> Any:
        body = call.request.json()
        for member in ("templateName", "templateBody", "provisioningRoleArn"):
            if not isinstance(body.get(member), str):
                raise RegistryError("InvalidRequestException", f"{member} is missing")
        template = self._registry.create_template(
            call.account.id,
            body["templateName"],
            body["templateBody"],
            enabled=bool(body.get("enabled", False)),
            description=str(body.get("description", "")),
            role_arn=body["provisioningRoleArn"],
        )
        return {
            "templateArn": _template_arn(template),
            "templateName": template.name,
            "defaultVersionId": 1,
        }

    def _list_templates(self, call: _Call) -> Any:
        return {"templates": [_summary(item) for item in self._registry.templates(call.account.id)]}

    def _describe_template(self, call: _Call) -> Any:
        template = self._registry.template(call.account.id, call.names[0])
        if template is None:
            raise RegistryError(
                "ResourceNotFoundException", f"Provisioning template {call.names[0]} not found"
            )
        return {
            **_summary(template),
            "defaultVersionId": 1,
            "templateBody": template.body,
            "provisioningRoleArn": template.role_arn,
        }

    def _delete_template(self, call: _Call) -> Any:
        self._registry.delete_template(call.account.id, call.names[0])
        return {}

    def _create_claim(self, call: _Call) -> Any:
        return create_claim(
            self._settings,
            self._registry,
            self._authority,
            account=call.account.id,
            template=call.names[0],
        )

    # Things and certificates

    def _list_things(self, call: _Call) -> Any:
        things = [item for item in self._registry.things if item.account == call.account.id]
        return {
            "things": [
                {
                    "thingName": item.name,
                    "thingArn": _arn(item.account, f"thing/{item.name}"),
                    "attributes": item.attributes,
                    "version": 1,
                }
                for item in things
            ]
        }

    def _describe_thing(self, call: _Call) -> Any:
        thing = self._registry.thing(call.account.id, call.names[0])
        if thing is None:
            raise RegistryError("ResourceNotFoundException", f"Thing {call.names[0]} cannot be found.")
        return {
            "thingName": thing.name,
            "defaultClientId": thing.name,
            "thingArn": _arn(thing.account, f"thing/{thing.name}"),
            "attributes": thing.attributes,
            "version": 1,
        }

    def _list_thing_principals(self, call: _Call) -> Any:
        self._describe_thing(call)
        found = self._registry.principals(call.account.id, call.names[0])
        return {"principals": [_certificate_arn(item) for item in found]}

    def _detach_thing_principal(self, call: _Call) -> Any:
        self._registry.detach(call.account.id, _principal(call.request), call.names[0])
        return {}

    def _list_principal_things(self, call: _Call) -> Any:
        return {"things": list(self._certificate(call, _principal(call.request)).things)}

    def _list_certificates(self, call: _Call) -> Any:
        found = [item for item in self._registry.certificates if item.account == call.account.id]
        return {
            "certificates": [
                {
                    "certificateArn": _certificate_arn(item),
                    "certificateId": item.certificate_id,
                    "status": item.status.value,
                    "creationDate": item.created,
                }
                for item in found
            ]
        }

    def _describe_certificate(self, call: _Call) -> Any:
        found = self._certificate(call, call.names[0])
        return {
            "certificateDescription": {
                "certificateArn": _certificate_arn(found),
                "certificateId": found.certificate_id,
                "status": found.status.value,
                "certificatePem": found.pem,
                "ownedBy": found.account,
                "creationDate": found.created,
            }
        }

    def _update_certificate(self, call: _Call) -> Any:
        status = call.request.query.get("newStatus", "")
        if status not in (Status.ACTIVE, Status.INACTIVE, Status.REVOKED):
            raise RegistryError("InvalidRequestException", f"newStatus {status!r} is not allowed")
        self._registry.set_status(call.account.id, call.names[0], Status(status))

    def _delete_certificate(self, call: _Call) -> Any:
        self._registry.delete_certificate(call.account.id, call.names[0])

    def _certificate(self, call: _Call, certificate_id: str) -> Certificate:
        found = self._registry.certificate(certificate_id)
        if found is None or found.account != call.account.id:
            raise RegistryError("ResourceNotFoundException", f"Certificate {certificate_id} does not exist")
        return found


def endpoint_of(account: AccountSpec, settings: Settings) -> str:
    """The host name of an account's endpoint; the port is in endpoint.json."""
    return settings.server_name if account == settings.default_account else account.server_names[0]


def _principal(request: Request) -> str:
    """The certificate id in the ARN of the header x-amzn-principal."""
    return request.headers.get("x-amzn-principal", "").rpartition("cert/")[2]


def _summary(template: Template) -> dict[str, Any]:
    return {
        "templateArn": _template_arn(template),
        "templateName": template.name,
        "description": template.description,
        "creationDate": template.created,
        "lastModifiedDate": template.created,
        "enabled": template.enabled,
        "type": "FLEET_PROVISIONING",
    }


def _arn(account: str, resource: str) -> str:
    return f"arn:aws:iot:{REGION}:{account}:{resource}"


def _template_arn(template: Template) -> str:
    return _arn(template.account, f"provisioningtemplate/{template.name}")


def _certificate_arn(certificate: Certificate) -> str:
    return _arn(certificate.account, f"cert/{certificate.certificate_id}")


def _error(code: str, message: str) -> Response:
    headers = {"x-amzn-ErrorType": code, "x-amzn-RequestId": str(uuid.uuid4())}
    return Response(_STATUS.get(code, 500), {"message": message}, headers)
