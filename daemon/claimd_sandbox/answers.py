"""CreateProvisioningClaim's answer as the aws CLI prints it, versions 1 and 2.

Pure. Seen by running both versions of the CLI on the answer's shape.
"""

from __future__ import annotations

import datetime
import json
from enum import Enum
from typing import Any

_WIDTH_OF_INDENT = 4


class Output(str, Enum):
    JSON = "json"
    YAML = "yaml"
    TEXT = "text"

    def __str__(self) -> str:
        return self.value


def render(claim: dict[str, Any], output: Output, *, cli: int = 1) -> str:
    """The claim as text; `cli` 1 prints `expiration` as a number, 2 as ISO 8601."""
    expiration: float | str = claim["expiration"]
    if cli == 2:
        moment = datetime.datetime.fromtimestamp(claim["expiration"], tz=datetime.timezone.utc)
        expiration = moment.isoformat()
    shown = {
        "certificateId": claim["certificateId"],
        "certificatePem": claim["certificatePem"],
        "keyPair": {
            "PublicKey": claim["keyPair"]["PublicKey"],
            "PrivateKey": claim["keyPair"]["PrivateKey"],
        },
        "expiration": expiration,
    }
    if output is Output.JSON:
        return json.dumps(shown, indent=_WIDTH_OF_INDENT) + "\n"
    if output is Output.YAML:
        return _yaml(shown, 0)
    pair = shown["keyPair"]
    return (
        f"{shown['certificateId']}\t{shown['certificatePem']}\t{expiration}\n"
        f"KEYPAIR\t{pair['PrivateKey']}\t{pair['PublicKey']}\n"
    )


def _yaml(mapping: dict[str, Any], depth: int) -> str:
    """Keys sorted; a text of several lines in single quotes, with a blank line for each line's end."""
    indent = "  " * depth
    lines: list[str] = []
    for key in sorted(mapping):
        value = mapping[key]
        if isinstance(value, dict):
            lines.append(f"{indent}{key}:\n{_yaml(value, depth + 1)}")
        elif isinstance(value, str) and ("\n" in value or ":" in value):
            folded = value.replace("'", "''").replace("\n", f"\n\n{indent}  ")
            lines.append(f"{indent}{key}: '{folded}'\n")
        else:
            lines.append(f"{indent}{key}: {value}\n")
    return "".join(lines)
