"""Looks at the outside of DER: how long a structure is, and which of the known ones it is.

Nothing here trusts or decodes contents; that is the work of `cryptography`. It is asked only about what
it parses in microseconds: some of its parsers (DH, DSA, RSA with validation) take seconds for hostile
numbers. Invariant: any bytes may be given, and the cost is that of a few headers, never of the contents.
"""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

INTEGER, BIT_STRING, OCTET_STRING, OBJECT_ID, SEQUENCE, VERSION_0 = 0x02, 0x03, 0x04, 0x06, 0x30, 0xA0

# The longest header here: tag, length of length, three octets of length (16 MiB, far above any file's limit).
MAX_HEADER_BYTES = 5
# Enough to tell every structure below; an RSA key has the most, nine.
MAX_CHILDREN = 10


class Form(str, Enum):
    """What a DER structure is, as far as its outer elements tell."""

    CERTIFICATE = "certificate"  # RFC 5280, 4.1
    PKCS1 = "pkcs1"  # RFC 8017, A.1.2
    SEC1 = "sec1"  # RFC 5915, 3
    PKCS8 = "pkcs8"  # RFC 5958, 2
    ENCRYPTED_PKCS8 = "encrypted-pkcs8"  # RFC 5958, 3
    DSA = "dsa"  # OpenSSL's traditional form
    PUBLIC = "public"  # public keys, and parameters such as the curve's name: never needed
    PKCS12 = "pkcs12"  # RFC 7292, 4
    OTHER = "other"


class Element(NamedTuple):
    """One element: its tag, and where its contents begin and end. `end` may lie beyond the data."""

    tag: int
    start: int
    end: int


def element(der: bytes, at: int = 0) -> Element | None:
    """The element whose header stands at `at`, or None where no header of definite length stands."""
    head = der[at : at + MAX_HEADER_BYTES]
    if len(head) < 2:
        return None
    size = head[1]
    if size < 0x80:
        return Element(head[0], at + 2, at + 2 + size)
    octets = size & 0x7F
    if not 1 <= octets <= MAX_HEADER_BYTES - 2 or len(head) < 2 + octets:
        return None
    start = at + 2 + octets
    return Element(head[0], start, start + int.from_bytes(head[2 : 2 + octets], "big"))


def children(der: bytes, parent: Element) -> list[Element]:
    """The first elements inside `parent`, up to the first that does not fit into it."""
    found: list[Element] = []
    at = parent.start
    while len(found) < MAX_CHILDREN and at < parent.end:
        child = element(der, at)
        if child is None or child.end > parent.end:
            break
        found.append(child)
        at = child.end
    return found


def form(der: bytes) -> Form:
    """Tells the structure by the tags of its elements: copies disfigure the PEM label."""
    top = element(der)
    if top is None:
        return Form.OTHER
    if top.tag == OBJECT_ID:
        return Form.PUBLIC  # EC PARAMETERS: the name of a curve (RFC 5480, 2.1.1)
    inside = children(der, top) if top.tag == SEQUENCE else []
    tags = [child.tag for child in inside]
    if tags and set(tags) == {INTEGER}:
        return {9: Form.PKCS1, 6: Form.DSA}.get(len(tags), Form.PUBLIC)
    if tags[:3] == [INTEGER, SEQUENCE, OCTET_STRING]:
        return Form.PKCS8
    if tags[:2] == [INTEGER, OCTET_STRING]:
        return Form.SEC1
    if tags[:2] == [INTEGER, SEQUENCE]:
        # Explicit EC parameters begin with version 1 (RFC 3279, 2.3.5), a PFX with version 3.
        return Form.PKCS12 if der[inside[0].start : inside[0].end] == b"\x03" else Form.PUBLIC
    if tags == [SEQUENCE, BIT_STRING]:
        return Form.PUBLIC
    if tags == [SEQUENCE, OCTET_STRING]:
        return Form.ENCRYPTED_PKCS8
    if tags == [SEQUENCE, SEQUENCE, BIT_STRING]:
        return _signed(der, inside[0])
    return Form.OTHER


def _signed(der: bytes, signed: Element) -> Form:
    """Requests and revocation lists are signed in the same envelope as certificates."""
    tags = [child.tag for child in children(der, signed)]
    version_1 = [INTEGER, SEQUENCE, SEQUENCE, SEQUENCE, SEQUENCE]
    return Form.CERTIFICATE if tags[:1] == [VERSION_0] or tags[:5] == version_1 else Form.OTHER


def pkcs8_algorithm(der: bytes) -> bytes:
    """The object identifier (its contents octets) of the key inside PKCS#8, empty where none stands."""
    top = element(der)
    inside = children(der, top) if top else []
    algorithm = children(der, inside[1]) if len(inside) > 1 else []
    return der[algorithm[0].start : algorithm[0].end] if algorithm else b""
