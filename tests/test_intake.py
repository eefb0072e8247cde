"""Whatever people's programs do to the drop directory: claims come in once, keys never linger."""

from __future__ import annotations

import errno
import io
import json
import os
import stat
import sys
import zipfile
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

import material
from claimd import intake, traces
from claimd.attempt import Outcome, Record
from claimd.drop import Drop
from claimd.durable import Disk
from claimd.ensure import ConfigurationFiles
from claimd.errors import Code, Problem
from claimd.intake import (
    MAX_CERTIFICATES_OF_AN_OWNER,
    MAX_CLAIMS_OF_AN_OWNER,
    SETTLED_SECONDS,
    Intake,
    Reception,
    Rules,
)
from claimd.ledger import Ledger, Moment
from claimd.listing import ASIDE_PREFIX
from claimd.model import Claim, Layout, short
from claimd.store import Store

LATER = 10_000.0


class World:
    """A drop directory, the store beside it, and looks at a time that the test sets."""

    def __init__(self, root: Path) -> None:
        layout = Layout(str(root))
        for path in (layout.state_directory, layout.drop_directory, layout.run_directory):
            os.makedirs(path)
        self.place = Path(layout.drop_directory)
        self.store = Store(layout, Disk())
        self.store.prepare()
        self.drop = Drop(layout.drop_directory, Disk(), own_files=True)
        self.ledger = Ledger()
        self.rules = Rules()
        self.elapsed = 100.0
        # The real time: it is compared with the times of files.
        self.now = datetime.now(timezone.utc)

    def put(self, name: str, text: str | bytes, *, settled: bool = True) -> Path:
        path = self.place / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        changed = datetime.fromtimestamp(path.stat().st_ctime, timezone.utc)
        self.now = changed + timedelta(seconds=SETTLED_SECONDS + 1 if settled else 0)
        return path

    def look(self) -> Intake:
        """One look of a pass of its own."""
        reception = Reception(self.drop, self.store, self.rules, self.ledger)
        found = reception.look(Moment(self.now, self.elapsed))
        self.ledger = reception.ledger
        return found

    def names(self) -> list[str]:
        return sorted(os.listdir(self.place))

    def pair(self, *, life: float = 300) -> material.Pair:
        now = datetime.now(timezone.utc).replace(microsecond=0)
        return material.pair(not_before=now - timedelta(minutes=20), not_after=now + timedelta(seconds=life))


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path / "root")


def codes(found: Intake) -> dict[str, Code]:
    return codes_of(found.problems)


def codes_of(problems: Mapping[str, Problem]) -> dict[str, Code]:
    return {name: problem.code for name, problem in problems.items()}


def whole(pair: material.Pair) -> str:
    return pair.certificate + pair.key


class TestHabits:
    @pytest.mark.parametrize(
        "name",
        [
            "claim.json",
            "claim.json~",
            ".claim.json.swp",
            ".claim.json.Xy12Zz",
            "claim.json.filepart",
            "4913",
            "Bildschirmfoto von heute früh.txt",
            "a\nb\x1b[31m",
            os.fsdecode(b"\xff\xfe"),
            "n" * 255,
        ],
    )
    def test_a_whole_claim_is_one_under_any_name(self, world: World, name: str) -> None:
        pair = world.pair()
        world.put(name, whole(pair))
        found = world.look()
        assert found.kept == (pair.claim,)
        assert not found.problems and world.names() == []

    @pytest.mark.parametrize("name", [".claim.Xy12Zz", "claim.filepart", "CLAIM.PART", "claim.tmp"])
    def test_a_copy_in_progress_is_left_to_its_program_for_a_moment(self, world: World, name: str) -> None:
        """rsync and WinSCP rename it when it is whole, and end with an error if it is gone."""
        world.put(name, whole(world.pair()), settled=False)
        found = world.look()
        assert found.incomplete and not found.kept and not found.problems
        assert found.due_seconds == SETTLED_SECONDS
        assert world.names() == [name]

    @pytest.mark.parametrize("name", ["claim~", ".claim.swp", "4913", ".claim.Xy12Zz", "claim.filepart"])
    def test_nobody_is_told_about_what_programs_leave_behind(self, world: World, name: str) -> None:
        world.put(name, "half of somethi")
        assert not world.look().problems

    @pytest.mark.parametrize("key_first", [True, False])
    def test_one_file_after_the_other(self, world: World, key_first: bool) -> None:
        pair = world.pair()
        first, second = (pair.key, pair.certificate) if key_first else (pair.certificate, pair.key)
        world.put("one", first)
        found = world.look()
        assert found.incomplete and set(codes(found)) == {"one"}
        world.elapsed += 240  # minutes apart
        world.put("two", second)
        assert world.look().kept == (pair.claim,)
        assert world.names() == []

    def test_a_copy_that_was_interrupted_and_resumed(self, world: World) -> None:
        pair = world.pair()
        text = whole(pair)
        path = world.put("claim", text[:500])
        assert world.look().incomplete
        with path.open("a") as file:
            file.write(text[500:])
        assert world.look().kept == (pair.claim,)

    def test_a_second_claim_while_one_is_in_use(self, world: World) -> None:
        one, two = world.pair(), world.pair(life=400)
        world.put("one", whole(one))
        assert world.look().kept == (one.claim,)
        world.put("two", whole(two))
        found = world.look()
        assert found.kept == (two.claim,) and not found.destroyed

    def test_the_same_claim_in_two_files(self, world: World) -> None:
        pair = world.pair()
        world.put("one", whole(pair))
        world.put("two", whole(pair))
        assert world.look().kept == (pair.claim,)
        assert world.names() == []

    def test_junk_beside_a_claim(self, world: World) -> None:
        pair = world.pair()
        world.put("claim", whole(pair))
        world.put("notes.txt", "call Bob")
        world.put("photo.jpg", b"\xff\xd8\xff\xe0" + b"x" * 100_000)
        found = world.look()
        assert found.kept == (pair.claim,)
        assert codes(found) == {
            "notes.txt": Code.CLAIM_NOT_RECOGNISED,
            "photo.jpg": Code.CLAIM_FILE_TOO_LARGE,
        }
        assert world.names() == ["notes.txt", "photo.jpg"]


class TestMany:
    def test_so_many_of_an_account_are_kept_and_the_others_wait(self, world: World) -> None:
        pairs = [world.pair() for _ in range(MAX_CLAIMS_OF_AN_OWNER + 2)]
        for number, pair in enumerate(pairs):
            world.put(f"{number}", whole(pair))
        found = world.look()
        assert len(found.kept) == MAX_CLAIMS_OF_AN_OWNER
        assert list(codes(found).values()) == [Code.CLAIM_TOO_MANY] * 2
        assert len(world.names()) == 2 and found.due_seconds is not None and found.due_seconds <= 30
        world.store.destroy_claim(found.kept[0].fingerprint)
        assert len(world.look().kept) == 1
        assert len(world.names()) == 1

    @pytest.mark.parametrize("life", [300.0, -60.0])
    def test_a_file_of_many_certificates_is_not_many_claims(self, world: World, life: float) -> None:
        """Each would name every file with the key: memory and time would grow with their product."""
        key = material.new_key()
        now = datetime.now(timezone.utc).replace(microsecond=0)
        start, end = now - timedelta(minutes=20), now + timedelta(seconds=life)
        for number in range(3):
            made = [material.pair(not_before=start, not_after=end, key=key) for _ in range(15)]
            world.put(f"flood-{number}", made[0].key + "".join(each.certificate for each in made))
        honest = world.pair()
        world.put("claim", whole(honest))
        found = world.look()
        assert honest.claim in found.kept
        assert len(found.kept) + len(found.expired) <= MAX_CERTIFICATES_OF_AN_OWNER
        assert len(found.expired) == (0 if life > 0 else 30)
        assert Code.CLAIM_TOO_MANY in codes(found).values() and found.due_seconds is not None

    def test_nor_are_they_in_the_files_of_many_accounts(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(intake, "MAX_CERTIFICATES", 2)
        for number in range(3):
            world.put(f"{number}", whole(world.pair()))
        found = world.look()
        assert len(found.kept) == 2 and list(codes(found).values()) == [Code.CLAIM_TOO_MANY]

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
    def test_another_account_has_room_of_its_own(self, world: World) -> None:
        for number in range(MAX_CLAIMS_OF_AN_OWNER + 2):
            world.put(f"{number}", whole(world.pair()))
        world.look()
        pair = world.pair()
        os.chown(world.put("claim", whole(pair)), 12345, 12345)
        assert world.look().kept == (pair.claim,)

    @pytest.mark.parametrize("name", ["{}", "folder-{}/claim"])
    @pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
    def test_the_subordinate_ids_of_an_account_have_none(
        self, world: World, tmp_path: Path, name: str
    ) -> None:
        (tmp_path / "subuid").write_text("mallory:100000:65536\n")
        world.drop = Drop(
            world.store.layout.drop_directory, Disk(), own_files=True, subuid=str(tmp_path / "subuid")
        )
        for number in range(MAX_CLAIMS_OF_AN_OWNER + 2):
            os.chown(world.put(name.format(number), whole(world.pair())), 100_000 + number, 100_000)
        found = world.look()
        assert len(found.kept) == MAX_CLAIMS_OF_AN_OWNER
        assert list(codes(found).values()) == [Code.CLAIM_TOO_MANY] * 2


def test_a_claim_that_can_t_be_kept_keeps_no_other_waiting(world: World) -> None:
    first, second = world.pair(), world.pair()
    world.put("first.json", whole(first))
    world.look()
    key = Path(world.store.layout.state_directory) / "claims" / first.claim.fingerprint / "private.key"
    key.unlink()
    key.symlink_to(key)  # it can't be read, and nobody can say that it is damaged for good
    world.put("first.json", whole(first))
    world.put("second.json", whole(second))
    found = world.look()
    assert [claim.fingerprint for claim in found.kept] == [second.claim.fingerprint]
    assert codes(found) == {"first.json": Code.DISK_FAILED}
    assert world.names() == ["first.json"], "it waits: it may be the only good copy"


class TestCopiesThatComeBack:
    def test_of_many_copies_the_journal_has_one_line_and_the_store_is_read_once(
        self, world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level("INFO")
        pair = world.pair()
        world.put("claim", whole(pair))
        world.look()
        for number in range(20):
            world.put(f"copy-{number}", pair.key)
        reads, read = iter(range(20)), Store.claims

        def counted(store: Store) -> list[Claim]:
            next(reads)
            return read(store)

        monkeypatch.setattr(Store, "claims", counted)
        caplog.clear()
        assert len(world.look().destroyed) == 20
        assert [each.message for each in caplog.records] == [
            f"a copy of claim {short(pair.claim.fingerprint)} is destroyed: it is already taken in (20 times)"
        ]
        assert next(reads) == 1

    def taken(self, world: World) -> material.Pair:
        pair = world.pair()
        world.put("device.pem.crt", pair.key)
        world.put("device.pem.key", pair.certificate)
        assert world.look().kept == (pair.claim,)
        return pair

    def assert_destroyed(self, world: World, found: Intake, name: str) -> None:
        assert not found.kept and not found.problems and not found.incomplete
        assert found.destroyed[name].code is Code.CLAIM_ALREADY_TAKEN_IN
        assert "already taken in; sed and chmod are not needed" in found.destroyed[name].happened
        assert world.names() == []

    def test_both_files_again(self, world: World) -> None:
        pair = self.taken(world)
        world.put("again", whole(pair))
        self.assert_destroyed(world, world.look(), "again")

    @pytest.mark.parametrize("part", ["key", "certificate"])
    def test_one_half_that_sed_brought_back(self, world: World, part: str) -> None:
        pair = self.taken(world)
        world.put("half", getattr(pair, part))
        self.assert_destroyed(world, world.look(), "half")

    @pytest.mark.parametrize("part", ["key", "certificate"])
    def test_after_the_claim_has_become_an_identity(self, world: World, part: str) -> None:
        pair = self.taken(world)
        world.store.destroy_claim(pair.claim.fingerprint)
        outcome = Outcome(world.now, pair.claim.fingerprint, "active", "c0" * 32, "thing", None)
        world.store.save_record(Record().with_outcome(outcome))
        world.put("half", getattr(pair, part))
        self.assert_destroyed(world, world.look(), "half")

    def test_after_a_reboot_the_history_still_knows_it(self, world: World) -> None:
        pair = self.taken(world)
        world.store.destroy_claim(pair.claim.fingerprint)
        outcome = Outcome(world.now, pair.claim.fingerprint, "active", "c0" * 32, "thing", None)
        world.store.save_record(Record().with_outcome(outcome))
        world.ledger = Ledger()
        world.put("again", whole(pair))
        self.assert_destroyed(world, world.look(), "again")

    def test_a_claim_that_was_forgotten_is_a_new_one(self, world: World) -> None:
        pair = self.taken(world)
        world.store.destroy_claim(pair.claim.fingerprint)
        world.put("again", whole(pair))
        assert world.look().kept == (pair.claim,)

    def test_files_that_a_crash_left_are_taken_again(self, world: World) -> None:
        """The claim was kept, and the machine died before the file was removed."""
        pair = world.pair()
        world.store.secure_claim(pair.claim)
        world.put("claim", whole(pair))
        found = world.look()
        assert found.kept == (pair.claim,) and not found.destroyed
        assert world.names() == []


def der(key: str, form: PrivateFormat) -> bytes:
    loaded = load_pem_private_key(key.encode(), None)
    return loaded.private_bytes(Encoding.DER, form, NoEncryption())


def headless(key: str) -> str:
    return "".join(line for line in key.splitlines(keepends=True) if not line.startswith("-----"))


def zipped(key: str) -> bytes:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("claim.key", key)
    return archive.getvalue()


class TestWhatIsNoClaim:
    @pytest.fixture
    def key(self, world: World) -> str:
        return world.pair().key

    def wait(self, world: World, seconds: float) -> Intake:
        world.elapsed += seconds
        return world.look()

    @pytest.mark.parametrize("aside", [True, False])
    @pytest.mark.parametrize(
        "make",
        [
            lambda key: key,
            lambda key: key[: len(key) // 2],
            lambda key: key.encode("utf-16"),
            lambda key: b"b0VIM 9.0" + key.encode(),
            lambda key: "PRIVATE KEY",
            lambda key: der(key, PrivateFormat.TraditionalOpenSSL),
            lambda key: der(key, PrivateFormat.PKCS8),
            lambda key: der(material.key_pem(material.rsa_key()), PrivateFormat.TraditionalOpenSSL),
            lambda key: der(material.key_pem(material.rsa_key()), PrivateFormat.PKCS8),
            headless,
            lambda key: headless(key).encode("utf-16"),
            lambda key: json.dumps(headless(key)),
            lambda key: zipped(key),
        ],
        ids=[
            "key",
            "half-a-key",
            "utf-16",
            "swap-file",
            "words",
            "sec1-der",
            "pkcs8-der",
            "rsa-der",
            "rsa-pkcs8-der",
            "headless",
            "headless-utf-16",
            "headless-in-json",
            "zip",
        ],
    )
    def test_keys_never_linger(
        self, world: World, key: str, make: Callable[[str], str | bytes], aside: bool
    ) -> None:
        world.rules = Rules(keep_seconds=600, keep_aside=aside)
        world.put("x", make(key))
        world.look()
        assert self.wait(world, 590).due_seconds == pytest.approx(10)
        assert world.names() == ["x"]
        self.wait(world, 10)
        assert world.names() == []

    def test_keys_of_two_claims(self, world: World) -> None:
        world.put("cert", world.pair().certificate)
        world.put("key", world.pair().key)
        assert codes(world.look()) == {"cert": Code.CLAIM_KEY_MISMATCH, "key": Code.CLAIM_KEY_MISMATCH}
        found = self.wait(world, 600)
        assert {name: p.code for name, p in found.destroyed.items()} == {
            "cert": Code.CLAIM_KEY_MISMATCH,
            "key": Code.CLAIM_KEY_MISMATCH,
        }
        assert not found.problems and world.names() == []

    def test_an_expired_claim_goes_at_once(self, world: World) -> None:
        pair = world.pair(life=-60)
        world.put("claim", whole(pair))
        found = world.look()
        assert found.expired == (pair.claim,) and world.names() == []
        assert found.destroyed["claim"].code is Code.CLAIM_EXPIRED

    def test_another_file_of_a_claim_s_name_is_not_told_of_as_the_claim(self, world: World) -> None:
        world.put("claim.json", whole(world.pair()))
        world.look()
        assert world.ledger.taken[0].names == ("claim.json",)
        world.put("claim.json", whole(world.pair(life=-5)))
        assert world.look().destroyed["claim.json"].code is Code.CLAIM_EXPIRED
        assert [taken.names for taken in world.ledger.taken] == [()]

    def test_one_that_is_in_use_is_not_expired_by_a_clock_that_jumps(self, world: World) -> None:
        pair = world.pair()
        world.put("claim", whole(pair))
        assert world.look().kept == (pair.claim,)
        world.put("again", whole(pair))
        world.now += timedelta(days=2000)
        found = world.look()
        assert not found.expired and world.store.claims() == [pair.claim]
        assert found.destroyed["again"].code is Code.CLAIM_ALREADY_TAKEN_IN

    def test_a_permanent_identity_has_its_grace(self, world: World) -> None:
        made = material.device_pair()
        world.put("both", whole(made))
        assert codes(world.look()) == {"both": Code.CLAIM_IS_PERMANENT}
        assert world.names() == ["both"]
        assert self.wait(world, 600).destroyed["both"].code is Code.CLAIM_IS_PERMANENT

    def test_other_files_are_removed(self, world: World) -> None:
        world.put("notes.txt", "call Bob")
        world.look()
        found = self.wait(world, 600)
        assert found.destroyed["notes.txt"].code is Code.CLAIM_NOT_RECOGNISED
        assert world.names() == [] and not found.aside

    def test_or_kept_aside(self, world: World) -> None:
        world.rules = Rules(keep_seconds=600, keep_aside=True)
        world.put("notes.txt", "call Bob")
        world.look()
        assert self.wait(world, 600).aside == {"notes.txt"}
        assert [name.startswith(ASIDE_PREFIX) for name in world.names()] == [True]
        assert not self.wait(world, LATER).problems

    @pytest.mark.parametrize("aside", [True, False])
    def test_only_what_may_be_kept_aside_is_searched_for_keys(self, world: World, aside: bool) -> None:
        """Of hundreds of large files it takes seconds."""
        world.rules = Rules(keep_seconds=600, keep_aside=aside)
        world.put("notes.txt", "call Bob")
        world.look()
        called = set()
        sys.setprofile(lambda frame, event, argument: called.add(frame.f_code))
        try:
            self.wait(world, 600)
        finally:
            sys.setprofile(None)
        assert (traces.of_key.__code__ in called) == aside

    def test_a_change_begins_the_grace_anew(self, world: World) -> None:
        world.put("notes.txt", "call Bob")
        world.look()
        world.elapsed += 599
        world.put("notes.txt", "call Bob, and Ann")
        world.look()
        self.wait(world, 599)
        assert world.names() == ["notes.txt"]
        self.wait(world, 1)
        assert world.names() == []

    def test_a_clock_that_jumps_makes_nothing_old(self, world: World) -> None:
        world.put("cert", world.pair().certificate)
        world.look()
        world.now += timedelta(days=20_000)
        self.wait(world, 5)
        assert world.names() == ["cert"]

    def test_links_and_pipes_go_too(self, world: World) -> None:
        (world.place / "link").symlink_to("/etc/passwd")
        os.mkfifo(world.place / "fifo")
        assert set(codes(world.look()).values()) == {Code.DROP_ENTRY_REFUSED}
        self.wait(world, 600)
        assert world.names() == [] and Path("/etc/passwd").exists()


class TestFolders:
    def test_a_claim_in_a_folder(self, world: World) -> None:
        pair = world.pair()
        world.put("claims/cert.pem", pair.certificate)
        world.put("claims/key.pem", pair.key)
        world.put("claims/README", "what this is")
        found = world.look()
        assert found.kept == (pair.claim,)
        assert codes(found) == {"claims/README": Code.CLAIM_NOT_RECOGNISED}

    def test_the_folder_goes_when_the_copying_is_over(self, world: World) -> None:
        pair = world.pair()
        world.put("claims/claim", whole(pair), settled=False)
        found = world.look()
        assert found.kept == (pair.claim,)
        assert found.due_seconds is not None and found.due_seconds <= SETTLED_SECONDS
        assert world.names() == ["claims"]
        world.now += timedelta(seconds=SETTLED_SECONDS + 1)
        again = world.look()
        assert world.names() == []
        assert not again.destroyed, "nobody brought anything back"

    def test_a_half_in_a_folder_and_the_other_beside_it(self, world: World) -> None:
        pair = world.pair()
        world.put("claims/cert.pem", pair.certificate)
        world.put("key.pem", pair.key)
        assert world.look().kept == (pair.claim,)
        assert world.names() == []

    def test_what_is_still_missing_keeps_the_folder(self, world: World) -> None:
        world.put("claims/one", whole(world.pair()))
        world.put("claims/key.pem", world.pair().key)
        found = world.look()
        assert len(found.kept) == 1 and codes(found) == {"claims/key.pem": Code.CLAIM_CERTIFICATE_MISSING}
        assert world.names() == ["claims"]
        world.elapsed += 600
        found = world.look()
        assert found.destroyed["claims/key.pem"].code is Code.CLAIM_CERTIFICATE_MISSING
        assert world.names() == []

    def test_an_empty_folder_is_looked_into_again_soon(self, world: World) -> None:
        """No event tells of what is copied into it."""
        (world.place / "claims").mkdir()
        found = world.look()
        assert found.incomplete and found.due_seconds == 2.0
        world.put("claims/cert.pem", world.pair().certificate)
        assert world.look().due_seconds == 2.0
        world.now += timedelta(minutes=2)
        assert world.look().due_seconds == 30.0

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
    def test_one_that_root_has_to_sweep_is_named(self, world: World) -> None:
        (world.place / ".claimd-sweep-0").mkdir()
        world.now = datetime.now(timezone.utc) + timedelta(seconds=30)
        assert not world.look().problems
        world.now += timedelta(seconds=60)
        (found,) = world.look().problems.values()
        assert found.code is Code.FOLDER_NOT_SWEPT and "sudo claimd sweep" in found.remedy


class StubbornDisk(Disk):
    """Nothing can be removed: a read-only file system, or one that somebody mounted over the directory."""

    def remove_from(self, directory_fd: int, name: str) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    def rename_in(self, directory_fd: int, name: str, new: str, new_directory_fd: int | None = None) -> None:
        raise OSError(errno.EROFS, "Read-only file system")


class TestWhereNothingCanBeRemoved:
    def test_the_claim_is_taken_all_the_same_and_the_file_is_named(self, world: World) -> None:
        world.drop = Drop(str(world.place), StubbornDisk(), own_files=True)
        pair = world.pair()
        world.put("claim", whole(pair))
        found = world.look()
        assert found.kept == (pair.claim,) and codes(found) == {"claim": Code.DISK_READ_ONLY}
        again = world.look()
        assert not again.kept and codes(again) == {"claim": Code.DISK_READ_ONLY}
        assert not again.destroyed, "it says nothing of destroying"

    def test_what_can_t_be_kept_aside_is_named_and_hides_no_claim(self, world: World) -> None:
        world.drop = Drop(str(world.place), StubbornDisk(), own_files=True)
        world.rules = Rules(keep_seconds=600, keep_aside=True)
        world.put("photo", "a photo")
        world.look()
        world.elapsed += 600
        pair = world.pair()
        world.put("claim", whole(pair))
        found = world.look()
        assert found.kept == (pair.claim,) and not found.aside
        assert codes(found) == {"claim": Code.DISK_READ_ONLY, "photo": Code.DISK_READ_ONLY}


def _file_in(folder: Path) -> Path:
    folder.mkdir()
    return folder / "cert.pem"


# Of what others may write to: a file, a folder, what lies in one, what is no file at all.
TRAPS: dict[str, Callable[[Path, str], object]] = {
    "empty": lambda path, half: path.touch(0o666),
    "half a claim": lambda path, half: path.write_text(half),
    "a claim that AWS could not have made": lambda path, half: path.write_text(
        whole(material.pair(not_after=datetime(2049, 12, 31, tzinfo=timezone.utc)))
    ),
    "too large": lambda path, half: path.write_bytes(b"x" * 100_000),
    "pipe": lambda path, half: os.mkfifo(path),
    "folder": lambda path, half: path.mkdir(),
    "folder with a half": lambda path, half: _file_in(path).write_text(half),
}


class TestTraps:
    """What somebody else made, in the hope that a claim is copied onto it."""

    @pytest.mark.parametrize("aside", [True, False])
    @pytest.mark.parametrize("trap", TRAPS)
    def test_it_goes_at_once(self, world: World, trap: str, aside: bool) -> None:
        world.rules = Rules(keep_aside=aside)
        path = world.place / "claim"
        TRAPS[trap](path, world.pair().certificate)
        path.chmod(0o777 if path.is_dir() else 0o666)
        found = world.look()
        assert world.names() == [] and not found.problems and not found.kept
        assert found.destroyed["claim"].happened == (
            "others may write to claim: what is copied onto it can be read by whoever put it there"
        )

    def test_a_folder_goes_for_what_lies_in_it(self, world: World) -> None:
        """`scp -r` and `cp -r` write onto what is there under a name of theirs."""
        world.put("claim/private.key", "").chmod(0o666)
        world.put("claim/other.key", "").chmod(0o600)
        found = world.look()
        assert world.names() == []
        assert {name: p.code for name, p in found.destroyed.items()} == {
            "claim/private.key": Code.DROP_ENTRY_EXPOSED
        }

    @pytest.mark.parametrize("mode", [0o600, 0o644, 0o755])
    def test_what_only_its_owner_writes_has_its_time(self, world: World, mode: int) -> None:
        world.put("key.pem", world.pair().key).chmod(mode)
        world.put("folder/cert.pem", world.pair().certificate).chmod(mode)
        world.look()
        assert world.names() == ["folder", "key.pem"]

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
    def test_a_group_of_one_s_own_is_nobody_else(self, world: World) -> None:
        # Numbers that no account has: a group of the owner's number is his own.
        for name, group in (("own", 54321), ("shared", 54322)):
            path = world.put(name, world.pair().key)
            os.chown(path, 54321, group)
            path.chmod(0o664)
        found = world.look()
        assert world.names() == ["own"] and set(found.destroyed) == {"shared"}

    @pytest.mark.parametrize("name", ["claim", "folder/claim"])
    def test_a_claim_that_is_whole_is_taken_and_said_to_be_known(
        self, world: World, name: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        pair = world.pair()
        path = world.put(name, whole(pair))
        path.chmod(0o666)
        path.parent.chmod(0o777)
        found = world.look()
        assert found.kept == (pair.claim,) and not found.problems and not found.destroyed
        assert world.names() == []
        assert "could write to: it may be known to them" in caplog.text

    def test_the_copy_in_progress_is_left_to_its_program(self, world: World) -> None:
        world.put(".claim.json.Xy12", world.pair().key, settled=False).chmod(0o666)
        world.look()
        assert world.names() == [".claim.json.Xy12"]

    @pytest.mark.parametrize("name", [".x", "x.part"])
    def test_a_file_in_flight_shields_no_folder(self, world: World, name: str) -> None:
        """Touched again and again it would do so for ever."""
        path = world.put(f"claims/{name}", "", settled=False)
        path.parent.chmod(0o777)
        found = world.look()
        assert world.names() == []
        assert codes_of(found.destroyed) == {"claims": Code.DROP_ENTRY_EXPOSED}

    def test_a_file_in_flight_shields_itself_in_a_folder(self, world: World) -> None:
        world.put("claims/.key.pem.Xy12", "", settled=False).chmod(0o666)
        world.look()
        assert world.names() == ["claims"]
        world.put("claims/key.pem", "", settled=False).chmod(0o666)
        world.look()
        assert world.names() == []

    def test_a_claim_shields_no_folder(self, world: World) -> None:
        """Its owner's own, made for that. It is safe, so that nothing is waited for."""
        pair = world.pair()
        world.put("claims/claim", whole(pair), settled=False).parent.chmod(0o777)
        found = world.look()
        assert found.kept == (pair.claim,) and not found.destroyed and not found.problems
        assert world.names() == []

    def test_what_lies_beside_a_claim_shields_no_folder(self, world: World) -> None:
        pair = world.pair()
        world.put("claims/claim", whole(pair))
        world.put("claims/key.pem", world.pair().key)
        (world.place / "claims").chmod(0o777)
        found = world.look()
        assert found.kept == (pair.claim,) and not found.problems
        assert codes_of(found.destroyed) == {"claims": Code.DROP_ENTRY_EXPOSED}
        assert world.names() == []

    def test_a_claim_shields_no_file_that_another_one_keeps_there(self, world: World) -> None:
        pair, far = world.pair(), material.pair(not_after=datetime(2049, 12, 31, tzinfo=timezone.utc))
        world.put("claims.pem", whole(pair) + whole(far)).chmod(0o666)
        found = world.look()
        assert found.kept == (pair.claim,)
        assert codes_of(found.destroyed) == {"claims.pem": Code.DROP_ENTRY_EXPOSED}
        assert world.names() == []

    def test_what_can_t_be_removed_is_told_of(self, world: World) -> None:
        world.drop = Drop(str(world.place), StubbornDisk(), own_files=True)
        world.put("claim", "").chmod(0o666)
        found = world.look()
        assert codes(found) == {"claim": Code.DISK_READ_ONLY}

    def test_more_folders_than_a_look_reads(self, world: World) -> None:
        """Whoever keeps others new would keep these from being read for ever."""
        self.make_folders(world, 0o777)
        found = world.look()
        assert world.names() == [] and not found.problems

    def test_more_folders_than_a_look_reads_that_are_no_traps(self, world: World) -> None:
        self.make_folders(world, 0o755)
        assert len(codes(world.look())) == 4 and len(world.names()) == 20
        world.elapsed += 600
        found = world.look()
        assert found.due_seconds == 2 and Code.DISK_FAILED not in codes(found).values()
        world.look()
        assert world.names() == []

    def make_folders(self, world: World, mode: int) -> None:
        for number in range(20):
            (world.place / f"{number}").mkdir()
            (world.place / f"{number}").chmod(mode)

    def test_one_in_a_folder_that_is_not_read(self, world: World) -> None:
        """`cp -r` goes as deep as what it copies."""
        (world.place / "claim" / "keys" / "deep").mkdir(parents=True)
        world.put("claim/keys/deep/private.key", "").chmod(0o666)
        found = world.look()
        assert codes_of(found.destroyed) == {"claim/keys": Code.DROP_ENTRY_EXPOSED}
        assert world.names() == []

    def test_a_folder_in_a_folder_that_is_no_trap(self, world: World) -> None:
        (world.place / "claim" / "keys" / "deep").mkdir(parents=True)
        pair = world.pair()
        world.put("claim/cert.pem", pair.certificate)
        assert codes(world.look())["claim/keys"] is Code.DROP_ENTRY_REFUSED
        world.put("claim/key.pem", pair.key)
        assert world.look().kept == (pair.claim,)

    def test_it_is_not_told_of_by_the_line(self, world: World, caplog: pytest.LogCaptureFixture) -> None:
        for number in range(100):
            world.put(f"{number}", "").chmod(0o666)
        world.look()
        assert world.names() == []
        assert [record.message for record in caplog.records if record.levelname == "WARNING"] == [
            "100 names that others than their owner could write to are destroyed, first one of user"
            f" {os.geteuid()}"
        ]


class TestModes:
    def test_a_closed_file_is_taken(self, world: World) -> None:
        pair = world.pair()
        path = world.put("claim", whole(pair))
        path.chmod(0o600)
        assert world.look().kept == (pair.claim,)

    def test_what_is_kept_is_closed(self, world: World) -> None:
        pair = world.pair()
        world.put("claim", whole(pair)).chmod(0o666)
        world.look()
        kept = Path(world.store.layout.state_directory) / "claims" / pair.claim.fingerprint / "private.key"
        assert stat.S_IMODE(kept.stat().st_mode) == 0o600


def test_a_look_in_the_first_moment_after_boot(world: World) -> None:
    pair = world.pair()
    world.put("claim", whole(pair))
    world.elapsed = 0.0
    assert world.look().kept == (pair.claim,)


def test_the_rules_are_those_of_the_configuration_s_defaults(world: World) -> None:
    """What is asked for while there is no configuration that can be read."""
    assert ConfigurationFiles(world.store.layout, None).rules() == Rules()
