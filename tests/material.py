"""Certificates, keys, claims and AWS's answers, made for one test run.

Elliptic keys unless RSA is the point: an RSA key costs a hundred times as much to make.
"""

from __future__ import annotations

import functools
import ipaddress
import json
import math
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from claimd.fleet import IssuedKeys, parse_issued_keys
from claimd.model import Claim
from claimd.pem import parse_certificate, parse_private_key
from disfigure import Answer

# Whole seconds, as X.509 has them. Every test that needs no real clock uses this one.
NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=timezone.utc)
# Observed: a claim is valid from about two minutes before it was made until five minutes after.
CLAIM_BACKDATED = timedelta(minutes=2)
CLAIM_LIFE = timedelta(minutes=5)
# What AWS gives a device certificate that it issues itself.
DEVICE_NOT_AFTER = datetime(2049, 12, 31, 23, 59, 59, tzinfo=timezone.utc)

Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


def new_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


@functools.cache
def rsa_key() -> rsa.RSAPrivateKey:
    """The one RSA key of a test run."""
    return rsa.generate_private_key(65537, 2048)


def odd_rsa_key(*, exponent: int = 65537, composite: bool = False) -> rsa.RSAPrivateKey:
    """One whose numbers belong together and that nobody makes by accident.

    `exponent`: at least this one; `composite`: its p is no prime.
    """
    honest = rsa_key().private_numbers()
    p, q = honest.p, honest.q
    while composite and (p % 3 or math.gcd(p - 1, exponent) != 1):
        p += 2
    phi = (p - 1) * (q - 1)
    while math.gcd(phi, exponent) != 1:
        exponent += 2
    d = pow(exponent, -1, phi)
    numbers = rsa.RSAPrivateNumbers(
        p, q, d, d % (p - 1), d % (q - 1), pow(q, -1, p), rsa.RSAPublicNumbers(exponent, p * q)
    )
    return numbers.private_key(unsafe_skip_rsa_key_validation=True)


def key_pem(key: Key) -> str:
    form = PrivateFormat.TraditionalOpenSSL
    return key.private_bytes(Encoding.PEM, form, NoEncryption()).decode("ascii")


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, common_name)])


@dataclass(frozen=True)
class Authority:
    """A root that signs servers and devices."""

    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    @classmethod
    def new(cls, name: str = "a root") -> Authority:
        key = new_key()
        builder = _builder(name, key, NOW - timedelta(days=3650), NOW + timedelta(days=3650))
        ca = x509.BasicConstraints(ca=True, path_length=None)
        signed = builder.issuer_name(_name(name)).add_extension(ca, critical=True)
        return cls(key, signed.sign(key, hashes.SHA256()))

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(Encoding.PEM)

    def issue(self, subject: str, key: Key, not_before: datetime, not_after: datetime, *hosts: str) -> str:
        """A leaf in PEM; with `hosts`, a server's."""
        builder = _builder(subject, key, not_before, not_after).issuer_name(self.certificate.subject)
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        if hosts:
            builder = builder.add_extension(
                x509.SubjectAlternativeName([_general_name(host) for host in hosts]), critical=False
            )
        return builder.sign(self.key, hashes.SHA256()).public_bytes(Encoding.PEM).decode("ascii")


def _builder(subject: str, key: Key, not_before: datetime, not_after: datetime) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(_name(subject))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(not_before)
        .not_valid_after(not_after)
    )


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


@functools.cache
def authority() -> Authority:
    """The one that signs claims and device certificates."""
    return Authority.new("AWS IoT Certificate")


@dataclass(frozen=True)
class Pair:
    """A certificate and its key, as the two files that a technician copies."""

    certificate: str
    key: str

    @functools.cached_property
    def claim(self) -> Claim:
        return Claim(parse_certificate(self.certificate), parse_private_key(self.key.encode("ascii")))


def pair(
    *, not_before: datetime | None = None, not_after: datetime | None = None, key: Key | None = None
) -> Pair:
    """A claim made at NOW that lives five minutes, unless told otherwise."""
    key = key or new_key()
    start = NOW - CLAIM_BACKDATED if not_before is None else not_before
    end = NOW + CLAIM_LIFE if not_after is None else not_after
    return Pair(authority().issue("a claim", key, start, end), key_pem(key))


def claim(*, not_before: datetime | None = None, not_after: datetime | None = None) -> Claim:
    return pair(not_before=not_before, not_after=not_after).claim


def device_pair() -> Pair:
    """A permanent identity."""
    return pair(not_before=NOW, not_after=DEVICE_NOT_AFTER)


def keys_answer(certificate_id: str = "c0" * 32, token: str = "the-ownership-token") -> dict[str, object]:
    """What CreateKeysAndCertificate answers on /accepted."""
    made = device_pair()
    return {
        "certificateId": certificate_id,
        "certificatePem": made.certificate,
        "privateKey": made.key,
        "certificateOwnershipToken": token,
    }


def issued(certificate_id: str = "c0" * 32, token: str = "the-ownership-token") -> IssuedKeys:
    return parse_issued_keys(json.dumps(keys_answer(certificate_id, token)).encode("ascii"))


def public_key_pem(key: Key) -> str:
    """As AWS answers it in `keyPair.PublicKey`."""
    form = PublicFormat.SubjectPublicKeyInfo
    return key.public_key().public_bytes(Encoding.PEM, form).decode("ascii")


def answer(key: Key | None = None) -> Answer:
    """A claim as CreateProvisioningClaim answers it."""
    key = key or new_key()
    made = pair(key=key)
    return Answer(made.certificate, made.key, public_key_pem(key))
