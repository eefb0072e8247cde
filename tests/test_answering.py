"""What latest.txt tells from one pass to the next, after the pass that it was written in."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from claimd import attempt as table
from claimd.answering import Answers
from claimd.attempt import ClaimRecord, Event, Outcome, Record
from claimd.durable import Disk
from claimd.errors import Code, Problem, problem
from claimd.intake import Intake, Rules
from claimd.ledger import Ledger, Taken
from claimd.model import Layout, spoken
from claimd.result import MAX_ANSWERS_A_PASS
from claimd.store import Store
from material import NOW, claim

CLAIM = claim()
END = CLAIM.certificate.not_after
LEDGER = Ledger(
    (Taken(CLAIM.fingerprint, CLAIM.certificate.public_key_id, ("claim.json", "copy.json"), spoken(END)),)
)
TROUBLES = [
    problem(Code.TEMPLATE_NOT_FOUND, template="T", detail="no such template"),
    problem(Code.CLAIM_NOT_ACCEPTED, endpoint="e", region="r", claim=CLAIM.fingerprint, not_after=END),
    problem(Code.CONNECTION_REFUSED, endpoint="e", port=8883),
    problem(Code.CONFIG_INVALID, detail="d"),
]
JUNK = problem(Code.CLAIM_NOT_RECOGNISED, file="photo.jpg", detail="a photo")


def waiting(trouble: Problem) -> Record:
    attempt = table.begin(ClaimRecord.of(CLAIM), NOW, None)
    if trouble.code is Code.TEMPLATE_NOT_FOUND:
        attempt = table.advance(attempt, Event.BLOCKED, NOW)
    return Record(replace(attempt, problem=trouble, retry_at=NOW + timedelta(minutes=1)))


def expired() -> Record:
    after = END + timedelta(seconds=1)
    lost = problem(Code.CLAIM_EXPIRED, claim=CLAIM.fingerprint, not_after=spoken(END), now=spoken(after))
    attempt = table.advance(table.begin(ClaimRecord.of(CLAIM), NOW, None), Event.CLAIM_LOST, after)
    outcome = Outcome(after, CLAIM.fingerprint, "failed", None, None, Code.CLAIM_EXPIRED)
    return Record(replace(attempt, claim=None, problem=lost), (outcome,))


class Place:
    def __init__(self, root: Path) -> None:
        self.layout = Layout(str(root))
        Path(self.layout.result_directory).parent.mkdir(parents=True)

    def tell(
        self,
        record: Record,
        *,
        left: Mapping[str, Problem] | None = None,
        gone: Mapping[str, Problem] | None = None,
        ledger: Ledger = LEDGER,
        seconds: float = 0,
    ) -> None:
        """A pass: what lies there, what was destroyed, and what came of the claims."""
        answers = Answers(self.layout, Store(self.layout, Disk()))
        found = Intake((), (), left or {}, incomplete=False, signature=frozenset(), destroyed=gone or {})
        answers.looked(found, ledger, Rules())
        now = NOW + timedelta(seconds=seconds)
        before = self._latest()
        answers.tell(now, record, None, frozenset())
        if self._latest() != before:
            os.utime(Path(self.layout.result_directory) / "latest.txt", (now.timestamp(),) * 2)

    def _latest(self) -> str:
        path = Path(self.layout.result_directory) / "latest.txt"
        return path.read_text() if path.exists() else ""

    def said(self, name: str) -> str:
        return (Path(self.layout.result_directory) / name).read_text()


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@pytest.mark.parametrize("trouble", TROUBLES, ids=lambda one: one.code.value)
@pytest.mark.parametrize("left", [{}, {"photo.jpg": JUNK}], ids=["nothing", "junk"])
def test_it_does_not_go_on_waiting_with_a_claim_that_is_dead(
    place: Place, trouble: Problem, left: Mapping[str, Problem]
) -> None:
    place.tell(waiting(trouble))
    before = place.said("latest.txt")
    assert before.startswith(("WAITING\n", "BLOCKED\n")) and "claim lives:   until" in before
    place.tell(expired(), left=left, seconds=400)
    assert place.said("latest.txt") == place.said("claim.json.txt") == place.said("copy.json.txt")
    assert place.said("latest.txt").startswith("REFUSED\n") and "expired at" in place.said("latest.txt")


def test_a_pass_that_died_between_the_two_is_made_up_for(place: Place) -> None:
    """latest.txt is replaced before the answer: else nothing would tell any more what it spoke of."""
    place.tell(waiting(TROUBLES[2]))
    answer = Path(place.layout.result_directory) / "claim.json.txt"
    answer.unlink()
    answer.mkdir()  # it can't be replaced: the writing ends here
    place.tell(waiting(TROUBLES[0]))
    assert "template-not-found" in place.said("latest.txt")


def test_what_it_tells_of_something_else_stays(place: Place) -> None:
    place.tell(waiting(TROUBLES[0]))
    latest = Path(place.layout.result_directory) / "latest.txt"
    latest.write_text("READY\n\nwords\n\n2026-03-01 12:00:00 UTC\n")
    place.tell(expired(), seconds=400)
    assert place.said("latest.txt").startswith("READY\n")
    assert place.said("claim.json.txt").startswith("REFUSED\n")


DEAD = problem(Code.CLAIM_EXPIRED, claim="0a" * 6, not_after=spoken(NOW), now=spoken(NOW))


def test_what_was_refused_stays_refused_while_another_claim_is_under_way(place: Place) -> None:
    """Its file has the name that the other one once had."""
    place.tell(waiting(TROUBLES[2]))
    renamed = LEDGER.without_names({"claim.json"})
    place.tell(waiting(TROUBLES[2]), gone={"claim.json": DEAD}, ledger=renamed)
    assert place.said("latest.txt") == place.said("claim.json.txt")
    assert place.said("latest.txt").startswith("REFUSED\n")
    place.tell(waiting(TROUBLES[0]), ledger=renamed)
    assert place.said("claim.json.txt").startswith("REFUSED\n") and "0a0a" in place.said("latest.txt")
    assert place.said("copy.json.txt").startswith("BLOCKED\n")


def test_what_is_told_of_the_claim_itself_goes_on(place: Place) -> None:
    place.tell(waiting(TROUBLES[2]))
    place.tell(expired(), seconds=400)
    assert place.said("latest.txt").startswith("REFUSED\n")
    place.tell(waiting(TROUBLES[0]), seconds=401)
    assert place.said("latest.txt").startswith("BLOCKED\n")


def test_a_flood_is_answered_in_part_and_hides_no_claim_s_answer(place: Place) -> None:
    many = {f"{number}.txt": JUNK for number in range(1000)}
    ledger = LEDGER
    for number in range(20):
        ledger = ledger.with_taken(Taken(f"{number:064x}", "k", (f"other-{number}.json",), spoken(END)))
    place.tell(expired(), left=many, gone={f"gone-{name}": JUNK for name in many}, ledger=ledger)
    answers = list(Path(place.layout.result_directory).iterdir())
    assert len(answers) <= 2 * MAX_ANSWERS_A_PASS + 2 + 20 + 1
    assert place.said("claim.json.txt").startswith("REFUSED\n"), "though twenty claims came after it"
