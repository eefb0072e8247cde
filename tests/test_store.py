"""What the store writes can be read again, whatever AWS answered."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from claimd import fleet
from claimd.documents import MAX_STORED_BYTES, identity_document
from claimd.durable import Disk
from claimd.model import Layout
from claimd.store import IDENTITY, Store
from material import NOW, claim, issued

ID = "1d" * 32
ROOM = fleet.MAX_PAYLOAD_BYTES - 100


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = Store(Layout(str(tmp_path)), Disk())
    os.makedirs(made.layout.state_directory)
    made.prepare()
    made.stage(issued(ID), b"roots")
    return made


def document(configuration: dict[str, object]) -> dict[str, object]:
    return identity_document(
        certificate_id=ID,
        certificate=issued(ID).certificate,
        endpoint="e.example",
        port=8883,
        template="T",
        client_id="thing",
        thing_name="thing",
        thing_name_known=True,
        device_configuration=configuration,
        registered_at=NOW,
        replaces=None,
    )


# What grows most when it is written again: by indentation, by escapes, by digits.
LARGEST = {
    "nested": "[" * 62 + ",".join(["0"] * (ROOM // 2 - 100)) + "]" * 62,
    "many objects": "[" + ",".join(['{"a":[[[[[{}]]]]]}'] * (ROOM // 19)) + "]",
    "text that is not ASCII": '"' + "\U0001f511" * (ROOM // 4) + '"',
    "a character that is escaped": '"' + "\x7f" * ROOM + '"',
    "numbers": "[" + ",".join(["1e15"] * (ROOM // 5)) + "]",
}


@pytest.mark.parametrize("value", LARGEST.values(), ids=LARGEST)
def test_what_is_accepted_is_kept_whole(store: Store, value: str) -> None:
    answer = f'{{"thingName":"t","deviceConfiguration":{{"a":{value}}}}}'.encode()
    assert fleet.MAX_PAYLOAD_BYTES * 0.9 < len(answer) <= fleet.MAX_PAYLOAD_BYTES, "the worst that may come"
    accepted = fleet.parse_registration(answer)
    store.complete(ID, document(dict(accepted.device_configuration)))
    store.activate(ID)
    serving = store.current()
    assert serving is not None
    assert serving.document["device_configuration"] == accepted.device_configuration
    assert store.document(ID) == serving.document


def test_an_identity_is_kept_without_what_would_keep_it_from_being_read(store: Store) -> None:
    store.complete(ID, document({"a": "x" * MAX_STORED_BYTES}))
    store.activate(ID)
    serving = store.current()
    assert serving is not None and serving.thing_name == "thing"
    assert serving.document["device_configuration"] == "unknown"


@pytest.mark.parametrize("text", [b" " * (MAX_STORED_BYTES + 1), b"{", b"[]", b"\xff"])
def test_what_can_not_be_read_is_written_anew(store: Store, text: bytes) -> None:
    store.complete(ID, document({}))
    (Path(store.layout.identity_directory) / ID / IDENTITY).write_bytes(text)
    assert store.document(ID) is None
    assert not store.is_complete(ID)
    store.complete(ID, document({}))
    assert store.is_complete(ID) and store.document(ID) is not None


class Stubborn(Disk):
    """One directory can't be swept."""

    where = ID

    def sweep(self, directory: str) -> int:
        if directory.endswith(self.where):
            raise OSError(errno.EIO, "Input/output error")
        return super().sweep(directory)


def test_one_folder_that_can_t_be_swept_ends_no_pass(store: Store) -> None:
    (said,) = Store(store.layout, Stubborn()).prepare()
    assert said == f"{store.layout.identity_directory}/{ID} can't be swept: Input/output error"
    assert store.prepare() == []
    disk = Stubborn()
    disk.where = "claims"
    (said,) = Store(store.layout, disk).prepare()
    assert said.endswith("/claims can't be swept: Input/output error")


@pytest.mark.parametrize("whole", [True, False])
def test_damaged_roots_are_replaced(store: Store, whole: bool) -> None:
    if whole:
        store.complete(ID, document({}))
    path = Path(store.layout.identity_directory) / ID / "root-ca.pem"
    path.write_bytes(b"\0" * 6)
    assert not store.is_complete(ID)
    store.replace_roots(ID, b"other roots")
    assert store.load_staged(ID).roots == b"other roots"
    assert store.is_complete(ID) is whole


class TestAKeptClaimThatIsDroppedAgain:
    MINE = claim()

    def kept(self, store: Store) -> Path:
        store.secure_claim(self.MINE)
        return Path(store.layout.state_directory) / "claims" / self.MINE.fingerprint

    def test_a_damaged_copy_is_replaced(self, store: Store) -> None:
        (self.kept(store) / "private.key").write_text("")
        store.secure_claim(self.MINE)
        assert store.load_claim(self.MINE.fingerprint) == self.MINE

    def test_a_copy_that_can_t_be_read_now_is_no_reason_to_let_the_good_one_go(self, store: Store) -> None:
        key = self.kept(store) / "private.key"
        key.unlink()
        key.symlink_to(key)
        with pytest.raises(OSError):
            store.secure_claim(self.MINE)
