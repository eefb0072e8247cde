"""The syntax of configured texts with placeholders: `dev-{serial}`, `{mac:eth0}`, `{{` for a brace.

Invariant: a text that `parse` accepts has only placeholders that exist, each with the argument
it needs. What they stand for on this device is another module's matter: this one reads nothing.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .errors import printable

if TYPE_CHECKING:
    from collections.abc import Collection

# What a device can say about itself. The two that are known only to an attempt are in LATER.
FACTS = ("serial", "mac", "machine-id", "hostname", "file")

# Placeholders that get their value in the course of an attempt, and the one key that may use each.
LATER = {"fingerprint": "claim.client_id", "thing_name": "identity.client_id"}

_SHAPES = {"mac": "{mac:eth0}", "file": "{file:/path}"}

# The kernel's own rule for a network interface's name (dev_valid_name in net/core/dev.c).
_INTERFACE = re.compile(r"(?!\.{1,2}\Z)[^/:\s]{1,15}")

_TOKEN = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]|[^{}]+")

_SHOWN_CHARACTERS = 40


class PlaceholderError(ValueError):
    """Why a text is not a valid pattern. Its `str` is for a person and quotes only what stands in braces."""


@dataclass(frozen=True)
class Placeholder:
    name: str
    argument: str | None = None

    def __str__(self) -> str:
        return "{" + self.name + ("" if self.argument is None else ":" + self.argument) + "}"


# A pattern is its parts in order: literal texts and placeholders.
Pattern = tuple["str | Placeholder", ...]


def names_for(key: str) -> tuple[str, ...]:
    """The placeholders that the text under this dotted configuration key may use."""
    return (*(name for name, where in LATER.items() if where == key), *FACTS)


def parse(text: str, names: Collection[str] = FACTS) -> Pattern:
    """The parts of `text`; PlaceholderError if it uses a placeholder that is not in `names`."""
    parts: list[str | Placeholder] = []
    for token in _TOKEN.finditer(text):
        word = token.group()
        if word in ("{{", "}}"):
            parts.append(word[0])
        elif word == "{":
            raise PlaceholderError("a { has no } after it; write {{ for a brace itself")
        elif word == "}":
            raise PlaceholderError("a } has no { before it; write }} for a brace itself")
        elif token.group(1) is not None:
            parts.append(_placeholder(token.group(1), names))
        else:
            parts.append(word)
    return tuple(parts)


def escape(text: str) -> str:
    """A pattern that stands for exactly `text`."""
    return text.replace("{", "{{").replace("}", "}}")


def _placeholder(inner: str, names: Collection[str]) -> Placeholder:
    name, colon, argument = inner.partition(":")
    if name not in names:
        raise PlaceholderError(_unknown(inner, name, names))
    if name not in _SHAPES:
        if colon:
            raise PlaceholderError(f"{{{_shown(inner)}}} takes nothing after its name: write {{{name}}}")
        return Placeholder(name)
    if name == "mac" and not _INTERFACE.fullmatch(argument):
        raise PlaceholderError(f"{{{_shown(inner)}}} needs a network interface: write {{mac:eth0}}")
    if name == "file" and (not argument.startswith("/") or not argument.isprintable()):
        raise PlaceholderError(f"{{{_shown(inner)}}} needs an absolute path: write {{file:/path}}")
    return Placeholder(name, argument)


def _unknown(inner: str, name: str, names: Collection[str]) -> str:
    if name in LATER:
        return f"{{{name}}} can be used only in {LATER[name]}"
    from difflib import get_close_matches  # only an error needs it: 10 ms of every start

    near = get_close_matches(name.lower().replace("_", "-"), [*names], n=1)
    shapes = [_SHAPES.get(known, f"{{{known}}}") for known in (near or names)]
    ask = "did you mean" if near else "there are"
    return f"unknown placeholder {{{_shown(inner)}}}; {ask} {', '.join(shapes)}" + ("?" if near else "")


def _shown(text: str) -> str:
    text = printable(text)
    return text if len(text) <= _SHOWN_CHARACTERS else text[: _SHOWN_CHARACTERS - 3] + "..."
