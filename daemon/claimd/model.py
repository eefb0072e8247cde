"""The nouns of claimd: secrets, certificates, claims, and where things lie.

Invariant: every value here is valid once built, frozen, and free of input and output.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Literal, NoReturn

if TYPE_CHECKING:
    from datetime import datetime


class Secret:
    """Bytes that can't print themselves: no repr, str, format, pickle or iteration shows them."""

    __slots__ = ("_value",)

    def __init__(self, value: bytes) -> None:
        self._value = bytes(value)

    def reveal(self) -> bytes:
        """The bytes themselves. Every call is a place to look at in a review."""
        return self._value

    def __repr__(self) -> str:
        return "<secret>"

    def __eq__(self, other: object) -> bool:
        # Here and not above: hmac brings OpenSSL, 4 MB that the watcher, which compares none, is spared.
        from hmac import compare_digest

        return isinstance(other, Secret) and compare_digest(self._value, other._value)

    def __hash__(self) -> NoReturn:
        raise TypeError("a secret is no key of a dictionary")

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret can't be pickled or copied")


@dataclass(frozen=True)
class Certificate:
    """An X.509 certificate as claimd stores it.

    `pem`: canonical (64 columns, LF, final newline), leaf first, the chain kept whole.
    `fingerprint`: SHA-256 of the leaf's DER, 64 hex digits. `public_key_id`: SHA-256 of the leaf's
    SubjectPublicKeyInfo in DER, 64 hex digits; equal to that of the private key it belongs to.
    """

    pem: str
    fingerprint: str
    public_key_id: str
    not_before: datetime
    not_after: datetime
    subject: str


@dataclass(frozen=True)
class PrivateKey:
    """An unencrypted private key of a kind that AWS IoT takes. `pem`: canonical, in the form it came in."""

    pem: Secret
    public_key_id: str
    algorithm: str  # "RSA-2048", "P-256", ...


@dataclass(frozen=True)
class Claim:
    """A temporary provisioning claim: a certificate and the private key that belongs to it."""

    certificate: Certificate
    key: PrivateKey

    def __post_init__(self) -> None:
        if self.certificate.public_key_id != self.key.public_key_id:
            raise ValueError("the private key does not belong to the certificate")

    @property
    def fingerprint(self) -> str:
        return self.certificate.fingerprint


SHORT_FINGERPRINT_CHARACTERS = 12


def short(fingerprint: str) -> str:
    """How a person sees a fingerprint: the first 12 of 64 hex digits."""
    return fingerprint[:SHORT_FINGERPRINT_CHARACTERS]


def spoken(at: datetime) -> str:
    """A time as a person reads it; whole seconds, always UTC."""
    from datetime import timezone  # the watcher has no use for it: half a megabyte

    return at.astimezone(timezone.utc).strftime("%Y-%m-%d %H:%M:%S UTC")


class DeviceState(str, Enum):
    """What `claimd status` says in one word."""

    UNPROVISIONED = "unprovisioned"
    WAITING = "waiting"
    PROVISIONING = "provisioning"
    BLOCKED = "blocked"
    REFUSED = "refused"
    PROVISIONED = "provisioned"


# Who makes the permanent key: AWS (CreateKeysAndCertificate), or this device (CreateCertificateFromCsr).
KeySource = Literal["aws", "device"]
KeyAlgorithm = Literal["P-256", "RSA-2048"]


@dataclass(frozen=True)
class Target:
    """Where an attempt goes and as whom: frozen with the first request, used unchanged to the end.

    `ports` are tried in order. `identity_client_id` may hold `{thing_name}`, known only later.
    `ca_sha256`: of the concatenated root certificates in PEM. `key_algorithm`: of a key that the
    device makes itself.
    """

    endpoint: str
    ports: tuple[int, ...]
    template: str
    parameters: tuple[tuple[str, str], ...]
    claim_client_id: str
    identity_client_id: str
    ca_sha256: str
    key_source: KeySource = "aws"
    key_algorithm: KeyAlgorithm = "P-256"


@dataclass(frozen=True)
class Layout:
    """The fixed places of claimd on a machine, or rebased under `root` (as `systemctl --root` does)."""

    root: str = ""

    def under(self, path: str) -> str:
        return self.root + path

    @property
    def config_file(self) -> str:
        return self.under("/etc/claimd/claimd.toml")

    @property
    def config_directory(self) -> str:
        return self.under("/etc/claimd")

    @property
    def state_directory(self) -> str:
        return self.under("/var/lib/claimd")

    @property
    def attempt_file(self) -> str:
        return self.under("/var/lib/claimd/attempt.json")

    @property
    def forgetting_file(self) -> str:
        return self.under("/var/lib/claimd/forgetting")

    @property
    def identity_directory(self) -> str:
        return self.under("/var/lib/claimd/identity")

    @property
    def current_identity(self) -> str:
        return self.under("/var/lib/claimd/identity/current")

    @property
    def hooks_directory(self) -> str:
        return self.under("/etc/claimd/hooks.d")

    @property
    def hooks_state_directory(self) -> str:
        return self.under("/var/lib/claimd-hooks")

    @property
    def drop_directory(self) -> str:
        return self.under("/var/spool/claimd/drop")

    @property
    def result_directory(self) -> str:
        return self.under("/var/spool/claimd/result")

    @property
    def run_directory(self) -> str:
        return self.under("/run/claimd")

    @property
    def status_file(self) -> str:
        return self.under("/run/claimd/status.json")

    @property
    def ledger_file(self) -> str:
        return self.under("/run/claimd/drop.json")

    @property
    def supervisor_file(self) -> str:
        return self.under("/run/claimd/supervisor.json")


def rebased(root: str) -> str:
    """A `--root` as Layout takes it: "" for the machine itself, else absolute, without a slash at the end."""
    stripped = root.rstrip("/")
    if stripped and not stripped.startswith("/"):
        raise ValueError("--root needs an absolute path")
    return stripped
