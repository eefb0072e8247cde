"""The situations in which a device is struck: what AWS does meanwhile, and what was there before.

Invariant: left alone, each ends with an identity that serves, without a person. A claim more than the
first is dropped only where the first one dies on its way, which is what `claims_used` says.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

from faults.cloud import Fault, What
from faults.rig import Rig, default_claims
from material import NOW, pair


@dataclass(frozen=True)
class Scenario:
    """`claims_used`: beyond the first. `unused`: certificates that AWS's own faults leave unregistered."""

    name: str
    make: Callable[[Path], Rig]
    claims_used: int = 0
    unused: int = 0
    registered: int = 1


def _simple(*faults: Fault, more: str = "") -> Callable[[Path], Rig]:
    def make(place: Path) -> Rig:
        return Rig.new(place, faults=faults, more=more)

    return make


def _dying_claim(place: Path) -> Rig:
    """The claim ends while RegisterThing gets no answer: the next one registers the key that is kept."""
    dying = pair(not_after=NOW + timedelta(seconds=4))
    lost = tuple(Fault("register", n, What.LOSE_REQUEST) for n in range(3))
    return Rig.new(place, (dying, *default_claims()[1:]), faults=lost)


def _replace(place: Path) -> Rig:
    """A device with an identity gets a claim, and is told to replace it."""
    rig = Rig.new(place, more='reprovision = "replace"')
    assert rig.recover().is_active
    rig.drop(1)
    return rig


PLAIN = Scenario("a claim becomes an identity", _simple())
LOST_CREATE = Scenario(
    "the answer with the key is lost", _simple(Fault("create", 0, What.LOSE_ANSWER)), unused=1
)
LOST_REGISTER = Scenario(
    "the answer to RegisterThing is lost", _simple(Fault("register", 0, What.LOSE_ANSWER))
)
LOST_REQUEST = Scenario("RegisterThing never arrives", _simple(Fault("register", 0, What.LOSE_REQUEST)))
REFUSED_AFTER = Scenario(
    "registered and answered with 500", _simple(Fault("register", 0, What.REFUSED_AFTER))
)
THROTTLED = Scenario(
    "429, then 500",
    _simple(Fault("create", 0, What.THROTTLED), Fault("register", 0, What.UNAVAILABLE)),
)
DYING_CLAIM = Scenario("the claim dies on the way", _dying_claim, claims_used=1)
DEVICE_KEY = Scenario("the device makes its own key", _simple(more='key_source = "device"'))
LOST_CERTIFICATE = Scenario(
    "the certificate for the device's own key is lost",
    _simple(Fault("create", 0, What.LOSE_ANSWER), more='key_source = "device"'),
    unused=1,
)
REPLACE = Scenario("a second claim replaces the identity", _replace, registered=2)

ALL = (
    PLAIN,
    LOST_CREATE,
    LOST_REGISTER,
    LOST_REQUEST,
    REFUSED_AFTER,
    THROTTLED,
    DYING_CLAIM,
    DEVICE_KEY,
    LOST_CERTIFICATE,
    REPLACE,
)


def with_seed(rig: Rig, seed: int) -> Rig:
    """Other temporary names, other jitter."""
    return replace(rig, seed=seed)
