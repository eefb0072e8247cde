"""claimd setup: what it writes, what it says, and that a mistake changes nothing."""

from __future__ import annotations

import argparse
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from claimd import accounts, cli_setup, config
from claimd.errors import Exit
from claimd.model import Layout

ENDPOINT = "a1b2c3-ats.iot.eu-central-1.amazonaws.com"


def setup(root: Path, *arguments: str, umask: int = 0o022) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "claimd", "--root", str(root), "setup", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, umask=umask)


def usual(root: Path, *more: str, umask: int = 0o022) -> subprocess.CompletedProcess[str]:
    return setup(root, "--endpoint", ENDPOINT, "--template", "Fleet", *more, umask=umask)


def drop_in(root: Path) -> Path:
    return root / "etc/claimd/conf.d/50-setup.toml"


@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_it_writes_a_drop_in_that_everybody_can_read(tmp_path: Path, umask: int) -> None:
    ended = usual(tmp_path, "--parameter", "ThingName=gateway-{serial}", umask=umask)
    assert ended.returncode == 0, ended.stderr
    assert stat.S_IMODE(drop_in(tmp_path).stat().st_mode) == 0o644
    assert stat.S_IMODE(drop_in(tmp_path).parent.stat().st_mode) == 0o755
    loaded = config.load(Layout(str(tmp_path)))
    assert loaded.config.endpoint == ENDPOINT
    assert loaded.config.template.name == "Fleet"
    assert dict(loaded.config.template.parameters) == {"ThingName": "gateway-{serial}"}
    assert [path.name for path in drop_in(tmp_path).parent.iterdir()] == ["50-setup.toml"]


def test_it_says_what_it_did_and_what_is_next(tmp_path: Path) -> None:
    shown = usual(tmp_path).stdout.splitlines()
    assert shown[0] == f"wrote {drop_in(tmp_path)}"
    assert "next: make a claim and copy it to this device within five minutes:" in shown
    assert "  aws iot create-provisioning-claim --template-name Fleet > claim.json" in shown
    assert f"  cp claim.json {tmp_path}/var/spool/claimd/drop/" in shown
    assert shown[-1] == f"then look here: claimd --root {tmp_path} status"


def test_on_a_device_the_claim_comes_from_another_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    usual(tmp_path)
    loaded = config.load(Layout(str(tmp_path)))
    monkeypatch.setattr(config, "load", lambda layout: loaded)
    values = {"endpoint": ENDPOINT, "template": {"name": "Fleet", "parameters": {}}}
    options = argparse.Namespace(template="Fleet", technician="tina")
    assert cli_setup._say_what_is_next(options, Layout(), values) == 0
    shown = capsys.readouterr().out.splitlines()
    assert "  scp claim.json tina@DEVICE:/var/spool/claimd/drop/" in shown
    assert shown[-1] == "then look here: claimd status"


def test_the_next_run_replaces_what_it_wrote_and_nothing_else(tmp_path: Path) -> None:
    usual(tmp_path, "--parameter", "ThingName=a")
    site = drop_in(tmp_path).with_name("60-site.toml")
    site.write_text('[template.parameters]\nDeviceLocation = "Berlin"\n')
    assert setup(tmp_path, "--endpoint", ENDPOINT, "--template", "Other").returncode == 0
    loaded = config.load(Layout(str(tmp_path)))
    assert loaded.config.template.name == "Other"
    assert dict(loaded.config.template.parameters) == {"DeviceLocation": "Berlin"}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--endpoint", f"https://{ENDPOINT}", "--template", "T"], "--endpoint: "),
        (["--endpoint", "", "--template", "T"], "take a text that is not empty"),
        (["--endpoint", ENDPOINT, "--template", "a b"], "--template: takes 1 to 36 letters"),
        (["--endpoint", ENDPOINT, "--template", "T", "--parameter", "x"], "'x' has no =; write NAME=VALUE"),
        (
            ["--endpoint", ENDPOINT, "--template", "T", "--parameter", "Name={seriel}"],
            "--parameter Name: unknown placeholder {seriel}; did you mean {serial}?",
        ),
    ],
)
def test_a_mistake_changes_nothing(tmp_path: Path, arguments: list[str], words: str) -> None:
    ended = setup(tmp_path, *arguments)
    assert ended.returncode == Exit.USAGE
    assert ended.stderr.startswith("claimd: nothing was changed: ")
    assert len(ended.stderr.splitlines()) == 1
    assert words in ended.stderr
    assert list(tmp_path.iterdir()) == []


def test_texts_come_back_as_they_were_given(tmp_path: Path) -> None:
    value = "quote\" back\\slash ü \t '#' \x7f"
    ended = usual(tmp_path, "--parameter", f'Odd "name".x={value}')
    assert ended.returncode == 0, ended.stderr
    assert dict(config.load(Layout(str(tmp_path))).config.template.parameters) == {'Odd "name".x': value}


def test_a_later_file_that_holds_it_back_is_named(tmp_path: Path) -> None:
    drop_in(tmp_path).parent.mkdir(parents=True)
    later = drop_in(tmp_path).with_name("90-device.toml")
    later.write_text('endpoint = "other-ats.iot.eu-central-1.amazonaws.com"\n')
    ended = usual(tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert f"warning: {later} is read later and sets endpoint = 'other-ats." in ended.stdout


def test_another_file_that_is_wrong_is_named(tmp_path: Path) -> None:
    drop_in(tmp_path).parent.mkdir(parents=True)
    drop_in(tmp_path).with_name("60-site.toml").write_text("prot = 443\n")
    ended = usual(tmp_path)
    assert ended.returncode == Exit.CONFIGURATION
    assert "60-site.toml:1" in ended.stderr
    assert "did you mean port?" in ended.stderr


def test_a_full_or_closed_directory_is_named(tmp_path: Path) -> None:
    (tmp_path / "etc").write_text("a file where the directory should be")
    ended = usual(tmp_path)
    assert ended.returncode == Exit.DISK
    assert str(tmp_path / "etc") in ended.stderr


def test_below_a_root_no_user_is_changed(tmp_path: Path) -> None:
    ended = usual(tmp_path, "--technician", "nobody-of-this-name")
    assert ended.returncode == 0, ended.stderr
    assert "nobody-of-this-name was not added to claimd-drop: with --root" in ended.stdout
    assert "scp" not in ended.stdout


def test_without_root_it_says_so_in_one_line() -> None:
    # Nobody, by its own account, who can still read this interpreter's files.
    somebody_else = ["unshare", "--user"] if os.geteuid() == 0 else []
    if subprocess.run([*somebody_else, "true"], check=False).returncode != 0:
        pytest.skip("no user namespace can be made here")
    command = [sys.executable, "-m", "claimd", "setup", "--endpoint", "E", "--template", "a b"]
    ended = subprocess.run([*somebody_else, *command], capture_output=True, text=True, check=False)
    assert ended.returncode == Exit.PERMISSION, ended.stderr
    assert ended.stderr == (
        "claimd: setup needs root to write /etc/claimd: sudo claimd setup --endpoint E --template 'a b'\n"
    )


def usermod(directory: Path, script: str) -> str:
    path = directory / "usermod"
    path.write_text(f'#!/bin/sh\necho "$@" > {directory}/asked\n{script}\n')
    path.chmod(0o755)
    return str(path)


def test_a_user_joins_a_group_besides_the_others(tmp_path: Path) -> None:
    accounts.join("ubuntu", "claimd-drop", usermod(tmp_path, "exit 0"))
    assert (tmp_path / "asked").read_text() == "--append --groups claimd-drop ubuntu\n"


def test_why_a_user_can_t_join_is_told(tmp_path: Path) -> None:
    program = usermod(tmp_path, "echo 'usermod: cannot lock /etc/passwd' >&2; exit 1")
    with pytest.raises(accounts.AccountError, match="ubuntu can't be added to group g: usermod: cannot lock"):
        accounts.join("ubuntu", "g", program)
    with pytest.raises(accounts.AccountError, match="can't be run"):
        accounts.join("ubuntu", "g", str(tmp_path / "missing"))


def test_users_and_groups_are_looked_up() -> None:
    accounts.check("root", "root")
    assert accounts.is_member("root", "root")
    assert not accounts.is_member("nobody", "root")
    with pytest.raises(accounts.AccountError, match="there is no user 'no-such-user' on this machine"):
        accounts.check("no-such-user", "root")
    with pytest.raises(accounts.AccountError, match="there is no group no-such-group"):
        accounts.check("root", "no-such-group")
