"""Recognises claim material: which certificates and keys a file holds, and which belong together.

Contents decide, never names: people swap the two files, and AWS's workshop tells them to. Every block
that `shapes` finds is measured by its own DER header, so that what is cut or damaged is known for what it
is. What is whole is written anew in canonical form (64 columns, LF, a final newline) around the bytes as
they came: what AWS or openssl printed comes out byte-identical.

Invariants: no input raises anything but what is documented here, or costs more than milliseconds; no text
holds contents of a file, only names, numbers and kinds.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import warnings
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_private_key

from . import der, shapes
from .errors import Code, Problem, problem
from .model import Certificate, Claim, PrivateKey, Secret

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes

    from .shapes import Block, Text

# A claim is 4 KiB, indented UTF-16 of it 12 KiB, a chain of authorities 10 KiB more. What is larger is a
# mistake or an attack; the bound is also the bound of the time and the memory that reading costs.
MAX_FILE_BYTES = 64 * 1024
# A claim is 3 blocks with its public key; two claims with the chains of their authorities are 14.
MAX_BLOCKS = 16
# A certificate that AWS issues is 0.9 KiB; parsing one costs about 10 µs for every 20 bytes of names in it.
MAX_CERTIFICATE_BYTES = 16 * 1024
MAX_SUBJECT_CHARACTERS = 256
COLUMNS = 64  # RFC 7468, section 2

MIN_RSA_BITS = 2048  # AWS IoT Core developer guide, "X.509 client certificates"
MAX_RSA_BITS = 8192  # AWS-LC, the TLS library of the SDK, signs with no larger one
# Of the public exponent (3 is the least): AWS-LC refuses longer ones, which make a check of a signature slow.
MIN_EXPONENT_BITS = 2
MAX_EXPONENT_BITS = 33
_CURVES = {"secp256r1": "P-256", "secp384r1": "P-384", "secp521r1": "P-521"}

_LABELS = {der.Form.PKCS1: "RSA PRIVATE KEY", der.Form.SEC1: "EC PRIVATE KEY", der.Form.PKCS8: "PRIVATE KEY"}
_RSA_AND_EC = {bytes.fromhex("2a864886f70d010101"), bytes.fromhex("2a8648ce3d0201")}  # RFC 3279, 2.3
_OTHER_ALGORITHMS = {
    bytes.fromhex("2b6570"): "Ed25519",  # RFC 8410, 3
    bytes.fromhex("2b6571"): "Ed448",
    bytes.fromhex("2b656e"): "X25519",
    bytes.fromhex("2b656f"): "X448",
    bytes.fromhex("2a8648ce380401"): "DSA",  # RFC 3279, 2.3.2
    bytes.fromhex("2a864886f70d01010a"): "RSA-PSS",  # RFC 4055, 1.2
}
_BINARY = {
    der.Form.PKCS12: "a PKCS#12 file (.p12); text is made by: openssl pkcs12 -nodes -in FILE -out claim.txt",
    der.Form.CERTIFICATE: "a certificate in binary form; text is made by: openssl x509 -inform DER -in FILE",
    der.Form.PKCS1: "a key in binary form; text is made by: openssl rsa -inform DER -in FILE",
    der.Form.PKCS8: "a key in binary form; text is made by: openssl pkey -inform DER -in FILE",
    der.Form.SEC1: "a key in binary form; text is made by: openssl ec -inform DER -in FILE",
    der.Form.ENCRYPTED_PKCS8: "an encrypted key in binary form: copy the key as AWS returned it",
}
_FOREIGN_BLOCKS = {
    "OPENSSHPRIVATEKEY": "it looks like an OpenSSH key, which opens logins and is not the key of a claim",
    "CERTIFICATEREQUEST": "it is a certificate request; copy the certificate that was made from it",
    "NEWCERTIFICATEREQUEST": "it is a certificate request; copy the certificate that was made from it",
    "PKCS7": "it looks like a PKCS#7 file; copy certificate and key as PEM",
}
_WORDS = {
    Code.CLAIM_NOT_RECOGNISED: "",
    Code.CLAIM_STILL_ARRIVING: "",
    Code.CLAIM_KEY_ENCRYPTED: "the key can't be used: ",
    Code.CLAIM_KEY_UNSUPPORTED: "the key is of a kind that AWS IoT does not take: ",
}


@dataclass(frozen=True)
class Material:
    """What one file holds."""

    certificates: tuple[Certificate, ...]
    keys: tuple[PrivateKey, ...]
    problems: tuple[Problem, ...]


@dataclass(frozen=True)
class Pairing:
    """What several files hold together. Each claim with all files that hold a part or a copy of it."""

    claims: tuple[tuple[Claim, frozenset[str]], ...]
    lonely_certificates: tuple[tuple[Certificate, str], ...]
    lonely_keys: tuple[tuple[PrivateKey, str], ...]


@dataclass(frozen=True)
class _Found:
    """A certificate, and whether it may sign others: then it is a link of a chain, and no claim."""

    certificate: Certificate
    is_authority: bool


class _UnusableError(ValueError):
    """Why a block is not used. `detail` goes into a problem of `code`; `str` stands by itself."""

    def __init__(self, code: Code, detail: str) -> None:
        super().__init__(_WORDS[code] + detail)
        self.code = code
        self.detail = detail


def recognise(name: str, data: bytes) -> Material:
    """What the file called `name` holds. Never raises; a problem never shows contents."""
    if len(data) > MAX_FILE_BYTES:
        return _nothing(name, Code.CLAIM_FILE_TOO_LARGE, f"{len(data):,} bytes of at most {MAX_FILE_BYTES:,}")
    looks = shapes.binary(data) or _BINARY.get(der.form(data))
    if looks is not None:
        return _nothing(name, Code.CLAIM_NOT_RECOGNISED, f"it looks like {looks}")
    text = shapes.read(data, MAX_BLOCKS + 1)
    certificates: dict[str, Certificate] = {}
    keys: dict[str, PrivateKey] = {}
    faults: list[tuple[Block, _UnusableError]] = []
    for block in text.blocks[:MAX_BLOCKS]:
        try:
            found = _examine(block, text.line_was_cut)
        except _UnusableError as unusable:
            faults.append((block, unusable))
            continue
        if isinstance(found, PrivateKey):
            keys.setdefault(found.public_key_id, found)
        elif found is not None and not found.is_authority:
            certificates.setdefault(found.certificate.fingerprint, found.certificate)
    whole = bool(certificates and keys)
    # What stands around a whole claim (its public key, parameters) is not needed: it may be cut.
    problems = [
        problem(fault.code, file=name, detail=fault.detail)
        for block, fault in faults
        if not (whole and block.noun == "text")
    ]
    if not whole and not problems:
        problems = _missing(name, text, nothing_found=not certificates and not keys)
    if len(text.blocks) > MAX_BLOCKS:
        detail = f"it has more than {MAX_BLOCKS} PEM blocks; only the first ones were read"
        problems.append(problem(Code.CLAIM_NOT_RECOGNISED, file=name, detail=detail))
    once = {(each.code, each.fields["detail"]): each for each in problems}
    return Material(tuple(certificates.values()), tuple(keys.values()), tuple(once.values()))


def pair_up(materials: Mapping[str, Material]) -> Pairing:
    """Pairs by public key. The same claim in several files is one claim that names them all."""
    certificates = [(each, name) for name, material in materials.items() for each in material.certificates]
    keys = [(each, name) for name, material in materials.items() for each in material.keys]
    key_of = {key.public_key_id: key for key, _ in reversed(keys)}
    claims = {
        certificate.fingerprint: Claim(certificate, key_of[certificate.public_key_id])
        for certificate, _ in certificates
        if certificate.public_key_id in key_of
    }
    names_of_keys = {claim.key.public_key_id: set[str]() for claim in claims.values()}
    for key, name in keys:
        names_of_keys.get(key.public_key_id, set()).add(name)
    names_of_claims = {
        fingerprint: set(names_of_keys[claim.key.public_key_id]) for fingerprint, claim in claims.items()
    }
    for certificate, name in certificates:
        names_of_claims.get(certificate.fingerprint, set()).add(name)
    return Pairing(
        claims=tuple((claim, frozenset(names_of_claims[each])) for each, claim in claims.items()),
        lonely_certificates=tuple(each for each in certificates if each[0].fingerprint not in claims),
        lonely_keys=tuple(each for each in keys if each[0].public_key_id not in names_of_keys),
    )


# A pass reads the same two or three again and again.
@functools.lru_cache(maxsize=8)
def parse_certificate(pem: str) -> Certificate:
    """A certificate with its chain, the first one being the leaf, as AWS answers and as it is stored.

    Raises ValueError; its text holds no contents.
    """
    chain: list[Certificate] = []
    for block in _blocks_of(pem.encode("utf-8", "replace")):
        found = _examine(block, line_was_cut=False)
        if not isinstance(found, _Found):
            raise ValueError("it holds something else than certificates")
        chain.append(found.certificate)
    return replace(chain[0], pem="".join(each.pem for each in chain))


def parse_private_key(pem: bytes) -> PrivateKey:
    """One private key, as AWS answers and as it is stored. Raises ValueError; its text holds no contents."""
    found = [_examine(block, line_was_cut=False) for block in _blocks_of(pem)]
    keys = [each for each in found if isinstance(each, PrivateKey)]
    if len(keys) != 1 or any(isinstance(each, _Found) for each in found):
        raise ValueError("it holds something else than one private key")
    return keys[0]


def _nothing(name: str, code: Code, detail: str) -> Material:
    return Material((), (), (problem(code, file=name, detail=detail),))


def _blocks_of(data: bytes) -> tuple[Block, ...]:
    if len(data) > MAX_FILE_BYTES:
        raise ValueError(f"it has {len(data):,} bytes, more than {MAX_FILE_BYTES:,}")
    text = shapes.read(data, MAX_BLOCKS + 1)
    if not 1 <= len(text.blocks) <= MAX_BLOCKS:
        raise ValueError(f"it has no PEM block or more than {MAX_BLOCKS}")
    unfinished = shapes.unfinished(text)
    if unfinished is not None:
        raise ValueError(unfinished)
    return text.blocks


def _missing(name: str, text: Text, *, nothing_found: bool) -> list[Problem]:
    """What to say of a file whose blocks are all right, but are no whole claim."""
    if shapes.headless(text):
        detail = "a block's first line (-----BEGIN ...-----) is missing; copy the text as a whole"
        return [problem(Code.CLAIM_NOT_RECOGNISED, file=name, detail=detail)]
    if not text.blocks:
        looks = shapes.foreign(text)
        if looks is not None:
            return [problem(Code.CLAIM_NOT_RECOGNISED, file=name, detail=f"it looks like {looks}")]
    unfinished = shapes.unfinished(text)
    if unfinished is not None:
        return [problem(Code.CLAIM_STILL_ARRIVING, file=name, detail=unfinished)]
    if not nothing_found:
        return []
    detail = "there is no certificate and no private key in it"
    if any(block.noun == "certificate" for block in text.blocks):
        detail = "it has only certificates of authorities (CA); claimd has its own, and needs the claim"
    elif text.blocks:
        detail = "it has only a public key; copy the private key and the certificate"
    return [problem(Code.CLAIM_NOT_RECOGNISED, file=name, detail=detail)]


def _examine(block: Block, line_was_cut: bool) -> _Found | PrivateKey | None:
    """A block's certificate or key; None for what is well and not needed. Raises _UnusableError."""
    if block.encrypted or block.label == "ENCRYPTEDPRIVATEKEY":
        raise _UnusableError(Code.CLAIM_KEY_ENCRYPTED, "a passphrase protects it")
    if block.label in _FOREIGN_BLOCKS:
        raise _UnusableError(Code.CLAIM_NOT_RECOGNISED, _FOREIGN_BLOCKS[block.label])
    data = _decoded(block, line_was_cut)
    form = der.form(data)
    try:
        # Old certificates' oddities (a negative serial number) are warned of; nobody here can cure them.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if form is der.Form.CERTIFICATE:
                return _certificate(data)
            if form in _LABELS:
                return _key(data, form)
    except _UnusableError:
        raise
    except Exception:  # not only ValueError: InvalidVersion, UnsupportedAlgorithm, what the next release adds
        raise _damaged(block, "its contents can't be decoded") from None
    if form is der.Form.PUBLIC:
        return None
    if form is der.Form.DSA:
        raise _UnusableError(Code.CLAIM_KEY_UNSUPPORTED, "DSA")
    if form is der.Form.ENCRYPTED_PKCS8:
        raise _UnusableError(Code.CLAIM_KEY_ENCRYPTED, "a passphrase protects it")
    raise _damaged(block, "it holds neither a certificate nor a key")


def _damaged(block: Block, why: str) -> _UnusableError:
    return _UnusableError(Code.CLAIM_NOT_RECOGNISED, f"the {block.noun} is damaged: {why}")


def _decoded(block: Block, line_was_cut: bool) -> bytes:
    """The block's DER, whole: as long as its own header says. An END line that is missing is not missed."""
    have = len(block.characters)
    head = base64.b64decode(block.characters[:8].ljust(8, "A"))
    outer = der.element(head)
    if have < 8 or outer is None:
        if have < 8 and not block.ended:
            raise _cut(block, line_was_cut, "it has only begun")
        raise _damaged(block, "its beginning is missing or changed")
    need = (outer.end * 4 + 2) // 3
    if have < need:
        if block.ended:
            raise _damaged(block, f"{need - have:,} of its {need:,} characters are missing")
        raise _cut(block, line_was_cut, f"{have:,} of {need:,} characters are here")
    if have > need and block.ended and block.label != "TRUSTEDCERTIFICATE":
        raise _damaged(block, f"it has {have - need:,} characters more than its {need:,}")
    characters = block.characters[:need]
    return base64.b64decode(characters + "=" * (-need % 4))[: outer.end]


def _cut(block: Block, line_was_cut: bool, how_far: str) -> _UnusableError:
    if line_was_cut:
        how_far = f"pasted text was cut; a terminal line holds {shapes.TERMINAL_LINE_CHARACTERS:,} characters"
    return _UnusableError(Code.CLAIM_STILL_ARRIVING, f"the {block.noun} stops in the middle: {how_far}")


def _armoured(label: str, data: bytes) -> bytes:
    """RFC 7468, section 2: the strict form."""
    text = base64.b64encode(data)
    lines = [text[at : at + COLUMNS] for at in range(0, len(text), COLUMNS)]
    return b"\n".join((f"-----BEGIN {label}-----".encode(), *lines, f"-----END {label}-----".encode(), b""))


def _public_key_id(key: CertificatePublicKeyTypes) -> str:
    return hashlib.sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest()


def _certificate(data: bytes) -> _Found:
    if len(data) > MAX_CERTIFICATE_BYTES:
        detail = f"a certificate in it has {len(data):,} bytes; at most {MAX_CERTIFICATE_BYTES:,} are read"
        raise _UnusableError(Code.CLAIM_NOT_RECOGNISED, detail)
    parsed = x509.load_der_x509_certificate(data)
    try:
        is_authority = parsed.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        is_authority = False
    certificate = Certificate(
        pem=_armoured("CERTIFICATE", data).decode("ascii"),
        fingerprint=hashlib.sha256(data).hexdigest(),
        public_key_id=_public_key_id(parsed.public_key()),
        not_before=parsed.not_valid_before_utc,
        not_after=parsed.not_valid_after_utc,
        subject=parsed.subject.rfc4514_string()[:MAX_SUBJECT_CHARACTERS],
    )
    return _Found(certificate, is_authority)


def _key(data: bytes, form: der.Form) -> PrivateKey:
    if form is der.Form.PKCS8:
        algorithm = der.pkcs8_algorithm(data)
        if algorithm not in _RSA_AND_EC:
            name = _OTHER_ALGORITHMS.get(algorithm, "unknown to claimd")
            raise _UnusableError(Code.CLAIM_KEY_UNSUPPORTED, name)
    # The library's own validation searches for factors: 40 ms for an honest key, minutes for a hostile one.
    parsed = load_der_private_key(data, None, unsafe_skip_rsa_key_validation=True)
    if isinstance(parsed, rsa.RSAPrivateKey):
        kind = _checked_rsa(parsed)
    elif isinstance(parsed, ec.EllipticCurvePrivateKey) and parsed.curve.name in _CURVES:
        kind = _CURVES[parsed.curve.name]
    else:
        raise _UnusableError(Code.CLAIM_KEY_UNSUPPORTED, "a curve other than P-256, P-384 and P-521")
    pem = Secret(_armoured(_LABELS[form], data))
    return PrivateKey(pem, _public_key_id(parsed.public_key()), kind)


def _checked_rsa(key: rsa.RSAPrivateKey) -> str:
    """Whether the numbers belong together (RFC 8017, 3.2): damage shows here, in microseconds."""
    if not MIN_RSA_BITS <= key.key_size <= MAX_RSA_BITS:
        detail = f"RSA with {key.key_size:,} bits; {MIN_RSA_BITS:,} to {MAX_RSA_BITS:,} are taken"
        raise _UnusableError(Code.CLAIM_KEY_UNSUPPORTED, detail)
    private = key.private_numbers()
    n, e = private.public_numbers.n, private.public_numbers.e
    p, q, d = private.p, private.q, private.d
    if not MIN_EXPONENT_BITS <= e.bit_length() <= MAX_EXPONENT_BITS:
        taken = f"{MIN_EXPONENT_BITS} to {MAX_EXPONENT_BITS} are taken"
        detail = f"RSA with a public exponent of {e.bit_length():,} bits; {taken}"
        raise _UnusableError(Code.CLAIM_KEY_UNSUPPORTED, detail)
    if (
        p * q != n
        or d >= n
        or d * e % (p - 1) != 1
        or d * e % (q - 1) != 1
        or private.dmp1 != d % (p - 1)
        or private.dmq1 != d % (q - 1)
        or private.iqmp * q % p != 1
    ):
        raise ValueError("the numbers of the RSA key do not belong together")
    return f"RSA-{key.key_size}"
