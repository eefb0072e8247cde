"""A pass as a whole: whom it waits for, and what it says of its next one."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import pytest

from claimd import lock
from claimd.attempt import Record
from claimd.durable import Disk, disk_problem
from claimd.ensure import CONNECT_SECONDS, _with_expiry
from claimd.errors import Code, Exit
from claimd.model import Layout
from claimd.store import Identity, Store
from claimd.world import STALE_LOOK_SECONDS, Result
from faults.calls import PlainCalls
from faults.cloud import Fault, What
from faults.rig import Rig
from material import DEVICE_NOT_AFTER, NOW

WEEK = timedelta(days=7).total_seconds()


@pytest.mark.parametrize(
    ("asked", "told"), [(None, WEEK), (0.0, 0.0), (0.4, 0.4), (30.0, 30.0), (2 * WEEK, WEEK)]
)
def test_an_identity_s_end_puts_no_next_pass_off(asked: float | None, told: float) -> None:
    """Least of all one that is due now: a claim whose end came meanwhile is destroyed then."""
    identity = {"certificate_not_after": DEVICE_NOT_AFTER.isoformat()}
    result = Result(Exit.NOTHING_TO_DO, None, asked, Record())
    assert _with_expiry(result, identity, NOW).after_seconds == told
    assert _with_expiry(result, None, NOW) is result


@dataclass
class Shared(Rig):
    """The service's pass holds the lock until the person's command has waited once."""

    meanwhile: Callable[[], object] | None = None
    waited: list[float] = field(default_factory=list)

    def advance(self, seconds: float) -> None:
        super().advance(seconds)
        self.waited.append(seconds)
        do, self.meanwhile = self.meanwhile, None
        if do is not None:
            do()


@pytest.fixture
def shared(tmp_path: Path) -> Shared:
    return shared_device(tmp_path)


def shared_device(place: Path, more: str = "") -> Shared:
    rig = Shared.new(place, more=more)
    assert isinstance(rig, Shared)
    return rig


def said(result: Result) -> tuple[Exit, Code | None]:
    return result.exit, None if result.problem is None else result.problem.code


def hold(rig: Shared, then: Callable[[], object]) -> None:
    fd = os.open(rig.root / "var/lib/claimd", os.O_RDONLY | os.O_DIRECTORY)
    lock.take(fd)

    def let_go() -> None:
        os.close(fd)
        then()

    rig.meanwhile = let_go


def test_what_the_other_pass_has_done_is_what_a_person_waited_for(shared: Shared) -> None:
    hold(shared, shared.one_pass)
    result = shared.one_pass(by_hand=True)
    assert (result.exit, result.problem) == (Exit.OK, None)
    assert result.record.history[-1].result == "active"
    hold(shared, lambda: None)
    again = shared.one_pass(by_hand=True)
    assert again.exit is Exit.NOTHING_TO_DO, "that was before"


def test_why_the_other_pass_failed_is_what_a_person_waited_for(shared: Shared) -> None:
    """One more pass would come upon nothing and say so, to this person and in the status."""
    shared.advance(3600)
    hold(shared, shared.one_pass)
    result = shared.one_pass(by_hand=True)
    assert said(result) == (Exit.CLAIM_UNUSABLE, Code.CLAIM_EXPIRED)
    status = json.loads((shared.root / "run/claimd/status.json").read_text())
    assert status["problem"]["code"] == Code.CLAIM_EXPIRED.value


def test_a_failed_replacement_has_its_own_code_for_who_waited_too(tmp_path: Path) -> None:
    rig = shared_device(tmp_path, more='reprovision = "replace"')
    assert rig.recover().is_active
    rig.faults = (Fault("create", 1, What.UNAVAILABLE),)
    rig.drop(1)
    rig.one_pass()
    rig.advance(4 * 3600)
    hold(rig, rig.one_pass)
    result = rig.one_pass(by_hand=True)
    assert said(result) == (Exit.OLD_IDENTITY_SERVES, Code.CLAIM_RAN_OUT)
    assert [note.code for note in result.notes] == [Code.OLD_IDENTITY_SERVES]


def test_a_claim_that_came_behind_a_worthless_one_is_taken(shared: Shared) -> None:
    def fail_and_drop() -> None:
        shared.one_pass()
        shared.drop(1)

    shared.advance(3600)
    hold(shared, fail_and_drop)
    assert shared.one_pass(by_hand=True).exit is Exit.OK


def test_that_a_claim_was_not_needed_is_heard_by_who_waited(shared: Shared) -> None:
    assert shared.recover().is_active
    shared.drop(1)
    hold(shared, shared.one_pass)
    result = shared.one_pass(by_hand=True)
    assert said(result) == (Exit.NOTHING_TO_DO, Code.CLAIM_NOT_NEEDED)


def test_aws_takes_one_connect_a_second(shared: Shared) -> None:
    hold(shared, lambda: None)
    assert shared.one_pass(by_hand=True).exit is Exit.OK
    assert shared.waited == [lock.POLL_SECONDS, CONNECT_SECONDS]


def test_the_service_waits_for_nobody(shared: Shared) -> None:
    hold(shared, lambda: None)
    result = shared.one_pass()
    assert result.problem is not None and result.problem.code is Code.PASS_RUNNING
    assert shared.waited == []
    assert shared.meanwhile is not None
    shared.meanwhile()


def test_a_claim_is_kept_where_an_identity_can_not_be_pointed_to(tmp_path: Path) -> None:
    """A backup was copied back with its links followed: `current` is a directory."""
    rig = Rig.new(tmp_path)
    assert rig.recover().is_active
    known = rig.known()
    current = Path(Layout(str(rig.root)).current_identity)
    identity = current.readlink()
    current.unlink()
    current.mkdir()
    rig.drop(1)
    result = rig.one_pass()
    assert said(result) == (Exit.DISK, Code.DISK_FAILED)
    assert result.problem is not None
    assert result.problem.happened == f"cannot write or read {current}: Is a directory"
    assert result.after_seconds == STALE_LOOK_SECONDS
    assert len(Store(Layout(str(rig.root)), Disk()).claim_names()) == 1
    assert rig.known() == known, "AWS was asked for nothing"
    rig.drop(0)
    rig.advance(3600)
    rig.one_pass()
    assert len(Store(Layout(str(rig.root)), Disk()).claim_names()) == 1, "what is dead goes all the same"
    current.rmdir()
    assert rig.one_pass().problem is not None, "it was not needed"
    assert current.readlink() == identity


def test_a_claim_that_is_not_needed_is_told_each_time_that_it_comes(tmp_path: Path) -> None:
    rig = Rig.new(tmp_path)
    assert rig.recover().is_active
    for _ in range(2):
        rig.drop(1)
        result = rig.one_pass()
        assert result.problem is not None and result.problem.code is Code.CLAIM_NOT_NEEDED
    assert [o.result for o in result.record.history] == ["active", "not-needed", "not-needed"]


def test_two_claims_at_once_are_both_done(tmp_path: Path) -> None:
    rig = Rig.new(tmp_path)
    rig.drop(1)
    assert rig.one_pass().exit is Exit.OK
    results = Path(Layout(str(rig.root)).result_directory)
    told = [(results / f"claim-{number}.pem.txt").read_text() for number in range(2)]
    used = [text for text in told if text.startswith("DONE\n\nThe device has its permanent identity.\n")]
    spared = [text for text in told if text.startswith("DONE\n\nAnother claim was used; this one was not ")]
    assert len(used) == len(spared) == 1
    assert (results / "latest.txt").read_text() == used[0]


class Unwell(Store):
    """What `current` names can't be read now."""

    def current(self) -> Identity | None:
        raise OSError(errno.EIO, "Input/output error")


def test_an_identity_that_can_t_be_read_does_not_cost_the_status(tmp_path: Path) -> None:
    rig = Rig.new(tmp_path, more='reprovision = "replace"')
    assert rig.recover().is_active
    rig.faults = (Fault("create", 1, What.UNAVAILABLE),)
    rig.drop(1)
    rig.one_pass()
    status = rig.root / "run/claimd/status.json"
    status.unlink()
    rig.keeper = Unwell
    rig.one_pass()
    assert json.loads(status.read_text())["attempt"]["claim"]["fingerprint"]


@pytest.mark.parametrize(
    ("names", "shown"),
    [
        (("/d/.tmp-1", "/d/current"), "/d/current"),
        (("/d/claim", "/d/.tmp-1"), "/d/claim"),
        (("/d/.tmp-1", None), "/d"),
        (("/proc/self/fd/5/notes.txt", "/proc/self/fd/5/.claimd-aside-1-notes.txt"), "/d"),
    ],
)
def test_a_place_is_named_as_a_person_knows_it(names: tuple[str, str | None], shown: str) -> None:
    """A temporary name is another one in every pass, so that the journal would tell each time."""
    error = OSError(errno.EIO, "Input/output error", names[0], None, names[1])
    assert disk_problem(error, "/d").fields["path"] == shown


def test_a_link_that_has_no_room_is_named_by_its_place(tmp_path: Path) -> None:
    class Full(PlainCalls):
        def symlink(self, source: str, target: str) -> None:
            raise OSError(errno.ENOSPC, "No space left on device", source, None, target)

    place = str(tmp_path / "current")
    with pytest.raises(OSError, match="No space") as caught:
        Disk(Full()).replace_symlink(place, "c0" * 32)
    assert disk_problem(caught.value, "/d").fields["path"] == place
