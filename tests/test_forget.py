"""The way out: nothing half way, whatever dies in between, and nothing secret in an image."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from claimd.drop import MAX_FOLDERS_A_SCAN
from claimd.durable import Disk
from claimd.forget import Memory, NotAgreedError, finish, forgotten, left_behind, memory
from claimd.lock import LockedError
from claimd.store import Store
from device import DEADLINE_SECONDS, Device
from faults.calls import Counting
from faults.rig import Rig, copy_of
from faults.scenarios import PLAIN

UNTOUCHED = "claimd: given up; nothing was destroyed"
BEGUN = "claimd: given up; what was begun is finished by the service's next pass, or by claimd forget again"
DESTROYED = "identity, attempt and claims are destroyed; what status says of them goes with the next pass"


@pytest.fixture(scope="module")
def provisioned(tmp_path_factory: pytest.TempPathFactory) -> Rig:
    """A device with an identity and, in its drop directory, another claim."""
    rig = PLAIN.make(tmp_path_factory.mktemp("forget"))
    assert rig.recover().is_active
    return rig


def store_of(root: Path, disk: Disk | None = None) -> Store:
    return Store(Device(root).layout, disk or Disk())


def forget(store: Store) -> Memory:
    with forgotten(store) as there:
        return there


def on_another_machine(rig: Rig, place: Path) -> Device:
    """A copy of its disk."""
    device = Device(copy_of(rig, place / "copy").root)
    (device.root / "etc/machine-id").write_text("f" * 32 + "\n")
    return device


def state(root: Path) -> list[str]:
    found = []
    for parent, directories, files in os.walk(root / "var/lib/claimd"):
        found += [os.path.relpath(os.path.join(parent, n), root / "var/lib/claimd") for n in files]
        found += [n for n in directories if os.path.islink(os.path.join(parent, n))]
    return sorted(found)


def test_all_of_it_goes(provisioned: Rig, tmp_path: Path) -> None:
    copy = copy_of(provisioned, tmp_path / "copy")
    (copy.root / "var/lib/claimd/something.new").write_text("of a later version")
    store = store_of(copy.root)
    there = forget(store)
    (identity,) = there.identities
    assert identity.serves and identity.thing_name == "thing-under-test"
    assert state(copy.root) == []
    assert memory(store).is_empty


def test_no_pass_begins_a_new_memory_before_the_image_is_judged(provisioned: Rig, tmp_path: Path) -> None:
    store = store_of(copy_of(provisioned, tmp_path / "copy").root)
    with forgotten(store), pytest.raises(LockedError), store_of(Path(store.layout.root)).locked():
        pass
    with store.locked():
        assert memory(store).is_empty


def test_a_device_that_forgot_takes_a_new_claim(provisioned: Rig, tmp_path: Path) -> None:
    copy = copy_of(provisioned, tmp_path / "copy")
    forget(store_of(copy.root))
    copy.drop(1)
    assert copy.recover().is_active


def test_the_order_can_be_cut_at_any_sync(provisioned: Rig, tmp_path: Path) -> None:
    """The intent is synced before anything goes, and goes after everything is synced."""
    counting = Counting()
    copy = copy_of(provisioned, tmp_path / "copy")
    forget(store_of(copy.root, Disk(counting)))
    first = next(number for number, name in enumerate(counting.names) if name in ("unlink", "rmdir"))
    assert counting.names[:first].count("fsync") == 2, "the intent and its directory"
    assert counting.names[-2:] == ["fsync", "close"], "the last removal is made safe"


def test_an_identity_that_came_meanwhile_is_not_what_was_agreed_to(provisioned: Rig, tmp_path: Path) -> None:
    store = store_of(copy_of(provisioned, tmp_path / "copy").root)
    seen = Memory((), ("f1" * 32,), has_record=True)
    with pytest.raises(NotAgreedError), forgotten(store, agreed=seen):
        pass
    assert memory(store).identities and not store.is_forgetting()
    with forgotten(store, agreed=memory(store)) as there:
        assert not there.is_empty


def test_what_came_while_it_waited_is_told_before_it_goes(provisioned: Rig, tmp_path: Path) -> None:
    """By whom it is broken off afterwards: the commands for AWS are for what is destroyed."""

    class Dying(Store):
        def forget(self) -> None:
            raise KeyboardInterrupt

    root = copy_of(provisioned, tmp_path / "copy").root
    told: list[Memory] = []
    before = memory(store_of(root))
    with pytest.raises(KeyboardInterrupt), forgotten(Dying(Device(root).layout, Disk()), found=told.append):
        pass
    assert told == [before]


class TestTheCommand:
    def test_it_needs_yes_without_a_terminal(self, provisioned: Rig, tmp_path: Path) -> None:
        device = Device(copy_of(provisioned, tmp_path / "copy").root)
        before = state(device.root)
        ended = device.run("forget")
        assert ended.returncode == 2
        assert "needs --yes" in ended.stderr
        assert state(device.root) == before

    def test_it_names_the_commands_for_aws(self, provisioned: Rig, tmp_path: Path) -> None:
        device = Device(copy_of(provisioned, tmp_path / "copy").root)
        (certificate,) = [each.certificate_id for each in memory(store_of(device.root)).identities]
        ended = device.run("forget", "--yes")
        assert ended.returncode == 0, ended.stderr
        assert f"update-certificate --certificate-id {certificate} --new-status INACTIVE" in ended.stdout
        assert "detach-thing-principal --thing-name thing-under-test" in ended.stdout
        assert state(device.root) == []
        assert device.status()["state"] == "unprovisioned"
        # A service that is running has no reason to look again; what it says is true all the same.
        assert (device.root / "var/spool/claimd/result/latest.txt").read_text().startswith("NOT READY\n")
        again = device.run("forget", "--yes")
        assert (again.returncode, again.stdout.split(":")[0]) == (4, "nothing to forget")

    def test_on_a_copied_disk_nothing_ends_the_device_that_was_copied(
        self, provisioned: Rig, tmp_path: Path
    ) -> None:
        device = on_another_machine(provisioned, tmp_path)
        (certificate,) = [each.certificate_id for each in memory(store_of(device.root)).identities]
        ended = device.run("forget", "--yes")
        assert (ended.returncode, ended.stderr) == (0, "")
        said = " ".join(ended.stdout.split())
        assert "Leave it alone as long as that device lives" in said
        assert f"certificate {certificate} of thing-under-test" in said
        assert "aws iot" not in said
        assert state(device.root) == []

    def test_broken_off_on_a_copied_disk(self, provisioned: Rig, tmp_path: Path) -> None:
        """Also the next one, which finds what the first one has left, knows that it is another device's."""
        device = on_another_machine(provisioned, tmp_path)
        program = f"""
import sys
from claimd import cli, durable
def stop(*given):
    raise KeyboardInterrupt
durable.Disk.remove_tree = stop
sys.exit(cli.main(["--root", {str(device.root)!r}, "forget", "--yes"]))
"""
        command = [sys.executable, "-c", program]
        first = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        assert (first.returncode, first.stderr) == (130, BEGUN + "\n")
        assert memory(store_of(device.root)).identities, "cut off before they went"
        second = device.run("forget", "--yes")
        assert "as long as that device lives" in " ".join(second.stdout.split())
        assert "aws iot" not in first.stdout + second.stdout
        assert state(device.root) == []

    def test_another_pass_is_at_work(self, provisioned: Rig, tmp_path: Path) -> None:
        device = Device(copy_of(provisioned, tmp_path / "copy").root)
        with store_of(device.root).locked():
            ended = device.run("forget", "--yes")
        assert ended.returncode == 75
        assert "pass-running" in ended.stderr

    def test_ctrl_c_while_another_pass_is_at_work(self, provisioned: Rig, tmp_path: Path) -> None:
        device = Device(copy_of(provisioned, tmp_path / "copy").root)
        with store_of(device.root).locked():
            command = subprocess.Popen(device.command("forget", "--yes"), stderr=subprocess.PIPE, text=True)
            assert command.stderr is not None
            assert command.stderr.readline() == "another pass is at work: this waits for its end\n"
            command.send_signal(signal.SIGINT)
            said = command.communicate(timeout=DEADLINE_SECONDS)[1]
        assert (command.returncode, said) == (130, "claimd: given up; nothing was destroyed\n")
        assert memory(store_of(device.root)).identities

    @pytest.mark.parametrize(
        ("where", "what", "code", "said"),
        [
            ("Store.begin_forgetting", "KeyboardInterrupt", 130, UNTOUCHED),
            ("Store.forget", "KeyboardInterrupt", 130, BEGUN),
            ("forget.take_back_words", "KeyboardInterrupt", 130, DESTROYED),
            ("forget.take_back_words", "OSError(30, 'Read-only file system', 'status.json')", 74, DESTROYED),
        ],
    )
    def test_broken_off_it_says_how_far_it_came(
        self, provisioned: Rig, tmp_path: Path, where: str, what: str, code: int, said: str
    ) -> None:
        """And names the commands for what is gone: nobody else knows it any more."""
        root = copy_of(provisioned, tmp_path / "copy").root
        (certificate,) = [each.certificate_id for each in memory(store_of(root)).identities]
        program = f"""
import sys
from claimd import cli, forget
from claimd.store import Store
def stop(*given):
    raise {what}
{where} = stop
sys.exit(cli.main(["--root", {str(root)!r}, "forget", "--yes"]))
"""
        ended = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60
        )
        assert (ended.returncode, ended.stderr.endswith(f"{said}\n")) == (code, True), ended.stderr
        is_there = where == "Store.begin_forgetting"
        assert (f"delete-certificate --certificate-id {certificate}" in ended.stdout) != is_there
        finish(store_of(root))
        assert bool(memory(store_of(root)).identities) is is_there

    def test_a_file_that_the_watcher_replaces_meanwhile_is_not_left_behind(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        layout = Device(tmp_path).layout
        temporary = Path(layout.run_directory, ".tmp-of-the-watcher")
        listed = {layout.run_directory: [str(temporary)]}
        monkeypatch.setattr("claimd.forget._files", lambda directory: iter(listed.get(directory, [])))
        assert left_behind(layout) == []

    def test_an_image_is_judged_also_where_nobody_listens(self, provisioned: Rig, tmp_path: Path) -> None:
        device = Device(copy_of(provisioned, tmp_path / "copy").root)
        (device.root / "etc/claimd/old.key").write_text("-----BEGIN PRIVATE KEY-----\n")
        reader, writer = os.pipe()
        os.close(reader)
        command = device.command("forget", "--generalize", "--yes")
        assert subprocess.run(command, stdout=writer, stderr=writer, check=False, timeout=60).returncode == 74
        os.close(writer)

    def test_an_image_holds_no_secret(self, provisioned: Rig, tmp_path: Path) -> None:
        copy = copy_of(provisioned, tmp_path / "copy")
        copy.drop(1)
        device = Device(copy.root)
        ended = device.run("forget", "--generalize", "--yes")
        assert ended.returncode == 0, ended.stderr
        assert "no secret and no memory" in ended.stdout
        assert [p for p, data in device.files().items() if b"PRIVATE KEY" in data] == []
        assert device.dropped() == []

    def test_of_an_image_all_that_was_dropped_goes(self, provisioned: Rig, tmp_path: Path) -> None:
        """More folders than one look reads, with what can be no claim in them."""
        device = Device(copy_of(provisioned, tmp_path / "copy").root)
        for number in range(MAX_FOLDERS_A_SCAN + 2):
            folder = device.drop / f"folder-{number}"
            folder.mkdir()
            (folder / "private.key").write_text("-----BEGIN RSA PRIVATE KEY-----\n")
        ended = device.run("forget", "--generalize", "--yes")
        assert ended.returncode == 0, ended.stderr
        assert os.listdir(device.drop) == []

    def test_the_first_hook_of_a_clone_hears_of_no_identity_before(
        self, provisioned: Rig, tmp_path: Path
    ) -> None:
        """What hooks have seen is root's: it goes before root is given up, and only with all the rest."""
        device = Device(copy_of(provisioned, tmp_path / "copy").root)
        seen = Path(device.layout.hooks_state_directory, "seen.json")
        seen.parent.mkdir(mode=0o700)
        seen.write_text("{}")
        assert str(seen) in left_behind(device.layout)
        with store_of(device.root).locked():
            assert device.run("forget", "--generalize", "--yes").returncode == 75
        assert seen.exists(), "nothing was destroyed"
        program = f"""
import os, sys
from claimd import cli, cli_forget
def told(layout):
    print("root ends", os.path.exists({str(seen)!r}), os.path.exists(layout.current_identity))
cli_forget._give_up_root = told
sys.exit(cli.main(["--root", {str(device.root)!r}, "forget", "--generalize", "--yes"]))
"""
        command = [sys.executable, "-c", program]
        ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        assert (ended.returncode, ended.stderr) == (0, "")
        assert ended.stdout.startswith("root ends False True\n")
        assert left_behind(device.layout) == []

    def test_what_hooks_have_seen_stays_without_an_image(self, provisioned: Rig, tmp_path: Path) -> None:
        """The device's next identity comes after this one, for them too."""
        device = Device(copy_of(provisioned, tmp_path / "copy").root)
        seen = Path(device.layout.hooks_state_directory, "seen.json")
        seen.parent.mkdir(mode=0o700)
        seen.write_text("{}")
        assert device.run("forget", "--yes").returncode == 0
        assert seen.exists()

    def test_a_secret_that_is_left_is_named(self, provisioned: Rig, tmp_path: Path) -> None:
        device = Device(copy_of(provisioned, tmp_path / "copy").root)
        forgotten = device.root / "etc/claimd/old.key"
        forgotten.write_text("-----BEGIN PRIVATE KEY-----\n")
        ended = device.run("forget", "--generalize", "--yes")
        assert ended.returncode == 74
        assert str(forgotten) in ended.stderr
        assert left_behind(device.layout) == [str(forgotten)]

    @pytest.mark.parametrize("copied", [False, True])
    def test_asked_on_a_terminal(self, provisioned: Rig, tmp_path: Path, copied: bool) -> None:
        device = Device(copy_of(provisioned, tmp_path / "copy").root)
        if copied:
            device = on_another_machine(provisioned, tmp_path / "elsewhere")
        leader, follower = os.openpty()
        asked = subprocess.Popen(
            [sys.executable, "-m", "claimd", "--root", str(device.root), "forget"],
            stdin=follower,
            stdout=subprocess.PIPE,
            text=True,
        )
        os.write(leader, b"no\n")
        said, _ = asked.communicate(timeout=60)
        os.close(leader)
        os.close(follower)
        assert asked.returncode == 2
        assert "nothing was destroyed" in said
        assert ("This disk was copied from another device" in said) is copied
        assert ("sudo claimd provision --adopt\n" in said) is copied
        assert json.loads((device.identity / "identity.json").read_text())["schema"] == 1
