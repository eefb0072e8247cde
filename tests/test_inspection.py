"""What `claimd inspect` says of some files, with the words and the judgement of the daemon."""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone

import pytest

import material
from claimd.errors import Code
from claimd.inspection import (
    LONGEST_CLAIM_LIFE,
    Inspection,
    document,
    expired,
    inspect,
    lines,
    not_yet_valid,
)
from claimd.words import COLUMNS
from material import NOW

SECOND = timedelta(seconds=1)
PAIR = material.pair()
OTHER = material.pair()
CLAIM = PAIR.claim
SHORT = CLAIM.fingerprint[:12]
TWO_FILES = {"cert.pem": PAIR.certificate, "key.pem": PAIR.key}


def look(files: dict[str, str], now: datetime = NOW) -> Inspection:
    return inspect({name: text.encode() for name, text in files.items()}, now)


def codes(found: Inspection) -> dict[str, Code]:
    return {name: problem.code for name, problem in found.problems.items()}


def cut(pem: str) -> str:
    """As a copy that broke off leaves it."""
    return pem[: len(pem) // 2] + "\n"


class TestAClaim:
    @pytest.mark.parametrize(
        ("files", "names"),
        [
            (TWO_FILES, ("cert.pem", "key.pem")),
            ({"claim.txt": PAIR.key + PAIR.certificate}, ("claim.txt",)),
            ({"b": PAIR.certificate, "a": PAIR.key, "c": PAIR.key}, ("a", "b", "c")),
        ],
    )
    def test_it_is_usable_however_it_lies_there(self, files: dict[str, str], names: tuple[str, ...]) -> None:
        found = look(files)
        assert found.usable == (CLAIM,) and found.claims == ((CLAIM, names),)
        assert not found.problems and found.refusal is None

    @pytest.mark.parametrize(
        ("now", "code", "usable"),
        [
            (CLAIM.certificate.not_before - SECOND, Code.CLAIM_NOT_YET_VALID, True),
            (CLAIM.certificate.not_before, None, True),
            (CLAIM.certificate.not_after - SECOND, None, True),
            (CLAIM.certificate.not_after, Code.CLAIM_EXPIRED, False),
        ],
    )
    def test_it_lives_from_its_first_second_to_before_its_last(
        self, now: datetime, code: Code | None, usable: bool
    ) -> None:
        """A clock that is behind is the daemon's to wait for."""
        found = look(TWO_FILES, now)
        assert codes(found) == ({} if code is None else {"cert.pem": code})
        assert bool(found.usable) is usable
        assert (found.refusal is None) is usable

    @pytest.mark.parametrize(("more", "permanent"), [(timedelta(0), False), (SECOND, True)])
    def test_a_device_s_own_certificate_is_no_claim(self, more: timedelta, permanent: bool) -> None:
        made = material.pair(not_before=NOW, not_after=NOW + LONGEST_CLAIM_LIFE + more)
        found = look({"claim": made.certificate + made.key})
        assert codes(found) == ({"claim": Code.CLAIM_IS_PERMANENT} if permanent else {})
        assert bool(found.usable) is not permanent

    def test_one_that_is_dead_beside_one_that_lives(self) -> None:
        dead = material.pair(not_before=NOW - 9 * SECOND, not_after=NOW)
        found = look({"old": dead.certificate + dead.key, **TWO_FILES})
        assert found.usable == (CLAIM,) and codes(found) == {"old": Code.CLAIM_EXPIRED}
        assert found.refusal is None


class TestHalves:
    def test_a_certificate_alone(self) -> None:
        found = look({"cert.pem": PAIR.certificate})
        assert codes(found) == {"cert.pem": Code.CLAIM_KEY_MISSING}
        assert found.refusal is found.problems["cert.pem"]

    def test_a_key_alone(self) -> None:
        assert codes(look({"key.pem": PAIR.key})) == {"key.pem": Code.CLAIM_CERTIFICATE_MISSING}

    def test_two_that_don_t_belong_together(self) -> None:
        """Both files say it, and both name the two."""
        found = look({"cert.pem": PAIR.certificate, "key.pem": OTHER.key})
        assert codes(found) == dict.fromkeys(("cert.pem", "key.pem"), Code.CLAIM_KEY_MISMATCH)
        assert found.problems["cert.pem"] == found.problems["key.pem"]
        assert {"cert.pem", "key.pem"} <= set(found.problems["key.pem"].fields.values())

    def test_a_half_of_another_claim_beside_a_whole_one(self) -> None:
        """What is part of a claim is no half, and no reason for a half to be called a mismatch."""
        found = look({**TWO_FILES, "more.pem": OTHER.key})
        assert found.usable == (CLAIM,) and codes(found) == {"more.pem": Code.CLAIM_CERTIFICATE_MISSING}

    def test_what_lies_in_a_claim_s_own_file_is_no_half(self) -> None:
        third = material.pair()
        spare_key = {"claim": PAIR.certificate + PAIR.key + OTHER.key}
        assert look(spare_key).usable == (CLAIM,) and not look(spare_key).problems
        alone = look({**spare_key, "more.pem": third.certificate})
        assert codes(alone) == {"more.pem": Code.CLAIM_KEY_MISSING}
        spare_certificate = {"claim": PAIR.certificate + PAIR.key + OTHER.certificate}
        assert look(spare_certificate).usable == (CLAIM,) and not look(spare_certificate).problems
        alone = look({**spare_certificate, "more.pem": third.key})
        assert codes(alone) == {"more.pem": Code.CLAIM_CERTIFICATE_MISSING}

    @pytest.mark.parametrize(
        ("files", "name"),
        [
            ({"claim": PAIR.certificate + cut(PAIR.key)}, "claim"),
            ({"claim": PAIR.key + cut(PAIR.certificate)}, "claim"),
        ],
    )
    def test_a_damaged_half_says_more_than_a_missing_one(self, files: dict[str, str], name: str) -> None:
        found = look(files)
        assert list(found.problems) == [name]
        assert found.problems[name].code not in (Code.CLAIM_KEY_MISSING, Code.CLAIM_CERTIFICATE_MISSING)
        assert found.problems[name] == found.materials[name].problems[0]

    def test_a_file_that_is_nothing_of_a_claim(self) -> None:
        found = look({"photo.jpg": "\xff\xd8"})
        assert codes(found) == {"photo.jpg": Code.CLAIM_NOT_RECOGNISED}
        assert codes(look({"photo.jpg": "x", **TWO_FILES})) == {"photo.jpg": Code.CLAIM_NOT_RECOGNISED}

    def test_nothing_at_all(self) -> None:
        found = look({})
        assert found.refusal is None and not found.usable and lines(found, NOW) == []


class TestClocks:
    def test_the_right_time_is_two_minutes_after_the_beginning(self) -> None:
        found = not_yet_valid("f" * 64, NOW, NOW - SECOND)
        assert found.fields["date"] == "2026-03-01 12:02:00"
        assert found.fields["now"] == "2026-03-01 11:59:59 UTC"

    def test_a_claim_that_begins_at_the_end_of_time(self) -> None:
        last = datetime.max.replace(tzinfo=timezone.utc)
        assert not_yet_valid("f" * 64, last, NOW).fields["date"] == "9999-12-31 23:59:59"

    def test_expired_says_both_times(self) -> None:
        fields = expired(CLAIM, NOW + timedelta(hours=1)).fields
        assert (fields["claim"], fields["not_after"], fields["now"]) == (
            SHORT,
            "2026-03-01 12:05:00 UTC",
            "2026-03-01 13:00:00 UTC",
        )


class TestAsText:
    def test_a_claim(self) -> None:
        assert lines(look(TWO_FILES), NOW) == [
            f"cert.pem: certificate {SHORT} (CN=a claim)",
            "key.pem: private key (P-256)",
            "",
            f"claim:         {CLAIM.fingerprint}",
            "pair:          certificate and key belong together (P-256)",
            "valid:         2026-03-01 11:58:00 UTC to 2026-03-01 12:05:00 UTC, 5:00 left",
            "clock:         2026-03-01 12:00:00 UTC, looks right: the claim was made in the",
            "               last minutes",
        ]

    @pytest.mark.parametrize(
        ("now", "said"),
        [
            (NOW, "looks right"),
            (CLAIM.certificate.not_before - SECOND, "clock is behind"),
            (CLAIM.certificate.not_after, "right, or ahead"),
        ],
    )
    def test_what_the_clock_looks_like(self, now: datetime, said: str) -> None:
        text = " ".join(" ".join(lines(look(TWO_FILES, now), now)).split())
        assert said in text.partition("clock: ")[2]

    def test_a_problem_with_what_to_do(self) -> None:
        said = lines(look({"cert.pem": PAIR.certificate}), NOW)
        assert "The certificate is here (cert.pem), its private key is missing." in said
        assert [line.split(":")[0] for line in said if line.startswith(("likely", "what to do", "code"))] == [
            "likely cause",
            "what to do",
            "code",
        ]
        assert said[-1] == "code:          claim-key-missing"

    def test_a_file_of_neither(self) -> None:
        assert lines(look({"photo.jpg": "x"}), NOW)[0] == "photo.jpg: no certificate and no private key"

    def test_what_a_stranger_named(self) -> None:
        """Neither the file's name nor the certificate's reaches the terminal as it is."""
        made = material.authority().issue("\x1b[31m" + "n" * 59, material.new_key(), NOW, NOW + SECOND)
        said = lines(look({"a\x1b[2J\n": made, "k\r": PAIR.key}), NOW)
        assert all(line.isprintable() for line in said)
        assert "n" * 41 not in " ".join(said), "a name is cut"
        assert all(len(line) <= COLUMNS for line in said)


class TestTheDocument:
    def test_a_claim(self) -> None:
        found = look(TWO_FILES)
        assert document(found, NOW) == {
            "schema": 1,
            "usable": True,
            "files": [
                {"file": "cert.pem", "certificates": [CLAIM.fingerprint], "keys": []},
                {"file": "key.pem", "certificates": [], "keys": ["P-256"]},
            ],
            "claims": [
                {
                    "fingerprint": CLAIM.fingerprint,
                    "files": ["cert.pem", "key.pem"],
                    "not_before": "2026-03-01T11:58:00+00:00",
                    "not_after": "2026-03-01T12:05:00+00:00",
                    "remaining_seconds": 300,
                    "usable": True,
                }
            ],
            "problems": [],
        }

    def test_one_that_is_dead(self) -> None:
        later = NOW + timedelta(hours=1)
        said = json.loads(json.dumps(document(look(TWO_FILES, later), later)))
        assert said["usable"] is said["claims"][0]["usable"] is False
        assert said["claims"][0]["remaining_seconds"] == 0
        ((problem),) = said["problems"]
        assert (problem["file"], problem["problem"]["code"]) == ("cert.pem", "claim-expired")


@pytest.mark.parametrize(
    "files",
    [
        TWO_FILES,
        {"key.pem": PAIR.key},
        {"a": PAIR.certificate + cut(PAIR.key)},
        {"a": OTHER.certificate, "b": PAIR.key},
        {"a": PAIR.key.replace("\n", "\\n")},
    ],
)
def test_no_sentence_holds_a_part_of_a_key(files: dict[str, str]) -> None:
    found = look(files)
    said = "\n".join(lines(found, NOW)) + json.dumps(document(found, NOW)) + repr(found)
    # SEC1: 7 bytes of frame, the 32 that are the secret, and then what a certificate holds as well.
    secret = "".join(PAIR.key.splitlines()[1:-1])[10:52]
    assert secret[:12] in "".join(files.values()), "the test would see it"
    assert not [secret[at : at + 12] for at in range(len(secret) - 12 + 1) if secret[at : at + 12] in said]
