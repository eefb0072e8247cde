"""The root certificates that claimd trusts: a configured file's, or Amazon's own from the distribution.

Invariant: the answer is exactly what was asked for, whole, or CA_UNUSABLE. An empty or partial list
would make the TLS library fall back to other roots, or fail in the field without a reason.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import re
import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING

from . import smallfile
from .errors import ClaimdError, Code, fail

if TYPE_CHECKING:
    from collections.abc import Iterable

# Server authentication in the AWS IoT developer guide names these five, and asks for all of them.
# They are known by the SHA-256 of their DER (https://www.amazontrust.com/repository/), so that a file's
# name or a certificate's subject can't stand in for one.
AMAZON_ROOTS = {
    "Amazon Root CA 1": "8ecde6884f3d87b1125ba31ac3fcb13d7016de7f57cc904fe1cb97c6ae98196e",
    "Amazon Root CA 2": "1ba5b2aa8c65401a82960118f80bec4f62304d83cec4713a19c39c011ea46db4",
    "Amazon Root CA 3": "18ce6cfe7bf14e60b2e347b8dfe868cb31d02ebb3ada271569f50343b46db3a4",
    "Amazon Root CA 4": "e35d28419ed02025cfa69038cd623962458da5c695fbdea3c22b0bfb25897092",
    "Starfield Services Root CA - G2": "568d6905a2c88708a4b3025190edcfedb1974a606a13c6e5290fcb2ae63edab5",
}

# Debian's bundle has some 220 KiB.
MAX_BYTES = 4 * 1024 * 1024

_CERTIFICATE = re.compile(rb"-----BEGIN CERTIFICATE-----(.*?)-----END CERTIFICATE-----", re.DOTALL)


@dataclass(frozen=True)
class Store:
    """Where ca-certificates keeps its roots on Debian and Ubuntu; `--root` doesn't rebase it.

    The bundle is what the administrator left switched on (update-ca-certificates), so it decides
    where it exists; the directory serves images on which that was never run.
    """

    bundle: str = "/etc/ssl/certs/ca-certificates.crt"
    directory: str = "/usr/share/ca-certificates/mozilla"


_STORE = Store()


def amazon_roots(store: Store = _STORE) -> bytes:
    """The five roots as PEM, always in the same order: the same bytes on every device."""
    try:
        place, der = store.bundle, _certificates(smallfile.read(store.bundle, MAX_BYTES))
    except FileNotFoundError:
        place, der = store.directory, _in_directory(store.directory)
    except OSError as error:
        raise _unusable(store.bundle, error.strerror or str(error)) from error
    known = {hashlib.sha256(one).hexdigest(): one for one in der}
    missing = [name for name, fingerprint in AMAZON_ROOTS.items() if fingerprint not in known]
    if missing:
        raise _unusable(place, f"there is no {', no '.join(missing)}")
    return _pem(known[fingerprint] for fingerprint in AMAZON_ROOTS.values())


def configured_roots(path: str) -> bytes:
    """All certificates of a PEM file, in its order. Raises CA_UNUSABLE if one of them is none."""
    try:
        content = smallfile.read(path, MAX_BYTES)
    except OSError as error:
        raise _unusable(path, error.strerror or str(error)) from error
    if b"PRIVATE KEY-----" in content:
        raise _unusable(path, "it holds a private key; root certificates have none")
    pem = _pem(_certificates(content))
    if content.count(b"-----BEGIN ") != pem.count(b"-----BEGIN "):
        raise _unusable(path, "it holds something that is not a whole certificate in PEM")
    if not pem:
        raise _unusable(path, "there is no certificate in PEM in it")
    try:
        # Only to have OpenSSL parse each of them; nothing connects with this context.
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=pem.decode())
    except ssl.SSLError as error:
        raise _unusable(path, "it holds a damaged certificate") from error
    return pem


def _in_directory(directory: str) -> list[bytes]:
    """The certificates of all files: their names differ between releases, their contents do not."""
    found: list[bytes] = []
    try:
        for name in sorted(os.listdir(directory)):
            if name.endswith(".crt"):
                found += _certificates(smallfile.read(f"{directory}/{name}", MAX_BYTES))
    except OSError as error:
        raise _unusable(directory, error.strerror or str(error)) from error
    return found


def _certificates(content: bytes) -> list[bytes]:
    """The DER of every block that decodes; one that doesn't can't be one of those looked for."""
    found = []
    for block in _CERTIFICATE.findall(content):
        try:
            found.append(base64.b64decode(b"".join(block.split()), validate=True))
        except binascii.Error:
            continue
    return found


def _pem(certificates: Iterable[bytes]) -> bytes:
    return b"".join(ssl.DER_cert_to_PEM_cert(one).encode() for one in certificates)


def _unusable(path: str, detail: str) -> ClaimdError:
    return fail(Code.CA_UNUSABLE, file=path, detail=detail)
