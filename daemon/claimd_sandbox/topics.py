"""Topic names and filters: which are valid, and which match.

Pure. Sources: MQTT 5 section 4.7; AWS IoT Developer Guide, "Reserved topics" and the message broker's quotas.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

CREATE_KEYS = "$aws/certificates/create/json"
CREATE_FROM_CSR = "$aws/certificates/create-from-csr/json"
_TEMPLATES = "$aws/provisioning-templates/"
_PROVISION = "/provision/json"
_OUTCOMES = ("/accepted", "/rejected")


class Operation(str, Enum):
    """The provisioning API's MQTT operations."""

    CREATE_KEYS = "create-keys"
    CREATE_FROM_CSR = "create-csr"
    REGISTER = "register"


@dataclass(frozen=True)
class ProvisioningTopic:
    """A topic of the provisioning API: a request's, or (`answer`) its /accepted or /rejected."""

    operation: Operation
    template: str | None
    answer: bool


def provisioning_topic(topic: str) -> ProvisioningTopic | None:
    """What a topic of the provisioning API means; None for every other topic."""
    request, answer = topic, False
    for outcome in _OUTCOMES:
        if topic.endswith(outcome):
            request, answer = topic[: -len(outcome)], True
    if request == CREATE_KEYS:
        return ProvisioningTopic(Operation.CREATE_KEYS, None, answer)
    if request == CREATE_FROM_CSR:
        return ProvisioningTopic(Operation.CREATE_FROM_CSR, None, answer)
    if request.startswith(_TEMPLATES) and request.endswith(_PROVISION):
        template = request[len(_TEMPLATES) : -len(_PROVISION)]
        if template and "/" not in template and "+" not in template and "#" not in template:
            return ProvisioningTopic(Operation.REGISTER, template, answer)
    return None


def valid_name(topic: str, *, max_bytes: int, max_slashes: int) -> bool:
    """A name to publish to: not empty, no wildcard, within AWS's size and depth."""
    return bool(topic) and "+" not in topic and "#" not in topic and _small(topic, max_bytes, max_slashes)


def valid_filter(topic: str, *, max_bytes: int, max_slashes: int) -> bool:
    """A filter to subscribe to: wildcards fill a whole level, and # is the last."""
    levels = topic.split("/")
    for index, level in enumerate(levels):
        if "#" in level and (level != "#" or index != len(levels) - 1):
            return False
        if "+" in level and level != "+":
            return False
    return bool(topic) and _small(topic, max_bytes, max_slashes)


def _small(topic: str, max_bytes: int, max_slashes: int) -> bool:
    """AWS counts neither the bytes nor the slashes of a reserved topic's first three levels."""
    counted = topic
    if topic.startswith("$"):
        counted = topic.split("/", 3)[-1] if topic.count("/") >= 3 else ""
    return len(counted.encode("utf-8")) <= max_bytes and counted.count("/") <= max_slashes


def matches(pattern: str, topic: str) -> bool:
    """Whether a filter matches a topic; a leading wildcard never matches a topic that begins with $."""
    if topic.startswith("$") and pattern[:1] in ("+", "#"):
        return False
    wanted, given = pattern.split("/"), topic.split("/")
    for index, level in enumerate(wanted):
        if level == "#":
            return True
        if index >= len(given) or level not in ("+", given[index]):
            return False
    return len(wanted) == len(given)
