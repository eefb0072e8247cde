"""`make docs`: docs/failures.md, written from the catalogue of failures; a test says when it is old."""

from __future__ import annotations

from pathlib import Path

from claimd.errors import CATALOGUE, Code, general
from claimd.screen import BY_ITSELF, EXIT_WORDS

DOCS = Path(__file__).parent.parent / "docs"
FAILURES = DOCS / "failures.md"


def failures_page() -> str:
    parts = [
        "# Failures",
        "Every failure that claimd can name, as `claimd explain CODE` prints it. Words in capitals stand for"
        "\nwhat the device itself knows. This page is made from the code: `make docs`.",
    ]
    for code in Code:
        found, words = general(code), CATALOGUE[code]
        lines = [
            f"## {code.value}",
            f"**What happened:** {_sentence(found.happened)}\n"
            f"**Likely cause:** {_sentence(found.cause)}\n"
            f"**What to do:** {_sentence(_with_commands(found.remedy, found.commands))}\n"
            f"**By itself:** {_sentence(BY_ITSELF[words.kind])}\n"
            f"**Exit code:** {int(words.exit)}, {EXIT_WORDS[words.exit]}.",
        ]
        parts += [lines[0], lines[1].replace("\n", "  \n")]
    return "\n\n".join(parts) + "\n"


def _with_commands(text: str, commands: tuple[str, ...]) -> str:
    for command in sorted(set(commands), key=len, reverse=True):
        text = text.replace(command, f"`{command}`")
    return text


def _sentence(text: str) -> str:
    return text + "."


if __name__ == "__main__":
    FAILURES.write_text(failures_page())
