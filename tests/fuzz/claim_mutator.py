"""Makes any number of damaged claims from a seed: number N of a seed is the same bytes for ever.

Half of the inputs are text that was hurt (bytes changed, pieces lost, doubled or spliced), a quarter hides
its damage below the base64, in the DER that `cryptography` is given; the rest is made to be expensive.
"""

from __future__ import annotations

import base64
import functools
import random
import re
from collections.abc import Callable
from datetime import datetime, timedelta, timezone

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from claimd.pem import MAX_FILE_BYTES
from disfigure import DISFIGUREMENTS, ENCODINGS, RENDERINGS, Answer, disfigured

# Inputs are made from a pool of this many disfigured claims; making one costs more than hurting it.
POOL = 400
# The last inputs of a chunk come from the same pool as its first.
CHUNK = 10_000

_Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
_START = datetime(2026, 3, 1, tzinfo=timezone.utc)
_TOKENS = (
    *("-----BEGIN ", "-----END ", "-----", "CERTIFICATE-----", "RSA PRIVATE KEY-----", "PRIVATE KEY-----"),
    *("BEGIN", "END", "\\", "\\n", "\\r\\n", "\\u", "\\u002b", "\\u001b[", "\\\\n", "\x1b[", "\x1b]", "\x07"),
    *("\x00", "\r", "\n", "\t", '"', "'", "`", "```", "{", "}", "[", "]", ":", "(END)", "--More--(3%)", "="),
    *("\ufeff", "\u2014", "\u200b", "\ud800", "MII", "MIIE", "Proc-Type: 4,ENCRYPTED", "certificateId", "A"),
    *("awsiot", "ssh-rsa ", "<html", "An error occurred (", "\xff\xfe", "0" * 64, "DEK-Info: AES,00", "//8="),
)
_BLOCK = re.compile(rb"(-----BEGIN [A-Z ]+-----\n)([A-Za-z0-9+/=\n]+)(-----END)")

_NOT_BASE64 = re.compile(rb"[^A-Za-z0-9+/]")


def _prime(source: random.Random, bits: int) -> int:
    """A probable prime (Miller and Rabin), the same for the same source."""
    while True:
        found = source.getrandbits(bits) | (3 << (bits - 2)) | 1
        if any(found % small == 0 for small in range(3, 2000, 2)):
            continue
        odd, twos = found - 1, 0
        while odd % 2 == 0:
            odd, twos = odd // 2, twos + 1
        for _ in range(20):
            power = pow(source.randrange(2, found - 1), odd, found)
            if power not in (1, found - 1) and not any(
                (power := power * power % found) == found - 1 for _ in range(twos - 1)
            ):
                break
        else:
            return found


@functools.cache
def _rsa_key() -> rsa.RSAPrivateKey:
    """The same in every run, and written nowhere."""
    source = random.Random("an RSA key")
    while True:
        p, q = _prime(source, 1024), _prime(source, 1024)
        if p > q and (p - 1) * (q - 1) % 65537:
            d = pow(65537, -1, (p - 1) * (q - 1))
            public = rsa.RSAPublicNumbers(65537, p * q)
            numbers = rsa.RSAPrivateNumbers(
                p, q, d, rsa.rsa_crt_dmp1(d, p), rsa.rsa_crt_dmq1(d, q), rsa.rsa_crt_iqmp(p, q), public
            )
            return numbers.private_key()


@functools.cache
def _curve_key(curve: type[ec.EllipticCurve], number: int) -> ec.EllipticCurvePrivateKey:
    return ec.derive_private_key(random.Random(number).getrandbits(250), curve())


def _certificate(key: _Key, *, ca: bool = False) -> str:
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "5a" * 32)])
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).serial_number(4711)
    builder = builder.not_valid_before(_START).not_valid_after(_START + timedelta(minutes=5))
    builder = builder.add_extension(x509.BasicConstraints(ca, None), critical=True)
    # RSA with PKCS#1 signs without randomness.
    signed = builder.public_key(key.public_key()).sign(_rsa_key(), hashes.SHA256())
    return signed.public_bytes(Encoding.PEM).decode("ascii")


def _private(key: _Key, form: PrivateFormat, passphrase: bytes | None = None) -> str:
    how = NoEncryption() if passphrase is None else BestAvailableEncryption(passphrase)
    return key.private_bytes(Encoding.PEM, form, how).decode("ascii")


@functools.cache
def _answers() -> tuple[Answer, ...]:
    """The cheap curve more often: a large number is hurt in no other way than a small one."""
    made: list[Answer] = []
    often: dict[ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey, int] = {
        _curve_key(ec.SECP256R1, 1): 8,
        _rsa_key(): 2,
    }
    for key in (*often, _curve_key(ec.SECP384R1, 2), _curve_key(ec.SECP521R1, 3)):
        public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        for form in (PrivateFormat.TraditionalOpenSSL, PrivateFormat.PKCS8):
            answer = Answer(_certificate(key), _private(key, form), public.decode("ascii"))
            made += [answer] * often.get(key, 1)
    return tuple(made)


@functools.cache
def _others() -> tuple[bytes, ...]:
    """What lies in a drop directory besides claims."""
    key = _curve_key(ec.SECP256R1, 1)
    binary = base64.b64decode("".join(_certificate(key).splitlines()[1:-1]))
    foreign = (_certificate(key, ca=True), _certificate(_rsa_key(), ca=True), "Dear customer,\n", "")
    return (binary, b"PK\x03\x04" + bytes(100), bytes(range(256)), *(each.encode() for each in foreign))


def secrets() -> frozenset[str]:
    """Every run of characters of every key's base64, as long as `LEAK_CHARACTERS`."""
    bodies = ["".join(each.private_key.splitlines()[1:-1]) for each in _answers()]
    return frozenset(
        body[at : at + LEAK_CHARACTERS] for body in bodies for at in range(len(body) - LEAK_CHARACTERS + 1)
    )


LEAK_CHARACTERS = 8


def _pool(source: random.Random) -> list[bytes]:
    made = list(_others())
    encodings = [*ENCODINGS.values(), *[ENCODINGS["utf-8"]] * 8]
    while len(made) < POOL:
        text = source.choice(tuple(RENDERINGS.values()))(source.choice(_answers()))
        chain = tuple(source.choice(tuple(DISFIGUREMENTS)) for _ in range(source.choice((0, 0, 0, 1, 1, 2))))
        made.append(source.choice(encodings)(disfigured(text, chain, 8000)))
    return made


def _token(source: random.Random) -> bytes:
    return source.choice(_TOKENS).encode("utf-8", "surrogatepass")


def _place(source: random.Random, data: bytes) -> int:
    return source.randrange(len(data) + 1)


def _changed_bytes(source: random.Random, data: bytes, pool: list[bytes]) -> bytes:
    hurt = bytearray(data)
    for _ in range(source.choice((1, 1, 2, 8))):
        if hurt:
            hurt[source.randrange(len(hurt))] ^= 1 << source.randrange(8)
    return bytes(hurt)


def _lost(source: random.Random, data: bytes, pool: list[bytes]) -> bytes:
    at = _place(source, data)
    return data[:at] + data[at + source.choice((1, 1, 4, 64, 65, 500)) :]


def _cut(source: random.Random, data: bytes, pool: list[bytes]) -> bytes:
    return data[: _place(source, data)]


def _beheaded(source: random.Random, data: bytes, pool: list[bytes]) -> bytes:
    return data[_place(source, data) :]


def _doubled(source: random.Random, data: bytes, pool: list[bytes]) -> bytes:
    at, to = _place(source, data), _place(source, data)
    return data[:at] + data[at : at + source.choice((1, 64, 65, 300))] + data[at:to] + data[to:]


def _inserted(source: random.Random, data: bytes, pool: list[bytes]) -> bytes:
    at = _place(source, data)
    return data[:at] + _token(source) * source.choice((1, 1, 1, 2, 5)) + data[at:]


def _spliced(source: random.Random, data: bytes, pool: list[bytes]) -> bytes:
    other = source.choice(pool)
    return data[: _place(source, data)] + other[_place(source, other) :]


def _hurt_below(source: random.Random, data: bytes, pool: list[bytes]) -> bytes:
    """Damage in the DER of one block: lengths, tags and numbers that the base64 around it hides."""
    blocks = [block for block in _BLOCK.finditer(data) if len(block[2]) > 8]
    if not blocks:
        return _changed_bytes(source, data, pool)
    block = source.choice(blocks)
    characters = _NOT_BASE64.sub(b"", block[2])
    der = bytearray(base64.b64decode(characters[: len(characters) // 4 * 4]))
    for _ in range(source.choice((1, 1, 1, 2, 4))):
        # Headers stand at the beginning, most of what can go wrong with them.
        at = source.randrange(min(len(der), source.choice((8, 40, 100_000))))
        what = source.randrange(4)
        if what == 0:
            der[at] ^= 1 << source.randrange(8)
        elif what == 1:
            der[at] = source.choice(
                (0, 1, 2, 3, 4, 6, 0x30, 0x31, 0x7F, 0x80, 0x81, 0x82, 0x83, 0x84, 0xA0, 0xFF)
            )
        elif what == 2:
            del der[at : at + source.choice((1, 2, 16))]
            der = der or bytearray(b"0")
        else:
            der[at:at] = der[at : at + source.choice((1, 2, 16, 64))]
    if source.random() < 0.5 and len(der) > 4 and der[1] == 0x82:
        # The outer length is made right again, so that the damage gets past it.
        der[2:4] = (len(der) - 4).to_bytes(2, "big")
    text = base64.b64encode(bytes(der))
    return data[: block.start(2)] + text + b"\n" + data[block.end(2) :]


def _repeated(source: random.Random, data: bytes, pool: list[bytes]) -> bytes:
    """The same few tokens over and over, up to the largest file: what makes a bad expression slow."""
    piece = b"".join(_token(source) for _ in range(source.choice((1, 1, 2, 3))))
    size = source.choice((*[500] * 17, 5000, 5000, MAX_FILE_BYTES))
    return (data[: source.choice((0, 0, 100))] + piece * (size // len(piece)))[:MAX_FILE_BYTES]


def _untouched(source: random.Random, data: bytes, pool: list[bytes]) -> bytes:
    return data


_Mutation = Callable[[random.Random, bytes, list[bytes]], bytes]
_MUTATIONS: tuple[tuple[_Mutation, int], ...] = (
    (_changed_bytes, 15),
    (_lost, 10),
    (_cut, 10),
    (_beheaded, 4),
    (_doubled, 6),
    (_inserted, 12),
    (_spliced, 8),
    (_hurt_below, 28),
    (_repeated, 6),
    (_untouched, 1),
)
_WEIGHTED = tuple(mutation for mutation, weight in _MUTATIONS for _ in range(weight))
NAMES = tuple(mutation.__name__.lstrip("_") for mutation, _ in _MUTATIONS)


class Mutator:
    """The inputs of one seed."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._chunk = -1
        self._made: list[bytes] = []

    def make(self, number: int) -> tuple[str, bytes]:
        """Input `number` (from 0), and the name of what was done to it last."""
        chunk = number // CHUNK
        if chunk != self._chunk:
            self._made = _pool(random.Random(f"{self._seed} {chunk}"))
            self._chunk = chunk
        source = random.Random(self._seed << 40 | number)
        data = source.choice(self._made)
        for _ in range(source.choice((1, 1, 1, 2))):
            mutation = source.choice(_WEIGHTED)
            data = mutation(source, data, self._made)
        return mutation.__name__.lstrip("_"), data
