"""What can be the name of an AWS IoT endpoint, and what is likely none.

Invariant: only what can't be a host name is refused. VPC endpoints, custom domains and a sandbox have
any name, so a name that only looks wrong gets a warning. A refused text is not quoted: a URL can hold
a password.
"""

from __future__ import annotations

import re

# RFC 1123 section 2.1: labels of letters, digits and hyphens; RFC 1035: 63 a label, 253 in all.
HOST_NAME = re.compile(r"(?=.{1,253}\Z)(?!-)[a-z0-9-]{1,63}(?<!-)(\.(?!-)[a-z0-9-]{1,63}(?<!-))*")

# scheme and user of a URL; the host; a port; a path
_PASTED = re.compile(r"(?:[a-z0-9+.-]+://)?(?:[^/@]*@)?([^/:@]*)(?::(\d{1,5}))?(?:[/?#].*)?", re.DOTALL)

# "Device data endpoints" in the AWS IoT Core developer guide; the China regions write .ats.
# Two letters and, in the European sovereign cloud, four: eusc-de-east-1.
_REGION = r"[a-z]{2}(?:[a-z]{2})?(?:-[a-z]+)+-\d"
_DOMAIN = r"(?:amazonaws\.com|amazonaws\.com\.cn|amazonaws\.eu|api\.aws)"
_ATS = re.compile(rf"[a-z0-9]+[-.]ats\.iot(?:-fips)?\.{_REGION}\.{_DOMAIN}")
_LEGACY = re.compile(rf"([a-z0-9]+)(\.iot\.{_REGION}\.{_DOMAIN})")
_OTHER_SERVICE = re.compile(rf"(?:[a-z0-9-]+\.(?:credentials|jobs)\.)?iot\.{_REGION}\.{_DOMAIN}")
_IN_REGION = re.compile(rf"[.-]({_REGION})\.(?:vpce\.)?{_DOMAIN}\Z")
_ADDRESS = re.compile(r"\d+(\.\d+){3}")

# The port on which AWS IoT Core takes MQTT from a client that asks for it by this name (AWS IoT developer
# guide, "Device communication protocols").
ALPN_PORT = 443
ALPN_PROTOCOL = "x-amzn-mqtt-ca"

_ASK = "aws iot describe-endpoint --endpoint-type iot:Data-ATS"


def parse(text: str) -> str:
    """The host name in lower case; ValueError with the right value where it can be told."""
    name = text.lower()
    if HOST_NAME.fullmatch(name):
        return name
    pasted = _PASTED.fullmatch(name.strip())
    host = pasted.group(1).strip().rstrip(".") if pasted else ""
    if not HOST_NAME.fullmatch(host):
        raise ValueError(f"takes a host name; this prints it: {_ASK}")
    port = pasted.group(2) if pasted and "://" not in name else None
    right = f'endpoint = "{host}"' + (f" and port = {port}" if port else "")
    raise ValueError(f"takes the host name alone: write {right}")


def region(endpoint: str) -> str:
    """The AWS region that the name says, or "unknown": a custom domain tells nothing."""
    found = _IN_REGION.search(endpoint)
    return found.group(1) if found else "unknown"


def warnings(endpoint: str) -> list[str]:
    if _ATS.fullmatch(endpoint):
        return []
    legacy = _LEGACY.fullmatch(endpoint)
    if legacy:
        right = f"{legacy.group(1)}-ats{legacy.group(2)}"
        return [f'endpoint: this is an old endpoint that AWS shut down; likely right: endpoint = "{right}"']
    if _OTHER_SERVICE.fullmatch(endpoint):
        return [f"endpoint: this is an endpoint for another purpose; this prints the right one: {_ASK}"]
    if _ADDRESS.fullmatch(endpoint):
        return ["endpoint: this is an address; AWS IoT Core is reached only by name (SNI)"]
    return [
        "endpoint: this does not look like an endpoint of AWS IoT Core (PREFIX-ats.iot.REGION.amazonaws.com);"
        " right for a custom domain or a VPC endpoint only"
    ]
