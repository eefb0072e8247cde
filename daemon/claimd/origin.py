"""Whether the state directory belongs to this device: a disk or an image of it may have come from another.

What lies in it is then somebody else's identity, claim or half an attempt: two devices under one identity
throw each other off the endpoint, and an attempt that both drive wastes both. Invariant: nothing of it is
acted on until a person says what it is: a copy (`claimd forget`) or the same device, whose machine-id
was made anew (`claimd provision --adopt`).

Kept is not the machine-id, which machine-id(5) wants confidential, but a hash of it for this purpose alone.
It is kept before the first claim is taken in, and binds only once there is a claim or a key: an image
that claimd has run in and nobody has dropped a claim on is anybody's.
"""

from __future__ import annotations

import hmac
import logging
from typing import TYPE_CHECKING

from . import facts
from .errors import Code, Problem, problem

if TYPE_CHECKING:
    from .model import Layout
    from .store import Store

log = logging.getLogger(__name__)

# As sd_id128_get_machine_app_specific(3) does it: an id of the application, keyed with the machine's.
_APPLICATION = bytes.fromhex("6f6c2b0c8d0e4c6f9c5f3b1a7d42e91c")


def machine(layout: Layout) -> str | None:
    """What stands for this machine; None where it has no id (yet)."""
    try:
        found = facts.machine_id(layout)
    except facts.UnknownFactError:
        return None
    return hmac.digest(bytes.fromhex(found), _APPLICATION, "sha256").hex()


def foreign(store: Store, layout: Layout) -> Problem | None:
    """What to say when the state is another device's. Reads only; raises OSError."""
    here, kept = machine(layout), store.load_machine()
    if here is None or kept in (None, here) or not (store.claim_names() or store.staged()):
        return None
    return problem(Code.STATE_OF_ANOTHER_DEVICE, path=layout.state_directory)


def settle(store: Store, layout: Layout, *, adopt: bool) -> Problem | None:
    """Under the lock, before anything else: `foreign`, or this machine is what the state belongs to.

    A disk in trouble is no reason to leave an identity alone that may be this device's: it is tried
    again at the next pass.
    """
    try:
        found = foreign(store, layout)
        if found is not None and not adopt:
            return found
        here = machine(layout)
        if here is not None and here != store.load_machine():
            store.save_machine(here)
    except OSError as error:
        log.warning("it can't be kept which machine the state belongs to: %s", error.strerror)
    return None
