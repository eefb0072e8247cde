"""The order in which AWS's C++ device client writes what it is given, in the same replay.

Source: source/fleetprovisioning/FleetProvisioning.cpp and source/util/FileUtils.cpp of aws-iot-device-client
as published: the certificate and the key are written with ofstream and given their modes afterwards, the
ownership token stays in memory, RegisterThing is asked, then the runtime configuration is written in
place. Nothing is synced, nothing renamed. This is a model of that order, not the program.

What is asked of it is what is asked of claimd: a certificate that AWS activated must be in use or found
again. The client finds it again by its runtime configuration alone; without one it provisions anew, and
the certificate before stays active in AWS with nobody to use it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

from faults.cloud import certificate_id, device_pairs, known
from faults.judge import Finding, Kind
from faults.powercut import Cut, cuts
from faults.table import Row
from faults.trace import Recorder

KEYS, CONFIGURATION = "keys", "config"
RUNTIME = "aws-iot-device-client-runtime.conf"


def record(place: Path) -> Recorder:
    """The client's calls in their order; umask 022, both directories there at mode 0700."""
    for name in (KEYS, CONFIGURATION):
        (place / name).mkdir(parents=True, mode=0o700)
    calls = Recorder(place)
    made, name = device_pairs()[0], certificate_id(0)
    certificate, key = (
        str(place / KEYS / (name + end)) for end in ("-certificate.pem.crt", "-private.pem.key")
    )
    calls.event(json.dumps({"event": "asked", "step": "create"}))
    issued = {"event": "issued", "id": name, "key": made.claim.key.public_key_id, "token": "t", "at": _AT}
    calls.event(json.dumps(issued))
    for path, text in ((certificate, made.certificate), (key, made.key)):
        _ofstream(calls, path, text.encode("ascii"))
    _chmod(calls, certificate, 0o644)
    _chmod(calls, key, 0o600)
    calls.event(json.dumps({"event": "asked", "step": "register"}))
    calls.event(json.dumps({"event": "activated", "id": name}))
    runtime = str(place / CONFIGURATION / RUNTIME)
    text = json.dumps(
        {"completed": True, "cert": os.path.basename(certificate), "key": os.path.basename(key)}
    )
    _ofstream(calls, runtime, text.encode("ascii"))
    _chmod(calls, runtime, 0o644)
    return calls


_AT = "2026-03-01T12:00:00+00:00"


def _ofstream(calls: Recorder, path: str, data: bytes) -> None:
    with calls.step(f"ofstream {Path(path).suffix}"):
        fd = calls.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        calls.write(fd, data)
        calls.close(fd)


def _chmod(calls: Recorder, path: str, mode: int) -> None:
    with calls.step(f"chmod {Path(path).suffix}"):
        fd = calls.open(path, os.O_RDONLY)
        calls.fchmod(fd, mode)
        calls.close(fd)


def replay(place: Path) -> Row:
    row = Row("power cut: the C++ client's write order (a model)", is_ours=False)
    calls, seen = record(place), set()
    for cut in cuts(calls.start, calls.entries, most=400):
        if cut.key() in seen:
            continue
        seen.add(cut.key())
        row.add(f"after operation {cut.after}", list(_judge(cut)))
    return row


def _judge(cut: Cut) -> Iterator[Finding]:
    state, made = known(cut.events), device_pairs()[0]
    files = {path: node.data for path, node in cut.tree.listing() if node.names is None}
    name = certificate_id(0)
    runtime = files.get(f"/{CONFIGURATION}/{RUNTIME}")
    key = files.get(f"/{KEYS}/{name}-private.pem.key", b"")
    certificate = files.get(f"/{KEYS}/{name}-certificate.pem.crt", b"")
    has_pair = key == made.key.encode("ascii") and certificate == made.certificate.encode("ascii")
    if name in state.activated and (not has_pair or runtime is None):
        yield Finding(Kind.LOST, "a certificate that AWS activated is not found again")
    if runtime is not None and not (_is_json(runtime) and has_pair):
        yield Finding(Kind.HALF, "the runtime configuration is damaged or names damaged files")


def _is_json(data: bytes) -> bool:
    try:
        json.loads(data)
    except ValueError:
        return False
    return True
