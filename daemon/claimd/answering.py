"""Keeps the result directory true: what is said for each drop, and whether the device is ready for one.

Invariant: an answer never stands in the way of the work: what can't be written is logged once and left.
"""

from __future__ import annotations

import logging
from itertools import islice
from typing import TYPE_CHECKING, Any

from . import answer, looking
from . import attempt as table
from .answer import Scene
from .durable import disk_problem
from .errors import Code
from .ledger import Ledger, Taken, place
from .model import short, spoken
from .result import MAX_ANSWERS_A_PASS, ResultDirectory

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from .attempt import Record
    from .errors import Problem
    from .intake import Intake, Rules
    from .model import Layout
    from .store import Store

log = logging.getLogger(__name__)

_DESTROYED_AT_ONCE = frozenset({Code.CLAIM_EXPIRED, Code.CLAIM_ALREADY_TAKEN_IN, Code.DROP_ENTRY_EXPOSED})


class Answers:
    """The answers of one pass. `template`: the configured one, for the commands that name it."""

    def __init__(self, layout: Layout, store: Store, template: str | None = None) -> None:
        self._template = template
        self._drop_directory = layout.drop_directory
        self._path = layout.result_directory
        self._directory = ResultDirectory(layout.result_directory, store.disk)
        self._intake: Intake | None = None
        self._ledger = Ledger()
        self._keep_seconds = 0.0
        self._of_files: dict[str, list[str]] = {}
        self._failed = False

    def looked(self, intake: Intake, ledger: Ledger, rules: Rules) -> None:
        """From now on there is something to tell."""
        self._intake, self._ledger, self._keep_seconds = intake, ledger, rules.keep_seconds
        # Once a pass: only what is said of claims changes while it works. Of a flood so many are answered to.
        for name, found in islice(intake.problems.items(), MAX_ANSWERS_A_PASS):
            self._of_files[name] = answer.of_file(found.about(template=self._template), self._left(name))
        for name, found in islice(intake.destroyed.items(), MAX_ANSWERS_A_PASS):
            self._of_files[name] = answer.of_destroyed(
                found.about(template=self._template), aside=name in intake.aside
            )

    def tell(
        self, now: datetime, record: Record, identity: Mapping[str, Any] | None, held: frozenset[str]
    ) -> None:
        """Answer to what lies in the drop directory, and to the claims that came from there."""
        if self._intake is None:
            return
        scene = Scene(now, record, identity, held, self._drop_directory, self._template)
        answers: dict[str, list[str]] = {}
        for taken in self._ledger.taken:
            answers.update(dict.fromkeys(taken.names, answer.of_claim(taken, scene)))
        # What lies there now comes last: the name may have been another file's before.
        answers.update(self._of_files)
        newest_first = dict(reversed(answers.items()))
        latest = self._latest(self._intake, answers, scene)
        if latest is None:
            # What was said there last may have changed since: a claim that waited has come to its end.
            told = next((name for name in newest_first if self._directory.is_latest(name)), None)
            latest = None if told is None else newest_first[told]
        self._write(newest_first, latest, now)

    def tell_readiness(self, now: datetime, trouble: Problem | None) -> None:
        """When nothing was dropped and nothing is under way. The answer to a drop stays for a while."""
        if not self._directory.tells_of_a_drop(now):
            self._write({}, answer.of_readiness(trouble, self._drop_directory), now)

    def _latest(self, intake: Intake, answers: Mapping[str, list[str]], scene: Scene) -> list[str] | None:
        if intake.kept:
            return self._of_newest(self._taken(intake.kept[-1].fingerprint), scene)
        # Gone in this very pass: newer than what still lies there. Anything else destroyed had its time.
        at_once = {
            name: found for name, found in intake.destroyed.items() if found.code in _DESTROYED_AT_ONCE
        }
        if at_once:
            return self._latest_of_destroyed(at_once, answers, scene)
        if intake.problems:
            told = [name for name in intake.problems if name in answers]
            name = min(told, key=lambda name: (answers[name][0] != "WAITING", -self._seen(name), name))
            ago = looking.elapsed() - self._seen(name)
            return answers[name] if self._directory.is_news(name, ago, scene.now) else None
        if any(self._directory.is_latest(name) for name in islice(intake.destroyed, MAX_ANSWERS_A_PASS)):
            return self._latest_of_destroyed(intake.destroyed, answers, scene)
        attempt = scene.record.attempt
        if attempt is not None and attempt.claim is not None and attempt.state not in table.ENDED:
            if self._refuses_another_file(scene.now):
                return None
            unknown = Taken(attempt.claim.fingerprint, "", (), spoken(attempt.claim.not_after))
            return answer.of_claim(self._taken(attempt.claim.fingerprint, unknown), scene)
        if scene.identity is None or self._directory.tells_of_a_drop(scene.now):
            return None
        done = [t for t in self._ledger.taken if any(o.claim == t.fingerprint for o in scene.record.history)]
        return self._of_newest(done[-1], scene) if done else answer.of_identity(scene.identity)

    def _of_newest(self, taken: Taken, scene: Scene) -> list[str]:
        """Of a spare that was not needed the claim that was used says more."""
        used = ""
        for outcome in reversed(scene.record.history):
            if outcome.claim == taken.fingerprint:
                return answer.of_claim(self._taken(used) if used and outcome.is_spare else taken, scene)
            if outcome.result == "active":
                used = outcome.claim
        return answer.of_claim(taken, scene)

    def _latest_of_destroyed(
        self, destroyed: Mapping[str, Problem], answers: Mapping[str, list[str]], scene: Scene
    ) -> list[str] | None:
        told = [name for name in destroyed if name in answers]
        if not told:
            return None  # a flood: not everything is answered to
        name = told[0]
        found = destroyed[name]
        if found.code is not Code.CLAIM_ALREADY_TAKEN_IN:
            return answers[name]
        # How far the claim has come says more than that its copy was not needed; both are said.
        for taken in self._ledger.taken:
            if short(taken.fingerprint) == found.fields["claim"]:
                return [*answer.of_claim(taken, scene), "", *answers[name][2:]]
        return answers[name]

    def _refuses_another_file(self, now: datetime) -> bool:
        """Whether latest.txt has just refused what came after the claim that is under way."""
        of_claims = (name for taken in self._ledger.taken for name in taken.names)
        return self._directory.refuses(now) and not any(map(self._directory.is_latest, of_claims))

    def _taken(self, fingerprint: str, otherwise: Taken | None = None) -> Taken:
        found = [each for each in self._ledger.taken if each.fingerprint == fingerprint]
        return found[0] if found else otherwise or Taken(fingerprint, "", (), "")

    def _seen(self, name: str) -> float:
        """When it was first seen as it is now; what can't be remembered counts as old."""
        seen = self._ledger.seen.get(place(name))
        return 0.0 if seen is None else seen.at

    def _left(self, name: str) -> float | None:
        seen = self._ledger.seen.get(place(name))
        return None if seen is None else max(0.0, self._keep_seconds - (looking.elapsed() - seen.at))

    def _write(self, answers: Mapping[str, list[str]], latest: list[str] | None, now: datetime) -> None:
        try:
            self._directory.write(answers, latest, now)
            self._directory.age_out(now)
        except OSError as error:
            if not self._failed:
                found = disk_problem(error, self._path)
                log.warning("the result directory can't be written: %s", found.happened)
            self._failed = True
