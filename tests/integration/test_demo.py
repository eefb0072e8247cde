"""`make demo`: what a newcomer sees, and that nothing is left of it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from device import wait_for

# A cold start of everything on a slow machine; the demonstration's own limits are below it.
DEADLINE_SECONDS = 300.0


def _start(directory: Path) -> subprocess.Popen[str]:
    """In a session of its own, so that whatever it leaves running can be found."""
    return subprocess.Popen(
        [sys.executable, "-m", "claimd_sandbox.demo"],
        # A key for another cloud, which the demonstration must not touch.
        env={**os.environ, "TMPDIR": str(directory), "AWS_PROFILE": "of-whoever-looks-on"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def _of_session(session: int) -> list[str]:
    """The processes of a session, zombies left out."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            # proc(5): state, ppid, pgrp and session follow the name in parentheses.
            state, _, _, of = entry.read_text().rpartition(")")[2].split()[:4]
        except OSError:
            continue  # it ended while we looked
        if int(of) == session and state != "Z":
            found.append(entry.parent.name)
    return found


def test_the_demo_shows_a_claim_becoming_an_identity(tmp_path: Path) -> None:
    demo = _start(tmp_path)
    shown, complaints = demo.communicate(timeout=DEADLINE_SECONDS)
    assert demo.returncode == 0, shown + complaints
    assert complaints == ""
    assert [int(number) for number in re.findall(r"^(\d)\. ", shown, re.MULTILINE)] == list(range(1, 9))
    assert "aws iot create-provisioning-claim --template-name" in shown
    assert "device-client-fp.pem.crt          holds -----BEGIN RSA PRIVATE KEY-----\\n..." in shown
    assert "state:        provisioned, this device has its permanent identity" in shown
    assert re.search(r"^ +drwxr-s---  identity$", shown, re.MULTILINE)
    assert re.search(r"^ +-rw-r-----  identity/[0-9a-f]{64}/private.key$", shown, re.MULTILINE)
    assert re.search(r"^ +lrwxrwxrwx  identity/current -> [0-9a-f]{64}$", shown, re.MULTILINE)
    assert "the drop directory is empty" in shown
    assert re.search(r"its private key is in none of the \d\d+ files of the device", shown)
    assert "ACTIVE  things: demo-gateway-1" in shown
    # No line of a key: whatever is as long as one is a certificate id.
    assert {len(run) for run in re.findall(r"[A-Za-z0-9+]{40,}", shown)} == {64}
    assert all(re.fullmatch("[0-9a-f]+", run) for run in re.findall(r"[A-Za-z0-9+]{40,}", shown))
    assert list(tmp_path.iterdir()) == []
    wait_for(lambda: not _of_session(demo.pid), "the end of every process")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_demo_leaves_nothing(tmp_path: Path, number: signal.Signals) -> None:
    demo = _start(tmp_path)
    assert demo.stdout is not None
    seen = ""
    while not seen.startswith("2."):
        seen = demo.stdout.readline()
        assert seen, demo.communicate()
    assert len(_of_session(demo.pid)) >= 3, "the demo, its sandbox and its claimd"
    demo.send_signal(number)
    _, complaints = demo.communicate(timeout=DEADLINE_SECONDS)
    assert demo.returncode == 130
    assert "interrupted" in complaints
    # A pass that claimd was running gets its own two seconds to end.
    wait_for(lambda: not _of_session(demo.pid), "the end of every process")
    assert list(tmp_path.iterdir()) == []
