"""Takes out of a text what could be a secret, before it leaves the device. Pure.

Invariant: no PEM block of a private key, in any of the shapes that terminals and JSON give it, and no long
run of base64 gets through; certificate ids, fingerprints and paths do, because support needs them.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

SECRET = "<secret>"  # noqa: S105  what stands in a secret's place

# Also without its end, when a line was cut.
_PRIVATE_KEY = re.compile(
    r"-----BEGIN [A-Z ]{0,30}PRIVATE KEY-----.*?(?:-----END [A-Z ]{0,30}PRIVATE KEY-----|\Z)", re.DOTALL
)
# A line of PEM has 64 characters; an ownership token has hundreds.
_RUN = re.compile(r"[A-Za-z0-9+/_=-]{32,}")
_SECRET_NAME = re.compile(r"pass|secret|token|pin\b|credential|private|api_?key", re.IGNORECASE)
_WORD_CHARACTERS = (str.isupper, str.islower, str.isdigit)


def scrubbed(text: str) -> str:
    text = _PRIVATE_KEY.sub(SECRET, text)
    return _RUN.sub(lambda found: SECRET if _is_random(found.group()) else found.group(), text)


def _is_random(run: str) -> bool:
    """Base64 mixes cases and digits; hexadecimal ids, paths and names in kebab-case do not."""
    return all(any(kind(c) for c in run) for kind in _WORD_CHARACTERS)


def parameters(given: Mapping[str, str]) -> dict[str, str]:
    """Template parameters to be shown: one whose name says that it is secret is not."""
    return {n: SECRET if _SECRET_NAME.search(n) else scrubbed(value) for n, value in given.items()}


def is_secret(name: str) -> bool:
    return _SECRET_NAME.search(name) is not None
