"""The text under the disfigurements: whatever people and terminals do to PEM, back to its blocks.

JSON, YAML and the other outputs of `aws` are not parsed: a parser gives up at the first line that a
terminal wrapped, and there is one PEM inside all of them. Instead everything that PEM does not need is
taken away (white space, control codes, escapes), and the blocks are found in what is left: base64 has no
`-`, so that no block can hide another. What a file without a block is, is told by its first bytes or words.

Invariants: linear in the length of the text, whatever it holds; no repr shows a block's contents.
"""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass, field

# N_TTY keeps 4,096 bytes of a line in canonical mode, one of them the line's end: termios(3).
TERMINAL_LINE_CHARACTERS = 4095
# A claim's first block begins within its first lines, also below a pasted shell prompt and command.
MAX_LEAD_CHARACTERS = 4096

_MAGIC = (
    (b"\x89PNG", "a picture (PNG): copy the text itself, not a screenshot"),
    (b"\xff\xd8\xff", "a picture (JPEG): copy the text itself, not a screenshot"),
    (b"PK\x03\x04", "a zip archive or an office document: unpack it, and copy the text files in it"),
    (b"\x1f\x8b", "a gzip archive: unpack it, and copy the text files in it"),
    (b"7z\xbc\xaf", "a 7z archive: unpack it, and copy the text files in it"),
    (b"\xfd7zXZ", "an xz archive: unpack it, and copy the text files in it"),
    (b"\xd0\xcf\x11\xe0", "an office document: save it as plain text, and copy that"),
    (b"{\\rtf", "a text with formatting (RTF): save it as plain text, and copy that"),
    (b"%PDF", "a PDF document: copy the text itself"),
    (b"\xfe\xed\xfe\xed", "a Java key store: copy certificate and key as PEM files"),
    (b"\x7fELF", "a program"),
    (b"PuTTY-User-Key-File", "a PuTTY key: that is a key for SSH, not the key of a claim"),
    (b"openssh-key-v1\x00", "an OpenSSH key: that is a key for SSH, not the key of a claim"),
)

# In the compacted text, where no white space is left.
_WORDS = (
    (r"Anerroroccurred\(|usage:aws|aws:error|commandnotfound|Unabletolocatecredentials|Couldnotconnectto"
     r"|Unabletoparse|couldnotbefound|isnotrecognizedas",
     "an error message of the aws command: read it, and make the claim again"),
    (r"^(?:ssh-(?:rsa|dss|ed25519)|ecdsa-sha2-)", "a public key for SSH, not a claim"),
    (r"^(?:<!DOCTYPEhtml|<html|<\?xml)", "a web page: copy the text itself"),
)  # fmt: skip

_MEMBERS = ("certificateId", "certificatePem", "keyPair", "PrivateKey", "PublicKey", "expiration")

# A text that is still arriving may also stop within a code or an escape.
_TERMINAL_CODES = re.compile(r"\x1b\[[0-?]*[!-,]?(?:[@-~]|$)|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|[\x07\x1b]")
_DASHES = "\u2010\u2011\u2012\u2013\u2014\u2015\u2212"
# Deleted as bytes: a tenth of the time of a regular expression, and every file that is dropped is read.
_NOT_VISIBLE = bytes(each for each in range(128) if not (33 <= each <= 126 or each in b"\x07\x1b"))
_BACKSLASHES = re.compile(r"\\+")
_ESCAPE = re.compile(r"\\(?:[rnt]|u001[Bb]\[[0-?]*[!-,]?(?:[@-~]|$)|u([0-9A-Fa-f]{4})|u[0-9A-Fa-f]{0,3}$)")
_PAGER = re.compile(r"--More--(?:\(\d{1,3}%\))?")
_BLOCK = re.compile(
    r"(?<![A-Za-z0-9+/])BEGIN(?P<label>[A-Z0-9]{1,40})-+"
    r"(?P<encrypted>Proc-Type:4,ENCRYPTED)?(?P<body>[^-]*)(?P<end>-+END[A-Z0-9]*-{0,5})?"
)
_NOT_BASE64 = bytes(each for each in range(128) if not (chr(each).isalnum() or each in b"+/"))
_HEADLESS = re.compile(r"-END[A-Z0-9]+-|^MI[A-Za-z0-9+/]{30}")
_MARKER_BEGUN = re.compile(r"-(?:B(?:E(?:G(?:I(?:N[A-Z0-9]{0,40})?)?)?)?)?$")
_HEXADECIMAL = re.compile(r"[\"'\[]{0,2}[0-9a-f]{1,64}[\"',]{0,2}$")


@dataclass(frozen=True)
class Block:
    """One PEM block as found. `label`: without spaces. `characters`: its base64 without padding."""

    label: str
    characters: str = field(repr=False)
    ended: bool
    encrypted: bool

    @property
    def noun(self) -> str:
        """What a person calls it."""
        if self.label.endswith("PRIVATEKEY"):
            return "key"
        return "certificate" if self.label.endswith("CERTIFICATE") else "text"


@dataclass(frozen=True)
class Text:
    """A file's text. `compact`: its visible ASCII, unescaped; `rest`: what follows the last of the blocks."""

    compact: str = field(repr=False)
    rest: str = field(repr=False)
    blocks: tuple[Block, ...]
    is_blank: bool
    line_was_cut: bool


def binary(data: bytes) -> str | None:
    """What a file looks like that is no text, with what to do about it."""
    return next((what for magic, what in _MAGIC if data.startswith(magic)), None)


def read(data: bytes, max_blocks: int) -> Text:
    """Reads ASCII, UTF-8 and UTF-16, with or without a byte order mark: all that PEM needs is ASCII."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        text = data.decode("utf-16", "replace")
    else:
        # UTF-16 without a mark is ASCII with zero bytes between; a preallocated file ends with them.
        text = data.replace(b"\0", b"").decode("utf-8", "replace")
    compact = _compact(text)
    blocks: list[Block] = []
    end = 0
    for found in itertools.islice(_BLOCK.finditer(compact), max_blocks):
        end = found.end()
        blocks.append(
            Block(
                label=found["label"],
                characters=_without(_NOT_BASE64, found["body"]),
                ended=found["end"] is not None,
                encrypted=found["encrypted"] is not None,
            )
        )
    cut = any(len(line) == TERMINAL_LINE_CHARACTERS for line in text.splitlines())
    return Text(compact, compact[end:], tuple(blocks), not text.strip("\ufeff \t\r\n"), cut)


def _compact(text: str) -> str:
    """Takes white space away before it looks for codes and escapes: a line's end also falls within them."""
    text = _without(_NOT_VISIBLE, _plain_dashes(text))
    if "\x1b" in text or "\x07" in text:
        text = _TERMINAL_CODES.sub("", text)
    if "\\" in text:
        # One backslash of many (JSON within JSON): also keeps the search for escapes linear.
        text = _BACKSLASHES.sub(r"\\", text)
        text = _ESCAPE.sub(_unescape, text)
    return _PAGER.sub("", text)


def _without(deleted: bytes, text: str) -> str:
    """`text` without these characters, and without all that are not ASCII."""
    return text.encode("ascii", "ignore").translate(None, deleted).decode("ascii")


def _plain_dashes(text: str) -> str:
    """Word processors and chat programs make one long dash of two."""
    if not text.isascii():
        for dash in _DASHES:
            text = text.replace(dash, "-")
    return text


def _unescape(found: re.Match[str]) -> str:
    """`\\u002b` is how some JSON writers spell `+`; line ends and tabs are not needed."""
    character = _plain_dashes(chr(int(found[1], 16))) if found[1] else ""
    return character if "!" <= character <= "~" else ""


def foreign(text: Text) -> str | None:
    """What a text looks like that holds no claim and can't become one, or None."""
    return next((what for words, what in _WORDS if re.search(words, text.compact)), None)


def headless(text: Text) -> bool:
    """Whether a block stands there without its first line; its base64 begins with MI (a long SEQUENCE)."""
    return _HEADLESS.search(text.rest) is not None


def unfinished(text: Text) -> str | None:
    """Why more of this text may still come, or None: it can't become more of a claim than it is."""
    compact = text.compact
    if text.is_blank:
        return "it is empty"
    if _MARKER_BEGUN.search(text.rest[-60:]):
        return "it stops within a line -----BEGIN ...-----"
    if len(text.rest) > MAX_LEAD_CHARACTERS:
        return None
    if compact.count("{") + compact.count("[") > compact.count("}") + compact.count("]"):
        return "it stops before its closing bracket"
    if text.blocks or not compact:
        return None
    return _beginning(compact)


def _beginning(compact: str) -> str | None:
    """Whether a text without brackets and blocks is how an answer of `aws` may begin."""
    if compact.count("```") == 1 or compact in ("'", '"', "`", "``"):
        return "it stops after its quotation mark"
    if "awsiot" in compact:
        return "so far it holds only the command, not its answer"
    if _HEXADECIMAL.match(compact):
        return "so far it holds only the id of a certificate"
    word = compact.lstrip("-")
    if any(member + ":" in word or member.startswith(word) for member in _MEMBERS):
        return "it stops before the certificate"
    return None
