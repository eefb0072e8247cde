"""The closed sets of failures: exit codes, what a failure means, and its stable name.

Invariant: a code never changes its meaning; scripts, documentation and support are built on it.
"""

from __future__ import annotations

from enum import Enum, IntEnum


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
    DROP_ENTRY_EXPOSED = "drop-entry-exposed"
    DROP_ENTRY_UNREADABLE = "drop-entry-unreadable"
    DROP_DIRECTORY_MISSING = "drop-directory-missing"
    DROP_NOT_ALLOWED = "drop-not-allowed"
    FOLDER_NOT_SWEPT = "folder-not-swept"
    # what the claim is
    CLAIM_EXPIRED = "claim-expired"
    CLAIM_RAN_OUT = "claim-ran-out"
    CLAIM_NOT_YET_VALID = "claim-not-yet-valid"
    CLAIM_IS_PERMANENT = "claim-is-permanent"
    CLAIM_SUPERSEDED = "claim-superseded"
    CLAIM_TOO_MANY = "claim-too-many"
    CLAIM_ALREADY_TAKEN_IN = "claim-already-taken-in"
    CLAIM_NOT_NEEDED = "claim-not-needed"
    CLAIM_DAMAGED = "claim-damaged"
    # configuration
    NOT_CONFIGURED = "not-configured"
    CONFIG_INVALID = "config-invalid"
    CONFIG_UNREADABLE = "config-unreadable"
    CONFIG_MISSING = "config-missing"
    PARAMETER_UNRESOLVED = "parameter-unresolved"
    CA_UNUSABLE = "ca-unusable"
    # the way to the endpoint
    DNS_FAILED = "dns-failed"
    CONNECTION_REFUSED = "connection-refused"
    ENDPOINT_UNREACHABLE = "endpoint-unreachable"
    PROXY_UNREACHABLE = "proxy-unreachable"
    PROXY_REFUSED = "proxy-refused"
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
    IDENTITY_EXPIRES = "identity-expires"
    IDENTITY_EXPIRED = "identity-expired"
    OLD_IDENTITY_SERVES = "old-identity-serves"
    OLD_CERTIFICATE_ACTIVE = "old-certificate-active"
    # this machine
    CLOCK_WRONG = "clock-wrong"
    DISK_FULL = "disk-full"
    DISK_READ_ONLY = "disk-read-only"
    DISK_FAILED = "disk-failed"
    PERMISSION_DENIED = "permission-denied"
    STATE_DIRECTORY_MISSING = "state-directory-missing"
    STATE_OF_ANOTHER_DEVICE = "state-of-another-device"
    ATTEMPT_UNREADABLE = "attempt-unreadable"
    STATUS_UNREADABLE = "status-unreadable"
    SERVICE_STOPPED = "service-stopped"
    PASS_RUNNING = "pass-running"  # noqa: S105  the name of a failure
    INTERRUPTED = "interrupted"
    PASS_TIMED_OUT = "pass-timed-out"  # noqa: S105  the name of a failure
    PASS_CRASHED = "pass-crashed"  # noqa: S105  the name of a failure
    INTERNAL_ERROR = "internal-error"
