"""Dropped files become kept claims.

Invariant: a dropped file is removed only after the claim in it is kept on disk, after it was found to
hold nothing but a claim that is dead or taken in already, after it has lain there unchanged for the
configured grace, or because others than its owner may write to it. Contents decide, never names; names
only tell a copy in progress.
"""

from __future__ import annotations

import logging
import os
import re
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from . import inspection, traces
from .durable import disk_problem
from .errors import Code, Problem, problem
from .ledger import Ledger, Moment, place
from .memory import Memory
from .model import short
from .pem import Material, pair_up, recognise

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from .drop import Drop, Entry, Look
    from .model import Claim
    from .pem import Pairing
    from .store import Store

log = logging.getLogger(__name__)

# A copy under a name of its own (rsync, WinSCP, editors) is renamed when it is whole: taken away in between
# it would end the copying with an error. So a whole claim under such a name has to lie still for so long.
SETTLED_SECONDS = 2.0
# `scp -r` goes on copying after the claim has come.
_IN_FLIGHT = re.compile(r"(^|/)\.|\.(filepart|part|partial|tmp|crdownload)$", re.IGNORECASE)
# What editors make and take away again. Nobody is told about these unless a claim is in them.
_BY_PROGRAMS = re.compile(
    r"(^|/)(\.|4913$|sed[A-Za-z0-9]{6}$)|(~|\.sw[a-p])$|" + _IN_FLIGHT.pattern, re.IGNORECASE
)

# Whoever drops more has made a mistake, or means to fill the disk. A multiple of what anybody needs.
MAX_CLAIMS_OF_AN_OWNER = 8
# So many certificates of one account, and of all, are paired with keys in one look: one file may hold fifteen
# of one key, and each would be a claim that names every file with that key.
MAX_CERTIFICATES_OF_AN_OWNER = 4 * MAX_CLAIMS_OF_AN_OWNER
MAX_CERTIFICATES = 8 * MAX_CERTIFICATES_OF_AN_OWNER
# When the others have become an identity or died there is room again; no event tells.
_ROOM_SECONDS = 30.0
# Where there was more than a pass could read, the next one goes on after so long.
_FLOOD_SECONDS = 60.0
# No event tells of what happens in a folder: so often a young and an old one are looked into.
_FOLDER_LOOK_SECONDS = (2.0, 30.0)
_YOUNG_SECONDS = 60.0
# A folder that was set aside is destroyed within a second; after so long something is wrong.
SWEPT_SECONDS = 60.0
# Stands for what was set aside, among the names of files.
_FOLDERS = "(folder)"


@dataclass(frozen=True)
class Rules:
    """What happens to files that are no claim: left alone for `keep_seconds`, then gone."""

    keep_seconds: float = 600.0
    keep_aside: bool = False


@dataclass(frozen=True)
class Intake:
    """What one look at the drop directory brought.

    `problems`: by file name, for what was left there. `incomplete`: something there may still
    become a claim when more of it arrives. `expired`: claims that were destroyed, being dead.
    `signature`: what lies there; unchanged means that nothing arrived since.
    `destroyed`: by file name, why it is gone, for all that did not become a claim; `aside`: of these the ones
    that were kept aside. `due_seconds`: when the next look is due, should nothing arrive before.
    """

    kept: tuple[Claim, ...]
    expired: tuple[Claim, ...]
    problems: Mapping[str, Problem]
    incomplete: bool
    signature: frozenset[object]
    destroyed: Mapping[str, Problem] = field(default_factory=dict)
    aside: frozenset[str] = frozenset()
    due_seconds: float | None = None


_MAY_STILL_ARRIVE = frozenset(
    {
        Code.CLAIM_STILL_ARRIVING,
        Code.CLAIM_KEY_MISSING,
        Code.CLAIM_CERTIFICATE_MISSING,
        Code.CLAIM_KEY_MISMATCH,
    }
)


class Reception:
    """The looks of one pass, and what they remember."""

    def __init__(self, drop: Drop, store: Store, rules: Rules, ledger: Ledger) -> None:
        self.drop = drop
        self.store = store
        self.rules = rules
        self.memory = Memory(store, ledger)

    @property
    def ledger(self) -> Ledger:
        return self.memory.ledger

    def look(self, now: Moment) -> Intake:
        """Keep what is whole, name what is not, destroy what has had its time.

        Raises ClaimdError and OSError, having lost nothing.
        """
        return _Looking(self, self.drop.look(self.memory.read_before), now).done()


class _Looking:
    """One look, in its steps."""

    def __init__(self, reception: Reception, look: Look, now: Moment) -> None:
        self._reception = reception
        self._memory = reception.memory
        self._now = now
        self._more = look.more
        self._unswept = look.unswept
        self._all = {entry.name: entry for entry in look.entries}
        self._unsettled = {name for name, entry in self._all.items() if self._is_in_flight(entry)}
        self._entries = {name: entry for name, entry in self._all.items() if name not in self._unsettled}
        self._materials: dict[str, Material] = {}
        self._kept: list[Claim] = []
        self._expired: list[Claim] = []
        self._problems: dict[str, Problem] = {}
        self._taken: set[str] = set()
        self._destroyed: dict[str, Problem] = {}
        self._aside: set[str] = set()
        self._gone: set[str] = set()
        self._copies: Counter[str] = Counter()
        self._ended = 0
        self._trappers: list[int | None] = []
        self._due: list[float] = []

    def done(self) -> Intake:
        for name, entry in self._entries.items():
            if entry.problem is not None:
                self._problems[name] = entry.problem
            elif not entry.is_folder:
                self._materials[name] = recognise(name, entry.data)
        self._remember_junk()
        self._leave_too_many()
        pairing = pair_up(self._materials)
        for claim, names in pairing.claims:
            self._receive(claim, names)
        self._find_halves_that_came_back(pairing)
        self._remove_taken()
        self._problems.update(inspection.unpaired(self._materials, pairing, self._taken))
        self._age()
        self._complain_of_unswept()
        self._memory.let_go_of(self._problems | self._destroyed)
        return self._result()

    def _remember_junk(self) -> None:
        useless = (
            entry
            for name, entry in self._entries.items()
            if name not in self._materials
            or not (self._materials[name].keys or self._materials[name].certificates)
        )
        self._memory.remember_read(useless)

    def _leave_too_many(self) -> None:
        """In the order of the look, newest first, in turn from each owner: a flood hides nobody's claim."""
        counts: Counter[int | None] = Counter()
        for name, material in list(self._materials.items()):
            owner, more = self._entries[name].owner, len(material.certificates)
            if (
                counts[owner] + more <= MAX_CERTIFICATES_OF_AN_OWNER
                and counts.total() + more <= MAX_CERTIFICATES
            ):
                counts[owner] += more
                continue
            self._wait_for_room(material.certificates[0].fingerprint, (name,))
            del self._materials[name]

    def _wait_for_room(self, fingerprint: str, names: Iterable[str]) -> None:
        many = problem(Code.CLAIM_TOO_MANY, claim=short(fingerprint), count=MAX_CLAIMS_OF_AN_OWNER)
        self._problems.update(dict.fromkeys(names, many))
        self._due.append(_ROOM_SECONDS)

    # -- claims

    def _receive(self, claim: Claim, names: frozenset[str]) -> None:
        now = self._memory.ledger.time_for(claim.fingerprint, claim.certificate.not_after, self._now)
        found = inspection.of_claim(claim, sorted(names)[0], now)
        if found is not None and found.code is Code.CLAIM_IS_PERMANENT:
            self._problems.update(dict.fromkeys(names, found))
            return
        if self._memory.is_used_up(claim.fingerprint):
            self._came_back(claim.fingerprint, names)
        elif found is not None and found.code is Code.CLAIM_EXPIRED:
            self._expired.append(claim)
            self._destroyed.update(dict.fromkeys(names, found))
        elif self._memory.is_in_use(claim.fingerprint):
            self._came_back(claim.fingerprint, names)
        elif self._memory.held_for(owner := self._entries[sorted(names)[0]].owner) >= MAX_CLAIMS_OF_AN_OWNER:
            self._wait_for_room(claim.fingerprint, names)
            return
        else:
            store = self._reception.store
            try:
                store.secure_claim(claim)
            except OSError as error:
                # One bad sector keeps neither the other claims nor an open attempt waiting.
                trouble = disk_problem(error, store.layout.state_directory)
                self._problems.update(dict.fromkeys(names, trouble))
                self._due.append(_ROOM_SECONDS)
                return
            self._kept.append(claim)
            log.info("claim %s taken in", short(claim.fingerprint))
            if any(self._entries[name].exposed for name in names):
                log.warning(
                    "claim %s lay in a file that others than user %s could write to: it may be known to them",
                    short(claim.fingerprint),
                    owner,
                )
            self._memory.remember(claim, names, owner, self._now)
        # A file may hold several claims: it goes when all of them are safe.
        self._taken.update(names)

    def _came_back(self, fingerprint: str, names: Iterable[str]) -> None:
        folders = {name for name in names if self._entries[name].folder}
        if folders and self._memory.was_taken_from(fingerprint, folders):
            return  # the folder it came in, left there until the copying was over
        for name in names:
            self._destroyed[name] = problem(Code.CLAIM_ALREADY_TAKEN_IN, claim=short(fingerprint), file=name)
            self._copies[short(fingerprint)] += 1

    def _find_halves_that_came_back(self, pairing: Pairing) -> None:
        """`sed -i` and editors bring one of the two files back."""
        halves = [(key.public_key_id, name) for key, name in pairing.lonely_keys]
        halves += [(each.public_key_id, name) for each, name in pairing.lonely_certificates]
        for public_key_id, name in halves:
            taken = self._memory.taken_with_key(public_key_id)
            if taken is not None and name not in self._problems:
                self._came_back(taken.fingerprint, (name,))
                self._taken.add(name)

    def _remove_taken(self) -> None:
        gone = self._taken - self._problems.keys()
        for name in sorted(gone):
            if self._entries[name].folder is None:
                self._remove(name)
        for folder in sorted({f for name in gone if (f := self._entries[name].folder) is not None}):
            self._remove_folder(folder)

    def _remove_folder(self, folder: str) -> None:
        """With all that is in it, once the copying is over and nothing in it may still become a claim.

        One that others may write to goes at once: its owner could prolong the copying for ever.
        """
        inside = [entry for entry in self._all.values() if entry.folder == folder]
        own = self._all.get(folder)
        if own is None or any(self._is_wanted(entry.name) for entry in inside):
            return
        parts = [own, *inside]
        youngest = min(self._age_by_wall(part) for part in parts)
        if youngest < SETTLED_SECONDS and not self._is_a_trap(parts):
            self._due.append(SETTLED_SECONDS - youngest)
        elif self._remove(folder):
            self._gone.update(entry.name for entry in inside)

    def _is_wanted(self, name: str) -> bool:
        """Whether there is material in it that was not taken in, or what could not be read."""
        if name in self._problems:
            return True
        return name not in self._taken and not self._is_unfinished(name)

    def _remove(self, name: str) -> bool:
        return self._put_away(name, self._reception.drop.remove)

    def _put_away(self, name: str, act: Callable[[Entry], bool]) -> bool:
        """Also where nothing can be removed (a read-only or foreign file system) a claim finds its way."""
        try:
            gone = act(self._all[name])
        except IsADirectoryError:
            # One of more folders than a look reads: a later one has room for it.
            self._due.append(_FOLDER_LOOK_SECONDS[0])
            return False
        except OSError as error:
            self._destroyed.pop(name, None)
            self._problems[name] = disk_problem(error, os.path.join(self._reception.drop.path, name))
            return False
        if gone:
            self._gone.add(name)
        return gone

    # -- what is no claim

    def _age(self) -> None:
        """The grace: since when each file lies there unchanged, and whether that is long enough."""
        here = [entry for name, entry in self._all.items() if name not in self._gone]
        stamps = ((e.name, e.stamp.inode, e.stamp.ctime_ns) for e in here)
        self._memory.ledger = self._memory.ledger.with_seen(
            self._now.elapsed, stamps, all_of_them=not self._more
        )
        seen = self._memory.ledger.seen
        inside: dict[str, list[Entry]] = {}
        for entry in here:
            if entry.folder is not None:
                inside.setdefault(entry.folder, []).append(entry)
        for entry in here:
            if entry.folder is not None:
                continue
            parts = [entry, *inside.get(entry.name, ())]
            if self._is_a_trap(parts):
                self._destroy_trap(entry, parts)
                continue
            if entry.is_folder:
                youngest = min(self._age_by_wall(part) for part in parts)
                self._due.append(_FOLDER_LOOK_SECONDS[youngest > _YOUNG_SECONDS])
                self._more = self._more or len(parts) == 1
            age = min(
                self._now.elapsed - s.at if (s := seen.get(place(p.name))) else self._long(p) for p in parts
            )
            if age < self._rules.keep_seconds:
                self._due.append(self._rules.keep_seconds - age)
            else:
                self._end(entry, parts)
        if self._aside:
            self._reception.drop.thin_out_kept_aside()

    def _is_a_trap(self, parts: list[Entry]) -> bool:
        """Made so that another's copy lands in it, or as open as that. `cp` onto a name that is there keeps
        owner and mode, and fs.protected_regular does not hinder it. A file in flight shields itself alone,
        and a claim, being safe by now, nothing: else whoever touches it keeps the trap around it."""
        return any(part.exposed and part.name not in self._unsettled for part in parts)

    def _destroy_trap(self, entry: Entry, parts: list[Entry]) -> None:
        """At once, and never kept aside: its owner could give it its name again."""
        found = {p.name: problem(Code.DROP_ENTRY_EXPOSED, file=p.name) for p in parts if p.exposed}
        if not self._remove(entry.name):
            # Why not may have been said of it already: a disk that takes no writes.
            for name, each in found.items():
                if name != entry.name or name not in self._problems:
                    self._problems[name] = each
            self._due.append(SETTLED_SECONDS)
            return
        self._trappers.append(entry.owner)
        for part in parts:
            self._gone.add(part.name)
            self._problems.pop(part.name, None)
        self._destroyed.update(found)

    def _end(self, entry: Entry, parts: list[Entry]) -> None:
        # Only who keeps files aside has to know, and of many large ones it takes seconds to find out.
        if self._rules.keep_aside and not any(self._holds_secret(part) for part in parts):
            if not self._put_away(entry.name, self._reception.drop.keep_aside):
                return
            self._aside.add(entry.name)
        elif not self._remove(entry.name):
            return
        self._ended += 1
        for part in parts:
            self._gone.add(part.name)
            found = self._problems.pop(part.name, None)
            if found is not None:
                self._destroyed[part.name] = found

    def _holds_secret(self, entry: Entry) -> bool:
        """Whether it may hold a key or a part of one. What could not be read may be anything."""
        if entry.is_folder:
            return entry.problem is not None
        material = self._materials.get(entry.name)
        if material is not None and material.keys:
            return True
        return not entry.data or traces.of_key(entry.data)

    @property
    def _rules(self) -> Rules:
        return self._reception.rules

    def _long(self, entry: Entry) -> float:
        """For a file that the ledger has no room for: never longer than the machine runs."""
        return min(self._age_by_wall(entry), self._now.elapsed)

    # -- times

    def _age_by_wall(self, entry: Entry) -> float:
        """In seconds. A time that lies ahead is long ago."""
        # In numbers: a foreign file system may tell of a year that no date can name.
        age = self._now.wall.timestamp() - entry.stamp.ctime_ns / 1e9
        # Two clocks of one machine differ by microseconds; what is more is a clock that was set back.
        return max(age, 0.0) if age > -1 else SETTLED_SECONDS

    def _is_in_flight(self, entry: Entry) -> bool:
        if entry.is_folder or not _IN_FLIGHT.search(entry.name):
            return False
        return self._age_by_wall(entry) < SETTLED_SECONDS

    # -- what to say

    def _complain_of_unswept(self) -> None:
        if self._unswept is None:
            return
        if self._now.wall.timestamp() - self._unswept / 1e9 > SWEPT_SECONDS:
            self._problems[_FOLDERS] = problem(Code.FOLDER_NOT_SWEPT)
        else:
            self._due.append(SWEPT_SECONDS)

    def _result(self) -> Intake:
        for claim, count in self._copies.items():
            many = "" if count == 1 else f" ({count} times)"
            log.info("a copy of claim %s is destroyed: it is already taken in%s", claim, many)
        if self._ended:
            # Not a line each, and no names: there may be thousands, and they are anybody's words.
            log.info(
                "files that are no claim have had their time: %d are gone from where they lay", self._ended
            )
        if self._trappers:
            log.warning(
                "%d names that others than their owner could write to are destroyed, first one of user %s",
                len(self._trappers),
                self._trappers[0],
            )
        if self._unsettled:
            self._due.append(SETTLED_SECONDS)
        # In the order of the look, in turn from each owner: of a flood the first ones are named to people.
        problems = {
            name: self._problems[name]
            for name in (_FOLDERS, *self._all)
            if name in self._problems and not (_BY_PROGRAMS.search(name) and self._is_unfinished(name))
        }
        if self._more:
            self._due.append(_FLOOD_SECONDS)
        incomplete = self._more or bool(self._unsettled)
        incomplete = incomplete or any(p.code in _MAY_STILL_ARRIVE for p in problems.values())
        signature = frozenset((name, e.stamp) for name, e in self._all.items() if name not in self._gone)
        return Intake(
            tuple(self._kept),
            tuple(self._expired),
            problems,
            incomplete,
            signature,
            destroyed=self._destroyed,
            aside=frozenset(self._aside),
            due_seconds=min(self._due) if self._due else None,
        )

    def _is_unfinished(self, name: str) -> bool:
        material = self._materials.get(name)
        return material is None or not (material.keys or material.certificates)
