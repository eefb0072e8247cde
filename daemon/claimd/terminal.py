"""What the commands share: reading what the service wrote, and speaking to a person."""

from __future__ import annotations

import argparse
import json
import sys
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from .report import problem_lines

if TYPE_CHECKING:
    from .errors import Problem

    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

MAX_DOCUMENT_BYTES = 1024 * 1024


def complain(found: Problem) -> None:
    print("\n".join(problem_lines(found)), file=sys.stderr)


def read_document(path: str) -> dict[str, Any] | None:
    """A status file, or None when it is not there or not whole (it may be another user's, or older)."""
    try:
        with open(path, "rb") as file:
            document = json.loads(file.read(MAX_DOCUMENT_BYTES))
    except (OSError, ValueError):
        return None
    return document if isinstance(document, dict) and document.get("schema") == 1 else None


def now() -> datetime:
    return datetime.now(timezone.utc)
