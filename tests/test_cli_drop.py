"""claimd put, inspect, ready and sweep, as people use them; the terminal is a real one."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import stat
import subprocess
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

import material
from claimd.pem import parse_certificate
from device import NOBODY, Device, as_nobody, wait_for
from terminal_user import TerminalUser


@pytest.fixture
def device(tmp_path: Path) -> Device:
    return Device(tmp_path / "root")


def fresh(*, life: float = 290, ahead: float = 0) -> material.Pair:
    now = datetime.now(timezone.utc).replace(microsecond=0) + timedelta(seconds=ahead)
    return material.pair(not_before=now - timedelta(minutes=2), not_after=now + timedelta(seconds=life))


def answer_of_aws(pair: material.Pair, indent: int | None = 4) -> str:
    keys = {"PublicKey": "-----BEGIN PUBLIC KEY-----\nx\n-----END PUBLIC KEY-----\n", "PrivateKey": pair.key}
    document = {"certificateId": "c0" * 32, "certificatePem": pair.certificate, "keyPair": keys}
    return json.dumps(document, indent=indent)


def fingerprint(pair: material.Pair) -> str:
    return parse_certificate(pair.certificate).fingerprint


def run(device: Device, *arguments: str, text: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        device.command(*arguments), input=text, capture_output=True, text=True, timeout=60, check=False
    )


class TestPut:
    def test_the_answer_of_aws_by_a_pipe(self, device: Device) -> None:
        """aws iot create-provisioning-claim --template-name T | ssh device claimd put"""
        pair = fresh()
        ended = run(device, "put", text=answer_of_aws(pair))
        assert ended.returncode == 0, ended.stderr
        assert ended.stdout.splitlines()[0] == f"claim {fingerprint(pair)}"
        (name,) = device.dropped()
        assert stat.S_IMODE((device.drop / name).stat().st_mode) == 0o600
        assert (device.drop / name).read_text() == pair.certificate + pair.key

    def test_two_files_with_swapped_names(self, device: Device, tmp_path: Path) -> None:
        pair = fresh()
        (tmp_path / "a.pem.crt").write_text(pair.key.replace("\n", "\\n"))
        (tmp_path / "a.pem.key").write_text(pair.certificate.replace("\n", "\\n"))
        ended = run(device, "put", "--json", str(tmp_path / "a.pem.crt"), str(tmp_path / "a.pem.key"))
        assert ended.returncode == 0, ended.stderr
        said = json.loads(ended.stdout)
        assert [each["fingerprint"] for each in said["dropped"]] == [fingerprint(pair)]
        assert [each["file"] for each in said["dropped"]] == device.dropped()

    @pytest.mark.parametrize(
        ("text", "code"),
        [
            (lambda: fresh().certificate, "claim-key-missing"),
            (lambda: fresh().key, "claim-certificate-missing"),
            (lambda: fresh().certificate + fresh().key, "claim-key-mismatch"),
            (lambda: answer_of_aws(fresh(life=-5)), "claim-expired"),
            (lambda: (lambda p: p.certificate + p.key)(material.device_pair()), "claim-is-permanent"),
            (lambda: answer_of_aws(fresh())[:300], "claim-still-arriving"),
            (lambda: "An error occurred (AccessDenied)", "claim-not-recognised"),
            (lambda: "", "claim-still-arriving"),
            (lambda: "x" * 70_000, "claim-file-too-large"),
        ],
    )
    def test_what_is_no_claim_is_refused_here(
        self, device: Device, text: Callable[[], str], code: str
    ) -> None:
        dropped = text()
        ended = run(device, "put", text=dropped)
        assert ended.returncode == 65
        assert f"code:         {code}" in ended.stderr
        assert device.dropped() == []
        assert not any(line in ended.stderr for line in dropped.splitlines() if len(line) == 64)

    @pytest.mark.parametrize(
        ("name", "half", "advice"),
        [
            ("g.key", "key", "give both: claimd put {path} CERTIFICATE-FILE"),
            ("g.crt", "certificate", "give both: claimd put {path} KEY-FILE"),
            ("it's mine.key", "key", "give both: claimd put {path} CERTIFICATE-FILE"),
        ],
    )
    def test_half_a_claim_is_told_how_to_put_both(
        self, device: Device, tmp_path: Path, name: str, half: str, advice: str
    ) -> None:
        path, pair = tmp_path / name, fresh()
        path.write_text(getattr(pair, half))
        ended = run(device, "put", str(path))
        assert (ended.returncode, device.dropped()) == (65, [])
        words = " ".join(ended.stderr.split())
        assert "nothing was dropped; " + advice.format(path=shlex.quote(str(path))) in words
        assert "the drop directory" not in words and "copied so far" not in words
        whole = tmp_path / "other"
        whole.write_text(pair.certificate if half == "key" else pair.key)
        command = shlex.split(advice.partition(": ")[2].format(path=shlex.quote(str(path))))
        assert run(device, *command[1:-1], str(whole)).returncode == 0, "as it was told"

    @pytest.mark.parametrize(
        ("text", "advice"),
        [
            (lambda: fresh().key, "send both: cat CERTIFICATE-FILE KEY-FILE | claimd put"),
            (lambda: "", "send the whole of it again"),
        ],
    )
    def test_a_part_by_a_pipe(self, device: Device, text: Callable[[], str], advice: str) -> None:
        ended = run(device, "put", text=text())
        assert (ended.returncode, device.dropped()) == (65, [])
        assert f"nothing was dropped; {advice}" in " ".join(ended.stderr.split())
        assert "being copied" not in ended.stderr

    def test_a_part_of_a_file(self, device: Device, tmp_path: Path) -> None:
        (tmp_path / "a.key").write_text(fresh().key[:150])
        ended = run(device, "put", str(tmp_path / "a.key"))
        words = " ".join(ended.stderr.split())
        assert f"nothing was dropped; copy it again, then: claimd put {tmp_path}/a.key" in words

    def test_half_a_claim_beside_a_whole_one(self, device: Device, tmp_path: Path) -> None:
        (tmp_path / "a.json").write_text(answer_of_aws(fresh()))
        (tmp_path / "b.key").write_text(fresh().key)
        ended = run(device, "put", str(tmp_path / "a.json"), str(tmp_path / "b.key"))
        assert ended.returncode == 0 and len(device.dropped()) == 1
        assert "it was not dropped; give both" in " ".join(ended.stderr.split())

    def test_a_clock_that_is_behind_is_said_and_the_claim_dropped(self, device: Device) -> None:
        ended = run(device, "put", text=answer_of_aws(fresh(ahead=3600)))
        assert ended.returncode == 0
        assert "sudo date -u -s" in ended.stderr and len(device.dropped()) == 1
        assert "dropped, not valid yet; follow it" in ended.stdout

    def test_a_service_that_does_not_run_is_said(self, device: Device) -> None:
        start = f"claimd --root {device.root} run"
        for more in ([], ["--json"]):
            ended = run(device, "put", *more, text=answer_of_aws(fresh()))
            assert ended.returncode == 0, "it is dropped, and taken in once the service runs"
            assert ended.stderr == f"claimd: the service is not running; start it: {start}\n"
        lines = [line.strip() for line in run(device, "status").stdout.splitlines()]
        assert start in lines or any(line.endswith(f": {start}") for line in lines), lines

    def test_a_status_that_can_t_be_read_is_no_failure_of_a_drop(self, device: Device) -> None:
        Path(device.layout.status_file).parent.mkdir(parents=True, exist_ok=True)
        Path(device.layout.status_file).write_text("not a status")
        ended = run(device, "put", text=answer_of_aws(fresh()))
        assert ended.returncode == 0 and ended.stderr.startswith("claimd: the service is not running")
        assert len(device.dropped()) == 1

    def test_of_one_that_runs_nothing_is_said(self, device: Device) -> None:
        device.start()
        try:
            wait_for(lambda: device.status()["service"], "the service")
            ended = run(device, "put", text=answer_of_aws(fresh()))
            assert (ended.returncode, ended.stderr) == (0, "")
            assert "start the service" not in run(device, "status").stdout
        finally:
            device.stop()

    def test_a_file_that_is_not_there(self, device: Device) -> None:
        ended = run(device, "put", "/no/such/file")
        assert (ended.returncode, device.dropped()) == (2, [])
        assert ended.stderr == "claimd: cannot read '/no/such/file': No such file or directory\n"

    def test_no_drop_directory(self, device: Device) -> None:
        device.drop.rmdir()
        ended = run(device, "put", text=answer_of_aws(fresh()))
        assert ended.returncode == 78 and "drop-directory-missing" in ended.stderr

    def test_an_account_that_may_not_write_there(self, device: Device) -> None:
        device.drop.chmod(0o755)
        opened = [device.drop, *list(device.drop.parents)[:8]]
        for path in opened:
            path.chmod(path.stat().st_mode | 0o055)
        ended = subprocess.run(
            [*as_nobody(), *device.command("put")],
            input=answer_of_aws(fresh()),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert ended.returncode == 77, ended.stderr
        assert "usermod -aG claimd-drop nobody" in ended.stderr

    def test_a_technician_without_privileges(self, device: Device) -> None:
        device.drop.chmod(0o1777)
        for path in list(device.drop.parents)[:8]:
            path.chmod(path.stat().st_mode | 0o055)
        ended = subprocess.run(
            [*as_nobody(), *device.command("put")],
            input=answer_of_aws(fresh()),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert ended.returncode == 0, ended.stderr
        (name,) = device.dropped()
        found = (device.drop / name).stat()
        assert (found.st_uid, stat.S_IMODE(found.st_mode)) == (NOBODY, 0o600)


def words(user: TerminalUser) -> str:
    """What stands on the screen, in one line and without colour."""
    return " ".join(re.sub(rb"\x1b\[\d*m", b"", user.shown).decode().split())


@pytest.mark.skipif(shutil.which("setsid") is None, reason="setsid is not installed")
class TestPasting:
    @pytest.fixture
    def user(self, device: Device) -> Iterator[TerminalUser]:
        user = TerminalUser(device.command("put"))
        yield user
        user.close()

    def assert_dropped(self, device: Device, user: TerminalUser, pair: material.Pair) -> None:
        assert user.ended() == 0, user.shown
        assert f"claim {fingerprint(pair)}".encode() in user.shown
        (name,) = device.dropped()
        assert (device.drop / name).read_text() == pair.certificate + pair.key
        self.assert_clean(user, pair)

    def assert_clean(self, user: TerminalUser, pair: material.Pair) -> None:
        """Nothing of the key on the screen or for the shell, and the terminal as it was."""
        assert pair.key.splitlines()[1].encode() not in user.shown
        assert user.settings() == user.before
        assert user.left_for_the_shell() == b""

    def test_one_line_beyond_the_limit_of_a_terminal(self, device: Device, user: TerminalUser) -> None:
        pair = fresh()
        padded = json.dumps({"note": "x" * 6000, **json.loads(answer_of_aws(pair))})
        assert len(padded) > 4096 and "\n" not in padded
        user.wait_for("Paste the claim")
        user.type(padded + "\n")
        self.assert_dropped(device, user, pair)

    def test_two_pastes(self, device: Device, user: TerminalUser) -> None:
        pair = fresh()
        user.wait_for("Paste the claim")
        user.type(pair.certificate)
        user.wait_for("The certificate is here. Now paste the private key.")
        user.type(pair.key.replace("\n", "\r"))
        self.assert_dropped(device, user, pair)

    def test_a_terminal_that_brackets_its_pastes(self, device: Device, user: TerminalUser) -> None:
        pair = fresh()
        user.wait_for("Paste the claim")
        user.type("\x1b[200~" + pair.key + "\x1b[201~")
        user.wait_for("The private key is here. Now paste the certificate.")
        user.type("\x1b[200~" + pair.certificate + "\x1b[201~")
        self.assert_dropped(device, user, pair)

    def test_a_cut_key_is_pasted_again(self, device: Device, user: TerminalUser) -> None:
        pair = fresh()
        user.wait_for("Paste the claim")
        user.type(pair.key[:150])
        user.wait_for("stops in the middle")
        user.type("\n" + pair.key)
        user.wait_for("Now paste the certificate")
        user.type(pair.certificate)
        self.assert_dropped(device, user, pair)

    def test_the_key_of_another_claim(self, device: Device, user: TerminalUser) -> None:
        pair, other = fresh(), fresh()
        user.wait_for("Paste the claim")
        user.type(pair.certificate)
        user.wait_for("Now paste the private key")
        user.type(other.key)
        user.wait_for("not that of the certificate")
        user.type(pair.key)
        self.assert_dropped(device, user, pair)

    def test_ctrl_d_gives_up_with_what_is_missing(self, device: Device, user: TerminalUser) -> None:
        pair = fresh()
        user.wait_for("Paste the claim")
        user.type(pair.key + "\x04")
        assert user.ended() == 65
        assert b"claim-certificate-missing" in user.shown and device.dropped() == []
        assert "nothing was dropped; paste all of it again: claimd put" in words(user)
        self.assert_clean(user, pair)

    @pytest.mark.parametrize("length", [0, 150], ids=["nothing", "half a key"])
    def test_ctrl_d_after_a_part_asks_for_all_of_it(
        self, device: Device, user: TerminalUser, length: int
    ) -> None:
        pair = fresh()
        user.wait_for("Paste the claim")
        user.type(pair.key[:length] + "\x04")
        assert user.ended() == 65 and device.dropped() == []
        assert "nothing was dropped; paste all of it again: claimd put" in words(user)
        assert "being copied" not in words(user), "nobody copies anything"
        self.assert_clean(user, pair)

    def test_ctrl_c_ends_it(self, device: Device, user: TerminalUser) -> None:
        pair = fresh()
        user.wait_for("Paste the claim")
        user.type(pair.key)
        user.wait_for("Now paste the certificate")
        user.type("\x03")
        assert user.ended() == 130
        assert b"nothing was dropped" in user.shown and device.dropped() == []
        self.assert_clean(user, pair)


class TestInspect:
    def test_a_usable_claim(self, device: Device) -> None:
        pair = fresh()
        ended = run(device, "inspect", "-", text=answer_of_aws(pair))
        assert ended.returncode == 0
        lines = ended.stdout.splitlines()
        assert lines[0].startswith(f"standard input: certificate {fingerprint(pair)[:12]} (CN=a claim)")
        assert "  private key (P-256)" in ended.stdout.replace(", private", "\n  private")
        assert f"claim:         {fingerprint(pair)}" in lines
        assert "pair:          certificate and key belong together (P-256)" in lines
        assert " left" in ended.stdout and "looks right" in ended.stdout
        assert pair.key.splitlines()[1] not in ended.stdout

    def test_what_is_wrong_with_each(self, device: Device, tmp_path: Path) -> None:
        (tmp_path / "cert.pem").write_text(fresh().certificate)
        (tmp_path / "key.pem").write_text(fresh().key)
        (tmp_path / "notes.txt").write_text("call Bob")
        ended = run(device, "inspect", *(str(path) for path in sorted(tmp_path.glob("*.*"))))
        assert ended.returncode == 65
        assert "no certificate and no private key" in ended.stdout
        assert "claim-key-mismatch" in ended.stdout and "claim-not-recognised" in ended.stdout

    def test_expired(self, device: Device) -> None:
        ended = run(device, "inspect", "-", text=answer_of_aws(fresh(life=-5)))
        assert ended.returncode == 65 and "claim-expired" in ended.stdout

    def test_a_clock_that_is_behind(self, device: Device) -> None:
        ended = run(device, "inspect", "-", text=answer_of_aws(fresh(ahead=3600)))
        assert ended.returncode == 0
        said = " ".join(ended.stdout.split())
        assert "this device's clock is behind" in said and " UTC, not valid yet clock: " in said

    def test_as_json(self, device: Device) -> None:
        pair = fresh()
        said = json.loads(run(device, "inspect", "--json", "-", text=answer_of_aws(pair)).stdout)
        assert said["usable"] and said["problems"] == []
        assert said["claims"][0]["fingerprint"] == fingerprint(pair)
        assert 0 < said["claims"][0]["remaining_seconds"] <= 290
        assert pair.key.splitlines()[1] not in json.dumps(said)


class TestReady:
    def test_not_configured(self, device: Device) -> None:
        ended = run(device, "ready")
        assert ended.returncode == 78
        assert ended.stdout.startswith("NOT READY\n\nNot configured: set endpoint and template.name.")
        said = json.loads(run(device, "ready", "--json").stdout)
        assert (said["ready"], said["problem"]["code"]) == (False, "not-configured")


class TestSweep:
    def test_what_was_set_aside(self, device: Device) -> None:
        (device.drop / ".claimd-sweep-1").mkdir()
        (device.drop / ".claimd-sweep-1" / "key").write_text("secret")
        ended = run(device, "sweep")
        assert (ended.returncode, ended.stderr, device.dropped()) == (0, "2 names destroyed\n", [])
        assert run(device, "sweep").stderr == ""
