"""What a technician and a script see while a claim becomes an identity: status, follow, wait."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from claimd.pem import parse_certificate
from claimd_sandbox.server import Sandbox, Settings
from claimd_sandbox.settings import FOREIGN_ACCOUNT, OTHER_TEMPLATE, KeyKind
from device import wait_for
from provocations import Stage
from schemas import closed, schema

QUICK = Settings(key_kind=KeyKind.EC, connects_per_second=None)


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    with Sandbox.start(tmp_path_factory.mktemp("sandbox"), QUICK) as running:
        yield running


@pytest.fixture
def stage(tmp_path: Path, sandbox: Sandbox) -> Iterator[Stage]:
    made = Stage(tmp_path, sandbox)
    yield made
    made.device.stop()
    sandbox.faults.clear()


class Terminal:
    """A command on a terminal of 80 x 24, and what it has drawn."""

    def __init__(self, stage: Stage, *arguments: str, **environment: str) -> None:
        self._main, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        plain = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "COLUMNS", "LINES")}
        self.process = subprocess.Popen(
            stage.device.command(*arguments),
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env={**plain, "TERM": "xterm", **environment},
        )
        os.close(theirs)
        self.seen = ""

    def read(self) -> str:
        while select.select([self._main], [], [], 0)[0]:
            try:
                data = os.read(self._main, 65536)
            except OSError:
                break
            if not data:
                break
            self.seen += data.decode()
        return self.seen

    def wait_for(self, text: str) -> None:
        wait_for(lambda: text in self.read(), f"{text!r} on the terminal")

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._main)


def piped(stage: Stage, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        stage.device.command(*arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    output, errors = process.communicate(timeout=60)
    return process.returncode, output, errors


def fingerprint(claim: Mapping[str, Any]) -> str:
    return parse_certificate(claim["certificatePem"]).fingerprint


class TestStatus:
    def test_the_document_of_a_real_device_is_as_its_schema_says(self, stage: Stage) -> None:
        def check() -> None:
            jsonschema.validate(stage.device.status(), closed(schema()))

        check()
        stage.claim(template=OTHER_TEMPLATE)
        stage.device.provision()
        check()
        stage.claim()
        stage.device.put("photo.jpg", b"no claim")
        stage.device.start()
        stage.device.wait_for_state("provisioned")
        check()

    def test_plain_ascii_in_the_c_locale(self, stage: Stage) -> None:
        stage.device.put("Schlüssel.pem", "kein Schlüssel")
        stage.device.provision()
        for name in ("C", "POSIX"):
            there = {**os.environ, "LC_ALL": name}
            run = subprocess.run(stage.device.command("status"), capture_output=True, env=there, check=True)
            assert run.stdout.isascii() and rb"Schl\xfcssel.pem" in run.stdout

    def test_colour_only_on_a_terminal_and_never_with_no_color(self, stage: Stage) -> None:
        assert "\x1b" not in stage.device.run("status").stdout
        for environment, coloured in ({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False):
            terminal = Terminal(stage, "status", **environment)
            try:
                terminal.wait_for("service:")
                assert ("\x1b[" in terminal.seen) is coloured, environment
            finally:
                terminal.close()


class TestFollow:
    def test_a_terminal_shows_a_countdown_and_the_stages_ticking_off(self, stage: Stage) -> None:
        stage.sandbox.faults.set("delay step=register ms=3000 times=1")
        stage.configure(answer_seconds=20)
        stage.device.start()
        terminal = Terminal(stage, "status", "--follow")
        try:
            terminal.wait_for("waiting for a claim")
            stage.claim()
            terminal.wait_for("\x1b[33m[>]\x1b[0m registration asked for")
            wait_for(lambda: len(set(re.findall(r"\d:\d\d left", terminal.read()))) > 1, "a countdown")
            terminal.wait_for("\x1b[32m        provisioned, this device has its permanent identity")
            assert "\x1b[J" in terminal.seen, "drawn over itself"
            terminal.process.send_signal(signal.SIGINT)
            assert terminal.process.wait(60) == 0
        finally:
            terminal.close()

    def test_a_pipe_gets_a_line_a_change(self, stage: Stage) -> None:
        stage.device.start()
        wait_for(lambda: stage.device.status()["service"], "the service")
        follower = piped(stage, "status", "--follow")
        try:
            assert follower.stdout is not None
            assert follower.stdout.readline().endswith("no identity yet, waiting for a claim\n")
            stage.claim()
            stage.device.wait_for_state("provisioned")
            lines: list[str] = []
            while not any("became the identity" in line for line in lines):
                lines.append(follower.stdout.readline())
        finally:
            follower.kill()
            follower.communicate()
        text = "".join(lines)
        assert "\x1b" not in text
        for words in ("claim taken in", "certificate and key stored", "registered", "provisioned"):
            assert text.count(f"  {words}") == 1, text
        assert all(re.match(r"\d\d:\d\d:\d\d  \S", line) for line in lines)


class TestWait:
    def test_0_for_a_claim_that_is_copied_meanwhile(self, stage: Stage) -> None:
        stage.device.start()
        waiter = piped(stage, "wait")
        stage.claim()
        code, output, _ = ended(waiter)
        assert code == 0
        assert output.splitlines()[-1].startswith("done: provoked has its identity, certificate ")

    def test_0_by_fingerprint(self, stage: Stage) -> None:
        claim = stage.claim()
        stage.device.start()
        assert ended(piped(stage, "wait", fingerprint(claim)[:12], "--timeout", "60s"))[0] == 0

    def test_the_old_identity_is_not_the_success_of_a_new_claim(self, stage: Stage) -> None:
        stage.configure(tables="")
        path = Path(stage.device.layout.config_file)
        stage.device.configure('reprovision = "replace"\n' + path.read_text())
        stage.claim()
        assert stage.device.provision()["exit"] == 0
        old = stage.device.status()["identity"]["certificate_id"]
        stage.device.start()
        wait_for(lambda: (stage.device.status()["service"] or {}).get("passes"), "the first pass")
        stage.claim()
        code, output, errors = ended(piped(stage, "wait", "--timeout", "60"))
        assert code == 0, errors
        new = stage.device.status()["identity"]["certificate_id"]
        assert new != old and new in output

    def test_3_when_the_old_one_goes_on_serving(self, stage: Stage) -> None:
        stage.claim()
        assert stage.device.provision()["exit"] == 0
        stage.claim()
        stage.device.start()
        code, output, errors = ended(piped(stage, "wait", "--timeout", "60"))
        assert code == 3
        assert "was not needed: this device has its identity" in errors and "done" not in output

    def test_65_for_an_expired_claim(self, stage: Stage) -> None:
        stage.claim(life=-5)
        stage.device.start()
        code, _, errors = ended(piped(stage, "wait", "--timeout", "60"))
        assert code == 65 and "[claim-expired]" in errors

    def test_65_for_what_is_no_claim(self, stage: Stage) -> None:
        stage.device.put("photo.jpg", b"a photo")
        stage.device.start()
        code, _, errors = ended(piped(stage, "wait", "--timeout", "60"))
        assert code == 65 and "claim-not-recognised" in errors

    def test_69_for_a_claim_of_another_template(self, stage: Stage) -> None:
        stage.claim(template=OTHER_TEMPLATE)
        stage.device.start()
        code, _, errors = ended(piped(stage, "wait", "--timeout", "60"))
        assert code == 69 and "subscribe-refused" in errors

    def test_69_for_a_claim_of_another_account(self, stage: Stage) -> None:
        stage.claim(account=FOREIGN_ACCOUNT)
        stage.device.start()
        code, _, errors = ended(piped(stage, "wait", "--timeout", "60"))
        assert code == 69 and "aws sts get-caller-identity" in errors

    def test_124_when_nothing_comes(self, stage: Stage) -> None:
        began = time.monotonic()
        code, _, errors = ended(piped(stage, "wait", "--timeout", "1"))
        assert code == 124 and "time is up after 1 s" in errors and "not running" in errors
        assert time.monotonic() - began >= 1

    def test_2_for_what_makes_no_sense(self, stage: Stage) -> None:
        assert ended(piped(stage, "wait", "--timeout", "soon"))[0] == 2
        assert ended(piped(stage, "wait", "../../etc"))[0] == 2


class TestExplain:
    def test_this_device_s_problem_is_the_default(self, stage: Stage) -> None:
        stage.claim(template=OTHER_TEMPLATE)
        stage.device.provision()
        run = stage.device.run("explain")
        assert run.returncode == 0
        assert run.stdout.startswith("subscribe-refused\n") and "on this device now" in run.stdout
        assert "TrustedUserProvisioningTemplate" in run.stdout

    def test_a_code_that_is_none(self, stage: Stage) -> None:
        run = stage.device.run("explain", "claim-eaten")
        assert run.returncode == 2 and "claimd explain --list" in run.stderr

    def test_status_names_what_explain_explains(self, stage: Stage) -> None:
        stage.device.start()
        wait_for(lambda: stage.device.status()["service"], "the service")
        document = json.loads(stage.device.run("status", "--json").stdout)
        assert document["problem"] is None
        assert "nothing is wrong now" in stage.device.run("explain").stdout
