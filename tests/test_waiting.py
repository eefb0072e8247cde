"""When `claimd wait` ends, and how: the old identity is never the success of a new claim."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from claimd import attempt as table
from claimd import waiting
from claimd.attempt import Event
from claimd.errors import Code, Exit
from claimd.model import short
from states import (
    CERTIFICATE,
    CLAIM,
    IDENTITY,
    OTHER,
    STATES,
    WORKING,
    attempt,
    document,
    failed,
    outcome,
)


def end(
    first: dict[str, Any], later: dict[str, Any], *, unseen: bool = False, wanted: str | None = None
) -> Any:
    """The exit after `first` was seen at the start and `later` now."""
    goal = waiting.goal(first, unseen, wanted)
    found = waiting.ending(later, False, goal)
    return None if found is None else found.exit


OLD = outcome("active", claim="11" * 32, hours=72)
NEW = outcome("active", hours=0)
SERVING = document(identity=IDENTITY, history=(OLD,))
REPLACING = document(
    attempt(2, replaces=CERTIFICATE),
    identity=IDENTITY,
    history=(OLD,),
    claims=((CLAIM.fingerprint, CLAIM.not_after),),
)


class TestTheNewestDrop:
    def test_a_claim_becomes_the_identity(self) -> None:
        assert end(STATES["claimed"], STATES["claimed"]) is None
        assert end(STATES["claimed"], STATES["provisioned"]) is Exit.OK

    def test_nothing_is_on_its_way_and_the_last_one_worked(self) -> None:
        assert end(SERVING, SERVING) is Exit.OK

    def test_nothing_ever_was(self) -> None:
        assert end(STATES["fresh"], STATES["fresh"]) is None

    def test_the_last_one_failed(self) -> None:
        assert end(STATES["expired"], STATES["expired"]) is Exit.CLAIM_UNUSABLE

    def test_an_unseen_file_is_not_the_old_identity_s_success(self) -> None:
        goal = waiting.goal(SERVING, True, None)
        assert waiting.ending(SERVING, True, goal) is None
        assert waiting.ending({**SERVING, "service": dict(WORKING)}, False, goal) is None
        done = document(identity=IDENTITY, history=(OLD, NEW))
        assert end(SERVING, done, unseen=True) is Exit.OK

    def test_a_pass_at_work_is_not_the_old_identity_s_success(self) -> None:
        assert end({**SERVING, "service": dict(WORKING)}, {**SERVING, "service": dict(WORKING)}) is None

    def test_a_pass_at_work_that_comes_upon_nothing(self) -> None:
        """The second pass of one drop: whoever begins to wait in it has missed the end of the first."""
        looking = {**SERVING, "service": dict(WORKING)}
        assert end(looking, SERVING) is Exit.OK
        assert end(looking, SERVING, wanted="ab" * 6) is None
        fresh = {**STATES["fresh"], "service": dict(WORKING)}
        assert end(fresh, STATES["fresh"]) is None
        half = {**SERVING, "drop": STATES["key-missing"]["drop"]}
        assert end(looking, half) is None, "it has come upon half a claim"
        silent = {**SERVING, "updated_at": "2026-03-01T11:59:57+00:00"}
        assert end(looking, silent) is None, "it was killed before it could say what it had taken in"
        failed_since = document(identity=IDENTITY, history=(OLD, outcome("failed", Code.CLAIM_EXPIRED)))
        assert end(looking, failed_since) is Exit.OLD_IDENTITY_SERVES

    def test_a_pass_that_is_not_over_when_its_claim_has_ended(self) -> None:
        """Whoever begins to wait in its last moment waits for nothing more."""
        done = document(identity=IDENTITY, history=(OLD, NEW))
        ending = {**done, "service": dict(WORKING)}
        assert end(ending, ending) is Exit.OK
        assert end(ending, done) is Exit.OK
        # Another drop that no pass has looked at is the newest one.
        assert waiting.ending(ending, True, waiting.goal(ending, True, None)) is None

    def test_a_replacement_on_its_way(self) -> None:
        assert end(REPLACING, REPLACING) is None
        done = document(identity=IDENTITY, history=(OLD, NEW))
        assert end(REPLACING, done) is Exit.OK

    def test_a_replacement_that_failed(self) -> None:
        lost = document(identity=IDENTITY, history=(OLD, outcome("failed", Code.CLAIM_EXPIRED, hours=0)))
        assert end(REPLACING, lost) is Exit.OLD_IDENTITY_SERVES

    def test_a_claim_that_was_not_needed(self) -> None:
        late = outcome("not-needed", Code.CLAIM_NOT_NEEDED, hours=0)
        assert end(SERVING, document(identity=IDENTITY, history=(OLD, late)), unseen=True) is (
            Exit.OLD_IDENTITY_SERVES
        )

    def test_a_blocked_one(self) -> None:
        assert end(STATES["claimed"], STATES["blocked"]) is Exit.REFUSED
        blocked = {**STATES["blocked"], "identity": dict(IDENTITY)}
        assert end(REPLACING, blocked) is Exit.OLD_IDENTITY_SERVES

    def test_refused_again_and_again(self) -> None:
        assert end(STATES["claimed"], STATES["not-accepted"]) is None, "two failures may be AWS's own delay"
        assert end(STATES["claimed"], STATES["identity-refused"]) is Exit.REFUSED

    def test_an_end_beats_an_expired_spare(self) -> None:
        spare = outcome("failed", Code.CLAIM_EXPIRED, claim=OTHER.fingerprint, hours=0)
        done = document(identity=IDENTITY, history=(spare, NEW))
        assert end(STATES["spare"], done) is Exit.OK

    def test_a_network_that_is_down_is_waited_for(self) -> None:
        assert end(STATES["spare"], STATES["spare"]) is None

    def test_junk(self) -> None:
        assert end(STATES["many-files"], STATES["many-files"]) is Exit.CLAIM_UNUSABLE
        junk = {"photo.jpg": failed(Code.CLAIM_NOT_RECOGNISED, file="photo.jpg", detail="no PEM")}
        beside = document(identity=IDENTITY, history=(OLD,), drop=junk)
        assert end(beside, beside) is Exit.OLD_IDENTITY_SERVES

    def test_an_expired_claim_beside_junk_is_what_is_told(self) -> None:
        junk = {"photo.jpg": failed(Code.CLAIM_NOT_RECOGNISED, file="photo.jpg", detail="no PEM")}
        expired = outcome("failed", Code.CLAIM_EXPIRED, hours=0)
        both = document(history=(OLD, expired), drop=junk)
        found = waiting.ending(both, False, waiting.goal(both, False, None))
        assert found is not None and "[claim-expired]" in found.sentence
        # Hours later the junk is what was dropped last.
        late = document(history=(OLD, outcome("failed", Code.CLAIM_EXPIRED, hours=3)), drop=junk)
        found = waiting.ending(late, False, waiting.goal(late, False, None))
        assert found is not None and found.sentence == "what was dropped is no claim"

    def test_a_claim_that_is_copied_again(self) -> None:
        """Its copy is destroyed, and nothing new comes of it: what the claim came to is the answer."""
        again = failed(Code.CLAIM_ALREADY_TAKEN_IN, claim=short(OLD.claim), file="claim.json")
        copied = document(identity=IDENTITY, history=(OLD,), trouble=again)
        assert end(SERVING, copied, unseen=True) is Exit.OK
        lost = outcome("failed", Code.CLAIM_EXPIRED, claim=OLD.claim, hours=72)
        assert end(SERVING, document(history=(lost,), trouble=again), unseen=True) is Exit.CLAIM_UNUSABLE
        # Nothing is known of how it ended: the history holds the last ones only.
        assert end(SERVING, document(identity=IDENTITY, trouble=again), unseen=True) is None

    def test_half_a_pair_is_waited_for(self) -> None:
        assert end(STATES["key-missing"], STATES["key-missing"]) is None

    def test_the_key_is_kept_and_the_claim_is_lost(self) -> None:
        assert end(STATES["registering"], STATES["claim-lost-key-kept"]) is Exit.CLAIM_UNUSABLE

    def test_blocked_by_the_configuration_is_for_somebody_too(self) -> None:
        found = failed(Code.PARAMETER_UNRESOLVED, parameter="Serial", detail="no serial")
        made = attempt(0)
        blocked = replace(table.advance(made, Event.BLOCKED, made.started_at), problem=found)
        assert end(STATES["claimed"], document(replace(blocked, failures=3))) is Exit.REFUSED
        soon = replace(blocked, failures=2, retry_at=made.started_at)
        assert end(STATES["claimed"], document(soon)) is None, "it may appear"

    def test_blocked_and_tried_again_all_the_same(self) -> None:
        """While the answer to an earlier request is unknown; but not for ever."""
        made = attempt(0)
        found = failed(Code.PARAMETERS_REFUSED, template="T", detail="no")
        blocked = replace(
            table.advance(made, Event.BLOCKED, made.started_at),
            problem=found,
            failures=2,
            retry_at=made.started_at,
        )
        assert end(STATES["claimed"], document(blocked)) is None
        assert end(STATES["claimed"], document(replace(blocked, failures=3))) is Exit.REFUSED
        assert end(STATES["claimed"], document(replace(blocked, retry_at=None))) is Exit.REFUSED
        wrong = replace(made, problem=failed(Code.CONFIG_INVALID, detail="nmae: unknown"))
        assert end(STATES["claimed"], document(wrong)) is Exit.REFUSED

    def test_a_key_that_was_given_up_is_no_claim_s_end(self) -> None:
        lost = replace(outcome("failed", Code.TOKEN_INVALID, hours=0), claim="", certificate_id="c0" * 32)
        before = document(attempt(0), history=(OLD,))
        assert end(before, document(attempt(0), history=(OLD, lost))) is None
        assert end(before, document(attempt(0), history=(OLD, lost)), wanted=CLAIM.fingerprint) is None
        idle = document(history=(lost,))
        assert end({**idle, "service": dict(WORKING)}, idle) is None

    def test_on_a_copied_disk_nothing_is_done(self) -> None:
        """What ended here is another device's success, and no claim is taken in."""
        copied = failed(Code.STATE_OF_ANOTHER_DEVICE, path="/var/lib/claimd")
        told = document(identity=IDENTITY, history=(OLD,), trouble=copied)
        assert end(told, told) is Exit.REFUSED
        assert end(told, told, unseen=True) is Exit.REFUSED
        assert end(told, told, wanted=CLAIM.fingerprint) is Exit.REFUSED
        assert end(told, told, wanted=OLD.claim) is Exit.REFUSED
        found = waiting.ending(told, False, waiting.goal(told, False, None))
        assert found is not None and found.problem == copied.to_json()


class TestOneClaim:
    def test_its_own_end_counts_whenever_it_was(self) -> None:
        assert end(SERVING, SERVING, wanted="11" * 32) is Exit.OK

    def test_another_s_end_does_not(self) -> None:
        assert end(SERVING, SERVING, wanted=CLAIM.fingerprint) is None

    def test_of_a_spare_that_was_not_needed_the_one_that_was_used_is_the_answer(self) -> None:
        spare = outcome("not-needed", claim=OTHER.fingerprint, hours=0)
        done = document(identity=IDENTITY, history=(OLD, spare, NEW))
        assert end(STATES["spare"], done, wanted=OTHER.fingerprint) is Exit.OK
        old = document(identity=IDENTITY, history=(OLD, spare))
        assert end(STATES["spare"], old, wanted=OTHER.fingerprint) is Exit.OLD_IDENTITY_SERVES

    def test_a_prefix_is_enough(self) -> None:
        done = document(identity=IDENTITY, history=(OLD, NEW))
        assert end(SERVING, done, wanted=CLAIM.fingerprint[:12]) is Exit.OK

    def test_blocked(self) -> None:
        assert end(STATES["claimed"], STATES["blocked"], wanted=CLAIM.fingerprint[:12]) is Exit.REFUSED
        assert end(STATES["claimed"], STATES["blocked"], wanted="77" * 32) is None

    def test_a_spare_waits_for_what_another_claim_s_attempt_waits_for(self) -> None:
        kept = tuple((one.fingerprint, one.not_after) for one in (CLAIM, OTHER))
        found = failed(Code.TEMPLATE_NOT_FOUND, template="T", detail="no such template")
        made = attempt(1)
        blocked = document(
            replace(table.advance(made, Event.BLOCKED, made.started_at), problem=found), claims=kept
        )
        assert end(STATES["spare"], blocked, wanted=OTHER.fingerprint[:12]) is Exit.REFUSED
        assert end(STATES["spare"], STATES["spare"], wanted=OTHER.fingerprint[:12]) is None

    def test_none_helps_a_device_that_is_registered_and_not_let_in(self) -> None:
        refused = failed(Code.IDENTITY_REFUSED, detail="CONNACK 0x87", client_id="x", certificate_id="c")
        spare = outcome("not-needed", claim=OTHER.fingerprint, hours=0)
        made = attempt(4, found=refused, failures=9)
        stuck = document(made, history=(spare,))
        assert end(STATES["identity-refused"], stuck, wanted=OTHER.fingerprint) is Exit.REFUSED
        trying = document(replace(made, failures=1), history=(spare,))
        assert end(STATES["identity-refused"], trying, wanted=OTHER.fingerprint) is None
        kept = document(made, claims=((OTHER.fingerprint, OTHER.not_after),))
        assert end(STATES["identity-refused"], kept, wanted=OTHER.fingerprint) is Exit.REFUSED

    def test_an_attempt_that_is_over_is_stuck_in_nothing(self) -> None:
        """Its last trouble is history; how it ended is told by the outcome, which is not there yet."""
        refused = failed(Code.IDENTITY_REFUSED, detail="CONNACK 0x87", client_id="x", certificate_id="c")
        still = document(attempt(4, found=refused, failures=9))
        over = document(attempt(5, found=refused, failures=9), trouble=refused)
        assert end(STATES["claimed"], still, wanted=CLAIM.fingerprint) is Exit.REFUSED
        assert end(STATES["claimed"], over, wanted=CLAIM.fingerprint) is None


class TestWhatAPersonTypes:
    @pytest.mark.parametrize(("text", "seconds"), [("90", 90), ("90s", 90), ("5m", 300), ("1h", 3600)])
    def test_a_time(self, text: str, seconds: int) -> None:
        assert waiting.seconds(text) == seconds

    @pytest.mark.parametrize("text", ["", "m", "-1", "5 m", "1.5h", "9" * 9])
    def test_no_time(self, text: str) -> None:
        with pytest.raises(ValueError, match="takes a time"):
            waiting.seconds(text)

    def test_a_fingerprint(self) -> None:
        assert waiting.fingerprint("0A:1B:2C:3D") == "0a1b2c3d"

    @pytest.mark.parametrize("text", ["0a1b2", "xyz123", "../../etc", "0" * 65])
    def test_no_fingerprint(self, text: str) -> None:
        with pytest.raises(ValueError, match="hex digits"):
            waiting.fingerprint(text)
