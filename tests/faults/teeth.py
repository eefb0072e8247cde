"""The teeth of the replay: each promise of the order on disk taken away in turn.

Every fsync is left out, every rename moved ahead of the fsync before it, every two neighbouring steps
exchanged, every write moved behind the request that follows. Each change leads to a bad state, or REASONS
has why the device comes to rest all the same. Invariant: what is neither caught nor explained is an error,
and what must be caught, MUST_BITE, is never excused.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable
from pathlib import Path

from faults.judge import Finding, Kind
from faults.powercut import (
    Court,
    Trace,
    caught,
    record,
    with_each_pair_of_steps_swapped,
    with_each_rename_early,
    with_each_step_behind_the_next_request,
    without_each_sync,
)
from faults.scenarios import PLAIN
from faults.table import Row

CHANGES = (
    without_each_sync,
    with_each_rename_early,
    with_each_pair_of_steps_swapped,
    with_each_step_behind_the_next_request,
)

_MACHINE = (
    "one that is damaged or missing says nothing, and is written again; what it guards against, a disk in "
    "another device, comes later"
)

# By the change's label, with * for anything: why it is survived. The first one that fits counts.
REASONS: dict[str, str] = {
    "without make_directory *: sync directory": "the start of a pass syncs the directories again",
    "without sync_directory *: sync directory": "whoever made or swept something there has synced it before",
    "without remove_from drop: sync directory": "the claim comes back, is known and is removed again",
    "without write_file attempt.json (*): sync directory": (
        "the record before it is a state of which recovery finds the way on from what lies on disk"
    ),
    "without probe *": "a trial: whatever is left of it is swept away",
    "without write_file identity/ID/*": (
        "key and certificate are whole; the documents are made again from the record, and the "
        "manifest tells when they must be"
    ),
    "without make_tree identity/ID: sync ownership-token": (
        "a token that is damaged is refused: AWS has activated nothing, and another key is asked for"
    ),
    "without make_tree identity/ID: sync new directory": (
        "the record says that no key is stored yet: AWS has activated nothing, another one is asked for"
    ),
    "without remove_file identity/ID/ownership-token: sync directory": "recovery removes the token again",
    "without remove_tree claims/ID: *": (
        "a claim that comes back is destroyed again once the identity serves"
    ),
    "without replace_symlink identity/current: sync directory": (
        "the record proves the identity: the link is made again"
    ),
    "without write_file activated: *": "it is compared with `current` in each pass and written again",
    "without write_file machine.json: *": _MACHINE,
    "write_file machine.json: rename before *": _MACHINE,
    "write_file machine.json behind aws *": _MACHINE,
    "without write_file told.json: *": "it holds what was told to people; they are told once more",
    "write_file identity/ID/*: rename before *": "the documents are made again from the record",
    "make_tree claims/ID: rename before *": (
        "the dropped files are there until the claim is synced, and a damaged copy is made again from them"
    ),
    "make_tree identity/ID: rename before *": (
        "AWS has activated nothing yet: another certificate is asked for"
    ),
    "remove_tree claims/ID: rename before *": (
        "the record is REGISTERED or finds its way there by a probe; it needs no claim"
    ),
    "replace_symlink identity/current: rename before *": "the identity was whole before it was proved",
    "write_file activated: rename before *": "it is compared with `current` in each pass and written again",
    "write_file told.json: rename before *": "it holds what was told to people; they are told once more",
    "make_directory * before *": "two directories that do not depend on each other",
    "* before make_directory *": "two directories that do not depend on each other, or one for texts",
    "sync_directory * before *": "nothing lies in the one that the other must precede",
    "* before sync_directory *": "nothing lies in the one that the other must precede",
    "probe * before *": (
        "a trial that leaves nothing behind; it is there to find trouble, not to order writes"
    ),
    "* before probe *": (
        "a trial that leaves nothing behind; it is there to find trouble, not to order writes"
    ),
    "aws connected before *": "a connection alone changes nothing in AWS",
    "* before aws connected": "a connection alone changes nothing in AWS",
    "write_file attempt.json (claimed) before remove_from drop": "the claim is kept already",
    "aws create before write_file attempt.json (keys-requested)": (
        "its answer without a record is an unused certificate, which AWS deletes"
    ),
    "make_tree identity/ID before aws create": (
        "no answer, no key: the exchange of the two cannot happen, and a key that AWS does not know "
        "is set aside"
    ),
    "aws register before write_file attempt.json (registering)": (
        "a token that is refused leaves the attempt open, and a probe with the key itself tells "
        "that it was registered"
    ),
    "write_file identity/ID/* before write_file identity/ID/*": (
        "nobody reads them before the manifest is whole, and what is missing is made again from the record"
    ),
    "remove_file identity/ID/ownership-token before write_file identity/ID/manifest.json": (
        "the documents tell that it is registered: the token is not needed again"
    ),
    "* before write_file identity/ID/manifest.json": "what is missing is made again from the record",
    "write_file attempt.json (registered) before *": "the token and the claim are removed again by recovery",
    "remove_tree claims/ID before *": "registered on disk or by a probe: no claim is needed any more",
    "* before remove_tree claims/ID": "a claim that is left is destroyed by the next pass",
    "replace_symlink identity/current before *": (
        "the identity is whole, only not proved yet; it is proved next"
    ),
    "write_file activated before replace_symlink identity/current": (
        "it is compared with `current` in each pass"
    ),
    "write_file attempt.json (active) before *": "`current` and `activated` are made again from the record",
    "write_file told.json before *": "it holds what was told to people; they are told once more",
    "* before write_file told.json": "it holds what was told to people; they are told once more",
    "write_file attempt.json (keys-staged) before make_tree identity/ID": (
        "recovery sees that the key is not there: AWS has activated nothing, another one is asked for"
    ),
    "give_up_room * before *": "files that only held room",
    "* before give_up_room *": "files that only held room",
    "make_directory * behind aws *": "made when it is missing",
    "sync_directory * behind aws *": "nothing lies there yet that AWS must not outrun",
    "remove_from drop behind aws *": "the claim is kept already; a copy that is left is known and removed",
    "write_file attempt.json (claimed) behind aws *": "a kept claim without a record begins a new attempt",
    "probe * behind aws *": (
        "a trial that leaves nothing behind; it is there to find trouble before the claim is spent"
    ),
    "write_file attempt.json (keys-requested) behind aws *": (
        "an answer without its record is an unused certificate, which AWS deletes"
    ),
    "write_file attempt.json (keys-staged) behind aws *": (
        "the key lies beside its token: the record before this one finds it"
    ),
    "write_file attempt.json (registering) behind aws *": (
        "a token that is refused leaves the attempt open, and a probe with the key itself tells "
        "that it was registered"
    ),
    "write_file told.json behind aws *": "it holds what was told to people; they are told once more",
}


# No reason excuses these: without them a key or a claim is lost for good.
MUST_BITE = (
    "without make_tree claims/ID: sync private.key",
    "without make_tree identity/ID: sync private.key",
    "without make_tree identity/ID: sync certificate.pem",
    "without make_tree identity/ID: sync directory",
    "without make_tree claims/ID: sync directory",
    "remove_from drop before make_tree claims/ID",
    "make_tree claims/ID behind aws create",
    "make_tree identity/ID behind aws register",
)


def reason(label: str) -> str | None:
    return next((why for pattern, why in REASONS.items() if fnmatch.fnmatchcase(label, pattern)), None)


def bitten(traces: Iterable[Trace], court: Court) -> dict[str, str | None]:
    """By label: the first finding in any of the traces, or None."""
    found: dict[str, str | None] = {}
    for trace in traces:
        for change in CHANGES:
            for label, how in caught(trace, change(trace), court).items():
                found[label] = found.get(label) or how
    return found


def job(place: Path, more: int = 1) -> list[Row]:
    """A point is a change; it is bad when it is neither caught nor explained. `more` is ignored."""
    (place / "court").mkdir()
    found = bitten([record(PLAIN, place / "device")], Court(place / "court"))
    row = Row("teeth: an fsync or an order taken away")
    for label, how in found.items():
        bad = []
        if how is None and reason(label) is None:
            bad.append(Finding(Kind.STUCK, "not caught, and no reason is written down"))
        if how is None and label in MUST_BITE:
            bad.append(Finding(Kind.LOST, "the replay did not see it"))
        row.add(label, bad, struck=int(how is not None))
    row.note = (
        f"{sum(how is not None for how in found.values())} of {len(found)} caught, the others explained"
    )
    return [row]
