"""The worker: everything one `claimd provision` does, from the lock to the last line.

    lock -> look at the drop directory (and keep looking while something is arriving)
         -> capability given up -> Pass.run -> status.json -> Result

Invariant: the capability that reads the drop directory is gone before the SDK is imported and
before the first packet is sent.
"""

from __future__ import annotations

import logging
import os
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from . import answer, config, facts, forget, generations, news, origin, proxy, system
from . import attempt as table
from .answering import Answers
from .attempt import Record
from .connect import InterruptedPassError
from .drop import Drop
from .durable import Disk, disk_problem
from .errors import ClaimdError, Code, Exit, Problem, problem
from .generations import Retention
from .intake import Intake, Rules
from .ledger import Moment
from .listing import OURS
from .lock import LockedError, for_a_moment
from .looking import Patience, elapsed, look
from .model import Layout, Target
from .provision import Pass, exit_of
from .record import problem_from_json
from .report import status_document
from .settings import DropSettings, Timeouts
from .store import Store
from .telling import Journal
from .watch import entries
from .world import STALE_LOOK_SECONDS, Result, Settings, World

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .fleet import Transport

log = logging.getLogger(__name__)

# Before any claim: whether the device is ready is looked at again after so long, when nothing changes before.
NOT_READY_SECONDS = 60.0
READY_SECONDS = 3600.0
# While another pass holds the lock.
LOCKED_LOOK_SECONDS = 2.0
# After a pass that was waited for: AWS takes one CONNECT a second from a client id (AWS IoT Core quotas).
CONNECT_SECONDS = 1.0


class ConfigurationFiles:
    """/etc/claimd as a pass uses it: read once, when it is first asked for."""

    def __init__(self, layout: Layout, file: str | None) -> None:
        self._layout = layout
        self._file = file
        self._loaded: config.Loaded | None = None

    def loaded(self) -> config.Loaded:
        if self._loaded is None:
            self._loaded = config.load(self._layout, self._file)
        return self._loaded

    def settings(self) -> Settings:
        loaded = self.loaded()
        c = loaded.config
        return Settings(
            reprovision=c.reprovision,
            on_refusal=c.verify.on_refusal,
            retention=Retention(c.retention.generations, c.retention.days),
            connect_seconds=c.timeouts.connect_seconds,
            answer_seconds=c.timeouts.answer_seconds,
            sha256=loaded.sha256,
        )

    def target(self, fingerprint: str, ca_sha256: str) -> Target:
        c = self.loaded().config
        assert c.endpoint is not None and c.template.name is not None
        known = {"fingerprint": fingerprint}
        return Target(
            endpoint=c.endpoint,
            ports=tuple(c.ports),
            template=c.template.name,
            parameters=facts.resolve_parameters(c, self._layout),
            claim_client_id=facts.resolve_client_id(
                c.claim.client_id, "claim.client_id", self._layout, known
            ),
            identity_client_id=facts.freeze_client_id(
                c.identity.client_id, "identity.client_id", self._layout
            ),
            ca_sha256=ca_sha256,
            key_source=c.key_source,
            key_algorithm=c.key_algorithm,
        )

    def roots(self) -> bytes:
        return config.root_certificates(self.loaded().config, self._layout)

    def proxy(self) -> proxy.Proxy | None:
        """None also with a broken configuration: a registered identity is proved without it if it can be."""
        try:
            settings = self.loaded().config.proxy
        except ClaimdError:
            return None
        return proxy.read(settings, self._layout)

    def template(self) -> str | None:
        """The template's name, as far as it is known."""
        try:
            return self.loaded().config.template.name
        except ClaimdError:
            return None

    def grace_seconds(self) -> float:
        try:
            return float(self.loaded().config.timeouts.grace_seconds)
        except ClaimdError:
            return float(Timeouts().grace_seconds)

    def rules(self) -> Rules:
        """What becomes of files that are no claim; with a wrong configuration, the default."""
        try:
            settings = self.loaded().config.drop
        except ClaimdError:
            settings = DropSettings()
        return Rules(settings.keep_seconds, settings.unrecognised == "keep-aside")


@dataclass(frozen=True)
class Request:
    """How a pass was asked for."""

    layout: Layout
    config_file: str | None
    by_hand: bool
    stopping: Callable[[], bool]
    progress: Callable[[str, str], None]
    adopt: bool = False  # a person says that this is the same device, whatever its machine-id


def _machine_time() -> datetime:
    return datetime.now(timezone.utc)


@dataclass(frozen=True)
class Outside:
    """Disk, clock, chance and network of a pass. The machine's own, unless a test brings faulty ones.

    `transport`: by connect_seconds; None is the real one, imported when the network is needed.
    """

    disk: Disk = field(default_factory=Disk)
    store: Callable[[Layout, Disk], Store] = Store
    now: Callable[[], datetime] = _machine_time
    random: Callable[[], float] = random.random
    transport: Callable[[float], Transport] | None = None
    sleep: Callable[[float], None] = time.sleep
    elapsed: Callable[[], float] = elapsed

    def clock(self) -> Moment:
        return Moment(self.now(), self.elapsed())


def ensure(request: Request, outside: Outside | None = None) -> Result:
    """One pass. What goes wrong is in the Result, and in the status where that can be written."""
    outside = outside or Outside()
    store = outside.store(request.layout, outside.disk)
    began = outside.now()
    try:
        with store.locked(_patience(request, outside) if request.by_hand else None) as waited:
            if not waited:
                return _pass(request, store, outside)
            failed = _failure_since(began, store)
            if failed is not None:
                return failed
            outside.sleep(CONNECT_SECONDS)
            return _with_success_since(began, _pass(request, store, outside))
    except LockedError as error:
        # What was dropped meanwhile may have come too late for the other one.
        found = problem(Code.PASS_RUNNING, pid=error.pid)
        return Result(found.exit, found, LOCKED_LOOK_SECONDS, Record())
    except ClaimdError as error:
        # A file system that is mounted late makes no event.
        return Result(error.problem.exit, error.problem, STALE_LOOK_SECONDS, Record())
    except OSError as error:
        found = disk_problem(error, request.layout.state_directory)
        return Result(found.exit, found, STALE_LOOK_SECONDS, Record())


def _patience(request: Request, outside: Outside) -> Callable[[], bool]:
    def say(sentence: str) -> None:
        request.progress("waiting", sentence)

    return for_a_moment(outside.elapsed, outside.sleep, request.stopping, say)


def _failure_since(began: datetime, store: Store) -> Result | None:
    """What the pass before has said of the drop, when no other is there: one more pass, which would come upon
    nothing, would take it back."""
    record, status = store.load_record(), store.load_status()
    last = record.history[-1] if record.history else None
    if last is None or last.at < began or last.result == "active" or status is None:
        return None
    is_open = record.attempt is not None and record.attempt.state not in table.ENDED
    if is_open or any(not name.startswith(OURS) for name in os.listdir(store.layout.drop_directory)):
        return None
    found = status["problem"] and problem_from_json(status["problem"])
    if not found or found.code is not last.code:
        return None
    return Result(exit_of(found, record, store), found, None, record, notes=_notes(store, record))


def _with_success_since(began: datetime, result: Result) -> Result:
    """What the pass before has done is what the person asked for who waited for it."""
    history = result.record.history
    done = bool(history) and history[-1].result == "active" and history[-1].at >= began
    return replace(result, exit=Exit.OK) if done and result.exit is Exit.NOTHING_TO_DO else result


def _pass(request: Request, store: Store, outside: Outside) -> Result:
    forget.finish(store)
    foreign = origin.settle(store, request.layout, adopt=request.adopt)
    if foreign is not None:
        return _untouched(request, store, outside, foreign)
    for said in store.prepare():
        log.warning("%s", said)
    configuration = ConfigurationFiles(request.layout, request.config_file)
    drop = Drop(request.layout.drop_directory, store.disk, own_files=bool(request.layout.root))
    journal = Journal(store)
    intake = Intake((), (), {}, incomplete=False, signature=frozenset())
    publisher = _Publisher(request.layout, store, outside.now, configuration.template())
    world = _world(request, store, configuration, outside)
    if not request.by_hand:
        world = replace(world, progress=lambda name, words: journal.stage(name, words, publisher.record))
    unseen: Problem | None = None
    try:
        ledger = store.load_ledger()
        patience = Patience(configuration.grace_seconds(), request.stopping)
        rules = configuration.rules()
        try:
            intake, ledger = look(drop, store, rules, patience, outside.clock)
            publisher.answers.looked(intake, ledger, rules)
            publisher.intake = intake
        except ClaimdError as error:
            unseen = error.problem  # an attempt that is open goes on without the drop directory
        system.give_up_capabilities()
        world = replace(
            world,
            publish=publisher.publish,
            time_for=lambda claim, not_after: ledger.time_for(claim, not_after, outside.clock()),
        )
        result = Pass(world, intake).run()
    except InterruptedPassError:
        found = problem(Code.INTERRUPTED, step="looking at the drop directory")
        result = Result(found.exit, found, None, store.load_record())
    except ClaimdError as error:
        result = Result(error.problem.exit, error.problem, STALE_LOOK_SECONDS, _record_or_none(store))
    except OSError as error:
        found = disk_problem(error, request.layout.state_directory)
        result = Result(found.exit, found, STALE_LOOK_SECONDS, _record_or_none(store))
    result = _with_an_end(_with_unseen(_with_leftovers(result, intake), unseen))
    if result.problem is not None:
        result = replace(result, problem=result.problem.about(template=configuration.template()))
    publisher.publish(result.record, result.problem)
    result = replace(result, notes=_notes(store, result.record))
    if publisher.document is not None and not request.by_hand:
        journal.ended(publisher.document, outside.now())
    result = _with_expiry(result, publisher.identity, outside.now())
    if request.by_hand or publisher.identity is not None or _is_busy(intake, result.record):
        return result
    return _say_whether_ready(request, result, publisher, outside)


def _untouched(request: Request, store: Store, outside: Outside, foreign: Problem) -> Result:
    """The state is another device's: that is said everywhere, and nothing else is done."""
    system.give_up_capabilities()
    journal = Journal(store)
    publisher = _Publisher(request.layout, store, outside.now)
    result = Result(foreign.exit, foreign, NOT_READY_SECONDS, _record_or_none(store))
    publisher.publish(result.record, foreign)
    if publisher.document is not None and not request.by_hand:
        journal.ended({**publisher.document, "identity": None}, outside.now())
    publisher.answers.tell_readiness(outside.now(), foreign)
    return result


def _with_expiry(result: Result, identity: Mapping[str, Any] | None, now: datetime) -> Result:
    """The watcher has no timer for the certificate's end: it is told when to look."""
    if identity is None:
        return result
    not_after = datetime.fromisoformat(identity["certificate_not_after"])
    again = news.look_again_seconds(not_after, now)
    if again is None:
        return result
    after = again if result.after_seconds is None else min(again, result.after_seconds)
    return replace(result, after_seconds=after)


def _is_busy(intake: Intake, record: Record) -> bool:
    """Whether there is something else to say than whether the device is ready for a claim."""
    if intake.kept or intake.problems or intake.destroyed or intake.incomplete:
        return True
    return record.attempt is not None and record.attempt.state not in table.ENDED


def _say_whether_ready(request: Request, result: Result, publisher: _Publisher, outside: Outside) -> Result:
    """Before any claim: look at the way that it would go. A claim that comes meanwhile ends the looking."""
    from . import ready  # it brings ssl, which a pass with a claim needs only in trouble

    layout, found = request.layout, result.problem
    if found is None:
        before = entries(layout.drop_directory)
        diagnose = None if outside.transport is None else outside.transport(1.0).diagnose
        came, found = ready.trouble_unless(
            lambda: request.stopping() or entries(layout.drop_directory) != before,
            lambda: ready.trouble(layout, request.config_file, outside.now(), diagnose),
        )
        if not came:
            return result
    publisher.answers.tell_readiness(outside.now(), found)
    again = READY_SECONDS if found is None else NOT_READY_SECONDS
    after = again if result.after_seconds is None else min(again, result.after_seconds)
    return replace(result, after_seconds=after)


def _record_or_none(store: Store) -> Record:
    """The record for the status; one that can't be read is what the problem is about."""
    try:
        return store.load_record()
    except (ClaimdError, OSError):
        return Record()


def _with_unseen(result: Result, unseen: Problem | None) -> Result:
    """The drop directory could not be looked into: said when nothing else is to say, and tried again."""
    if unseen is None:
        return result
    after = STALE_LOOK_SECONDS if result.after_seconds is None else result.after_seconds
    result = replace(result, after_seconds=min(after, STALE_LOOK_SECONDS))
    if result.exit is Exit.NOTHING_TO_DO and result.problem is None:
        return replace(result, exit=unseen.exit, problem=unseen)
    return result


def _notes(store: Store, record: Record) -> tuple[Problem, ...]:
    try:
        return tuple(generations.notes(store, record))
    except OSError:
        return ()  # the disk's trouble is what the result says


def _with_leftovers(result: Result, intake: Intake) -> Result:
    """What lies in the drop directory decides exit and next look when nothing else does."""
    dues = [each for each in (result.after_seconds, intake.due_seconds) if each is not None]
    after = min(dues) if dues else None
    if result.exit is Exit.NOTHING_TO_DO and result.problem is None and intake.problems:
        found = next(iter(intake.problems.values()))
        return replace(result, exit=found.exit, problem=found, after_seconds=after)
    again = [each for each in intake.destroyed.values() if each.code is Code.CLAIM_ALREADY_TAKEN_IN]
    if result.exit is Exit.NOTHING_TO_DO and result.problem is None and again:
        return replace(result, problem=again[0], after_seconds=after)
    return replace(result, after_seconds=after)


def _with_an_end(result: Result) -> Result:
    """What is only said of a drop is no trouble of the device: status says it for a while, not for ever."""
    if result.problem is None or result.problem.code not in _SAID_FOR_A_WHILE:
        return result
    seconds = answer.REMEMBERED.total_seconds()
    after = seconds if result.after_seconds is None else min(seconds, result.after_seconds)
    return replace(result, after_seconds=after)


_SAID_FOR_A_WHILE = frozenset({Code.CLAIM_ALREADY_TAKEN_IN, Code.CLAIM_NOT_NEEDED})


def _world(request: Request, store: Store, configuration: ConfigurationFiles, outside: Outside) -> World:
    def transport(connect_seconds: float) -> Transport:
        # Here and not above: the SDK is imported by a process that has given up its capability.
        if system.held_capabilities() and not request.layout.root:
            raise RuntimeError("the capability was not given up before the network")
        from .mqtt import CrtTransport

        return CrtTransport(connect_seconds, request.stopping, configuration.proxy())

    return World(
        store=store,
        configuration=configuration,
        transport=outside.transport or transport,
        now=outside.now,
        elapsed=outside.elapsed,
        random=outside.random,
        stopping=request.stopping,
        progress=request.progress,
        publish=lambda record, trouble: None,
        by_hand=request.by_hand,
        sleep=outside.sleep,
    )


class _Publisher:
    """Writes status.json under the lock, at every change."""

    def __init__(
        self, layout: Layout, store: Store, now: Callable[[], datetime], template: str | None = None
    ) -> None:
        self._layout = layout
        self._store = store
        self._now = now
        self._template = template
        self.intake = Intake((), (), {}, incomplete=False, signature=frozenset())
        self.answers = Answers(layout, store, template)
        self.identity: Mapping[str, Any] | None = None
        self.record = Record()
        self.document: Mapping[str, Any] | None = None

    def publish(self, record: Record, trouble: Problem | None) -> None:
        """Never raises: what is said must not stand in the way of what is done."""
        try:
            document = self._document(record, trouble)
            self.record, self.document = record, document
            self.identity = document["identity"]
            held = frozenset(claim["fingerprint"] for claim in document["claims"])
            self.answers.tell(self._now(), record, self.identity, held)
            self._store.write_status(document)
        except OSError as error:
            found = disk_problem(error, self._layout.status_file)
            log.warning("the status can't be written: %s", found.happened)

    def _document(self, record: Record, trouble: Problem | None) -> dict[str, Any]:
        identity = None
        try:
            current = self._store.current()
            identity = None if current is None else current.document
        except ClaimdError as error:
            trouble = trouble or error.problem
        except OSError as error:
            trouble = trouble or disk_problem(error, self._layout.current_identity)
        return status_document(
            now=self._now(),
            record=record,
            identity=identity,
            drop=self.intake.problems,
            claims=tuple((c.fingerprint, c.certificate.not_after) for c in self._store.claims()),
            trouble=trouble,
            drop_directory=self._layout.drop_directory,
            notes=_notes(self._store, record),
            template=self._template,
        )
