"""What the accounts hold: templates, claims, certificates, things.

On disk, one file, replaced as a whole: DIR/registry.json. It holds certificates and names, never a
private key, and of an ownership token only its hash. Invariant: what a client was told is in the file
before the client is told. Every method may be called from any thread; what they return is frozen.

Time: a certificate that nobody registered in time is dropped when anybody looks, so nothing depends on a
timer. An expired claim stays: who refuses it must be able to say why.
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from enum import Enum
from pathlib import Path
from typing import Any

from claimd_sandbox.authority import Issued
from claimd_sandbox.settings import ConnectRule, Settings, TokenUse
from claimd_sandbox.template import Plan, parse_template

SCHEMA = 1
TEMPLATE_NAME = re.compile(r"[0-9A-Za-z_-]{1,36}")


class RegistryError(Exception):
    """The registry refuses; `code` is AWS's exception name."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class TokenError(Exception):
    """The ownership token is unknown, lapsed or used up."""


class Status(str, Enum):
    ACTIVE = "ACTIVE"
    INACTIVE = "INACTIVE"
    PENDING_ACTIVATION = "PENDING_ACTIVATION"
    REVOKED = "REVOKED"


@dataclass(frozen=True)
class Template:
    name: str
    account: str
    body: str
    enabled: bool
    description: str
    role_arn: str
    created: float
    connect_rule: ConnectRule


@dataclass(frozen=True)
class Claim:
    """A provisioning claim's certificate. It is in no certificate list of AWS's."""

    certificate_id: str
    account: str
    template: str
    not_after: int
    created: float


@dataclass(frozen=True)
class Certificate:
    certificate_id: str
    account: str
    pem: str
    status: Status
    created: float
    token_hash: str
    token_expires: float
    token_used: bool
    things: tuple[str, ...]
    policies: tuple[str, ...]
    template: str | None  # that registered it
    registered: float | None
    connect_rule: ConnectRule | None  # None: as its template says


@dataclass(frozen=True)
class Thing:
    name: str
    account: str
    created: float
    thing_type: str | None
    attributes: dict[str, str]


def token_hash(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


class Registry:
    """Opens DIR/registry.json, or starts with the settings' templates."""

    def __init__(self, path: Path | None, settings: Settings) -> None:
        self._path = path if settings.persist else None
        self._settings = settings
        self._clock = settings.clock
        self._lock = threading.RLock()
        self._templates: dict[tuple[str, str], Template] = {}
        self._claims: dict[str, Claim] = {}
        self._certificates: dict[str, Certificate] = {}
        self._things: dict[tuple[str, str], Thing] = {}
        if self._path is not None and self._path.exists():
            self._load(json.loads(self._path.read_text(encoding="utf-8")))
        for account in settings.accounts:
            for spec in account.templates:
                if (account.id, spec.name) not in self._templates:
                    self.create_template(account.id, spec.name, spec.body, connect_rule=spec.connect_rule)

    # Reading

    def templates(self, account: str | None = None) -> tuple[Template, ...]:
        with self._lock:
            return tuple(t for t in self._templates.values() if account in (None, t.account))

    def template(self, account: str, name: str) -> Template | None:
        with self._lock:
            return self._templates.get((account, name))

    def claim(self, certificate_id: str) -> Claim | None:
        """A claim, expired or not."""
        with self._lock:
            return self._claims.get(certificate_id)

    @property
    def claims(self) -> tuple[Claim, ...]:
        with self._lock:
            return tuple(self._claims.values())

    def certificate(self, certificate_id: str) -> Certificate | None:
        with self._lock:
            self._drop_lapsed()
            return self._certificates.get(certificate_id)

    @property
    def certificates(self) -> tuple[Certificate, ...]:
        with self._lock:
            self._drop_lapsed()
            return tuple(self._certificates.values())

    @property
    def things(self) -> tuple[Thing, ...]:
        with self._lock:
            return tuple(self._things.values())

    def thing(self, account: str, name: str) -> Thing | None:
        with self._lock:
            return self._things.get((account, name))

    def principals(self, account: str, thing: str) -> tuple[Certificate, ...]:
        """The certificates attached to a thing."""
        return tuple(c for c in self.certificates if c.account == account and thing in c.things)

    def connect_rule(self, certificate: Certificate) -> ConnectRule:
        if certificate.connect_rule is not None:
            return certificate.connect_rule
        template = self.template(certificate.account, certificate.template or "")
        return ConnectRule.ALLOW if template is None else template.connect_rule

    # Changing

    def create_template(
        self,
        account: str,
        name: str,
        body: str,
        *,
        enabled: bool = True,
        description: str = "",
        role_arn: str = "",
        connect_rule: ConnectRule = ConnectRule.ALLOW,
    ) -> Template:
        """Raises RegistryError (exists, bad name) or TemplateError."""
        if not TEMPLATE_NAME.fullmatch(name):
            raise RegistryError(
                "InvalidRequestException", "templateName does not match ^[0-9A-Za-z_-]{1,36}$"
            )
        parse_template(body)
        template = Template(name, account, body, enabled, description, role_arn, self._clock(), connect_rule)
        with self._lock:
            if (account, name) in self._templates:
                raise RegistryError("ResourceAlreadyExistsException", f"Template {name} already exists")
            self._templates[account, name] = template
            self._save()
        return template

    def delete_template(self, account: str, name: str) -> None:
        with self._lock:
            if self._templates.pop((account, name), None) is None:
                raise RegistryError("ResourceNotFoundException", f"Template {name} not found")
            self._save()

    def add_claim(self, account: str, template: str, issued: Issued) -> Claim:
        with self._lock:
            claim = Claim(issued.certificate_id, account, template, issued.not_after, self._clock())
            self._claims[claim.certificate_id] = claim
            self._save()
        return claim

    def add_certificate(self, account: str, issued: Issued) -> str:
        """A certificate waits for its registration; gives its ownership token."""
        token = secrets.token_urlsafe(192)
        now = self._clock()
        with self._lock:
            self._certificates[issued.certificate_id] = Certificate(
                certificate_id=issued.certificate_id,
                account=account,
                pem=issued.pem,
                status=Status.PENDING_ACTIVATION,
                created=now,
                token_hash=token_hash(token),
                token_expires=now + self._settings.token_life,
                token_used=False,
                things=(),
                policies=(),
                template=None,
                registered=None,
                connect_rule=None,
            )
            self._save()
        return token

    def by_token(self, account: str, token: str) -> Certificate:
        """The certificate that a live token owns; raises TokenError."""
        wanted = token_hash(token)
        with self._lock:
            self._drop_lapsed()
            for certificate in self._certificates.values():
                if certificate.token_hash == wanted and certificate.account == account:
                    break
            else:
                raise TokenError
            lapsed = certificate.token_expires <= self._clock()
            used_up = certificate.token_used and self._settings.token_use is TokenUse.ONCE
            if lapsed or used_up:
                raise TokenError
            return certificate

    def register(self, certificate_id: str, template: str, plan: Plan) -> Certificate:
        """Carry out a plan: make or keep the thing, attach the certificate, give it its status."""
        now = self._clock()
        with self._lock:
            certificate = self._certificates[certificate_id]
            things = certificate.things
            if plan.thing_name is not None:
                self._keep_thing(certificate.account, plan, now)
                things = tuple(dict.fromkeys([*things, plan.thing_name]))
            registered = replace(
                certificate,
                status=Status(plan.certificate_status),
                token_used=True,
                things=things,
                policies=tuple(dict.fromkeys([*certificate.policies, *plan.policies])),
                template=template,
                registered=now if certificate.registered is None else certificate.registered,
            )
            self._certificates[certificate_id] = registered
            self._save()
        return registered

    def _keep_thing(self, account: str, plan: Plan, now: float) -> None:
        assert plan.thing_name is not None
        old = self._things.get((account, plan.thing_name))
        self._things[account, plan.thing_name] = Thing(
            name=plan.thing_name,
            account=account,
            created=now if old is None else old.created,
            thing_type=plan.thing_type or (old.thing_type if old else None),
            attributes={**(old.attributes if old else {}), **plan.attributes},
        )

    def update_certificate(
        self, account: str, certificate_id: str, change: Callable[[Certificate], Certificate]
    ) -> None:
        """Replace a certificate's record by `change` of it; raises RegistryError."""
        with self._lock:
            certificate = self.certificate(certificate_id)
            if certificate is None or certificate.account != account:
                raise RegistryError(
                    "ResourceNotFoundException", f"Certificate {certificate_id} does not exist"
                )
            self._certificates[certificate_id] = change(certificate)
            self._save()

    def set_status(self, account: str, certificate_id: str, status: Status) -> None:
        self.update_certificate(account, certificate_id, lambda c: replace(c, status=status))

    def set_connect_rule(
        self,
        account: str,
        rule: ConnectRule,
        *,
        template: str | None = None,
        certificate_id: str | None = None,
    ) -> None:
        """What the permanent policy says about Connect: one certificate's, or a template's."""
        if certificate_id is not None:
            self.update_certificate(account, certificate_id, lambda c: replace(c, connect_rule=rule))
        if template is not None:
            with self._lock:
                old = self.template(account, template)
                if old is None:
                    raise RegistryError("ResourceNotFoundException", f"Template {template} not found")
                self._templates[account, template] = replace(old, connect_rule=rule)
                self._save()

    def detach(self, account: str, certificate_id: str, thing: str) -> None:
        def without(certificate: Certificate) -> Certificate:
            return replace(certificate, things=tuple(name for name in certificate.things if name != thing))

        self.update_certificate(account, certificate_id, without)

    def delete_certificate(self, account: str, certificate_id: str) -> None:
        """As `aws iot delete-certificate`: only an INACTIVE certificate with no thing attached."""
        with self._lock:
            certificate = self.certificate(certificate_id)
            if certificate is None or certificate.account != account:
                raise RegistryError(
                    "ResourceNotFoundException", f"Certificate {certificate_id} does not exist"
                )
            if certificate.status is Status.ACTIVE:
                raise RegistryError("CertificateStateException", "The certificate is ACTIVE")
            if certificate.things:
                raise RegistryError("DeleteConflictException", "Things must be detached before deletion")
            del self._certificates[certificate_id]
            self._save()

    # Disk and time

    def _drop_lapsed(self) -> None:
        """AWS deletes a certificate that was never registered when its token expires."""
        now = self._clock()
        lapsed = [
            certificate.certificate_id
            for certificate in self._certificates.values()
            if certificate.status is Status.PENDING_ACTIVATION and certificate.token_expires <= now
        ]
        for certificate_id in lapsed:
            del self._certificates[certificate_id]
        if lapsed:
            self._save()

    def to_json(self) -> dict[str, Any]:
        with self._lock:
            self._drop_lapsed()
            return self._document()

    def _document(self) -> dict[str, Any]:
        return {
            "schema": SCHEMA,
            "templates": [asdict(item) for item in self._templates.values()],
            "claims": [asdict(item) for item in self._claims.values()],
            "certificates": [asdict(item) for item in self._certificates.values()],
            "things": [asdict(item) for item in self._things.values()],
        }

    def _save(self) -> None:
        if self._path is None:
            return
        temporary = self._path.with_name(f".registry.{secrets.token_hex(4)}")
        temporary.write_text(json.dumps(self._document(), indent=1) + "\n", encoding="utf-8")
        temporary.replace(self._path)

    def _load(self, document: dict[str, Any]) -> None:
        if document.get("schema") != SCHEMA:
            raise ValueError(
                f"cannot read {str(self._path)!r}: schema {document.get('schema')!r} is not {SCHEMA}"
            )
        for item in document["templates"]:
            template = Template(**{**item, "connect_rule": ConnectRule(item["connect_rule"])})
            self._templates[template.account, template.name] = template
        for item in document["claims"]:
            claim = Claim(**item)
            self._claims[claim.certificate_id] = claim
        for item in document["certificates"]:
            rule = item["connect_rule"]
            certificate = Certificate(
                **{
                    **item,
                    "status": Status(item["status"]),
                    "things": tuple(item["things"]),
                    "policies": tuple(item["policies"]),
                    "connect_rule": None if rule is None else ConnectRule(rule),
                }
            )
            self._certificates[certificate.certificate_id] = certificate
        for item in document["things"]:
            thing = Thing(**item)
            self._things[thing.account, thing.name] = thing
