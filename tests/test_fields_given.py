"""Every place in the code that names a failure gives the fields that its words need.

A field that is not given reads as its own name in capitals: right in a manual, useless in the rain.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import claimd
from claimd.errors import CATALOGUE, Code
from provocations import fields

SOURCES = Path(claimd.__file__).parent


@dataclass(frozen=True)
class Place:
    """A call of `problem` or `fail` with a code written out and every field by name."""

    where: str
    code: Code
    given: frozenset[str]


def calls() -> Iterator[tuple[str, ast.Call]]:
    for path in sorted(SOURCES.glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
                continue
            if node.func.id in ("problem", "fail") and node.args:
                yield f"{path.name}:{node.lineno}", node


def codes_of(node: ast.expr) -> list[Code]:
    """`Code.X`, or both of `Code.X if ... else Code.Y`."""
    if isinstance(node, ast.IfExp):
        return codes_of(node.body) + codes_of(node.orelse)
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "Code":
        return [Code[node.attr]]
    return []


def places() -> list[Place]:
    return [
        Place(where, code, frozenset(keyword.arg for keyword in call.keywords if keyword.arg))
        for where, call in calls()
        if all(keyword.arg for keyword in call.keywords)
        for code in codes_of(call.args[0])
    ]


def needed(code: Code) -> set[str]:
    words = CATALOGUE[code]
    return {name for text in (words.happened, words.cause, words.remedy) for name in fields(text)}


def test_the_search_finds_the_places() -> None:
    found = places()
    assert len(found) > 40
    assert len({place.code for place in found}) > 30


# Of the command that makes a new claim. Whoever shows the problem adds it (Problem.about), for only he knows
# the configuration; a person at a desk reads TEMPLATE, as in the manual.
ADDED = "aws iot create-provisioning-claim --template-name {template}"


@pytest.mark.parametrize("place", places(), ids=lambda place: f"{place.where}-{place.code.value}")
def test_no_field_is_missing(place: Place) -> None:
    added = {"template"} if ADDED in CATALOGUE[place.code].remedy else set()
    missing = needed(place.code) - place.given - added
    assert not missing, f"{place.where}: {place.code.value} needs {sorted(missing)}"
