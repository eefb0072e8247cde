"""Into BLOCKED, where configuration or cloud can cure it and the live claim waits, and out of it again."""

from __future__ import annotations

from dataclasses import replace

from . import attempt as table
from . import lapse
from .attempt import Attempt, Event, State
from .errors import ClaimdError, Code
from .logbook import Logbook
from .model import Target
from .recovery import without_key

# A package that is installed again, an interface or a file that appears some seconds after the boot.
_OUTSIDE_THE_CONFIGURATION = frozenset({Code.CA_UNUSABLE, Code.PARAMETER_UNRESOLVED})


def cure(book: Logbook) -> None:
    """Out of BLOCKED when a person asks, when the configuration is not the one that failed, or now and
    then when what it names may be there by now."""
    attempt = book.record.attempt
    if attempt is None or attempt.state is not State.BLOCKED:
        return
    sha256 = book.sha256()
    if not sha256:
        return
    if book.world.by_hand or sha256 != attempt.config_sha256:
        book.save(unblock(book, attempt))
    elif is_looked_at_again(attempt) and table.due_in_seconds(attempt, book.now()) <= 0:
        book.save(replace(unblock(book, attempt), failures=attempt.failures))


def unblock(book: Logbook, attempt: Attempt) -> Attempt:
    """Out of BLOCKED: afresh when the configuration changed, else where it was."""
    same = attempt.config_sha256 == book.sha256()
    if attempt.resume is State.REGISTERING and attempt.ambiguous:
        # Never walk away from a certificate that may be active: it is asked for again, as corrected.
        event = Event.UNBLOCKED_IN_REGISTRATION
    elif attempt.resume in (State.KEYS_STAGED, State.REGISTERING) and same:
        event = Event.UNBLOCKED_WITH_KEYS
    else:
        event = Event.UNBLOCKED_AFRESH
    moved = table.advance(attempt, event, book.now())
    moved = replace(moved, resume=None, config_sha256=None, failures=0, retry_at=None)
    if event is Event.UNBLOCKED_IN_REGISTRATION and not same:
        moved = replace(moved, target=_corrected(book, attempt))
    if event is Event.UNBLOCKED_AFRESH:
        lapse.set_key_aside(book, attempt)
        moved = without_key(moved)
    return moved


def _corrected(book: Logbook, attempt: Attempt) -> Target | None:
    """What may be corrected while the token of a request lives: it is valid at one endpoint only."""
    frozen, claim = attempt.target, attempt.claim
    if frozen is None or claim is None:
        return frozen
    try:
        asked = book.world.configuration.target(claim.fingerprint, frozen.ca_sha256)
    except ClaimdError:
        return frozen  # the same request is refused again, and waits for the next correction
    return replace(
        frozen,
        template=asked.template,
        parameters=asked.parameters,
        identity_client_id=asked.identity_client_id,
    )


def is_looked_at_again(attempt: Attempt) -> bool:
    """Blocked by something that the configuration names and that may appear without anybody's touching it;
    or blocked while an earlier answer is unknown: whether that certificate connects by now is asked."""
    if attempt.resume is State.REGISTERING and attempt.ambiguous:
        return True
    return attempt.problem is not None and attempt.problem.code in _OUTSIDE_THE_CONFIGURATION
