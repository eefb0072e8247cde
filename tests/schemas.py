"""The schema that claimd ships for `claimd status --json`."""

from __future__ import annotations

import json
from importlib import resources
from typing import Any


def schema() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(resources.files("claimd").joinpath("status.schema.json").read_text())
    return found


def closed(part: Any) -> Any:
    """The schema with every object closed: a member that it does not describe is an error."""
    if isinstance(part, list):
        return [closed(one) for one in part]
    if not isinstance(part, dict):
        return part
    made = {name: closed(value) for name, value in part.items()}
    if made.get("type") == "object" and "properties" in made:
        made.setdefault("additionalProperties", False)
    return made
