"""Keys that are made here, and the requests to certify them, read by cryptography's own parser."""

from __future__ import annotations

import hashlib

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from claimd import devicekey
from claimd.model import KeyAlgorithm


@pytest.mark.parametrize("algorithm", ["P-256", "RSA-2048"])
def test_a_request_is_signed_by_the_key_that_it_names(algorithm: KeyAlgorithm) -> None:
    key = devicekey.new(algorithm)
    assert key.algorithm == algorithm
    request = x509.load_pem_x509_csr(devicekey.request(key, "claimd-0815").encode("ascii"))
    assert request.is_signature_valid
    assert request.subject.rfc4514_string() == "CN=claimd-0815"
    info = request.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    assert hashlib.sha256(info).hexdigest() == key.public_key_id


def test_every_key_is_another() -> None:
    assert devicekey.new("P-256").public_key_id != devicekey.new("P-256").public_key_id
