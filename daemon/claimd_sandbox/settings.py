"""What a sandbox is told before it starts: limits, accounts, templates, and how it refuses.

Invariant: the defaults are AWS's own behaviour and limits. A test that wants something quicker
or something else says so with a value here, never by reaching into the server.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType

Clock = Callable[[], float]
"""Seconds since the epoch. The sandbox judges every expiry by it, so that a test can move it."""

TEMPLATE = "TrustedUserProvisioningTemplate"
OTHER_TEMPLATE = "SerialNumberTemplate"
ACCOUNT = "111122223333"
FOREIGN_ACCOUNT = "444455556666"
FOREIGN_ACCESS_KEY = "AKIAFOREIGNACCOUNT00"
ACCESS_KEY = "AKIASANDBOXACCOUNT00"
REGION = "us-east-1"


class _Word(str, Enum):
    """A closed set that is written as its value, also in the command line's help."""

    def __str__(self) -> str:
        return str(self.value)


class KeyKind(_Word):
    """Keys of claims and of AWS-made device certificates; AWS makes RSA-2048 only."""

    RSA = "rsa-2048"
    EC = "ec-p256"


class Refusal(_Word):
    """How a certificate that may not connect is turned away.

    AWS either drops the connection or sends a TLS alert, and documents neither.
    """

    ALERT = (
        "alert"  # TLS alert where TLS itself can tell (unknown issuer, expired); else a hang-up at CONNECT
    )
    HANG_UP = "hang-up"  # TLS completes for every certificate of ours, then the connection is dropped
    CONNACK = "connack"  # TLS completes, and CONNACK says not authorized


class LegacyRefusal(_Word):
    """What MQTT 3.1.1, which has no reason codes, shows where MQTT 5 would say 'not authorized'."""

    HANG_UP = "hang-up"
    CODE_7 = "code-7"  # a CONNACK return code outside the standard, seen from AWS by some clients
    SILENCE = "silence"  # a denied PUBLISH is acknowledged and dropped; a denied CONNECT hangs up


class TokenUse(_Word):
    """Whether a certificate ownership token registers more than once; AWS does not say."""

    REUSABLE = "reusable"
    ONCE = "once"


class ConnectRule(_Word):
    """What the policy of a registered certificate says about iot:Connect."""

    ALLOW = "allow"
    DENY = "deny"
    THING_NAME = "thing-name"  # the client id must be the name of a thing of the certificate


@dataclass(frozen=True)
class TemplateSpec:
    """A provisioning template that exists from the start."""

    name: str
    body: str
    connect_rule: ConnectRule = ConnectRule.ALLOW


@dataclass(frozen=True)
class AccountSpec:
    """An AWS account. Its access key id selects it over HTTP, its server name (SNI) over MQTT."""

    id: str
    access_key: str
    server_names: tuple[str, ...]
    templates: tuple[TemplateSpec, ...]


# The template of the trusted-user workshop.
WORKSHOP_BODY = json.dumps(
    {
        "Parameters": {"ThingName": {"Type": "String"}},
        "Resources": {
            "thing": {"Type": "AWS::IoT::Thing", "Properties": {"ThingName": {"Ref": "ThingName"}}},
            "certificate": {
                "Type": "AWS::IoT::Certificate",
                "Properties": {"CertificateId": {"Ref": "AWS::IoT::Certificate::Id"}, "Status": "ACTIVE"},
            },
            "policy": {"Type": "AWS::IoT::Policy", "Properties": {"PolicyName": "pubsub"}},
        },
    }
)

# The shape of AWS's own samples: a declared AWS::IoT::Certificate::Id, a mapping, "Active", a thing
# name that is no parameter, and a device configuration.
SERIAL_BODY = json.dumps(
    {
        "Parameters": {
            "SerialNumber": {"Type": "String"},
            "DeviceLocation": {"Type": "String", "Default": "Seattle"},
            "AWS::IoT::Certificate::Id": {"Type": "String"},
        },
        "Mappings": {
            "LocationTable": {
                "Seattle": {"LocationUrl": "https://example.aws"},
                "Berlin": {"LocationUrl": "https://example.eu"},
            }
        },
        "Resources": {
            "thing": {
                "Type": "AWS::IoT::Thing",
                "Properties": {
                    "ThingName": {"Fn::Join": ["", ["Sandbox_", {"Ref": "SerialNumber"}]]},
                    "AttributePayload": {"version": "v1", "serialNumber": {"Ref": "SerialNumber"}},
                },
            },
            "certificate": {
                "Type": "AWS::IoT::Certificate",
                "Properties": {"CertificateId": {"Ref": "AWS::IoT::Certificate::Id"}, "Status": "Active"},
            },
            "policy": {"Type": "AWS::IoT::Policy", "Properties": {"PolicyName": "pubsub"}},
        },
        "DeviceConfiguration": {
            "FallbackUrl": "https://www.example.com/test-site",
            "LocationUrl": {
                "Fn::FindInMap": ["LocationTable", {"Ref": "DeviceLocation"}, "LocationUrl"],
            },
        },
    }
)


def default_accounts() -> tuple[AccountSpec, ...]:
    """One account with two templates, and a second one so that a claim can be foreign."""
    return (
        AccountSpec(
            id=ACCOUNT,
            access_key=ACCESS_KEY,
            server_names=("localhost",),
            templates=(TemplateSpec(TEMPLATE, WORKSHOP_BODY), TemplateSpec(OTHER_TEMPLATE, SERIAL_BODY)),
        ),
        AccountSpec(
            id=FOREIGN_ACCOUNT,
            access_key=FOREIGN_ACCESS_KEY,
            server_names=("foreign.localhost",),
            templates=(TemplateSpec(TEMPLATE, WORKSHOP_BODY),),
        ),
    )


@dataclass(frozen=True)
class Settings:
    """Limits are those of "AWS IoT Core endpoints and quotas" unless a comment says otherwise."""

    host: str = "127.0.0.1"
    mqtt_port: int = 0  # 0: any free port
    alpn_port: int | None = None  # a second MQTT port, which requires ALPN as AWS's port 443 does
    http_port: int = 0
    server_name: str = "localhost"
    accounts: tuple[AccountSpec, ...] = default_accounts()
    key_kind: KeyKind = KeyKind.RSA
    spare_keys: int = 4  # generated ahead, so that an answer does not wait for an RSA key
    persist: bool = True  # write registry.json at every change

    claim_life: float = 300.0  # seconds: "valid for five minutes"
    token_life: float = 3600.0  # seconds: "the token expires after one hour"
    token_use: TokenUse = TokenUse.REUSABLE
    refusal: Refusal = Refusal.ALERT
    legacy_refusal: LegacyRefusal = LegacyRefusal.HANG_UP
    cut_at_expiry: bool = False  # whether an open session ends at the claim's notAfter; AWS does not say
    activation_delay: float = 0.0  # seconds that a certificate is still refused after its registration

    connects_per_second: float | None = 1.0  # a client id
    operations_per_second: float | None = 10.0  # CreateKeys…, CreateCertificateFromCsr and RegisterThing each
    connect_timeout: float = 30.0  # seconds for TLS, and again for CONNECT
    min_keep_alive: int = 30
    max_keep_alive: int = 1200
    max_session_expiry: int = 3600  # seconds: the default life of a persistent session
    max_client_id: int = 128  # bytes of UTF-8
    max_payload: int = 128 * 1024
    max_topics: int = 8  # a SUBSCRIBE or UNSUBSCRIBE
    max_topic_bytes: int = 256  # without the reserved $aws/… prefix
    max_topic_slashes: int = 7
    max_subscriptions: int = 50  # a connection
    receive_maximum: int = 100
    topic_alias_maximum: int = 8
    clock: Clock = time.time

    def account(self, account_id: str) -> AccountSpec:
        return self._by_id[account_id]

    @property
    def _by_id(self) -> MappingProxyType[str, AccountSpec]:
        return MappingProxyType({account.id: account for account in self.accounts})

    @property
    def default_account(self) -> AccountSpec:
        return self.accounts[0]

    def account_by_access_key(self, access_key: str) -> AccountSpec:
        """Any access key id means the default account, except another account's own."""
        for account in self.accounts:
            if account.access_key == access_key:
                return account
        return self.default_account

    def account_by_server_name(self, server_name: str | None) -> AccountSpec:
        """Each AWS account has an endpoint of its own; here SNI says whose is meant."""
        for account in self.accounts:
            if server_name in account.server_names:
                return account
        return self.default_account
