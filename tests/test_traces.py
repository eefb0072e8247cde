"""A key is found in whatever form it was left; what people else leave is not called one."""

from __future__ import annotations

import base64
import gzip
import io
import json
import lzma
import random
import tarfile
import textwrap
import zlib
from collections.abc import Callable

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    pkcs12,
)

import material
from claimd import traces

# Always the same one: what a random one looks like is chance.
EC = ec.derive_private_key(0x5EC12E7 << 192 | 0xC1A1D, ec.SECP256R1())
SEC1 = EC.private_bytes(Encoding.DER, PrivateFormat.TraditionalOpenSSL, NoEncryption())
PKCS8 = EC.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
RSA = material.rsa_key()
PKCS1 = RSA.private_bytes(Encoding.DER, PrivateFormat.TraditionalOpenSSL, NoEncryption())
RSA_PKCS8 = RSA.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
BINARY = {
    "sec1": SEC1,
    # RFC 5915: the public key may be missing, and then all of it is shorter than most text lines.
    "sec1-private-alone": bytes.fromhex("30310201010420")
    + SEC1[7:39]
    + bytes.fromhex("a00a06082a8648ce3d030107"),
    "sec1-p384": ec.derive_private_key(77 << 300, ec.SECP384R1()).private_bytes(
        Encoding.DER, PrivateFormat.TraditionalOpenSSL, NoEncryption()
    ),
    "pkcs8": PKCS8,
    "pkcs8-encrypted": EC.private_bytes(Encoding.DER, PrivateFormat.PKCS8, BestAvailableEncryption(b"x")),
    "pkcs1": PKCS1,
    "rsa-pkcs8": RSA_PKCS8,
    "pkcs12": pkcs12.serialize_key_and_certificates(b"claim", EC, None, None, NoEncryption()),
    "pkcs12-of-undefined-length": b"\x30\x80\x02\x01\x03\x30\x80",
}


@pytest.mark.parametrize("name", BINARY)
@pytest.mark.parametrize("part", [1.0, 0.5])
def test_in_binary_form(name: str, part: float) -> None:
    data = BINARY[name]
    assert traces.of_key(data[: int(len(data) * part)])


@pytest.mark.parametrize("name", ["sec1", "pkcs8", "pkcs1", "rsa-pkcs8"])
def test_in_binary_form_within_something_else(name: str) -> None:
    assert traces.of_key(b"claim.key".ljust(512, b"\0") + BINARY[name])


@pytest.mark.parametrize("magic", [b"PK\x03\x04", b"\x1f\x8b\x08", b"BZh9", b"\xfe\xed\xfe\xed", b"Rar!"])
def test_in_an_archive_nobody_looks(magic: bytes) -> None:
    assert traces.of_key(magic + bytes(100))


def in_tar(name: str, data: bytes) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        member = tarfile.TarInfo(name)
        member.size = len(data)
        archive.addfile(member, io.BytesIO(data))
    return made.getvalue()


PROSE = b"Whoever finds this device may bring it back to the workshop in Room 12, Hall B.\n" * 200
PEM = material.key_pem(EC).encode()
P12 = pkcs12.serialize_key_and_certificates(b"claim", RSA, None, None, BestAvailableEncryption(b"1234"))
NO_TEXT = {
    "zlib": zlib.compress(PEM),
    "raw deflate": zlib.compress(PEM)[2:-4],
    "lzma alone": lzma.compress(PEM, format=lzma.FORMAT_ALONE),
    "PDF": b"%PDF-1.4\n1 0 obj<</Filter/FlateDecode>>stream\n"
    + zlib.compress(PEM)
    + b"\nendstream endobj\n%%EOF",
    "PDF with much text": PROSE + b"stream\n" + zlib.compress(PEM) + b"\nendstream\n" + PROSE,
    "tar of PKCS#12": in_tar("claim.p12", P12),
    "tar of gzip": in_tar("claim.gz", gzip.compress(PEM)),
    "behind a mark of UTF-16": b"\xff\xfe" + zlib.compress(PEM * 8),
    "behind a text": PROSE + gzip.compress(PEM),
    "picture": b"\xff\xd8\xff\xe0" + random.Random(1).randbytes(60_000),
    "zeros": bytes(60_000),
}


@pytest.mark.parametrize("name", NO_TEXT)
def test_what_is_no_text_may_be_one(name: str) -> None:
    assert traces.of_key(NO_TEXT[name])


@pytest.mark.parametrize(
    "words",
    [
        b"-----BEGIN RSA PRIVATE KEY-----",
        b"-----begin private  key",
        b'{"PrivateKey": ""}',
        b"private_key =",
        b"Private-Key: (256 bit)",
        "PRIVATE KEY".encode("utf-16-le"),
        b"b0VIM 9.0",
    ],
)
def test_by_its_words(words: bytes) -> None:
    assert traces.of_key(b"here it is: " + words)


BODY = base64.b64encode(SEC1).decode()
LONG = base64.b64encode(random.Random(2).randbytes(1192)).decode()  # as long as an RSA key
HEADLESS: dict[str, Callable[[str], str | bytes]] = {
    "64 columns": lambda body: textwrap.fill(body, 64),
    "76 columns": lambda body: textwrap.fill(body, 76),
    "one line": lambda body: body,
    "CRLF": lambda body: textwrap.fill(body, 64).replace("\n", "\r\n"),
    "40 columns": lambda body: textwrap.fill(body, 40),
    "20 columns": lambda body: textwrap.fill(body, 20),
    "8 columns": lambda body: textwrap.fill(body, 8),
    "quoted": lambda body: f'"{body}"',
    "literal \\n": lambda body: textwrap.fill(body, 64).replace("\n", "\\n"),
    "literal \\n at 20": lambda body: textwrap.fill(body, 20).replace("\n", "\\n"),
    "JSON": lambda body: json.dumps({"k": textwrap.fill(body, 64)}, indent=1),
    "JSON in JSON": lambda body: json.dumps(json.dumps(textwrap.fill(body, 20))),
    "JSON lines": lambda body: json.dumps(textwrap.wrap(body, 16), indent=4),
    "quoted mail": lambda body: textwrap.indent(textwrap.fill(body, 30), "> > "),
    "numbered": lambda body: "\n".join(f"{n:4} {each}" for n, each in enumerate(textwrap.wrap(body, 24))),
    "spaces": lambda body: " ".join(textwrap.wrap(body, 10)),
    "utf-16": lambda body: textwrap.fill(body, 24).encode("utf-16"),
    "utf-16 without a mark": lambda body: textwrap.fill(body, 24).encode("utf-16-le"),
    "utf-16 big": lambda body: b"\xfe\xff" + textwrap.fill(body, 24).encode("utf-16-be"),
    "utf-8 with a mark": lambda body: textwrap.fill(body, 24).encode("utf-8-sig"),
    "escaped": lambda body: textwrap.fill(body, 24).replace("+", "\\u002b").replace("/", "\\/"),
    "in a text": lambda body: "Dear Bob,\nthe key is\n" + textwrap.fill(body, 30) + "\nYours, Ann\n" * 50,
    "among other letters": lambda body: ("Für größere Übel: " * 9 + textwrap.fill(body, 30)).encode(),
    "for URLs": lambda body: textwrap.fill(body.replace("+", "-").replace("/", "_"), 40),
    "within zeros": lambda body: bytes(500) + textwrap.fill(body, 24).encode() + bytes(500),
    "within a database": lambda body: (
        bytes(range(1, 32)) * 9 + textwrap.fill(body, 64).encode() + bytes(range(32))
    ),
}


@pytest.mark.parametrize("body", [BODY, LONG], ids=["ec", "rsa"])
@pytest.mark.parametrize("form", HEADLESS)
def test_without_its_first_and_last_line(form: str, body: str) -> None:
    made = HEADLESS[form](body)
    assert traces.of_key(made if isinstance(made, bytes) else made.encode())


def test_the_rest_of_one_that_was_cut() -> None:
    """Two lines of 64 of its middle, wherever they begin."""
    for at in range(0, len(LONG) - 128, 37):
        assert traces.of_key(textwrap.fill(LONG[at : at + 128], 20).encode()), at


@pytest.mark.parametrize(
    "made",
    [
        SEC1.hex(),
        SEC1.hex(":"),
        SEC1.hex(" ").upper(),
        textwrap.fill(SEC1.hex(" ", 2), 39),
        textwrap.indent(textwrap.fill(SEC1.hex(":"), 45), "    "),
        ", ".join(f"0x{each:02x}" for each in SEC1),
        "".join(f"\\x{each:02x}" for each in SEC1),
    ],
    ids=["plain", "openssl", "hexdump", "xxd", "indented", "c", "python"],
)
def test_in_hexadecimal(made: str) -> None:
    assert traces.of_key(made.encode())


def test_one_line_of_it_among_bytes_that_are_no_text() -> None:
    """Not every line has all three: capitals, small letters, digits."""
    for line in (BODY[:64], "".join(each for each in LONG if each.isalpha())[:64], BODY[:40]):
        assert traces.of_key(bytes(range(128, 256)) * 9 + line.encode() + b"\x80"), line


CLEAN = {
    "nothing": b"",
    "a note": b"call Bob\n",
    "a note that begins with a 0": b"0 problems so far; 01 is the room\n",
    "prose": b"Whoever finds this device may bring it back to the workshop in Room 12, Hall B. " * 200,
    "drawn lines": b"=" * 70 + b"\n" + b"/" * 70 + b"\n" + b"x" * 70 + b"\n",
    "a long word": b"a" * 59 + b" " + b"Donaudampfschifffahrtsgesellschaftskapitaen",
    "a path": b"/usr/lib/python3/dist-packages/claimd/provision.py\n/opt/vendor/etc/init.d/start\n",
    "numbers": "\n".join(f"{n},{n * n},{n / 7:.3f}" for n in range(2000)).encode(),
    "capitals": b"SENSOR GROUP A\nCALIBRATED AT 20 DEGREES\n" * 100,
    "ids": b"3d1219c7c4c5404aaa1f6d2a48adfda4\nunit 550e8400-e29b-41d4-a716-446655440000\n00:1a:2b:3c:4d\n",
    "two digits each": " ".join(map(str, range(10, 100))).encode(),
    "a log": b"2026-11-25T22:05:44Z gateway kernel: [   12.345678] usb 1-1: new high-speed USB device\n" * 99,
    "another language": "Прибор № 12 в цехе: позвонить Борису.\n".encode() * 99,
    "the same in UTF-16": "Прибор № 12 в цехе: позвонить Борису.\n".encode("utf-16"),
    "another encoding": "Der Schlüssel hängt im Büro an der Wand.\n".encode("latin-1") * 99,
    "a text with a mark": "call Bob, Room 12\n".encode("utf-8-sig"),
    "a program": b"class State(str, Enum):\n    WAITING = 'waiting'\n    def isDone(self, at=42): ...\n" * 99,
}


@pytest.mark.parametrize("name", CLEAN)
def test_what_people_leave_is_no_key(name: str) -> None:
    assert not traces.of_key(CLEAN[name])
