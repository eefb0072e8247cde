"""Who connects, and what they may do.

Two decisions, each in one function: `identify` (may this certificate connect at all?) and `authorize`
(may this identity do this?). The IoT policy documents of registered certificates belong into
`authorize`; today a `ConnectRule` stands in their place. Invariant: nothing else in the sandbox decides
about a right.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from claimd_sandbox.authority import certificate_id
from claimd_sandbox.faults import Who
from claimd_sandbox.registry import Registry, Status
from claimd_sandbox.settings import ConnectRule, Settings
from claimd_sandbox.topics import provisioning_topic


class Action(str, Enum):
    CONNECT = "iot:Connect"
    PUBLISH = "iot:Publish"
    SUBSCRIBE = "iot:Subscribe"
    RECEIVE = "iot:Receive"


@dataclass(frozen=True)
class Identity:
    """The principal behind a client certificate, as it was when the connection began."""

    certificate_id: str
    account: str
    who: Who  # CLAIM or PERMANENT
    template: str | None  # a claim's own template; the one that registered a permanent certificate
    things: tuple[str, ...] = ()
    rule: ConnectRule = ConnectRule.ALLOW
    not_after: int | None = None  # a claim's


@dataclass(frozen=True)
class Refused:
    """Why a certificate may not connect."""

    certificate_id: str
    why: str


def identify(der: bytes, account: str, registry: Registry, settings: Settings) -> Identity | Refused:
    """Judge a certificate that TLS has accepted, at the endpoint of `account`."""
    fingerprint = certificate_id(der)
    now = settings.clock()
    claim = registry.claim(fingerprint)
    if claim is not None:
        if claim.account != account:
            return Refused(
                fingerprint, f"the claim is of account {claim.account}, this is the endpoint of {account}"
            )
        if claim.not_after <= now:
            return Refused(fingerprint, f"the claim expired {now - claim.not_after:.0f} s ago")
        return Identity(fingerprint, account, Who.CLAIM, claim.template, not_after=claim.not_after)
    certificate = registry.certificate(fingerprint)
    if certificate is None or certificate.account != account:
        return Refused(
            fingerprint, f"account {account} has no such certificate (deleted, or another account's)"
        )
    if certificate.status is not Status.ACTIVE:
        return Refused(fingerprint, f"the certificate is {certificate.status.value}")
    if certificate.registered is not None and now < certificate.registered + settings.activation_delay:
        return Refused(fingerprint, "the certificate was activated a moment ago and is not known everywhere")
    return Identity(
        fingerprint,
        account,
        Who.PERMANENT,
        certificate.template,
        certificate.things,
        registry.connect_rule(certificate),
    )


def authorize(identity: Identity, action: Action, resource: str) -> bool:
    """Whether an identity may act on a client id (Connect), a topic, or a topic filter (Subscribe).

    A claim of a trusted user has the service's built-in rights: any client id, the Create* topics,
    and its own template's topics. A permanent identity has what its policy gives it.
    """
    if action is Action.CONNECT:
        if identity.who is Who.CLAIM or identity.rule is ConnectRule.ALLOW:
            return True
        return identity.rule is ConnectRule.THING_NAME and resource in identity.things
    topic = provisioning_topic(resource)
    if topic is not None:
        if identity.who is Who.CLAIM and topic.template not in (None, identity.template):
            return False
        return topic.answer is not (action is Action.PUBLISH)
    if identity.who is Who.CLAIM:
        return False
    return not resource.startswith("$") or resource.startswith("$aws/things/")
