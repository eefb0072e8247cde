"""The steps of an attempt, each from an intent that is recorded to a fact that is on disk.

Invariant: an intent is recorded before it is sent, a fact after it is on disk. So this process may be
killed at any moment: the next pass finds every key that AWS issued and goes on.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING

from . import attempt as table
from . import fleet, lapse
from .attempt import Attempt, ClaimRecord, Event, Outcome, State, Step
from .candidates import Candidates
from .connect import CredentialsRefusedError, Dialer, Line, RejectedError
from .errors import ClaimdError, Code, Kind, Problem, fail, problem
from .fleet import Credentials, Exchange, IssuedKeys
from .logbook import Logbook
from .model import PrivateKey, Target, short, spoken
from .recovery import activated, identity_of, out_of_blocked

if TYPE_CHECKING:
    from .store import StagedIdentity

log = logging.getLogger(__name__)

# A fresh certificate may be refused for some seconds until AWS has spread it.
REFUSALS_BEFORE_POLICY = 3
# While an answer that comes only once can't be stored; 7.5 s in all, within any pass.
_ANSWER_DELAYS_SECONDS = (0.5, 1.0, 2.0, 4.0)
# After these RegisterThing has changed nothing. A token that AWS does not take is not among them: it may be
# the second copy of a message (QoS 1) whose first one has registered the certificate.
_DEFINITE = frozenset(
    {Code.THROTTLED, Code.PARAMETERS_REFUSED, Code.REGISTRATION_DENIED, Code.TEMPLATE_NOT_FOUND}
)


class Steps:
    """What `attempt.next_step` names. What is durable goes through the store before the next thing is sent.

    `probed`: see `next_step`. `activated`: the new identity serves since this pass.
    """

    def __init__(self, book: Logbook, candidates: Candidates) -> None:
        self._book = book
        self._store = book.store
        self._candidates = candidates
        self._line: Line | None = None
        self._dial: Dialer | None = None
        self.probed = False
        self.activated = False

    def take(self, step: Step, attempt: Attempt) -> None:
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
        else:
            raise AssertionError(f"no step to take: {step.value}")

    def _request_keys(self, attempt: Attempt) -> None:
        assert attempt.claim is not None
        roots = self._book.world.configuration.roots()
        digest = hashlib.sha256(roots).hexdigest()
        target = self._book.world.configuration.target(attempt.claim.fingerprint, digest)
        # Before the claim is spent: a disk that would not keep the answer is found now.
        self._store.probe()
        key = self._own_key(attempt.claim.fingerprint, target) if target.key_source == "device" else None
        line = self._line_with_claim(attempt.claim, target, roots)
        # identity.json names the port that is open, and whoever uses the identity begins there.
        target = self._dialer().as_reached(target)
        self._book.check_stop()
        attempt = table.advance(attempt, Event.KEYS_REQUEST_RECORDED, self._book.now())
        attempt = replace(attempt, target=target)
        self._book.save(attempt)
        issued = self._ask_for_certificate(line, target, key)
        if issued.certificate_id in self._store.staged():
            # AWS gives an id once. What lies under it may be active, or serve: it is not this answer's.
            detail = "certificateId is that of a certificate that is here already"
            raise fail(Code.ANSWER_INVALID, step=Exchange.CREATE_KEYS.value, detail=detail)
        # An identity that can't connect would be registered for good.
        self._dialer().check(issued, roots)
        try:
            self._store.stage(issued, roots)
        except OSError:
            # It may be there and not safe. AWS has not activated it: none of it is used.
            self._discard_quietly(issued.certificate_id)
            raise
        now = self._book.now()
        self._book.save(
            replace(
                table.advance(attempt, Event.KEYS_STAGED, now),
                certificate_id=issued.certificate_id,
                token_received_at=now,
                failures=0,
                retry_at=None,
                problem=None,
            )
        )
        self._book.say("keys", f"certificate {short(issued.certificate_id)} and its key are stored")

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
        self._book.check_stop()
        was_ambiguous = attempt.ambiguous
        attempt = table.advance(attempt, Event.REGISTRATION_RECORDED, self._book.now())
        # Until the answer is here it is unknown whether AWS has registered the certificate.
        attempt = replace(attempt, ambiguous=True)
        self._book.save(attempt)
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
        self._book.save(table.advance(attempt, Event.REGISTRATION_REJECTED, self._book.now()))

    def _registered(self, attempt: Attempt, thing: str | None, configuration: object, *, known: bool) -> None:
        assert attempt.certificate_id is not None
        certificate_id, now = attempt.certificate_id, self._book.now()
        named = replace(attempt, thing_name=thing, thing_name_known=known)
        self._keep_answer(
            lambda: self._store.complete(
                certificate_id, identity_of(self._book.store, named, configuration, registered_at=now)
            )
        )
        self._book.save(
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
        self.hang_up()
        self._candidates.destroy_all()
        self._book.say("registered", f"registered as {thing}" if thing else "registered")

    def _keep_answer(self, write: Callable[[], None]) -> None:
        """AWS says name and configuration once: what a disk in trouble does not take is tried again."""
        for seconds in _ANSWER_DELAYS_SECONDS:
            try:
                write()
            except OSError as error:
                log.warning("the answer can't be stored yet: %s", error.strerror)
                if self._book.world.stopping():
                    raise
                self._book.world.sleep(seconds)
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
            self.probed = True  # proves nothing: it may be INACTIVE, or its policy denies this client id
            if attempt.claim is None or self._book.time_for(attempt.claim) < attempt.claim.not_before:
                self._come_back(attempt)
            return
        except ClaimdError:
            if not self._went_elsewhere(attempt):
                raise
            self.probed = True
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
            roots = self._book.world.configuration.roots()
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
        if claim is None or asked is None or attempt.token_usable(self._book.time_for(claim)):
            return False
        try:
            return self._book.world.configuration.target(claim.fingerprint, "").endpoint != asked.endpoint
        except ClaimdError:
            return False

    def _come_back(self, attempt: Attempt) -> None:
        """No claim to ask again with, or none yet: the certificate is tried again."""
        self._book.save(self._book.due_again(replace(attempt, failures=attempt.failures + 1)))

    def _verify(self, attempt: Attempt) -> None:
        """Prove the new identity by connecting with it, and only then let it serve."""
        assert attempt.target is not None and attempt.certificate_id is not None
        stuck: OSError | None = None
        try:
            self._candidates.destroy_all()
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
        self._book.say("verified", "the new identity has connected")
        self._store.activate(attempt.certificate_id)
        if stuck is not None:
            raise stuck
        self._book.keep(activated(self._book.record, attempt, self._book.now()))
        self.activated = True
        self._book.say("active", "the identity is in place")

    def _try_out(self, target: Target, client_id: str, credentials: Credentials) -> None:
        """Connect and hang up. Whoever lives under this client id is disturbed once and loses nothing."""
        somebody = self._store.current_link() is not None
        self._dialer().connect(target, client_id, credentials, as_guest=somebody).close()

    def _refused_identity(self, attempt: Attempt, client_id: str, detail: str) -> None:
        assert attempt.certificate_id is not None
        if (
            attempt.refusals + 1 >= REFUSALS_BEFORE_POLICY
            and self._store.serving() is None
            and self._book.settings_or_defaults().on_refusal == "activate"
        ):
            self._store.activate(attempt.certificate_id)
        raise fail(
            Code.IDENTITY_REFUSED, client_id=client_id, certificate_id=attempt.certificate_id, detail=detail
        )

    def _lose_claim(self, attempt: Attempt) -> None:
        """notAfter has come: the claim goes, a staged key waits for the next one."""
        lost, now = attempt.claim, self._book.now()
        assert lost is not None
        end = _end_of(attempt, lost, now)
        moved = table.advance(out_of_blocked(attempt, now), Event.CLAIM_LOST, now)
        attempt = replace(moved, claim=None, problem=end)
        if not (attempt.state is State.REGISTERING and attempt.ambiguous):
            attempt = replace(attempt, retry_at=None)  # without a claim nothing but a probe is tried again
        outcome = Outcome(now, lost.fingerprint, "failed", None, None, end.code)
        self._book.keep(self._book.record.with_attempt(attempt).with_outcome(outcome))
        self._store.destroy_claim(lost.fingerprint)

    def _make_way(self, attempt: Attempt) -> None:
        """The token is over. A key that may be active is given up only for a claim that AWS takes: anybody
        can drop one that it does not."""
        if attempt.ambiguous and attempt.claim is not None:
            # Where the next key will come from, not where the lost request went: that may be no more.
            roots = self._book.world.configuration.roots()
            digest = hashlib.sha256(roots).hexdigest()
            target = self._book.world.configuration.target(attempt.claim.fingerprint, digest)
            self._line_with_claim(attempt.claim, target, roots)
            self.hang_up()
        lapse.let_token_lapse(self._book, attempt)

    def _line_with_claim(self, claim: ClaimRecord, target: Target, roots: bytes) -> Line:
        kept = self._store.load_claim(claim.fingerprint)
        self._line = self._dialer().line(kept, target, roots)
        self._book.say("connected", f"connected to {target.endpoint}")
        return self._line

    def _dialer(self) -> Dialer:
        if self._dial is None:
            settings = self._book.settings_or_defaults()
            transport = self._book.world.transport(settings.connect_seconds)
            self._dial = Dialer(transport, settings.connect_seconds, settings.answer_seconds)
        return self._dial

    def hang_up(self) -> None:
        if self._line is not None:
            self._line.close()
            self._line = None


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
