"""Every failure claimd can name: one stable code, and its words.

Invariant: a text that a person reads stands here once. A code never changes its
meaning; scripts, documentation and support are built on it. Fields that go into a
text are names, numbers and paths, never file contents: a text can't leak a key.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, IntEnum
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


class Exit(IntEnum):
    """Exit codes of every claimd command; 65 to 78 follow sysexits.h."""

    OK = 0
    USAGE = 2
    OLD_IDENTITY_SERVES = 3
    NOTHING_TO_DO = 4
    CLAIM_UNUSABLE = 65
    REFUSED = 69
    BUG = 70
    DISK = 74
    RETRY = 75
    PERMISSION = 77
    CONFIGURATION = 78
    TIMEOUT = 124


class Kind(str, Enum):
    """What a failure means for the attempt: who can cure it, and whether to come back."""

    RETRY = "retry"  # passes by itself: come back from the retry table
    BLOCKED = "blocked"  # configuration or cloud can cure it: the live claim is kept
    UNUSABLE = "unusable"  # this material can never work: it is destroyed
    WAITING = "waiting"  # something is still missing: the next file, the right time, a person


class Code(str, Enum):
    """The stable, kebab-case names of failures."""

    # what lies in the drop directory
    CLAIM_KEY_MISSING = "claim-key-missing"
    CLAIM_CERTIFICATE_MISSING = "claim-certificate-missing"
    CLAIM_KEY_MISMATCH = "claim-key-mismatch"
    CLAIM_STILL_ARRIVING = "claim-still-arriving"
    CLAIM_NOT_RECOGNISED = "claim-not-recognised"
    CLAIM_KEY_ENCRYPTED = "claim-key-encrypted"
    CLAIM_KEY_UNSUPPORTED = "claim-key-unsupported"
    CLAIM_FILE_TOO_LARGE = "claim-file-too-large"
    DROP_ENTRY_REFUSED = "drop-entry-refused"
    DROP_ENTRY_UNREADABLE = "drop-entry-unreadable"
    DROP_DIRECTORY_MISSING = "drop-directory-missing"
    # what the claim is
    CLAIM_EXPIRED = "claim-expired"
    CLAIM_NOT_YET_VALID = "claim-not-yet-valid"
    CLAIM_IS_PERMANENT = "claim-is-permanent"
    CLAIM_SUPERSEDED = "claim-superseded"
    CLAIM_NOT_NEEDED = "claim-not-needed"
    # configuration
    NOT_CONFIGURED = "not-configured"
    CONFIG_INVALID = "config-invalid"
    CONFIG_UNREADABLE = "config-unreadable"
    PARAMETER_UNRESOLVED = "parameter-unresolved"
    CA_UNUSABLE = "ca-unusable"
    # the way to the endpoint
    DNS_FAILED = "dns-failed"
    CONNECTION_REFUSED = "connection-refused"
    ENDPOINT_UNREACHABLE = "endpoint-unreachable"
    TLS_UNTRUSTED_CA = "tls-untrusted-ca"
    TLS_WRONG_HOST = "tls-wrong-host"
    TLS_SERVER_CERTIFICATE_TIME = "tls-server-certificate-time"
    TLS_NO_ANSWER = "tls-no-answer"
    TLS_FAILED = "tls-failed"
    # what the endpoint said
    CLAIM_NOT_ACCEPTED = "claim-not-accepted"
    CONNECT_REFUSED = "connect-refused"
    CONNECTION_LOST = "connection-lost"
    CLIENT_ID_TAKEN = "client-id-taken"
    SUBSCRIBE_REFUSED = "subscribe-refused"
    PUBLISH_REFUSED = "publish-refused"
    NO_ANSWER = "no-answer"
    ANSWER_INVALID = "answer-invalid"
    THROTTLED = "throttled"
    AWS_UNAVAILABLE = "aws-unavailable"
    TEMPLATE_NOT_FOUND = "template-not-found"
    PARAMETERS_REFUSED = "parameters-refused"
    REGISTRATION_DENIED = "registration-denied"
    TOKEN_INVALID = "token-invalid"  # noqa: S105  the name of a failure
    REQUEST_REFUSED = "request-refused"
    # the new identity
    IDENTITY_REFUSED = "identity-refused"
    IDENTITY_UNPROVEN = "identity-unproven"
    IDENTITY_DAMAGED = "identity-damaged"
    # this machine
    DISK_FULL = "disk-full"
    DISK_READ_ONLY = "disk-read-only"
    DISK_FAILED = "disk-failed"
    PERMISSION_DENIED = "permission-denied"
    STATE_DIRECTORY_MISSING = "state-directory-missing"
    ATTEMPT_UNREADABLE = "attempt-unreadable"
    PASS_RUNNING = "pass-running"  # noqa: S105  the name of a failure
    INTERRUPTED = "interrupted"
    PASS_TIMED_OUT = "pass-timed-out"  # noqa: S105  the name of a failure
    PASS_CRASHED = "pass-crashed"  # noqa: S105  the name of a failure
    INTERNAL_ERROR = "internal-error"


@dataclass(frozen=True)
class Explanation:
    """The words of one code. `happened` and `remedy` take fields by `str.format`."""

    kind: Kind
    exit: Exit
    happened: str
    cause: str
    remedy: str


_AGAIN = "nothing to do: claimd tries again by itself while the claim lives"
_NEW_CLAIM = (
    "make a new claim (aws iot create-provisioning-claim --template-name TEMPLATE) and copy it here"
    " within five minutes"
)

_CATALOGUE: dict[Code, Explanation] = {
    Code.CLAIM_KEY_MISSING: Explanation(
        Kind.WAITING,
        Exit.RETRY,
        "the certificate is here ({file}), its private key is missing",
        "only one of the two files was copied so far, or the key did not arrive whole",
        "copy the file with the private key of the same claim into the drop directory",
    ),
    Code.CLAIM_CERTIFICATE_MISSING: Explanation(
        Kind.WAITING,
        Exit.RETRY,
        "a private key is here ({file}), its certificate is missing",
        "only one of the two files was copied so far, or the certificate did not arrive whole",
        "copy the file with the certificate of the same claim into the drop directory",
    ),
    Code.CLAIM_KEY_MISMATCH: Explanation(
        Kind.WAITING,
        Exit.CLAIM_UNUSABLE,
        "the private key ({key_file}) does not belong to the certificate ({file})",
        "the two files come from two different claims",
        "copy certificate and private key of one and the same claim",
    ),
    Code.CLAIM_STILL_ARRIVING: Explanation(
        Kind.WAITING,
        Exit.RETRY,
        "{file} is not complete: {detail}",
        "the file is still being copied, or the copy was cut off",
        "wait until the copy is done; if it is done, copy the file again",
    ),
    Code.CLAIM_NOT_RECOGNISED: Explanation(
        Kind.WAITING,
        Exit.CLAIM_UNUSABLE,
        "{file} holds no claim: {detail}",
        "a file that is not the output of create-provisioning-claim, or a damaged copy",
        "copy the output of aws iot create-provisioning-claim as it is, or certificate and key as PEM files",
    ),
    Code.CLAIM_KEY_ENCRYPTED: Explanation(
        Kind.WAITING,
        Exit.CLAIM_UNUSABLE,
        "the private key in {file} is protected by a passphrase",
        "the key was encrypted after AWS made it; claimd has no passphrase for it",
        "copy the key as AWS returned it, without a passphrase",
    ),
    Code.CLAIM_KEY_UNSUPPORTED: Explanation(
        Kind.WAITING,
        Exit.CLAIM_UNUSABLE,
        "the private key in {file} is of a kind that AWS IoT does not take: {detail}",
        "AWS IoT claims have RSA keys; P-256, P-384 and P-521 work too",
        "copy the key that came with the claim; " + _NEW_CLAIM,
    ),
    Code.CLAIM_FILE_TOO_LARGE: Explanation(
        Kind.WAITING,
        Exit.CLAIM_UNUSABLE,
        "{file} is too large for a claim: {detail}",
        "a claim is a few kilobytes of text",
        "remove the file; copy only the claim",
    ),
    Code.DROP_ENTRY_REFUSED: Explanation(
        Kind.WAITING,
        Exit.CLAIM_UNUSABLE,
        "{file} was not read: {detail}",
        "only ordinary files that belong to the person who copied them are read",
        "copy the claim as an ordinary file (no link, no folder)",
    ),
    Code.DROP_ENTRY_UNREADABLE: Explanation(
        Kind.WAITING,
        Exit.PERMISSION,
        "{file} can't be read: {detail}",
        "the file's mode shuts claimd out and claimd runs without its capability",
        "chmod 0644 the file, or start claimd by its systemd unit",
    ),
    Code.DROP_DIRECTORY_MISSING: Explanation(
        Kind.WAITING,
        Exit.CONFIGURATION,
        "the drop directory {path} can't be used: {detail}",
        "it was removed, or the package's tmpfiles were not applied",
        "run: sudo systemd-tmpfiles --create claimd.conf",
    ),
    Code.CLAIM_EXPIRED: Explanation(
        Kind.UNUSABLE,
        Exit.CLAIM_UNUSABLE,
        "the claim {claim} expired at {not_after}; this device's clock says {now}",
        "a claim lives five minutes from the moment it was made (or this device's clock is ahead)",
        _NEW_CLAIM,
    ),
    Code.CLAIM_NOT_YET_VALID: Explanation(
        Kind.WAITING,
        Exit.RETRY,
        "the claim {claim} is valid only from {not_before}; this device's clock says {now}",
        "the device's clock is behind",
        "set the clock: sudo date -u -s '{date}'; the claim is kept and used then",
    ),
    Code.CLAIM_IS_PERMANENT: Explanation(
        Kind.WAITING,
        Exit.CLAIM_UNUSABLE,
        "{file} is a permanent device certificate (valid until {not_after}), not a claim",
        "a claim lives minutes; this certificate was made for a device",
        "leave it where it came from; " + _NEW_CLAIM,
    ),
    Code.CLAIM_SUPERSEDED: Explanation(
        Kind.WAITING,
        Exit.OK,
        "the claim {claim} (until {not_after}) is kept in reserve: claim {other} lives longer",
        "two claims were copied to this device",
        "nothing to do: the spare is used if the other fails, and destroyed afterwards",
    ),
    Code.CLAIM_NOT_NEEDED: Explanation(
        Kind.UNUSABLE,
        Exit.NOTHING_TO_DO,
        "the claim {claim} was destroyed unused: this device already has its identity ({identity})",
        'reprovision is "never" in the configuration',
        'nothing to do; to give the device a new identity set reprovision = "replace" in'
        " /etc/claimd/claimd.toml and copy a new claim",
    ),
    Code.NOT_CONFIGURED: Explanation(
        Kind.WAITING,
        Exit.CONFIGURATION,
        "not configured: set {missing}",
        "claimd was installed and has not been told where to connect",
        "edit {file} (no restart needed), then look at: claimd status",
    ),
    Code.CONFIG_INVALID: Explanation(
        Kind.WAITING,
        Exit.CONFIGURATION,
        "the configuration is wrong: {detail}",
        "a typing error in /etc/claimd",
        "correct it (no restart needed), then run: claimd config check",
    ),
    Code.CONFIG_UNREADABLE: Explanation(
        Kind.WAITING,
        Exit.CONFIGURATION,
        "the configuration file {file} can't be read: {detail}",
        "its mode shuts claimd out, or the file system has trouble",
        "run: sudo chmod 0644 {file}",
    ),
    Code.PARAMETER_UNRESOLVED: Explanation(
        Kind.BLOCKED,
        Exit.CONFIGURATION,
        "the template parameter {parameter} can't be filled in: {detail}",
        "this device does not have the fact that the configuration names",
        "change template.parameters in /etc/claimd/claimd.toml; the claim is kept meanwhile",
    ),
    Code.CA_UNUSABLE: Explanation(
        Kind.BLOCKED,
        Exit.CONFIGURATION,
        "the root certificates can't be used: {file}: {detail}",
        "the file is missing or damaged; nothing else is trusted in its place",
        "run: sudo apt install --reinstall ca-certificates, or set ca_file; the claim is kept meanwhile",
    ),
    Code.DNS_FAILED: Explanation(
        Kind.RETRY,
        Exit.RETRY,
        "the name {endpoint} can't be resolved",
        "no network, no DNS server, or a typing error in the endpoint",
        "check the cable or Wi-Fi; try: getent hosts {endpoint}",
    ),
    Code.CONNECTION_REFUSED: Explanation(
        Kind.RETRY,
        Exit.RETRY,
        "{endpoint} refused the connection on port {port}",
        "a firewall answers in its place, or endpoint or port is wrong",
        "ask for TCP 8883 or 443 to {endpoint} to be opened; " + _AGAIN,
    ),
    Code.ENDPOINT_UNREACHABLE: Explanation(
        Kind.RETRY,
        Exit.RETRY,
        "{endpoint} can't be reached on port {port}: {detail}",
        "no route to the internet, or a firewall that drops the packets",
        "check the network; ask for TCP 8883 or 443 to {endpoint} to be opened",
    ),
    Code.TLS_UNTRUSTED_CA: Explanation(
        Kind.BLOCKED,
        Exit.REFUSED,
        "the server that answers as {endpoint} is not trusted: {detail}",
        "another machine answers in its place (a proxy that opens TLS), or ca_file is not the server's root",
        "check endpoint and ca_file, and whether the network inspects TLS; then run: claimd provision",
    ),
    Code.TLS_WRONG_HOST: Explanation(
        Kind.BLOCKED,
        Exit.REFUSED,
        "the server that answers as {endpoint} shows a certificate for another name: {detail}",
        "the endpoint is an alias, or another machine answers in its place",
        "set endpoint to what this prints: aws iot describe-endpoint --endpoint-type iot:Data-ATS",
    ),
    Code.TLS_SERVER_CERTIFICATE_TIME: Explanation(
        Kind.RETRY,
        Exit.RETRY,
        "the server's certificate is not valid at this device's time {now}: {detail}",
        "this device's clock is wrong",
        "set the clock: sudo timedatectl set-ntp true; " + _AGAIN,
    ),
    Code.TLS_NO_ANSWER: Explanation(
        Kind.RETRY,
        Exit.RETRY,
        "{endpoint} takes connections on port {port} but does not speak TLS there",
        "a firewall or a captive portal answers in its place, or the port is wrong",
        "check port and network; " + _AGAIN,
    ),
    Code.TLS_FAILED: Explanation(
        Kind.RETRY,
        Exit.RETRY,
        "no secure connection to {endpoint}: {detail}",
        "the TLS handshake was broken off",
        _AGAIN + "; if it stays, check what stands between the device and the internet",
    ),
    Code.CLAIM_NOT_ACCEPTED: Explanation(
        Kind.RETRY,
        Exit.REFUSED,
        "{endpoint} does not accept the claim {claim}, which lives until {not_after}",
        "the claim was made in another AWS account or region than this endpoint's",
        "compare: aws sts get-caller-identity, and aws iot describe-endpoint --endpoint-type iot:Data-ATS;"
        " correct endpoint in /etc/claimd/claimd.toml or make the claim in the right account",
    ),
    Code.CONNECT_REFUSED: Explanation(
        Kind.RETRY,
        Exit.REFUSED,
        "{endpoint} refused the MQTT connection: {detail}",
        "the account's rights do not allow this client id, or too many connections a second",
        "check claim.client_id in the configuration; " + _AGAIN,
    ),
    Code.CONNECTION_LOST: Explanation(
        Kind.RETRY,
        Exit.RETRY,
        "the connection to {endpoint} was lost while {step}: {detail}",
        "the network broke, or the server hung up",
        _AGAIN,
    ),
    Code.CLIENT_ID_TAKEN: Explanation(
        Kind.RETRY,
        Exit.RETRY,
        "another connection took over the client id {client_id} while {step}",
        "two devices use one client id, or two claimd run with one claim",
        "make sure that the claim was copied to one device only; " + _AGAIN,
    ),
    Code.SUBSCRIBE_REFUSED: Explanation(
        Kind.BLOCKED,
        Exit.REFUSED,
        "AWS does not let this claim use the template {template}",
        "the claim was made for another provisioning template, or the template's name has a typing error",
        "set template.name to the template that the claim was made for"
        " (list them: aws iot list-provisioning-templates), or make a claim for {template}",
    ),
    Code.PUBLISH_REFUSED: Explanation(
        Kind.BLOCKED,
        Exit.REFUSED,
        "AWS refused the request while {step}: {detail}",
        "the claim has no right to it: it was made for another provisioning template",
        "set template.name to the template that the claim was made for, or make a claim for {template}",
    ),
    Code.NO_ANSWER: Explanation(
        Kind.RETRY,
        Exit.RETRY,
        "AWS did not answer within {seconds} s while {step}",
        "a slow or broken network, or a busy service",
        _AGAIN,
    ),
    Code.ANSWER_INVALID: Explanation(
        Kind.RETRY,
        Exit.REFUSED,
        "AWS's answer can't be used while {step}: {detail}",
        "the endpoint is not AWS IoT Core, or its answer was damaged",
        "check that endpoint is what this prints: aws iot describe-endpoint --endpoint-type iot:Data-ATS",
    ),
    Code.THROTTLED: Explanation(
        Kind.RETRY,
        Exit.RETRY,
        "AWS asks to slow down while {step}: {detail}",
        "many devices are being provisioned in this account at once",
        _AGAIN,
    ),
    Code.AWS_UNAVAILABLE: Explanation(
        Kind.RETRY,
        Exit.RETRY,
        "AWS had an internal error while {step}: {detail}",
        "trouble on AWS's side",
        _AGAIN,
    ),
    Code.TEMPLATE_NOT_FOUND: Explanation(
        Kind.BLOCKED,
        Exit.REFUSED,
        "AWS knows no provisioning template {template}: {detail}",
        "a typing error in template.name, or a template of another account or region",
        "set template.name to one of: aws iot list-provisioning-templates; the claim is kept meanwhile",
    ),
    Code.PARAMETERS_REFUSED: Explanation(
        Kind.BLOCKED,
        Exit.REFUSED,
        "AWS refused the template parameters: {detail}",
        "a parameter of the template {template} is missing, unknown or has a value it does not take",
        "compare template.parameters with: aws iot describe-provisioning-template --template-name {template};"
        " the claim is kept meanwhile",
    ),
    Code.REGISTRATION_DENIED: Explanation(
        Kind.BLOCKED,
        Exit.REFUSED,
        "AWS denied the registration: {detail}",
        "the pre-provisioning hook of the template {template} refused this device, or its role lacks a right",
        "ask who runs the hook whether this device is on the list, then run: claimd provision;"
        " the claim is kept meanwhile",
    ),
    Code.TOKEN_INVALID: Explanation(
        Kind.RETRY,
        Exit.RETRY,
        "AWS does not take the certificate ownership token any more: {detail}",
        "the token lives one hour, or was used already",
        "nothing to do: claimd keeps the key it has and asks for another certificate with the next claim",
    ),
    Code.REQUEST_REFUSED: Explanation(
        Kind.BLOCKED,
        Exit.REFUSED,
        "AWS refused the request while {step}: {detail}",
        "something in the account does not allow it",
        "read the message above; then run: claimd provision",
    ),
    Code.IDENTITY_REFUSED: Explanation(
        Kind.RETRY,
        Exit.REFUSED,
        "the device is registered, but AWS refuses its new identity: {detail}",
        "the template makes the certificate INACTIVE until somebody approves it, or its policy does not let"
        " the client id {client_id} connect",
        "approve it: aws iot update-certificate --certificate-id {certificate_id} --new-status ACTIVE, or"
        " correct the policy; claimd keeps the identity and tries again",
    ),
    Code.IDENTITY_UNPROVEN: Explanation(
        Kind.RETRY,
        Exit.RETRY,
        "the device is registered; its new identity could not connect yet: {detail}",
        "the network broke after the registration",
        "nothing to do: claimd keeps the identity and tries again until it connects; no claim is needed",
    ),
    Code.IDENTITY_DAMAGED: Explanation(
        Kind.WAITING,
        Exit.DISK,
        "the stored identity {path} is damaged: {detail}",
        "the file system lost or changed data",
        "keep the folder, run: claimd status, and " + _NEW_CLAIM,
    ),
    Code.DISK_FULL: Explanation(
        Kind.RETRY,
        Exit.DISK,
        "cannot write {path}: the disk is full",
        "no free blocks or inodes, or a quota is used up",
        "free some space: df -h {directory}; the claim is kept meanwhile",
    ),
    Code.DISK_READ_ONLY: Explanation(
        Kind.RETRY,
        Exit.DISK,
        "cannot write {path}: the file system is read-only",
        "the disk failed and was set read-only, or it is mounted so",
        "look at: dmesg | tail; mount -o remount,rw; the claim is kept meanwhile",
    ),
    Code.DISK_FAILED: Explanation(
        Kind.RETRY,
        Exit.DISK,
        "cannot write or read {path}: {detail}",
        "the disk or its file system has trouble",
        "look at: dmesg | tail; the claim is kept meanwhile",
    ),
    Code.PERMISSION_DENIED: Explanation(
        Kind.RETRY,
        Exit.PERMISSION,
        "no permission for {path}: {detail}",
        "owner or mode of the directory changed, or the command needs root",
        "run it as root (sudo), or restore the directories: sudo systemd-tmpfiles --create claimd.conf",
    ),
    Code.STATE_DIRECTORY_MISSING: Explanation(
        Kind.RETRY,
        Exit.DISK,
        "the state directory {path} is missing",
        "its file system is not mounted, or the package's tmpfiles were not applied",
        "run: sudo systemd-tmpfiles --create claimd.conf",
    ),
    Code.ATTEMPT_UNREADABLE: Explanation(
        Kind.WAITING,
        Exit.DISK,
        "the record of the attempt {path} can't be used: {detail}",
        "it was written by a newer claimd, or changed by hand",
        "install the newer claimd again, or move the file aside after reading it; no key is deleted",
    ),
    Code.PASS_RUNNING: Explanation(
        Kind.RETRY,
        Exit.RETRY,
        "another pass is at work (process {pid})",
        "the service is provisioning right now",
        "wait for it: claimd status",
    ),
    Code.INTERRUPTED: Explanation(
        Kind.RETRY,
        Exit.RETRY,
        "the pass was interrupted while {step}",
        "the service was stopped or the machine shut down",
        "nothing to do: claimd goes on where it was at the next start",
    ),
    Code.PASS_TIMED_OUT: Explanation(
        Kind.RETRY,
        Exit.RETRY,
        "the pass did not end within {seconds} s and was stopped",
        "a network or a disk that hangs",
        _AGAIN,
    ),
    Code.PASS_CRASHED: Explanation(
        Kind.RETRY,
        Exit.BUG,
        "the pass ended abnormally: {detail}",
        "an error in claimd or in a library that it uses",
        "nothing to do for the device: claimd tries again; please report it with: journalctl -u claimd",
    ),
    Code.INTERNAL_ERROR: Explanation(
        Kind.RETRY,
        Exit.BUG,
        "an error in claimd itself: {detail}",
        "a fault in the program, not in the device or the claim",
        "please report it with: journalctl -u claimd; claimd tries again",
    ),
}

CATALOGUE: Mapping[Code, Explanation] = MappingProxyType(_CATALOGUE)

# A field's text is cut here, so that a hostile name or message can't flood a screen or the journal.
MAX_FIELD_CHARACTERS = 300


def printable(text: str) -> str:
    """Make outside text safe to show: control characters and lone surrogates as escapes, cut to length."""
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)
    return shown if len(shown) <= MAX_FIELD_CHARACTERS else shown[: MAX_FIELD_CHARACTERS - 3] + "..."


@dataclass(frozen=True)
class Problem:
    """One failure with its fields: what status, result files and the journal show."""

    code: Code
    fields: Mapping[str, str]

    @property
    def explanation(self) -> Explanation:
        return CATALOGUE[self.code]

    @property
    def kind(self) -> Kind:
        return self.explanation.kind

    @property
    def exit(self) -> Exit:
        return self.explanation.exit

    @property
    def happened(self) -> str:
        return self.explanation.happened.format_map(_Fields(self.fields))

    @property
    def cause(self) -> str:
        return self.explanation.cause.format_map(_Fields(self.fields))

    @property
    def remedy(self) -> str:
        return self.explanation.remedy.format_map(_Fields(self.fields))

    def to_json(self) -> dict[str, object]:
        return {
            "code": self.code.value,
            "message": self.happened,
            "cause": self.cause,
            "remedy": self.remedy,
            "fields": {name: printable(value) for name, value in self.fields.items()},
        }


class _Fields(dict[str, str]):
    """Makes every field printable, and an unnamed one visible instead of an exception in an error path."""

    def __init__(self, fields: Mapping[str, str]) -> None:
        super().__init__({name: printable(value) for name, value in fields.items()})

    def __missing__(self, key: str) -> str:
        return f"<{key}>"


def problem(code: Code, **fields: object) -> Problem:
    return Problem(code, MappingProxyType({name: str(value) for name, value in fields.items()}))


class ClaimdError(Exception):
    """A failure that claimd can name. Its `str` is the sentence for a person; it holds no secret."""

    def __init__(self, what: Problem) -> None:
        super().__init__(what.happened)
        self.problem = what


def fail(code: Code, **fields: object) -> ClaimdError:
    """`raise fail(Code.DNS_FAILED, endpoint=…) from cause`"""
    return ClaimdError(problem(code, **fields))
