"""A key that never travels: made here, and the request to certify it.

The key is PKCS#8, the request PKCS#10 (RFC 2986), both in PEM. AWS IoT takes RSA of 2,048 bits and more,
P-256, P-384 and P-521 (AWS IoT Core developer guide, "CreateCertificateFromCsr"); P-256 is the quickest to
make and to use on a small board. Invariant: the request is signed by the key that it names.
"""

from __future__ import annotations

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from .model import KeyAlgorithm, PrivateKey
from .pem import parse_private_key


def new(algorithm: KeyAlgorithm) -> PrivateKey:
    """A new private key, by the TLS library's own source of randomness."""
    made: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
    if algorithm == "P-256":
        made = ec.generate_private_key(ec.SECP256R1())
    else:
        made = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    return parse_private_key(made.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))


def request(key: PrivateKey, name: str) -> str:
    """A certificate signing request in PEM. `name` becomes the subject's common name."""
    loaded = load_pem_private_key(key.pem.reveal(), password=None)
    assert isinstance(loaded, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey)
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    signed = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(loaded, hashes.SHA256())
    return signed.public_bytes(Encoding.PEM).decode("ascii")
