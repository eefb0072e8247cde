"""Every configuration key: its type, default and bounds.

Invariant: a `Config` that exists is valid; whoever holds one checks nothing again. A field's
description completes the sentence "KEY takes ...", so it stands in errors word for word.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, field_validator

from . import endpoint as endpoints
from .model import KeyAlgorithm, KeySource
from .placeholder import Placeholder, PlaceholderError, names_for, parse

if TYPE_CHECKING:
    from pydantic import ValidationInfo

# RegisterThing in the AWS IoT API reference: parameters.
MAX_PARAMETER_NAME_CHARACTERS = 2048
MAX_PARAMETER_CHARACTERS = 4096

# AWS IoT Core message broker quotas: client id.
MAX_CLIENT_ID_BYTES = 128

# CreateProvisioningTemplate in the AWS IoT API reference: templateName.
_TEMPLATE_NAME = re.compile(r"[0-9A-Za-z_-]{1,36}")
_TEMPLATE_ARN = re.compile(r"arn:[^/]*:provisioningtemplate/([0-9A-Za-z_-]{1,36})")

# Both ways of AWS IoT Core, in the order in which they are tried: MQTT, then MQTT by ALPN.
AUTO_PORTS = (8883, 443)

# In one pass: connect, create the key, register; then connect as the new identity.
_CONNECTIONS = _ANSWERS = 2


def _pattern(text: str, key: str) -> tuple[str | Placeholder, ...]:
    try:
        return parse(text, names_for(key))
    except PlaceholderError as error:
        raise ValueError(str(error)) from error


def _parameter_name(name: str) -> str:
    if not 1 <= len(name) <= MAX_PARAMETER_NAME_CHARACTERS:
        raise ValueError(
            f"its name has {len(name)} characters; AWS takes 1 to {MAX_PARAMETER_NAME_CHARACTERS}"
        )
    return name


def _parameter_value(value: object) -> str:
    # The value is never quoted in a text: it may be a password for a pre-provisioning hook.
    if not isinstance(value, str):
        raise ValueError('takes text; put the value in quotes: "..."')
    if not 1 <= len(value) <= MAX_PARAMETER_CHARACTERS:
        raise ValueError(f"its value has {len(value)} characters; AWS takes 1 to {MAX_PARAMETER_CHARACTERS}")
    _pattern(value, "template.parameters")
    return value


def _client_id(text: str, key: str) -> str:
    literal = "".join(part for part in _pattern(text, key) if isinstance(part, str))
    if not text or not text.isprintable():
        raise ValueError("takes text that is not empty and has no control characters")
    if text.startswith("$"):
        raise ValueError("takes no client id that begins with $; AWS keeps those for itself")
    if len(literal.encode()) > MAX_CLIENT_ID_BYTES:
        raise ValueError(f"takes a client id of at most {MAX_CLIENT_ID_BYTES} bytes")
    return text


def _is_ipv6(text: str) -> bool:
    """Without brackets, and without a zone: the interface's name would be one more text from outside."""
    try:
        return not ipaddress.IPv6Address(text).scope_id
    except ValueError:
        return False


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Template(_Table):
    name: str = Field(description="the template's name in quotes")
    parameters: Mapping[
        Annotated[str, AfterValidator(_parameter_name)], Annotated[str, BeforeValidator(_parameter_value)]
    ] = Field(default={}, description="a table: [template.parameters]")

    @field_validator("name")
    @classmethod
    def _is_a_template_name(cls, name: str) -> str:
        arn = _TEMPLATE_ARN.fullmatch(name)
        if arn:
            raise ValueError(f'takes the name alone: write name = "{arn.group(1)}"')
        if not _TEMPLATE_NAME.fullmatch(name):
            raise ValueError("takes 1 to 36 letters, digits, _ and -")
        return name


class ClaimSettings(_Table):
    client_id: str = Field(default="claimd-{fingerprint}", description="text in quotes")

    @field_validator("client_id")
    @classmethod
    def _is_a_client_id(cls, text: str) -> str:
        return _client_id(text, "claim.client_id")


class IdentitySettings(_Table):
    client_id: str = Field(default="{thing_name}", description="text in quotes")

    @field_validator("client_id")
    @classmethod
    def _is_a_client_id(cls, text: str) -> str:
        return _client_id(text, "identity.client_id")


class Verify(_Table):
    # "activate": the device is registered and TLS was completed with its new key, so nothing is known
    # to be wrong with the identity itself; there is no earlier one that it could displace; and often
    # the policy allows the application's client id and not ours, which no retry of ours would cure:
    # "wait" would leave such a device without an identity until somebody travels to it. An application
    # that is refused meanwhile tries again, as it does without a network.
    on_refusal: Literal["activate", "wait"] = Field(default="activate", description='"activate" or "wait"')


class RetentionSettings(_Table):
    generations: int = Field(default=2, ge=0, le=100, description="a number, 0 to 100")
    days: float = Field(default=30, ge=0, le=3650, description="a number of days, 0 to 3650")


class Timeouts(_Table):
    connect_seconds: float = Field(default=10, ge=1, le=60, description="a number of seconds, 1 to 60")
    answer_seconds: float = Field(default=10, ge=1, le=60, description="a number of seconds, 1 to 60")
    pass_seconds: float = Field(
        default=120, ge=4, le=600, description="a number of seconds, 4 to 600", validate_default=True
    )
    grace_seconds: float = Field(default=3, ge=0, le=60, description="a number of seconds, 0 to 60")

    @field_validator("pass_seconds")
    @classmethod
    def _leaves_time_for_one_straight_line(cls, seconds: float, info: ValidationInfo) -> float:
        connect, answer = info.data.get("connect_seconds", 0), info.data.get("answer_seconds", 0)
        least = _CONNECTIONS * connect + _ANSWERS * answer
        if seconds < least:
            raise ValueError(f"takes at least {least:g} here: twice connect_seconds and answer_seconds")
        return seconds


class DropSettings(_Table):
    # Twice what a claim lives: a half that lies there so long can't become one any more.
    keep_seconds: float = Field(default=600, ge=10, le=86400, description="a number of seconds, 10 to 86400")
    unrecognised: Literal["remove", "keep-aside"] = Field(
        default="remove", description='"remove" or "keep-aside"'
    )


class ProxySettings(_Table):
    host: str = Field(default="", description="a host name or an address in quotes")
    port: int = Field(default=3128, ge=1, le=65535, description="a number, 1 to 65535")
    username: str = Field(default="", description="text in quotes")
    password_file: str = Field(default="", description="an absolute path in quotes")

    @field_validator("host")
    @classmethod
    def _is_a_host(cls, host: str) -> str:
        # Some letters beyond ASCII have one of it as their small letter: the Kelvin sign is a k.
        is_name = host.isascii() and endpoints.HOST_NAME.fullmatch(host.lower())
        if host and not is_name and not _is_ipv6(host):
            raise ValueError("takes a host name or an address alone, without http:// and without a port")
        return host

    @field_validator("username")
    @classmethod
    def _is_a_user_name(cls, name: str) -> str:
        # RFC 7617, section 2: a colon would begin the password.
        if not name.isprintable() or ":" in name:
            raise ValueError("takes a user name without a colon; the password stands in password_file")
        return name

    @field_validator("password_file")
    @classmethod
    def _is_an_absolute_path(cls, path: str) -> str:
        if path and (not path.startswith("/") or not path.isprintable()):
            raise ValueError("takes an absolute path in quotes")
        return path


class Config(_Table):
    endpoint: str = Field(description="a host name in quotes")
    port: int | str = Field(default="auto", description='"auto" or a number, 1 to 65535')
    ca_file: str = Field(default="", description="an absolute path in quotes")
    key_source: KeySource = Field(default="aws", description='"aws" or "device"')
    key_algorithm: KeyAlgorithm = Field(default="P-256", description='"P-256" or "RSA-2048"')
    reprovision: Literal["never", "replace"] = Field(default="never", description='"never" or "replace"')
    template: Template = Field(description="a table: [template]")
    claim: ClaimSettings = Field(default=ClaimSettings(), description="a table: [claim]")
    identity: IdentitySettings = Field(default=IdentitySettings(), description="a table: [identity]")
    verify: Verify = Field(default=Verify(), description="a table: [verify]")
    drop: DropSettings = Field(default=DropSettings(), description="a table: [drop]")
    retention: RetentionSettings = Field(default=RetentionSettings(), description="a table: [retention]")
    proxy: ProxySettings = Field(default=ProxySettings(), description="a table: [proxy]")
    timeouts: Timeouts = Field(default=Timeouts(), description="a table: [timeouts]")

    @field_validator("endpoint")
    @classmethod
    def _is_a_host_name(cls, text: str) -> str:
        return endpoints.parse(text)

    @field_validator("port", mode="plain")
    @classmethod
    def _is_a_port(cls, port: object) -> int | str:
        if port == "auto":
            return "auto"
        if not isinstance(port, int) or isinstance(port, bool) or not 1 <= port <= 65535:
            raise ValueError('takes "auto" or a number without quotes, 1 to 65535')
        return port

    @field_validator("ca_file")
    @classmethod
    def _is_an_absolute_path(cls, path: str) -> str:
        if path and (not path.startswith("/") or not path.isprintable()):
            raise ValueError("takes an absolute path in quotes")
        return path

    @property
    def ports(self) -> tuple[int, ...]:
        """In the order in which they are tried."""
        return (self.port,) if isinstance(self.port, int) else AUTO_PORTS


def warnings(config: Config) -> list[str]:
    """What is allowed and still likely a mistake."""
    found = endpoints.warnings(config.endpoint)
    for key, text, usual in (
        ("claim.client_id", config.claim.client_id, "claimd-{fingerprint}"),
        ("identity.client_id", config.identity.client_id, "{thing_name}"),
    ):
        if not any(isinstance(part, Placeholder) for part in _pattern(text, key)):
            found.append(
                f"{key}: with one client id for all devices only one of them stays connected;"
                f' the default is "{usual}"'
            )
    if config.proxy.password_file and not config.proxy.username:
        found.append("proxy.password_file: is not used without proxy.username")
    return found
