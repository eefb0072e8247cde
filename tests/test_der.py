"""The outside of DER: lengths, and which structure it is, told apart by openssl's own output."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from claimd import der
from claimd.der import Element, Form
from material import authority, pair, rsa_key


def openssl(*arguments: str, data: bytes = b"") -> bytes:
    done = subprocess.run(["openssl", *arguments], input=data, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def tlv(tag: int, *contents: bytes) -> bytes:
    """One element in DER with a short length."""
    body = b"".join(contents)
    assert len(body) < 0x80
    return bytes((tag, len(body))) + body


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"\x30\x03abc", Element(0x30, 2, 5)),
        (b"\x30\x81\x80", Element(0x30, 3, 131)),
        (b"\x30\x82\x01\x00", Element(0x30, 4, 260)),
        (b"\x30\x83\x01\x00\x00", Element(0x30, 5, 65541)),
        (b"\x30\x84\x01\x00\x00\x00", None),  # longer than any file that is read
        (b"\x30\x80\x00\x00", None),  # indefinite: BER, not DER
        (b"\x30\x82\x01", None),
        (b"\x30", None),
        (b"", None),
    ],
)
def test_an_element_s_header(data: bytes, expected: Element | None) -> None:
    assert der.element(data) == expected


def test_children_end_at_the_first_that_does_not_fit() -> None:
    inside = tlv(der.INTEGER, b"\x01") + b"\x04\x7fabc"
    data = tlv(der.SEQUENCE, inside)
    top = der.element(data)
    assert top is not None
    assert der.children(data, top) == [Element(der.INTEGER, 4, 5)]


def test_children_are_no_more_than_any_known_structure_has() -> None:
    data = tlv(der.SEQUENCE, *[tlv(der.INTEGER, b"\x01")] * 30)
    top = der.element(data)
    assert top is not None
    assert len(der.children(data, top)) == der.MAX_CHILDREN


def test_children_of_data_that_was_cut_within_a_header() -> None:
    data = b"\x30\x10" + tlv(der.INTEGER, b"\x01") + b"\x02"
    top = der.element(data)
    assert top is not None
    assert len(der.children(data, top)) == 1


@pytest.fixture(scope="module")
def rsa_pem() -> bytes:
    return pair(key=rsa_key()).key.encode()


@pytest.fixture(scope="module")
def ec_pem() -> bytes:
    return pair().key.encode()


class TestForm:
    """Every structure as openssl writes it."""

    def test_pkcs1(self, rsa_pem: bytes) -> None:
        assert der.form(openssl("rsa", "-traditional", "-outform", "DER", data=rsa_pem)) is Form.PKCS1

    def test_sec1(self, ec_pem: bytes) -> None:
        assert der.form(openssl("ec", "-outform", "DER", data=ec_pem)) is Form.SEC1

    def test_pkcs8_of_both_kinds(self, rsa_pem: bytes, ec_pem: bytes) -> None:
        for key in (rsa_pem, ec_pem):
            made = openssl("pkcs8", "-topk8", "-nocrypt", "-outform", "DER", data=key)
            assert der.form(made) is Form.PKCS8

    def test_encrypted_pkcs8(self, ec_pem: bytes) -> None:
        made = openssl("pkcs8", "-topk8", "-passout", "pass:x", "-outform", "DER", data=ec_pem)
        assert der.form(made) is Form.ENCRYPTED_PKCS8

    def test_public_keys(self, rsa_pem: bytes, ec_pem: bytes) -> None:
        assert der.form(openssl("rsa", "-pubout", "-outform", "DER", data=rsa_pem)) is Form.PUBLIC
        assert der.form(openssl("rsa", "-RSAPublicKey_out", "-outform", "DER", data=rsa_pem)) is Form.PUBLIC
        assert der.form(openssl("ec", "-pubout", "-outform", "DER", data=ec_pem)) is Form.PUBLIC

    @pytest.mark.parametrize("encoding", ["named_curve", "explicit"])
    def test_curve_parameters(self, encoding: str) -> None:
        made = openssl(
            *("ecparam", "-name", "prime256v1", "-param_enc", encoding, "-outform", "DER"),
        )
        assert der.form(made) is Form.PUBLIC

    def test_certificates_of_both_versions(self, tmp_path: Path, ec_pem: bytes) -> None:
        version_3 = openssl("x509", "-outform", "DER", data=pair().certificate.encode())
        assert der.form(version_3) is Form.CERTIFICATE
        key = tmp_path / "key"
        key.write_bytes(ec_pem)
        request = openssl("req", "-new", "-key", str(key), "-subj", "/CN=x", "-outform", "PEM")
        version_1 = openssl("x509", "-req", "-signkey", str(key), "-outform", "DER", data=request)
        assert der.form(version_1) is Form.CERTIFICATE

    def test_a_request_is_no_certificate(self, tmp_path: Path, ec_pem: bytes) -> None:
        key = tmp_path / "key"
        key.write_bytes(ec_pem)
        made = openssl("req", "-new", "-key", str(key), "-subj", "/CN=x", "-outform", "DER")
        assert der.form(made) is Form.OTHER

    def test_pkcs12(self, tmp_path: Path) -> None:
        made = pair()
        both = (made.key + made.certificate).encode()
        exported = openssl("pkcs12", "-export", "-passout", "pass:x", data=both)
        assert der.form(exported) is Form.PKCS12

    def test_dsa(self) -> None:
        """OpenSSL's traditional form: six integers. (Making real DSA parameters takes seconds.)"""
        assert der.form(tlv(der.SEQUENCE, *[tlv(der.INTEGER, b"\x01")] * 6)) is Form.DSA

    @pytest.mark.parametrize(
        "data",
        [
            b"",
            b"\x31\x00",
            b"\x30\x00",
            b"certificate",
            tlv(der.SEQUENCE, tlv(der.OCTET_STRING)),
            tlv(der.SEQUENCE, tlv(der.SEQUENCE), tlv(der.SEQUENCE), tlv(der.BIT_STRING)),
        ],
    )
    def test_anything_else(self, data: bytes) -> None:
        assert der.form(data) is Form.OTHER

    def test_a_single_integer_is_no_key(self) -> None:
        assert der.form(tlv(der.SEQUENCE, tlv(der.INTEGER, b"\x01"))) is Form.PUBLIC

    def test_whatever_is_cut_off_only_the_known_forms_come_out(self, rsa_pem: bytes) -> None:
        whole = openssl("rsa", "-traditional", "-outform", "DER", data=rsa_pem)
        seen = {der.form(whole[:length]) for length in range(len(whole))}
        assert seen <= {Form.OTHER, Form.PUBLIC, Form.PKCS1, Form.DSA}
        assert Form.OTHER in seen


class TestAlgorithm:
    def test_the_identifier_inside_pkcs8(self, rsa_pem: bytes, ec_pem: bytes) -> None:
        def algorithm(pem: bytes) -> str:
            made = openssl("pkcs8", "-topk8", "-nocrypt", "-outform", "DER", data=pem)
            return der.pkcs8_algorithm(made).hex()

        assert algorithm(rsa_pem) == "2a864886f70d010101"
        assert algorithm(ec_pem) == "2a8648ce3d0201"

    def test_ed25519(self) -> None:
        made = openssl("genpkey", "-algorithm", "ed25519", "-outform", "DER")
        assert der.form(made) is Form.PKCS8
        assert der.pkcs8_algorithm(made).hex() == "2b6570"

    @pytest.mark.parametrize(
        "data", [b"", b"\x30\x00", tlv(der.SEQUENCE, tlv(der.INTEGER), tlv(der.SEQUENCE))]
    )
    def test_there_may_be_none(self, data: bytes) -> None:
        assert der.pkcs8_algorithm(data) == b""


def test_an_authority_s_certificate_is_a_certificate() -> None:
    made = openssl("x509", "-outform", "DER", data=authority().pem)
    assert der.form(made) is Form.CERTIFICATE
