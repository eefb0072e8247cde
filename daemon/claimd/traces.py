"""Whether a file that is no claim may hold a key all the same, or a part of one. Pure.

What was not recognised as a key can still be one: in binary form, cut at either end, without its BEGIN and
END lines, quoted, wrapped, compressed. Invariant: in doubt it holds one, as all does that is no text. A file
that is called so for nothing is destroyed instead of kept aside; a key that is kept aside lies there for
anybody to find.
"""

from __future__ import annotations

import itertools
import re

from . import shapes

# b0VIM: an editor's swap file, whose blocks need not be in order.
_WORDS = re.compile(rb"PRIVATE[\s_-]*KEY|b0VIM", re.IGNORECASE)

# The beginnings of DER and BER that a key can have: a SEQUENCE with a length of more than one octet, or with
# a short one and an INTEGER in it (SEC1 of P-256 has 30 77 02 01 01). A text may begin with the digit 0, too.
_BEGINNING = re.compile(rb"\x30(?:[\x80-\x84]|[\x00-\x7f]\x02)")
# Anywhere, as in a tar archive: the version and what follows it in PKCS#8, SEC1 and PKCS#1.
_INSIDE = re.compile(
    rb"\x02\x01[\x00\x01]\x30[\x05-\x20]\x06|\x02\x01\x01\x04[\x14-\x42]|\x02\x01\x00\x02[\x81\x82]"
)

# Nobody looks into these: zip, gzip, compress, bzip2, xz, zstd, lz4, 7z, rar, office documents, key stores of
# Java, keys of SSH.
_CLOSED = (
    b"PK\x03\x04",
    b"\x1f\x8b",
    b"\x1f\x9d",
    b"BZh",
    b"\xfd7zXZ",
    b"\x28\xb5\x2f\xfd",
    b"\x04\x22\x4d\x18",
    b"7z\xbc\xaf",
    b"Rar!",
    b"\xd0\xcf\x11\xe0",
    b"\xfe\xed\xfe\xed",
    b"\xce\xce\xce\xce",
    b"openssh-key-v1\x00",
)

# A line of PEM has 64 characters, one of MIME 76. A drawn line is as long, and has few different ones.
_LINE = re.compile(r"[A-Za-z0-9+/]{60,}")
_DIFFERENT_CHARACTERS = 8
# Shorter, and of the alphabet for URLs too: where cases and digits mix as in no word, path or number.
_RUN = re.compile(r"[A-Za-z0-9+/_-]{32,}")
_KINDS = (str.isupper, str.islower, str.isdigit)

# 20 bytes in hexadecimal, as xxd, openssl and C write them; an id has 16. A list of numbers has no letters.
_HEXADECIMAL = re.compile(r"(?:[0-9A-Fa-f]{2}[\s:,]{0,6}(?:0x|\\x)?){20,}")
_HEXADECIMAL_LETTERS = re.compile(r"[A-Fa-f]")
_DIGITS = re.compile(r"[0-9]")
_ENOUGH = 3

# However it is wrapped and quoted: in base64, with all other characters taken away, a capital, a small letter
# or a digit is followed by one of another kind 35 times in 56. In a text words stay what they are.
_WINDOW, _STEP = 56, 4
_CHANGES, _CAPITALS, _SMALL = 24, 8, 8
_NOT_ALPHABET = bytes(each for each in range(256) if not (chr(each).isalnum() and each < 128))
_CLASSES = bytes(
    ord("A") if 65 <= each <= 90 else ord("a") if 97 <= each <= 122 else ord("0") for each in range(256)
)
# Of the characters of a text so many may be strange: those of a language in another encoding. Nowhere in it
# may they lie as close as in what is compressed or encrypted, of which half are.
_STRANGE_SHARE = 0.1
_STRETCH, _STRANGE_IN_A_STRETCH = 64, 16
_MARKS_OF_UTF_16 = (b"\xff\xfe", b"\xfe\xff")


def of_key(data: bytes) -> bool:
    """Whether `data` may hold a private key or a part of one. Linear in its length, whatever it holds."""
    if data.startswith(_CLOSED) or _BEGINNING.match(data) or _INSIDE.search(data):
        return True
    if _WORDS.search(data.replace(b"\0", b"")):
        return True
    text = _decoded(data)
    if not _is_text(text) or (b"\0" in data and not data.startswith(_MARKS_OF_UTF_16)):
        return True
    if any(len(set(each)) >= _DIFFERENT_CHARACTERS for each in _LINE.findall(text)):
        return True
    if any(all(any(map(kind, run)) for kind in _KINDS) for run in _RUN.findall(text)):
        return True
    if any(_is_hexadecimal(each.group()) for each in _HEXADECIMAL.finditer(text)):
        return True
    return _is_dense(shapes.read(data, 0).compact)


def _decoded(data: bytes) -> str:
    """As `shapes.read` does it. Every byte of a binary file becomes a character."""
    if data.startswith(_MARKS_OF_UTF_16):
        return data.decode("utf-16", "replace")
    return data.replace(b"\0", b"").decode("utf-8", "replace")


def _is_hexadecimal(text: str) -> bool:
    letters, digits = _HEXADECIMAL_LETTERS.findall(text), _DIGITS.findall(text)
    return len(letters) >= _ENOUGH and len(digits) >= _ENOUGH


def _is_text(text: str) -> bool:
    strange = bytes(each == "\ufffd" or not (each.isprintable() or each.isspace()) for each in text)
    if strange.count(1) > len(text) * _STRANGE_SHARE:
        return False
    stretches = (strange[at : at + _STRETCH] for at in range(0, len(strange), _STRETCH // 2))
    return all(stretch.count(1) < _STRANGE_IN_A_STRETCH for stretch in stretches)


def _is_dense(compact: str) -> bool:
    """Whether somewhere in it cases and digits lie as close as in base64."""
    kinds = compact.encode("ascii").translate(_CLASSES, _NOT_ALPHABET)
    changes = bytes(one != following for one, following in itertools.pairwise(kinds))
    for at in range(0, len(kinds) - _WINDOW + 1, _STEP):
        window = slice(at, at + _WINDOW)
        capitals, small = kinds[window].count(b"A"), kinds[window].count(b"a")
        if changes[window].count(1) >= _CHANGES and capitals >= _CAPITALS and small >= _SMALL:
            return True
    return False
