"""One pass of `ensure`: take in what was dropped, drive the open attempt as far as it goes.

Invariant: an intent is recorded before it is sent, a fact after it is on disk. So this process
may be killed at any moment: the next pass finds every key that AWS issued and goes on.

    intake -> capability given up -> settle -> adopt -> next_step <-> do it -> outcome
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Protocol

from . import attempt as table
from . import fleet, generations, inspection
from .attempt import Attempt, ClaimRecord, Event, Outcome, Record, State, Step
from .connect import CredentialsRefusedError, Dialer, InterruptedPassError, Line, RejectedError
from .durable import disk_problem
from .errors import ClaimdError, Code, Exit, Kind, Problem, fail, problem
from .fleet import Credentials, Exchange, IssuedKeys, Transport
from .generations import Retention
from .intake import Intake
from .model import Claim, PrivateKey, Target, short, spoken
from .recovery import activated, identity_of, out_of_blocked, settle, without_key

if TYPE_CHECKING:
    from .store import StagedIdentity, Store

log = logging.getLogger(__name__)

# A fresh certificate may be refused for some seconds until AWS has spread it.
REFUSALS_BEFORE_POLICY = 3
CLOCK_LOOK_SECONDS = 10.0
# While an answer that comes only once can't be stored; 7.5 s in all, within any pass.
_ANSWER_DELAYS_SECONDS = (0.5, 1.0, 2.0, 4.0)
# So often a token may be called invalid before it is given up: each time the certificate is tried first,
# and one that was registered a moment ago may be refused for some seconds.
_TOKEN_REFUSALS = 3


@dataclass(frozen=True)
class Settings:
    """What a pass needs of the configuration, read afresh for it."""

    reprovision: str
    on_refusal: str
    retention: Retention
    connect_seconds: float
    answer_seconds: float
    sha256: str


# What settings.py has, for an identity that has to be proved while the configuration is broken.
DEFAULTS = Settings(
    reprovision="never",
    on_refusal="activate",
    retention=Retention(generations=2, days=30.0),
    connect_seconds=10.0,
    answer_seconds=10.0,
    sha256="",
)


class Configuration(Protocol):
    """The configuration as a pass uses it; every method raises ClaimdError with what to correct."""

    def settings(self) -> Settings: ...

    def target(self, fingerprint: str, ca_sha256: str) -> Target:
        """Endpoint, template and resolved parameters, to be frozen for one attempt."""

    def roots(self) -> bytes:
        """PEM of the root certificates; never empty."""


@dataclass(frozen=True)
class World:
    """What a pass acts on. Time and chance come in here."""

    store: Store
    configuration: Configuration
    transport: Callable[[float], Transport]  # by connect_seconds; called once the network is needed
    now: Callable[[], datetime]
    elapsed: Callable[[], float]  # seconds since the machine started, sleep included
    random: Callable[[], float]
    stopping: Callable[[], bool]
    progress: Callable[[str, str], None]  # stage, sentence
    publish: Callable[[Record, Problem | None], None]  # writes status.json
    by_hand: bool = False
    sleep: Callable[[float], None] = time.sleep
    time_for: Callable[[str, datetime], datetime] | None = None  # fingerprint, notAfter; None: `now`


@dataclass(frozen=True)
class Result:
    """How a pass ended. `after_seconds`: come back then; None: on a hint only. `notes`: nothing failed,
    and a person should know all the same."""

    exit: Exit
    problem: Problem | None
    after_seconds: float | None
    record: Record
    notes: tuple[Problem, ...] = ()


class Pass:
    """One pass. Single use; everything durable goes through the store before the next thing is sent."""

    def __init__(self, world: World, intake: Intake) -> None:
        self._world = world
        self._store = world.store
        self._intake = intake
        self._record = Record()
        self._line: Line | None = None
        self._dial: Dialer | None = None
        self._probed = False
        self._activated = False
        self._tried: set[str] = set()

    # -- the pass

    def run(self) -> Result:
        """Raises ClaimdError and OSError for trouble with the record or the disk, having lost nothing."""
        self._record = settle(self._store, self._store.load_record(), self._now())
        try:
            self._bury_expired()
            self._cure()
            trouble = self._adopt()
            if trouble is None:
                trouble = self._drive()
        except InterruptedPassError:
            trouble = problem(Code.INTERRUPTED, step="working")
        finally:
            self._hang_up()
        return self._result(trouble)

    def _drive(self) -> Problem | None:
        """Step by step until there is nothing to do now. Returns what stands in the way, if anything."""
        while self._record.attempt is not None:
            attempt = self._record.attempt
            step = table.next_step(attempt, self._time_for(attempt.claim), probed=self._probed)
            if step in _WAITS or step is Step.FINISH:
                return self._wait(step, attempt)
            if self._too_early(step, attempt):
                return attempt.problem
            self._check_stop()
            try:
                self._take(step, attempt)
            except ClaimdError as error:
                self._failed(error.problem)
                if error.problem.code not in _TURNED_AWAY or not self._took_the_spare():
                    return error.problem
            except OSError as error:
                return self._disk_trouble(error)
        return None

    def _take(self, step: Step, attempt: Attempt) -> None:
        if step is Step.LOSE_CLAIM:
            self._lose_claim(attempt)
        elif step is Step.LET_TOKEN_LAPSE:
            self._make_way(attempt)
        elif step is Step.REQUEST_KEYS:
            self._request_keys(attempt)
        elif step is Step.REGISTER:
            self._register(attempt)
        elif step is Step.PROBE:
            self._probe(attempt)
        elif step is Step.VERIFY:
            self._verify(attempt)

    def _wait(self, step: Step, attempt: Attempt) -> Problem | None:
        if step is Step.WAIT_FOR_CLOCK and attempt.claim is not None:
            late = inspection.not_yet_valid(attempt.claim.fingerprint, attempt.claim.not_before, self._now())
            self._save(replace(attempt, problem=late))
            return late
        return attempt.problem

    # -- which claim, and whether at all

    def _bury_expired(self) -> None:
        for claim in self._intake.expired:
            self._ended(claim.fingerprint, "failed", Code.CLAIM_EXPIRED)
        mine = self._record.attempt.claim if self._record.attempt else None
        for claim in self._store.claims():
            if mine and mine.fingerprint == claim.fingerprint:
                continue
            if not self._is_dead(claim):
                continue
            if not self._is_told(claim.fingerprint, "failed"):
                self._ended(claim.fingerprint, "failed", Code.CLAIM_EXPIRED)
            try:
                self._store.destroy_claim(claim.fingerprint)
            except OSError as error:
                log.warning("a claim can't be removed: %s: %s", short(claim.fingerprint), error.strerror)

    def _is_dead(self, claim: Claim) -> bool:
        return self._time_for(ClaimRecord.of(claim)) >= claim.certificate.not_after

    def _is_told(self, claim: str, result: str) -> bool:
        """What can't be removed is met in every pass, and ends in the history once."""
        return any(o.claim == claim and o.result == result for o in self._record.history)

    def _cure(self) -> None:
        """Out of BLOCKED when a person asks, when the configuration is not the one that failed, or now and
        then when what it names may be there by now."""
        attempt = self._record.attempt
        if attempt is None or attempt.state is not State.BLOCKED:
            return
        sha256 = self._sha256_or_none()
        if sha256 is None:
            return
        if self._world.by_hand or sha256 != attempt.config_sha256:
            self._save(self._unblock(attempt))
        elif _is_looked_at_again(attempt) and table.due_in_seconds(attempt, self._now()) <= 0:
            self._save(replace(self._unblock(attempt), failures=attempt.failures))

    def _adopt(self) -> Problem | None:
        """Give the open attempt, or a new one, the most promising claim. Others stay in reserve."""
        # One that is dead and can't be removed is no claim.
        claims = [claim for claim in self._store.claims() if not self._is_dead(claim)]
        attempt = self._record.attempt
        if not claims:
            return None
        best = self._most_promising(claims, attempt)
        if attempt is not None and attempt.state is State.REGISTERED:
            if not self._key_is_lost(attempt):
                return None  # needs no claim; those that are left go when it is active
            self._give_up_lost(attempt)
            attempt = None
        if attempt is not None and attempt.state not in table.ENDED:
            if attempt.claim is None or self._is_more_promising(best, attempt.claim, attempt):
                self._save(self._unblocked(attempt, best))
            return None
        replaces = self._store.current_link()
        if replaces is not None and self._is_whole_here() and self._settings().reprovision == "never":
            return self._decline(claims, replaces)
        self._say("claim", f"claim {short(best.fingerprint)} taken in")
        self._save(table.begin(best, self._now(), replaces))
        return None

    def _most_promising(self, claims: list[Claim], attempt: Attempt | None) -> ClaimRecord:
        refused = () if attempt is None or attempt.state in table.ENDED else attempt.refused
        return max(map(ClaimRecord.of, claims), key=lambda claim: self._preference(claim, refused))

    def _is_more_promising(self, one: ClaimRecord, other: ClaimRecord, attempt: Attempt) -> bool:
        return self._preference(one, attempt.refused) > self._preference(other, attempt.refused)

    def _preference(self, claim: ClaimRecord, refused: tuple[str, ...]) -> tuple[bool, bool, int, datetime]:
        return table.preference(claim, refused, self._time_for(claim))

    def _took_the_spare(self) -> bool:
        """The endpoint turned the claim away: whether another one, not yet turned away, has its turn now."""
        attempt, claims = self._record.attempt, self._store.claims()
        if attempt is None or attempt.claim is None or not claims or attempt.state in _WITHOUT_CLAIM:
            return False
        best = self._most_promising(claims, attempt)
        if best.fingerprint in (attempt.claim.fingerprint, *attempt.refused, *self._tried):
            return False
        self._tried.add(best.fingerprint)  # once a pass: whatever the list says, a pass has an end
        self._say("claim", f"claim {short(best.fingerprint)} is tried instead")
        self._save(self._unblocked(attempt, best))
        return True

    def _key_is_lost(self, attempt: Attempt) -> bool:
        """The disk lost the key of a registered identity: nothing but a new claim helps this device."""
        try:
            return (
                attempt.certificate_id is None
                or self._store.staged_damage(attempt.certificate_id) is not None
            )
        except OSError:
            return False  # a disk that has trouble may get well; the key is not given up for that

    def _give_up_lost(self, attempt: Attempt) -> None:
        """Make way for the new claim. The folder stays, and history names the certificate."""
        claim = attempt.claim.fingerprint if attempt.claim else ""
        lost = Outcome(
            self._now(),
            claim,
            "failed",
            attempt.certificate_id,
            attempt.thing_name,
            Code.IDENTITY_DAMAGED,
        )
        record = self._record.with_attempt(None).with_outcome(lost)
        self._store.save_record(record)
        self._record = record

    def _unblocked(self, attempt: Attempt, claim: ClaimRecord) -> Attempt:
        if attempt.state is State.BLOCKED:
            attempt = self._unblock(attempt)
        adopted = table.advance(attempt, Event.CLAIM_ADOPTED, self._now())
        if claim.fingerprint in adopted.refused:
            return replace(adopted, claim=claim)  # its turn again, no sooner than the retry table says
        return replace(adopted, claim=claim, failures=0, retry_at=None, problem=None)

    def _decline(self, claims: list[Claim], identity: str) -> Problem:
        for claim in claims:
            self._ended(claim.fingerprint, "not-needed", Code.CLAIM_NOT_NEEDED)
            self._store.destroy_claim(claim.fingerprint)
        return problem(Code.CLAIM_NOT_NEEDED, claim=short(claims[0].fingerprint), identity=short(identity))

    def _unblock(self, attempt: Attempt) -> Attempt:
        """Out of BLOCKED: afresh when the configuration changed, else where it was."""
        same = attempt.config_sha256 == self._settings().sha256
        if attempt.resume is State.REGISTERING and attempt.ambiguous:
            # Never walk away from a certificate that may be active: it is asked for again, as corrected.
            event = Event.UNBLOCKED_IN_REGISTRATION
        elif attempt.resume in (State.KEYS_STAGED, State.REGISTERING) and same:
            event = Event.UNBLOCKED_WITH_KEYS
        else:
            event = Event.UNBLOCKED_AFRESH
        moved = table.advance(attempt, event, self._now())
        moved = replace(moved, resume=None, config_sha256=None, failures=0, retry_at=None)
        if event is Event.UNBLOCKED_IN_REGISTRATION and not same:
            moved = replace(moved, target=self._corrected(attempt))
        if event is Event.UNBLOCKED_AFRESH:
            self._set_key_aside(attempt)
            moved = replace(moved, target=None, certificate_id=None, token_received_at=None)
        return moved

    def _corrected(self, attempt: Attempt) -> Target | None:
        """What may be corrected while the token of a request lives: it is valid at one endpoint only."""
        frozen, claim = attempt.target, attempt.claim
        if frozen is None or claim is None:
            return frozen
        try:
            asked = self._world.configuration.target(claim.fingerprint, frozen.ca_sha256)
        except ClaimdError:
            return frozen  # the same request is refused again, and waits for the next correction
        return replace(
            frozen,
            template=asked.template,
            parameters=asked.parameters,
            identity_client_id=asked.identity_client_id,
        )

    def _too_early(self, step: Step, attempt: Attempt) -> bool:
        if step in (Step.LOSE_CLAIM, Step.LET_TOKEN_LAPSE) or self._world.by_hand:
            return False
        if attempt.config_sha256 not in (None, self._sha256_or_none()):
            return False
        return table.due_in_seconds(attempt, self._now()) > 0

    # -- the steps

    def _request_keys(self, attempt: Attempt) -> None:
        assert attempt.claim is not None
        roots = self._world.configuration.roots()
        digest = hashlib.sha256(roots).hexdigest()
        target = self._world.configuration.target(attempt.claim.fingerprint, digest)
        # Before the claim is spent: a disk that would not keep the answer is found now.
        self._store.probe()
        key = self._own_key(attempt.claim.fingerprint, target) if target.key_source == "device" else None
        line = self._line_with_claim(attempt.claim, target, roots)
        # identity.json names the port that is open, and whoever uses the identity begins there.
        target = self._dialer().as_reached(target)
        self._check_stop()
        attempt = replace(table.advance(attempt, Event.KEYS_REQUEST_RECORDED, self._now()), target=target)
        self._save(attempt)
        issued = self._ask_for_certificate(line, target, key)
        # An identity that can't connect would be registered for good.
        self._dialer().check(issued, roots)
        try:
            self._store.stage(issued, roots)
        except OSError:
            # It may be there and not safe. AWS has not activated it: none of it is used.
            self._discard_quietly(issued.certificate_id)
            raise
        now = self._now()
        self._save(
            replace(
                table.advance(attempt, Event.KEYS_STAGED, now),
                certificate_id=issued.certificate_id,
                token_received_at=now,
                failures=0,
                retry_at=None,
                problem=None,
            )
        )
        self._say("keys", f"certificate {short(issued.certificate_id)} and its key are stored")

    def _own_key(self, fingerprint: str, target: Target) -> PrivateKey:
        """The device's own key for this claim: durable before anybody hears of it, the same for every try."""
        key = self._store.device_key(fingerprint)
        if key is None or key.algorithm != target.key_algorithm:
            from . import devicekey  # only a device that makes its own key needs it

            key = devicekey.new(target.key_algorithm)
            self._store.keep_device_key(fingerprint, key)
        return key

    def _ask_for_certificate(self, line: Line, target: Target, key: PrivateKey | None) -> IssuedKeys:
        topics, payload = fleet.create_topics(target.key_source), fleet.CREATE_KEYS_PAYLOAD
        if key is not None:
            from . import devicekey

            request = devicekey.request(key, f"claimd-{short(key.public_key_id)}")
            payload = fleet.create_from_csr_payload(request)
        answer = line.ask(Exchange.CREATE_KEYS, topics, payload)
        try:
            if key is not None:
                return fleet.parse_issued_certificate(answer, key)
            return fleet.parse_issued_keys(answer)
        except fleet.AnswerInvalidError as error:
            raise fail(Code.ANSWER_INVALID, step=Exchange.CREATE_KEYS.value, detail=str(error)) from error

    def _discard_quietly(self, certificate_id: str) -> None:
        try:
            self._store.discard_staged(certificate_id)
        except OSError as error:
            log.warning("a key that AWS never activated can't be removed: %s", error.strerror)

    def _register(self, attempt: Attempt) -> None:
        assert attempt.claim is not None and attempt.target is not None and attempt.certificate_id is not None
        target = attempt.target
        staged = self._staged(attempt)
        if staged.token is None:
            raise fail(Code.TOKEN_INVALID, detail="the token is not on disk")
        line = self._line or self._line_with_claim(attempt.claim, target, staged.roots)
        self._check_stop()
        was_ambiguous = attempt.ambiguous
        attempt = table.advance(attempt, Event.REGISTRATION_RECORDED, self._now())
        # Until the answer is here it is unknown whether AWS has registered the certificate.
        attempt = replace(attempt, ambiguous=True)
        self._save(attempt)
        payload = fleet.register_payload(staged.token, dict(target.parameters))
        try:
            answer = line.ask(Exchange.REGISTER, fleet.register_topics(target.template), payload)
        except RejectedError as error:
            self._rejected(attempt, error.problem, was_ambiguous)
            raise
        try:
            registration = fleet.parse_registration(answer)
        except fleet.AnswerInvalidError as error:
            raise fail(Code.ANSWER_INVALID, step=Exchange.REGISTER.value, detail=str(error)) from error
        self._registered(attempt, registration.thing_name, registration.device_configuration, known=True)

    def _rejected(self, attempt: Attempt, why: Problem, was_ambiguous: bool) -> None:
        """Some refusals are definite for this request; only an earlier one can still have worked."""
        if why.code not in _DEFINITE or was_ambiguous:
            return
        attempt = replace(attempt, ambiguous=False)
        self._save(table.advance(attempt, Event.REGISTRATION_REJECTED, self._now()))

    def _registered(self, attempt: Attempt, thing: str | None, configuration: object, *, known: bool) -> None:
        assert attempt.certificate_id is not None
        certificate_id, now = attempt.certificate_id, self._now()
        named = replace(attempt, thing_name=thing, thing_name_known=known)
        self._keep_answer(
            lambda: self._store.complete(
                certificate_id, identity_of(self._store, named, configuration, registered_at=now)
            )
        )
        self._save(
            replace(
                table.advance(attempt, Event.REGISTRATION_PROVED, now),
                thing_name=thing,
                thing_name_known=known,
                ambiguous=False,
                failures=0,
                refusals=0,
                retry_at=None,
                problem=None,
            )
        )
        self._hang_up()
        self._destroy_claims()
        self._say("registered", f"registered as {thing}" if thing else "registered")

    def _keep_answer(self, write: Callable[[], None]) -> None:
        """AWS says name and configuration once: what a disk in trouble does not take is tried again."""
        for seconds in _ANSWER_DELAYS_SECONDS:
            try:
                write()
            except OSError as error:
                log.warning("the answer can't be stored yet: %s", error.strerror)
                if self._world.stopping():
                    raise
                self._world.sleep(seconds)
            else:
                return
        write()

    def _probe(self, attempt: Attempt) -> None:
        """Ask with the staged certificate itself whether the lost RegisterThing had worked."""
        assert attempt.target is not None and attempt.certificate_id is not None
        staged = self._staged(attempt)
        credentials = Credentials(staged.certificate.pem, staged.key, staged.roots)
        client_id = fleet.identity_client_id(attempt.target, attempt.thing_name, attempt.certificate_id)
        try:
            self._try_out(attempt.target, client_id, credentials)
        except CredentialsRefusedError as error:
            if error.busy and attempt.claim is not None:
                # Nobody has looked at the certificate: it is not given up, nor the token used, for that.
                raise fail(
                    Code.CONNECT_REFUSED, endpoint=attempt.target.endpoint, detail=error.detail
                ) from error
            self._probed = True  # proves nothing: it may be INACTIVE, or its policy denies this client id
            if attempt.claim is None or self._time_for(attempt.claim) < attempt.claim.not_before:
                self._come_back(attempt)
            return
        except ClaimdError:
            if not self._went_elsewhere(attempt):
                raise
            self._probed = True
            return
        self._registered(attempt, None, None, known=False)

    def _staged(self, attempt: Attempt) -> StagedIdentity:
        """The staged key. Roots that are not those of the record are the disk's mistake, and no word of AWS:
        the configuration has them too."""
        assert attempt.certificate_id is not None and attempt.target is not None
        staged = self._store.load_staged(attempt.certificate_id)
        if attempt.target.ca_sha256 in ("", hashlib.sha256(staged.roots).hexdigest()):
            return staged
        try:
            roots = self._world.configuration.roots()
        except ClaimdError:
            return staged  # with those that are there it may still go
        if roots != staged.roots:
            name = short(attempt.certificate_id)
            log.warning("the root certificates beside %s are damaged: they are written again", name)
            self._store.replace_roots(attempt.certificate_id, roots)
        return replace(staged, roots=roots)

    def _went_elsewhere(self, attempt: Attempt) -> bool:
        """The lost request went to an endpoint that is not the configured one any more, its token is over,
        and a claim is here: what can't be asked there keeps nobody waiting here."""
        claim, asked = attempt.claim, attempt.target
        if claim is None or asked is None or attempt.token_usable(self._time_for(claim)):
            return False
        try:
            return self._world.configuration.target(claim.fingerprint, "").endpoint != asked.endpoint
        except ClaimdError:
            return False

    def _come_back(self, attempt: Attempt) -> None:
        """No claim to ask again with, or none yet: the certificate is tried again."""
        self._save(self._due_again(replace(attempt, failures=attempt.failures + 1)))

    def _due_again(self, attempt: Attempt) -> Attempt:
        delay = table.delay_seconds(attempt, self._world.random())
        return replace(attempt, retry_at=self._now() + timedelta(seconds=delay))

    def _verify(self, attempt: Attempt) -> None:
        """Prove the new identity by connecting with it, and only then let it serve."""
        assert attempt.target is not None and attempt.certificate_id is not None
        stuck: OSError | None = None
        try:
            self._destroy_claims()
        except OSError as error:
            stuck = error  # said in the end: no claim's folder keeps an identity from serving
        staged = self._staged(attempt)
        client_id = fleet.identity_client_id(attempt.target, attempt.thing_name, attempt.certificate_id)
        credentials = Credentials(staged.certificate.pem, staged.key, staged.roots)
        try:
            self._try_out(attempt.target, client_id, credentials)
        except CredentialsRefusedError as error:
            if error.unusable or not error.unwelcome:
                raise fail(Code.IDENTITY_UNPROVEN, detail=error.detail) from error
            self._refused_identity(attempt, client_id, error.detail)
        except ClaimdError as error:
            raise fail(Code.IDENTITY_UNPROVEN, detail=error.problem.happened) from error
        self._say("verified", "the new identity has connected")
        self._store.activate(attempt.certificate_id)
        if stuck is not None:
            raise stuck
        self._keep(activated(self._record, attempt, self._now()))
        self._activated = True
        self._say("active", "the identity is in place")

    def _try_out(self, target: Target, client_id: str, credentials: Credentials) -> None:
        """Connect and hang up. Whoever lives under this client id is disturbed once and loses nothing."""
        somebody = self._store.current_link() is not None
        self._dialer().connect(target, client_id, credentials, as_guest=somebody).close()

    def _refused_identity(self, attempt: Attempt, client_id: str, detail: str) -> None:
        assert attempt.certificate_id is not None
        if (
            attempt.refusals + 1 >= REFUSALS_BEFORE_POLICY
            and not self._is_whole_here()
            and self._settings_or_defaults().on_refusal == "activate"
        ):
            self._store.activate(attempt.certificate_id)
        raise fail(
            Code.IDENTITY_REFUSED, client_id=client_id, certificate_id=attempt.certificate_id, detail=detail
        )

    def _lose_claim(self, attempt: Attempt) -> None:
        """notAfter has come: the claim goes, a staged key waits for the next one."""
        lost, now = attempt.claim, self._now()
        assert lost is not None
        end = _end_of(attempt, lost, now)
        moved = table.advance(out_of_blocked(attempt, now), Event.CLAIM_LOST, now)
        attempt = replace(moved, claim=None, problem=end)
        if attempt.state in table.ENDED:
            attempt = replace(attempt, retry_at=None)
        outcome = Outcome(now, lost.fingerprint, "failed", None, None, end.code)
        self._keep(self._record.with_attempt(attempt).with_outcome(outcome))
        self._store.destroy_claim(lost.fingerprint)

    def _make_way(self, attempt: Attempt) -> None:
        """The token is over. A key that may be active is given up only for a claim that AWS takes: anybody
        can drop one that it does not."""
        if attempt.ambiguous and attempt.claim is not None:
            # Where the next key will come from, not where the lost request went: that may be no more.
            roots = self._world.configuration.roots()
            digest = hashlib.sha256(roots).hexdigest()
            target = self._world.configuration.target(attempt.claim.fingerprint, digest)
            self._line_with_claim(attempt.claim, target, roots)
            self._hang_up()
        self._let_token_lapse(attempt)

    def _let_token_lapse(self, attempt: Attempt, why: Code = Code.TOKEN_INVALID) -> None:
        self._set_key_aside(attempt)
        now, record = self._now(), self._record
        if attempt.ambiguous:
            # Nothing tries it any more: a person can, and finds here which one it is. No claim's end.
            record = record.with_outcome(Outcome(now, "", "failed", attempt.certificate_id, None, why))
        moved = without_key(table.advance(attempt, Event.TOKEN_LAPSED, now))
        if moved.claim is None and moved.problem is not None and moved.problem.kind is Kind.RETRY:
            moved = replace(moved, problem=None)  # without a claim nothing is tried again
        self._keep(record.with_attempt(moved))

    def _set_key_aside(self, attempt: Attempt) -> None:
        """No RegisterThing can use it any more. It stays, unless AWS provably never activated it."""
        if attempt.certificate_id is None:
            return
        if attempt.ambiguous:
            self._store.forget_token(attempt.certificate_id)
        else:
            self._store.discard_staged(attempt.certificate_id)

    def _line_with_claim(self, claim: ClaimRecord, target: Target, roots: bytes) -> Line:
        kept = self._store.load_claim(claim.fingerprint)
        self._line = self._dialer().line(kept, target, roots)
        self._say("connected", f"connected to {target.endpoint}")
        return self._line

    def _dialer(self) -> Dialer:
        if self._dial is None:
            settings = self._settings_or_defaults()
            transport = self._world.transport(settings.connect_seconds)
            self._dial = Dialer(transport, settings.connect_seconds, settings.answer_seconds)
        return self._dial

    # -- what a failure means

    def _failed(self, why: Problem) -> None:
        attempt = self._record.attempt
        if attempt is None:
            return
        self._hang_up()
        now = self._now()
        if self._key_is_used_up(attempt, why):
            self._let_token_lapse(attempt, why.code)
            attempt = self._record.attempt or attempt
        if why.code in _TURNED_AWAY:
            attempt = table.turned_away(attempt, self._store.claim_names())
        if why.kind is Kind.BLOCKED and attempt.state is not State.REGISTERED:
            resume = State.CLAIMED if attempt.state is State.KEYS_REQUESTED else attempt.state
            blocked = table.advance(attempt, Event.BLOCKED, now)
            sha256 = self._sha256_or_none()
            blocked = replace(blocked, resume=resume, config_sha256=sha256, problem=why, retry_at=None)
            if _is_looked_at_again(blocked):
                blocked = self._due_again(replace(blocked, failures=blocked.failures + 1))
            self._save(blocked)
            return
        if attempt.state is State.KEYS_REQUESTED:
            attempt = table.advance(attempt, Event.KEYS_REQUEST_FAILED, now)
        refused = why.code is Code.IDENTITY_REFUSED or self._counts_against_the_token(attempt, why)
        attempt = replace(
            attempt, failures=attempt.failures + 1, refusals=attempt.refusals + refused, problem=why
        )
        again = why.kind is Kind.RETRY or attempt.state is State.REGISTERED or why.code in _CURED_BY_ITSELF
        attempt = self._due_again(attempt) if again else replace(attempt, retry_at=None)
        self._save(replace(attempt, config_sha256=self._sha256_or_none()))

    def _key_is_used_up(self, attempt: Attempt, why: Problem) -> bool:
        """A staged key that can't be registered any more: its token is dead, or the disk lost it."""
        if attempt.state not in (State.KEYS_STAGED, State.REGISTERING):
            return False
        if why.code is Code.IDENTITY_DAMAGED:
            return True
        return attempt.refusals + 1 >= _TOKEN_REFUSALS and self._counts_against_the_token(attempt, why)

    def _counts_against_the_token(self, attempt: Attempt, why: Problem) -> bool:
        """Who asks again and again by hand leaves AWS no time to spread a fresh certificate."""
        return why.code is Code.TOKEN_INVALID and table.due_in_seconds(attempt, self._now()) <= 0

    def _disk_trouble(self, error: OSError) -> Problem:
        """The disk failed in a step. What is on it decides at the next pass where the attempt goes on."""
        self._hang_up()
        found = disk_problem(error, self._store.layout.state_directory)
        attempt = self._record.attempt
        if attempt is None:
            return found
        attempt = self._due_again(replace(attempt, failures=attempt.failures + 1, problem=found))
        try:
            self._save(attempt)
        except OSError:
            self._record = self._record.with_attempt(attempt)  # the disk has its own opinion: said, not kept
        return found

    def _result(self, trouble: Problem | None) -> Result:
        attempt = self._record.attempt
        after = self._after_seconds(attempt)
        code = Exit.NOTHING_TO_DO
        if self._activated:
            code = Exit.OK
        elif trouble is not None:
            code = trouble.exit
            # Asked for a new identity and still on the old one: its own code.
            failed = attempt is not None and attempt.replaces and attempt.state is not State.ACTIVE
            if failed and self._serves():
                code = Exit.OLD_IDENTITY_SERVES
        elif attempt is not None and attempt.state is State.FAILED and self._intake.kept:
            code = Exit.CLAIM_UNUSABLE
        if self._intake.expired and trouble is None and not self._activated:
            trouble = inspection.expired(self._intake.expired[0], self._now())
            code = Exit.CLAIM_UNUSABLE
        return Result(code, trouble, after, self._record)

    def _after_seconds(self, attempt: Attempt | None) -> float | None:
        if attempt is None or attempt.state in table.ENDED:
            return self._remove_old()
        now = self._now()
        waits = []
        due = table.due_in_seconds(attempt, now)
        if due > 0:
            waits.append(due)
        elif _comes_back(attempt):
            waits.append(0.0)
        # A registered identity needs its claim no more, and the claim's end wakes nobody.
        if attempt.claim is not None and attempt.state is not State.REGISTERED:
            now = self._time_for(attempt.claim)
            if now < attempt.claim.not_before:
                waits.append(min((attempt.claim.not_before - now).total_seconds(), CLOCK_LOOK_SECONDS))
            waits.append(max((attempt.claim.not_after - now).total_seconds(), 0.0))
        return min(waits) if waits else None

    def _remove_old(self) -> float | None:
        """Earlier identities that were kept long enough. None of it is worth a failed pass."""
        try:
            settings = self._settings()
            return generations.remove_old(
                self._store, self._record, settings.retention, self._now(), self._world.elapsed()
            )
        except ClaimdError:
            return None  # a broken configuration says nothing about how long to keep
        except OSError as error:
            log.warning("an earlier identity can't be removed: %s", error.strerror)
            return None

    # -- small things

    def _now(self) -> datetime:
        return self._world.now()

    def _time_for(self, claim: ClaimRecord | None) -> datetime:
        """By which a claim, and the token that was got with it, live or are dead."""
        if claim is None or self._world.time_for is None:
            return self._now()
        return self._world.time_for(claim.fingerprint, claim.not_after)

    def _settings(self) -> Settings:
        return self._world.configuration.settings()

    def _settings_or_defaults(self) -> Settings:
        """From REGISTERED on nothing may stand in the way, a broken configuration least of all."""
        try:
            return self._settings()
        except ClaimdError:
            return DEFAULTS

    def _sha256_or_none(self) -> str | None:
        try:
            return self._settings().sha256
        except ClaimdError:
            return None

    def _is_whole_here(self) -> bool:
        """Raises OSError: what can't be read now may serve all the same, and nothing is decided on that."""
        try:
            return self._store.current() is not None
        except ClaimdError:
            return False

    def _serves(self) -> bool:
        """Whether a whole identity is in place."""
        try:
            return self._store.current() is not None
        except (ClaimdError, OSError):
            return False

    def _save(self, attempt: Attempt) -> None:
        self._keep(self._record.with_attempt(attempt))

    def _keep(self, record: Record) -> None:
        """Persist, then assign, then tell."""
        self._store.save_record(record)
        self._record = record
        self._world.publish(record, None)

    def _ended(self, claim: str, result: str, code: Code | None) -> None:
        self._keep(self._record.with_outcome(Outcome(self._now(), claim, result, None, None, code)))

    def _destroy_claims(self) -> None:
        attempt = self._record.attempt
        mine = attempt.claim.fingerprint if attempt and attempt.claim else ""
        stuck: OSError | None = None
        for fingerprint in self._store.claim_names():
            if fingerprint != mine and not self._is_told(fingerprint, "not-needed"):
                self._ended(fingerprint, "not-needed", Code.CLAIM_NOT_NEEDED)
            try:
                self._store.destroy_claim(fingerprint)
            except OSError as error:
                stuck = error  # the others go all the same
        if stuck is not None:
            raise stuck

    def _hang_up(self) -> None:
        if self._line is not None:
            self._line.close()
            self._line = None

    def _check_stop(self) -> None:
        if self._world.stopping():
            raise InterruptedPassError

    def _say(self, stage: str, sentence: str) -> None:
        self._world.progress(stage, sentence)


def _is_looked_at_again(attempt: Attempt) -> bool:
    """Blocked by something that the configuration names and that may appear without anybody's touching it;
    or blocked while an earlier answer is unknown: whether that certificate connects by now is asked."""
    if attempt.resume is State.REGISTERING and attempt.ambiguous:
        return True
    return attempt.problem is not None and attempt.problem.code in _OUTSIDE_THE_CONFIGURATION


def _end_of(attempt: Attempt, claim: ClaimRecord, now: datetime) -> Problem:
    """Why a claim came to nothing: whoever makes another one must hear what stood in the way of this one."""
    name, not_after, before = short(claim.fingerprint), spoken(claim.not_after), attempt.problem
    if attempt.ambiguous:
        reason, trouble = "its answer was lost; the new certificate is tried meanwhile", Code.NO_ANSWER
    elif before is None or before.kind is Kind.UNUSABLE or before.code is Code.CLAIM_NOT_YET_VALID:
        return problem(Code.CLAIM_EXPIRED, claim=name, not_after=not_after, now=spoken(now))
    else:
        reason, trouble = before.happened, before.code
    return problem(Code.CLAIM_RAN_OUT, claim=name, not_after=not_after, reason=reason, trouble=trouble.value)


def _comes_back(attempt: Attempt) -> bool:
    """Whether there is something to try as soon as it is due."""
    if attempt.state is State.REGISTERED or (attempt.state is State.BLOCKED and _is_looked_at_again(attempt)):
        return True
    if attempt.claim is None:
        return attempt.state is State.REGISTERING and attempt.ambiguous
    return attempt.problem is not None and attempt.problem.kind is Kind.RETRY


# After these RegisterThing has changed nothing. A token that AWS does not take is not among them: it may be
# the second copy of a message (QoS 1) whose first one has registered the certificate.
_DEFINITE = frozenset(
    {Code.THROTTLED, Code.PARAMETERS_REFUSED, Code.REGISTRATION_DENIED, Code.TEMPLATE_NOT_FOUND}
)
# Named by what they are, and still passing by themselves.
_CURED_BY_ITSELF = frozenset({Code.IDENTITY_DAMAGED})
# A package that is installed again, an interface or a file that appears some seconds after the boot.
_OUTSIDE_THE_CONFIGURATION = frozenset({Code.CA_UNUSABLE, Code.PARAMETER_UNRESOLVED})
_WITHOUT_CLAIM = frozenset({*table.ENDED, State.REGISTERED})
# What another claim may well be spared: of this account, and made for this template.
_TURNED_AWAY = frozenset({Code.CLAIM_NOT_ACCEPTED, Code.SUBSCRIBE_REFUSED, Code.PUBLISH_REFUSED})
_WAITS = frozenset({Step.WAIT_FOR_CLAIM, Step.WAIT_FOR_CLOCK, Step.WAIT_FOR_CURE})
