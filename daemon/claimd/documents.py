"""The two documents that every user of an identity reads: identity.json and identity.env."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from . import record
from .errors import Code, problem

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from .model import Certificate

# Far above any certificate chain or record; a file that is larger was not written by claimd.
MAX_STORED_BYTES = 1024 * 1024
# An answer is 128 KiB at most (AWS IoT Core quotas).
ROOM_FOR_THE_ANSWER = 160 * 1024


def identity_document(
    *,
    certificate_id: str,
    certificate: Certificate,
    endpoint: str,
    port: int,
    template: str,
    client_id: str,
    thing_name: str | None,
    thing_name_known: bool,
    device_configuration: Mapping[str, object] | None,
    registered_at: datetime,
    replaces: str | None,
    replaced_thing: str | None = None,
) -> dict[str, Any]:
    """The members of identity.json (documented in the README, versioned by `schema`)."""
    return {
        "endpoint": endpoint,
        "port": port,
        "template": template,
        "client_id": client_id,
        "thing_name": thing_name,
        # false: the answer was lost; `aws iot list-principal-things` tells the name.
        "thing_name_known": thing_name_known,
        "certificate_id": certificate_id,
        "certificate_not_after": record.time_to_json(certificate.not_after),
        "certificate_sha256": certificate.fingerprint,
        "device_configuration": "unknown" if device_configuration is None else dict(device_configuration),
        "registered_at": record.time_to_json(registered_at),
        "replaces_certificate_id": replaces,
        # AWS keeps it active until somebody deactivates it; null when nothing was replaced.
        "replaced_certificate": None
        if replaces is None
        else {
            "certificate_id": replaces,
            "still_active": True,
            "to_deactivate": deactivation(replaces, replaced_thing),
        },
    }


def deactivation(certificate_id: str, thing_name: str | None = None) -> list[str]:
    """The commands that end a certificate in AWS, for a person with rights that the device has not."""
    found = problem(Code.OLD_CERTIFICATE_ACTIVE, certificate_id=certificate_id, thing_name=thing_name or "")
    return list(found.commands if thing_name is not None else found.commands[:1])


def identity_json(document: Mapping[str, Any]) -> bytes:
    """Indented for people while there is room. Every level of a nested device configuration indents all that
    is in it, so that an answer of 128 KiB grows to megabytes; on one line it is six times as long at most.
    """
    text = json.dumps(document, indent=2, sort_keys=True)
    if len(text) > ROOM_FOR_THE_ANSWER:
        text = json.dumps(document, separators=(",", ":"), sort_keys=True)
    if len(text) >= MAX_STORED_BYTES:
        # Whatever it holds: an identity that can't be read back would be none.
        text = json.dumps({**document, "device_configuration": "unknown"}, indent=2, sort_keys=True)
    return text.encode("ascii") + b"\n"


def identity_env(document: Mapping[str, Any]) -> bytes:
    """identity.env, for EnvironmentFile= of systemd and for a shell: every value in quotes."""
    values = {
        "CLAIMD_ENDPOINT": document["endpoint"],
        "CLAIMD_PORT": document["port"],
        "CLAIMD_CLIENT_ID": document["client_id"],
        "CLAIMD_THING_NAME": document["thing_name"] or "",
        "CLAIMD_CERTIFICATE_ID": document["certificate_id"],
        "CLAIMD_PRIVATE_KEY": document["paths"]["private_key"],
        "CLAIMD_CERTIFICATE": document["paths"]["certificate"],
        "CLAIMD_ROOT_CA": document["paths"]["root_ca"],
    }
    lines = [f"{name}={_quoted(str(value))}\n" for name, value in values.items()]
    return "".join(lines).encode("utf-8", "surrogateescape")


def _quoted(value: str) -> str:
    """For both readers, which agree on these escapes (systemd.exec(5), EnvironmentFile=). It never raises:
    AWS has registered the identity by now."""
    if "'" not in value:
        return f"'{value}'"
    return '"' + re.sub(r'([\\"$`])', r"\\\1", value) + '"'
