"""The words of every failure: what happened, the likely cause, what to do.

Invariant: a text that a person reads stands here once, and docs/failures.md is made from it. Texts take
fields by `str.format`: names, numbers and paths, never file contents, so that a text can't leak a key.
A command stands in backticks: a terminal keeps it on one line, and a test runs or parses it.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

from .codes import Code, Exit, Kind

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True)
class Explanation:
    """The words of one code. All three texts take fields by `str.format`."""

    kind: Kind
    exit: Exit
    happened: str
    cause: str
    remedy: str


_BY_ITSELF = "claimd tries again by itself while the claim lives"
_AGAIN = "nothing to do: " + _BY_ITSELF
_ENDPOINT = "`aws iot describe-endpoint --endpoint-type iot:Data-ATS`"
# Not claimd.toml: what `claimd setup` or a site's drop-in sets overrides it.
_WHERE_IT_IS_SET = "in /etc/claimd (`claimd config show` says where it is set)"
_TMPFILES = "run `sudo systemd-tmpfiles --create claimd.conf`"
_NEW_CLAIM = (
    "make a new claim with `aws iot create-provisioning-claim --template-name {template}` and copy it here"
    " within five minutes"
)


def certificate_arn(certificate_id: str) -> str:
    """For a command that takes an ARN, which the device does not know: a word of a shell that asks for it."""
    return (
        f'"$(aws iot describe-certificate --certificate-id {certificate_id}'
        ' --query certificateDescription.certificateArn --output text)"'
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
        "wait until the copy is done; if nothing more comes, copy or paste the whole of it again",
    ),
    Code.CLAIM_NOT_RECOGNISED: Explanation(
        Kind.WAITING,
        Exit.CLAIM_UNUSABLE,
        "{file} holds no claim: {detail}",
        "a file that is not the output of create-provisioning-claim, or a damaged copy",
        "copy the output of `aws iot create-provisioning-claim --template-name {template}` as it is,"
        " or certificate and key as PEM files",
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
        "copy the claim as an ordinary file of its own (no link)",
    ),
    Code.DROP_ENTRY_EXPOSED: Explanation(
        Kind.WAITING,
        Exit.CLAIM_UNUSABLE,
        "others may write to {file}: what is copied onto it can be read by whoever put it there",
        "another account made the name before the claim was copied, or the copy let others write",
        "if a claim was copied there, others may know it: make a new one, and drop it by `claimd put`",
    ),
    Code.DROP_ENTRY_UNREADABLE: Explanation(
        Kind.WAITING,
        Exit.PERMISSION,
        "{file} can't be read: {detail}",
        "its mode shuts claimd out and claimd runs without its capability",
        "run `chmod -R u=rwX,go=rX {file}` where it lies, or start claimd by its unit:"
        " `sudo systemctl restart claimd`",
    ),
    Code.DROP_DIRECTORY_MISSING: Explanation(
        Kind.WAITING,
        Exit.CONFIGURATION,
        "the drop directory {path} can't be used: {detail}",
        "it was removed, or the package's tmpfiles were not applied",
        _TMPFILES,
    ),
    Code.DROP_NOT_ALLOWED: Explanation(
        Kind.WAITING,
        Exit.PERMISSION,
        "this account may not copy into {path}",
        "it is not in the group claimd-drop, or has not logged in again since it is",
        "run `sudo usermod -aG claimd-drop {user}` and log in again, or put sudo before the command",
    ),
    Code.FOLDER_NOT_SWEPT: Explanation(
        Kind.WAITING,
        Exit.RETRY,
        "a folder that was copied into the drop directory waits there under a hidden name to be destroyed",
        "only root may empty another account's folder, and claimd-sweep.service has not done it",
        "run `sudo claimd sweep`; then look at `systemctl status claimd-sweep.path`",
    ),
    Code.CLAIM_EXPIRED: Explanation(
        Kind.UNUSABLE,
        Exit.CLAIM_UNUSABLE,
        "the claim {claim} expired at {not_after}; this device's clock says {now}",
        "a claim lives five minutes from the moment it was made (or this device's clock is ahead)",
        _NEW_CLAIM + "; if this one was made just now, the clock is ahead: compare `date -u` with the right"
        " time in UTC, and set it first",
    ),
    Code.CLAIM_RAN_OUT: Explanation(
        Kind.UNUSABLE,
        Exit.CLAIM_UNUSABLE,
        "the claim {claim} expired at {not_after} before AWS had confirmed the registration: {reason}",
        "what stood in the way stood there for as long as the claim lived; another claim meets it as well",
        "cure that first, see `claimd explain {trouble}`; then " + _NEW_CLAIM,
    ),
    Code.CLAIM_NOT_YET_VALID: Explanation(
        Kind.WAITING,
        Exit.RETRY,
        "the claim {claim} is valid only from {not_before}; this device's clock says {now}",
        "the device's clock is behind",
        "set the clock: `sudo date -u -s {date}`; the claim is kept and used then",
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
    Code.CLAIM_TOO_MANY: Explanation(
        Kind.WAITING,
        Exit.RETRY,
        "the claim {claim} waits in the drop directory: {count} others of this account are kept already",
        "many claims were copied, and none of them has become an identity yet",
        "see `claimd status` for what keeps the first ones; the others follow when those are used or expire",
    ),
    Code.CLAIM_ALREADY_TAKEN_IN: Explanation(
        Kind.WAITING,
        Exit.OK,
        "claim {claim} is already taken in; sed and chmod are not needed; this copy ({file}) was destroyed",
        "the file was copied, changed or given another mode after claimd had taken the claim in",
        "nothing to do; how far the claim has come is shown by `claimd status`",
    ),
    Code.CLAIM_NOT_NEEDED: Explanation(
        Kind.UNUSABLE,
        Exit.NOTHING_TO_DO,
        "the claim {claim} was destroyed unused: this device already has its identity ({identity})",
        'reprovision is "never" in the configuration',
        'nothing to do; to give the device a new identity set reprovision = "replace" '
        + _WHERE_IT_IS_SET
        + " and copy a new claim",
    ),
    Code.CLAIM_DAMAGED: Explanation(
        Kind.UNUSABLE,
        Exit.CLAIM_UNUSABLE,
        "the claim {claim} that was kept on disk can't be used: {detail}",
        "the file system lost or changed data, or somebody removed it",
        _NEW_CLAIM,
    ),
    Code.NOT_CONFIGURED: Explanation(
        Kind.WAITING,
        Exit.CONFIGURATION,
        "not configured: set {missing}",
        "claimd was installed and has not been told where to connect",
        "edit {file} (no restart needed), then look at `claimd status`",
    ),
    Code.CONFIG_INVALID: Explanation(
        Kind.WAITING,
        Exit.CONFIGURATION,
        "the configuration is wrong: {detail}",
        "a typing error in /etc/claimd",
        "correct it (no restart needed), then run `claimd config check`",
    ),
    Code.CONFIG_UNREADABLE: Explanation(
        Kind.WAITING,
        Exit.CONFIGURATION,
        "the configuration {file} can't be read: {detail}",
        "its mode or that of a folder above it shuts claimd out, or the file system has trouble",
        "run `sudo chmod a+rX {path}`",
    ),
    Code.CONFIG_MISSING: Explanation(
        Kind.WAITING,
        Exit.CONFIGURATION,
        "the configuration file {file} is not there",
        "a typing error in its name, or a link to a file that is gone",
        "name a file that is there, or put it there; without --config claimd reads /etc/claimd",
    ),
    Code.PARAMETER_UNRESOLVED: Explanation(
        Kind.BLOCKED,
        Exit.CONFIGURATION,
        "the template parameter {parameter} can't be filled in: {detail}",
        "this device does not have the fact that the configuration names",
        "change template.parameters " + _WHERE_IT_IS_SET + "; the claim is kept meanwhile",
    ),
    Code.CA_UNUSABLE: Explanation(
        Kind.BLOCKED,
        Exit.CONFIGURATION,
        "the root certificates can't be used: {file}: {detail}",
        "the file is missing or damaged; nothing else is trusted in its place",
        "run `sudo apt install --reinstall ca-certificates`, or set ca_file; the claim is kept meanwhile",
    ),
    Code.DNS_FAILED: Explanation(
        Kind.RETRY,
        Exit.RETRY,
        "the name {endpoint} can't be resolved",
        "no network, no DNS server, or a typing error in the endpoint",
        "check the cable or Wi-Fi, then try `getent hosts {endpoint}`",
    ),
    Code.CONNECTION_REFUSED: Explanation(
        Kind.RETRY,
        Exit.RETRY,
        "{endpoint} refused the connection on port {port}",
        "a firewall answers in its place, or endpoint or port is wrong",
        "ask for TCP {port} to {endpoint} to be opened, or correct port "
        + _WHERE_IT_IS_SET
        + "; "
        + _BY_ITSELF,
    ),
    Code.ENDPOINT_UNREACHABLE: Explanation(
        Kind.RETRY,
        Exit.RETRY,
        "{endpoint} can't be reached on port {port}: {detail}",
        "no route to the internet, or a firewall that drops the packets",
        "check the network; ask for TCP 8883 or 443 to {endpoint} to be opened",
    ),
    Code.PROXY_UNREACHABLE: Explanation(
        Kind.RETRY,
        Exit.RETRY,
        "the proxy {proxy} can't be used: {detail}",
        "the proxy or the network is down, or host or port under [proxy] in /etc/claimd is wrong",
        "check host and port under [proxy] with `claimd config show`, and the network; claimd tries again",
    ),
    Code.PROXY_REFUSED: Explanation(
        Kind.RETRY,
        Exit.RETRY,
        "the proxy {proxy} does not let this device through: {detail}",
        "username or password_file under [proxy] in /etc/claimd is wrong, or the proxy forbids this way",
        "correct them, or ask for CONNECT to the endpoint on port 8883 or 443 to be allowed; claimd tries"
        " again",
    ),
    Code.TLS_UNTRUSTED_CA: Explanation(
        # A captive portal goes away by itself, and nothing was sent: trying again is free.
        Kind.RETRY,
        Exit.REFUSED,
        "the server that answers as {endpoint} is not trusted: {detail}",
        "another machine answers in its place (a proxy that opens TLS), or ca_file is not the server's root",
        "see who signed it: `claimd doctor --only tls-interception`; correct endpoint or ca_file, or have"
        " {endpoint} exempted from TLS inspection; claimd tries again by itself while the claim lives",
    ),
    Code.TLS_WRONG_HOST: Explanation(
        Kind.RETRY,
        Exit.REFUSED,
        "the server that answers as {endpoint} shows a certificate for another name: {detail}",
        "the endpoint is an alias, or another machine answers in its place",
        "set endpoint to what this prints: " + _ENDPOINT,
    ),
    Code.TLS_SERVER_CERTIFICATE_TIME: Explanation(
        Kind.RETRY,
        Exit.RETRY,
        "the server's certificate is not valid at this device's time {now}: {detail}",
        "this device's clock is wrong",
        "set the clock: `sudo timedatectl set-ntp true`; " + _BY_ITSELF,
    ),
    Code.TLS_NO_ANSWER: Explanation(
        Kind.RETRY,
        Exit.RETRY,
        "{endpoint} takes connections on port {port} but does not speak TLS there",
        "a firewall or a captive portal answers in its place, or the port is wrong",
        "check port and network; " + _BY_ITSELF,
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
        "{endpoint} (region: {region}) does not accept the claim {claim}, which lives until {not_after}",
        "the claim was made in another AWS account or region than this endpoint's",
        "where the claim was made, compare account and endpoint: `aws sts get-caller-identity` and "
        + _ENDPOINT
        + "; correct endpoint "
        + _WHERE_IT_IS_SET
        + ", or make the claim in the right account and region",
    ),
    Code.CONNECT_REFUSED: Explanation(
        Kind.RETRY,
        Exit.REFUSED,
        "{endpoint} refused the MQTT connection: {detail}",
        "too many connections at once in this account, or the service is busy",
        _AGAIN,
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
        "make sure that the claim was copied to one device only; " + _BY_ITSELF,
    ),
    Code.SUBSCRIBE_REFUSED: Explanation(
        Kind.BLOCKED,
        Exit.REFUSED,
        "AWS does not let this claim use the template {template}",
        "the claim was made for another provisioning template, or the template's name has a typing error",
        "set template.name to the template that the claim was made for,"
        " one of `aws iot list-provisioning-templates`, or make one for {template}:"
        " `aws iot create-provisioning-claim --template-name {template}`",
    ),
    Code.PUBLISH_REFUSED: Explanation(
        Kind.BLOCKED,
        Exit.REFUSED,
        "AWS refused the request while {step}: {detail}",
        "the claim has no right to it: it was made for another provisioning template",
        "set template.name to the template that the claim was made for, or make one for {template}:"
        " `aws iot create-provisioning-claim --template-name {template}`",
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
        "check that endpoint is what this prints: " + _ENDPOINT,
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
        "set template.name to one of `aws iot list-provisioning-templates`; the claim is kept meanwhile",
    ),
    Code.PARAMETERS_REFUSED: Explanation(
        Kind.BLOCKED,
        Exit.REFUSED,
        "AWS refused the template parameters: {detail}",
        "a parameter of the template {template} is missing, unknown or has a value it does not take",
        "compare template.parameters with"
        " `aws iot describe-provisioning-template --template-name {template}`; the claim is kept meanwhile",
    ),
    Code.REGISTRATION_DENIED: Explanation(
        Kind.BLOCKED,
        Exit.REFUSED,
        "AWS denied the registration: {detail}",
        "the pre-provisioning hook of the template {template} refused this device, or its role lacks a right",
        "ask who runs the hook whether this device is on the list, then run `sudo claimd provision`;"
        " the claim is kept meanwhile",
    ),
    Code.TOKEN_INVALID: Explanation(
        Kind.RETRY,
        Exit.RETRY,
        "AWS does not take the certificate ownership token any more: {detail}",
        "the token lives one hour, or was used already",
        "nothing to do: claimd tries again with what it has, and then asks for another certificate, with the"
        " same claim while it lives, else with the next one",
    ),
    Code.REQUEST_REFUSED: Explanation(
        Kind.BLOCKED,
        Exit.REFUSED,
        "AWS refused the request while {step}: {detail}",
        "something in the account does not allow it",
        "read the message above; then run `sudo claimd provision`",
    ),
    Code.IDENTITY_REFUSED: Explanation(
        Kind.RETRY,
        Exit.REFUSED,
        "the device is registered, but AWS refuses its new identity: {detail}",
        "the template makes the certificate INACTIVE until somebody approves it, or its policy does not let"
        " the client id {client_id} connect",
        "approve it: `aws iot update-certificate --certificate-id {certificate_id} --new-status ACTIVE`, or"
        " correct the policy; claimd keeps the identity and tries again; if the certificate was deleted in"
        " AWS, only `sudo claimd forget`, which ends an old identity here as well, and a new claim help",
    ),
    Code.IDENTITY_UNPROVEN: Explanation(
        Kind.RETRY,
        Exit.RETRY,
        "the device is registered; its new identity could not connect yet: {detail}",
        "the network broke after the registration, or the service was busy",
        "nothing to do: claimd keeps the identity and tries again until it connects; no claim is needed",
    ),
    Code.IDENTITY_DAMAGED: Explanation(
        Kind.WAITING,
        Exit.DISK,
        "the stored identity {path} is damaged: {detail}",
        "the file system lost or changed data",
        "keep the folder, and " + _NEW_CLAIM + "; the device gets a new identity beside it",
    ),
    Code.IDENTITY_EXPIRES: Explanation(
        Kind.WAITING,
        Exit.OK,
        "the identity's certificate expires at {not_after}",
        "whoever issues the account's certificates gives them an end; AWS itself lets them live until 2049",
        'set reprovision = "replace" '
        + _WHERE_IT_IS_SET
        + ", then "
        + _NEW_CLAIM
        + "; the old one serves until then",
    ),
    Code.IDENTITY_EXPIRED: Explanation(
        Kind.WAITING,
        Exit.OK,
        "the identity's certificate has expired at {not_after}: AWS refuses it",
        "no new claim came in time, or the clock of this device is ahead",
        'look at the clock: `date -u`; if it is right, set reprovision = "replace" '
        + _WHERE_IT_IS_SET
        + ", then "
        + _NEW_CLAIM,
    ),
    Code.CLOCK_WRONG: Explanation(
        Kind.RETRY,
        Exit.RETRY,
        "this device's clock says {now}, which is years behind",
        "it has no battery, or has not been set since the device was switched on",
        "set the clock: `sudo timedatectl set-ntp true`, or by hand, with the time now in"
        " UTC: `sudo date -u -s 'YYYY-MM-DD HH:MM:SS'`",
    ),
    Code.OLD_IDENTITY_SERVES: Explanation(
        Kind.WAITING,
        Exit.OLD_IDENTITY_SERVES,
        "the identity {certificate} goes on serving: the new one is not in place",
        "a claim was dropped to replace it, and the new identity is not proved",
        "nothing to do for the old identity; `claimd status` says how the new one stands",
    ),
    Code.OLD_CERTIFICATE_ACTIVE: Explanation(
        Kind.WAITING,
        Exit.OK,
        "the certificate {certificate_id} of the earlier identity is still active in AWS",
        "the device got a new identity, and has no right to end the old one",
        "when nothing uses it any more, run"
        " `aws iot update-certificate --certificate-id {certificate_id} --new-status INACTIVE` and"
        " `aws iot detach-thing-principal --thing-name {thing_name} --principal "
        + certificate_arn("{certificate_id}")
        + "`"
        " where you have the rights",
    ),
    Code.DISK_FULL: Explanation(
        Kind.RETRY,
        Exit.DISK,
        "cannot write {path}: the disk is full",
        "no free blocks or inodes, or a quota is used up",
        "free some space, see `df -h {directory}` and `df -i {directory}`; the claim is kept meanwhile",
    ),
    Code.DISK_READ_ONLY: Explanation(
        Kind.RETRY,
        Exit.DISK,
        "cannot write {path}: the file system is read-only",
        "the disk failed and was set read-only, or it is mounted so",
        "look at `sudo dmesg`, then make it writable again: `sudo mount -o remount,rw MOUNT-POINT`;"
        " the claim is kept meanwhile",
    ),
    Code.DISK_FAILED: Explanation(
        Kind.RETRY,
        Exit.DISK,
        "cannot write or read {path}: {detail}",
        "the disk or its file system has trouble",
        "look at it and at `sudo dmesg`; the claim is kept meanwhile",
    ),
    Code.PERMISSION_DENIED: Explanation(
        Kind.RETRY,
        Exit.PERMISSION,
        "no permission for {path}: {detail}",
        "owner or mode of the directory changed, or the command needs root",
        "run it as root (sudo), or restore the directories: `sudo systemd-tmpfiles --create claimd.conf`",
    ),
    Code.STATE_DIRECTORY_MISSING: Explanation(
        Kind.RETRY,
        Exit.DISK,
        "the state directory {path} is missing",
        "its file system is not mounted, or the package's tmpfiles were not applied",
        _TMPFILES,
    ),
    Code.STATE_OF_ANOTHER_DEVICE: Explanation(
        Kind.BLOCKED,
        Exit.CONFIGURATION,
        "what lies in {path} belongs to another device: /etc/machine-id is not the one it was made with",
        "this is a copy of a device that had a claim or an identity, or /etc/machine-id was made anew",
        "on a copy run `sudo claimd forget` and drop a claim of its own; where it is the same device run"
        " `sudo claimd provision --adopt`; until then claimd touches nothing",
    ),
    Code.ATTEMPT_UNREADABLE: Explanation(
        Kind.WAITING,
        Exit.DISK,
        "the record of the attempt {path} can't be used: {detail}",
        "it was written by a newer claimd, or changed by hand",
        "install the newer claimd again, or move the file aside after reading it; no key is deleted",
    ),
    Code.STATUS_UNREADABLE: Explanation(
        Kind.WAITING,
        Exit.DISK,
        "what the last pass wrote into {path} can't be read: {detail}",
        "another version of claimd or another program wrote it; nothing is known of the identity by it",
        "have it written anew: `sudo claimd provision`; an identity that is there serves meanwhile",
    ),
    Code.SERVICE_STOPPED: Explanation(
        Kind.WAITING,
        Exit.RETRY,
        "the service is not running: nobody takes in what is dropped",
        "it was stopped, or not started since claimd was installed",
        "start it: `sudo systemctl start claimd`",
    ),
    Code.PASS_RUNNING: Explanation(
        Kind.RETRY,
        Exit.RETRY,
        "another pass is at work (process {pid})",
        "the service is provisioning right now",
        "try again in a moment; `claimd status` shows how far it is",
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
        "nothing to do for the device: claimd tries again; please send the file of `sudo claimd report`",
    ),
    Code.INTERNAL_ERROR: Explanation(
        Kind.RETRY,
        Exit.BUG,
        "an error in claimd itself: {detail}",
        "a fault in the program, not in the device or the claim",
        "claimd tries again; please send the file of `sudo claimd report`",
    ),
}

CATALOGUE: Mapping[Code, Explanation] = MappingProxyType(_CATALOGUE)
