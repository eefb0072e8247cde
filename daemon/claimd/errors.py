"""A failure with its fields, as status, result files and the journal show it, and the error that carries it.

Invariant: whatever a field holds, its text is printable and of a bounded length.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

from .catalogue import CATALOGUE, Explanation
from .codes import Code, Exit, Kind

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "CATALOGUE",
    "ClaimdError",
    "Code",
    "Exit",
    "Explanation",
    "Kind",
    "Problem",
    "fail",
    "general",
    "printable",
    "problem",
]

# A field's text is cut here, so that a hostile name or message can't flood a screen or the journal.
MAX_FIELD_CHARACTERS = 300


def printable(text: str) -> str:
    """Make outside text safe to show: control characters and lone surrogates as escapes, cut to length."""
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)
    return shown if len(shown) <= MAX_FIELD_CHARACTERS else shown[: MAX_FIELD_CHARACTERS - 3] + "..."


@dataclass(frozen=True)
class Problem:
    """One failure with its fields: what status, result files and the journal show."""

    code: Code
    fields: Mapping[str, str]

    def about(self, **known: str | None) -> Problem:
        """With what is known besides, for the fields that its words have a place for and nobody gave."""
        words = self.explanation
        text = words.happened + words.cause + words.remedy
        added = {name: value for name, value in known.items() if value and f"{{{name}}}" in text}
        return Problem(self.code, {**added, **self.fields})

    @property
    def explanation(self) -> Explanation:
        return CATALOGUE[self.code]

    @property
    def kind(self) -> Kind:
        return self.explanation.kind

    @property
    def exit(self) -> Exit:
        return self.explanation.exit

    @property
    def happened(self) -> str:
        return _filled(self.explanation.happened, self.fields)

    @property
    def sentence(self) -> str:
        """`happened` as a sentence of its own; a file or host that it begins with keeps its name."""
        said = self.happened
        if not any(value and said.startswith(value) for value in self.fields.values()):
            said = said[:1].upper() + said[1:]
        return said + "."

    @property
    def cause(self) -> str:
        return _filled(self.explanation.cause, self.fields)

    @property
    def remedy(self) -> str:
        """A sentence; a command in it stands as it is typed."""
        return "".join(text for text, _ in _pieces(self.explanation.remedy, self.fields))

    @property
    def commands(self) -> tuple[str, ...]:
        """The commands that the remedy names, each as it is typed into a shell."""
        return tuple(text for text, typed in _pieces(self.explanation.remedy, self.fields) if typed)

    @property
    def documentation(self) -> str:
        return f"{DOCUMENTATION}#{self.code.value}"

    def to_json(self) -> dict[str, object]:
        return {
            "code": self.code.value,
            "message": self.happened,
            "cause": self.cause,
            "remedy": self.remedy,
            "commands": list(self.commands),
            "documentation": self.documentation,
            "fields": {name: printable(value) for name, value in self.fields.items()},
        }


# Where each code has a section of its own; the package puts the folder under /usr/share/doc/claimd.
DOCUMENTATION = "docs/failures.md"

_SHELL_SAFE = re.compile(r"[A-Za-z0-9@%+=:,./_-]+")


def general(code: Code) -> Problem:
    """A failure without its fields: ENDPOINT stands for an endpoint, as in the manual of a command."""
    return problem(code)


def _filled(text: str, fields: Mapping[str, str]) -> str:
    return text.format_map(_Fields(fields))


def _pieces(text: str, fields: Mapping[str, str]) -> list[tuple[str, bool]]:
    """The text in pieces, each with whether it is a command (it stood in backticks)."""
    plain, typed = _Fields(fields), _Fields(fields, quoted=True)
    return [
        (piece.format_map(typed if number % 2 else plain), bool(number % 2))
        for number, piece in enumerate(text.split("`"))
    ]


class _Fields(dict[str, str]):
    """Every field printable, and in a command one word of a shell; a missing one is named, no exception."""

    def __init__(self, fields: Mapping[str, str], *, quoted: bool = False) -> None:
        shown = {name: printable(value) for name, value in fields.items()}
        super().__init__({name: _quoted(value) for name, value in shown.items()} if quoted else shown)

    def __missing__(self, key: str) -> str:
        return key.upper().replace("_", "-")


def _quoted(word: str) -> str:
    return word if _SHELL_SAFE.fullmatch(word) else "'" + word.replace("'", "'\\''") + "'"


def problem(code: Code, **fields: object) -> Problem:
    return Problem(code, MappingProxyType({name: str(value) for name, value in fields.items()}))


class ClaimdError(Exception):
    """A failure that claimd can name. Its `str` is the sentence for a person; it holds no secret."""

    def __init__(self, what: Problem) -> None:
        super().__init__(what.happened)
        self.problem = what


def fail(code: Code, **fields: object) -> ClaimdError:
    """`raise fail(Code.DNS_FAILED, endpoint=…) from cause`"""
    return ClaimdError(problem(code, **fields))
