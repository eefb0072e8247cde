"""The sandbox's certificate authorities, and the certificates they sign.

On disk, below DIR/authority (0700): `ca.key` and `ca.pem` sign the server's certificate, one
`issuing-ACCOUNT.{key,pem}` an account signs its claims and device certificates, `server.pem` is what
TLS shows. Invariant: the authorities outlive a restart, so an identity stays valid; the key of a claim
or of a device is never written here.
"""

from __future__ import annotations

import datetime
import ipaddress
import os
import secrets
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from claimd_sandbox.keys import KeyPool, PrivateKey, make_key
from claimd_sandbox.settings import KeyKind, Settings

# "Certificates … expire at midnight UTC on December 31, 2049 (2049-12-31T23:59:59Z)": AWS IoT Developer
# Guide, "Create AWS IoT client certificates".
DEVICE_NOT_AFTER = datetime.datetime(2049, 12, 31, 23, 59, 59, tzinfo=datetime.timezone.utc)
BACKDATE = datetime.timedelta(minutes=2)
CLAIM_ID_BYTES = 32  # the subject of a claim is 64 hex digits that are not its certificate id
MIN_RSA_BITS = 2048
CSR_CURVES = (ec.SECP256R1, ec.SECP384R1, ec.SECP521R1)
CA_LIFE = datetime.timedelta(days=3650)


class CsrError(Exception):
    """A certificate signing request that AWS would reject."""


@dataclass(frozen=True)
class Issued:
    """A certificate just signed. AWS's certificate id is the SHA-256 of its DER form."""

    certificate_id: str
    pem: str
    not_after: int


def certificate_id(der: bytes) -> str:
    digest = hashes.Hash(hashes.SHA256())
    digest.update(der)
    return digest.finalize().hex()


def _utc(epoch: float) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(int(epoch), tz=datetime.timezone.utc)


def _name(common_name: str, unit: str | None = None) -> x509.Name:
    parts = [x509.NameAttribute(NameOID.COMMON_NAME, common_name)]
    if unit is not None:
        parts.insert(0, x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, unit))
    return x509.Name(parts)


def _write(path: Path, text: str, mode: int) -> None:
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "w", encoding="ascii") as stream:
        stream.write(text)
    temporary.replace(path)


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode("ascii")


def _key_usage(*, ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=ca,
        crl_sign=ca,
        encipher_only=False,
        decipher_only=False,
    )


@dataclass(frozen=True)
class _Signer:
    certificate: x509.Certificate
    key: PrivateKey

    def builder(
        self,
        subject: x509.Name,
        public_key: rsa.RSAPublicKey | ec.EllipticCurvePublicKey,
        not_before: datetime.datetime,
        not_after: datetime.datetime,
    ) -> x509.CertificateBuilder:
        """What every end certificate has: CA:FALSE and digitalSignature, both critical."""
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.certificate.subject)
            .public_key(public_key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(not_before)
            .not_valid_after(not_after)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(ca=False), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), critical=False
            )
        )

    def sign(self, builder: x509.CertificateBuilder) -> x509.Certificate:
        return builder.sign(self.key, hashes.SHA256())

    def issue(self, builder: x509.CertificateBuilder) -> Issued:
        certificate = self.sign(builder)
        return Issued(
            certificate_id=certificate_id(certificate.public_bytes(serialization.Encoding.DER)),
            pem=_pem(certificate),
            not_after=int(certificate.not_valid_after_utc.timestamp()),
        )


def _self_signed(common_name: str, kind: KeyKind) -> _Signer:
    key = make_key(kind)
    now = datetime.datetime.now(datetime.timezone.utc)
    subject = _name(common_name, "claimd-sandbox")
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + CA_LIFE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(ca=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    return _Signer(builder.sign(key, hashes.SHA256()), key)


def _load_or_make(directory: Path, stem: str, common_name: str, kind: KeyKind) -> _Signer:
    key_path, pem_path = directory / f"{stem}.key", directory / f"{stem}.pem"
    if key_path.exists() and pem_path.exists():
        key = serialization.load_pem_private_key(key_path.read_bytes(), password=None)
        if not isinstance(key, (rsa.RSAPrivateKey, ec.EllipticCurvePrivateKey)):
            raise ValueError(f"cannot use {str(key_path)!r}: neither an RSA nor an EC key")
        return _Signer(x509.load_pem_x509_certificate(pem_path.read_bytes()), key)
    signer = _self_signed(common_name, kind)
    key_pem = signer.key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode("ascii")
    _write(key_path, key_pem, 0o600)
    _write(pem_path, _pem(signer.certificate), 0o644)
    return signer


def _alternative_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


class Authority:
    """Opens or makes the authorities in `directory`; the server's certificate is new at every start."""

    def __init__(self, directory: Path, settings: Settings, pool: KeyPool) -> None:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._pool = pool
        self._server_ca = _load_or_make(directory, "ca", "claimd-sandbox server CA", KeyKind.EC)
        self._issuers = {
            account.id: _load_or_make(
                directory, f"issuing-{account.id}", f"claimd-sandbox {account.id}", settings.key_kind
            )
            for account in settings.accounts
        }
        self.server_chain = directory / "server.pem"
        self._make_server_certificate(settings)

    @property
    def ca_pem(self) -> str:
        """The root that a client must trust."""
        return _pem(self._server_ca.certificate)

    @property
    def client_roots(self) -> str:
        """The roots of every client certificate that TLS lets through for us to judge."""
        return "".join(_pem(issuer.certificate) for issuer in self._issuers.values())

    def _make_server_certificate(self, settings: Settings) -> None:
        names = dict.fromkeys(
            [
                settings.server_name,
                "localhost",
                "127.0.0.1",
                "::1",
                *(name for account in settings.accounts for name in account.server_names),
            ]
        )
        key = make_key(KeyKind.EC)
        now = datetime.datetime.now(datetime.timezone.utc)
        builder = (
            self._server_ca.builder(
                _name(settings.server_name),
                key.public_key(),
                now - datetime.timedelta(days=1),
                now + CA_LIFE / 2,
            )
            .add_extension(x509.SubjectAlternativeName([_alternative_name(n) for n in names]), critical=False)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        )
        key_pem = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ).decode("ascii")
        _write(self.server_chain, _pem(self._server_ca.sign(builder)) + key_pem, 0o600)

    def issue_claim(self, account: str, now: float, life: float) -> tuple[Issued, PrivateKey]:
        """A trusted user's claim: valid from two minutes back, its notAfter is its `expiration`."""
        key = self._pool.take()
        subject = _name(secrets.token_hex(CLAIM_ID_BYTES))
        issuer = self._issuers[account]
        not_after = _utc(now + life)
        not_before = min(_utc(now) - BACKDATE, not_after)
        return issuer.issue(issuer.builder(subject, key.public_key(), not_before, not_after)), key

    def issue_device(self, account: str, now: float) -> tuple[Issued, PrivateKey]:
        """A certificate and key as CreateKeysAndCertificate makes them."""
        key = self._pool.take()
        return self._issue_for(account, now, key.public_key()), key

    def issue_for_csr(self, account: str, now: float, csr_pem: str) -> Issued:
        return self._issue_for(account, now, _csr_public_key(csr_pem))

    def _issue_for(
        self, account: str, now: float, public_key: rsa.RSAPublicKey | ec.EllipticCurvePublicKey
    ) -> Issued:
        issuer = self._issuers[account]
        builder = issuer.builder(
            _name("AWS IoT Certificate"), public_key, _utc(now) - BACKDATE, DEVICE_NOT_AFTER
        )
        return issuer.issue(builder)


def _csr_public_key(csr_pem: str) -> rsa.RSAPublicKey | ec.EllipticCurvePublicKey:
    """The key of a request that is well formed, proves possession, and is of a kind AWS takes."""
    try:
        csr = x509.load_pem_x509_csr(csr_pem.encode("utf-8"))
        public_key = csr.public_key()
        if not csr.is_signature_valid:
            raise CsrError("cannot take the CSR: its signature does not verify")
    except (ValueError, UnsupportedAlgorithm, InvalidSignature, x509.InvalidVersion) as error:
        raise CsrError("cannot take the CSR: it is no valid PKCS#10 request in PEM form") from error
    if isinstance(public_key, rsa.RSAPublicKey) and public_key.key_size >= MIN_RSA_BITS:
        return public_key
    if isinstance(public_key, ec.EllipticCurvePublicKey) and isinstance(public_key.curve, CSR_CURVES):
        return public_key
    raise CsrError(
        "cannot take the CSR: its key is neither RSA of 2048 bits or more nor P-256, P-384 or P-521"
    )
