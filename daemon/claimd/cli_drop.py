"""The commands around the drop directory: put, inspect, ready, sweep."""

from __future__ import annotations

import argparse
import json
import os
import sys
from typing import TYPE_CHECKING, Any

from .errors import Code, Exit, general, printable, problem
from .terminal import INTERRUPTED, complain, now, service, start_command, status, stopped, warn_if_stopped

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .errors import Problem
    from .inspection import Inspection
    from .model import Claim, Layout
    from .report import Advice
    from .terminal import Commands

STANDARD_INPUT = "standard input"
PASTE = "the paste"
_OTHER_HALF = {Code.CLAIM_KEY_MISSING: "KEY-FILE", Code.CLAIM_CERTIFICATE_MISSING: "CERTIFICATE-FILE"}


def add_to(commands: Commands) -> None:
    put = commands.add_parser(
        "put", help="drop a claim: from files, from standard input, or pasted into the terminal"
    )
    put.add_argument("files", nargs="*", metavar="FILE", help="- or none: standard input")
    put.add_argument("--json", action="store_true", help="print one JSON object")
    put.add_argument("--wait", action="store_true", help="wait for its end, as claimd wait does")
    put.add_argument("--timeout", default="5m", metavar="TIME", help="with --wait: 90s, 5m, 1h (default 5m)")
    put.set_defaults(command=_put)

    inspect = commands.add_parser("inspect", help="say what files hold and whether they are a usable claim")
    inspect.add_argument("files", nargs="+", metavar="FILE", help="-: standard input")
    inspect.add_argument("--json", action="store_true", help="print one JSON object")
    inspect.set_defaults(command=_inspect)

    ready = commands.add_parser("ready", help="say whether a claim that is dropped now would find its way")
    ready.add_argument("--json", action="store_true", help="print one JSON object")
    ready.set_defaults(command=_ready)

    sweep = commands.add_parser(
        "sweep", help="destroy the folders that claimd set aside in the drop directory (as root)"
    )
    sweep.set_defaults(command=_sweep)


def _put(options: argparse.Namespace, layout: Layout) -> int:
    from . import system, waiting
    from .inspection import inspect

    system.hide_memory()
    try:
        seconds = waiting.seconds(options.timeout)
    except ValueError as error:
        print(f"claimd put: {error}", file=sys.stderr)
        return Exit.USAGE
    try:
        files = _read(options.files or ["-"])
    except KeyboardInterrupt:
        print("claimd: given up; nothing was dropped", file=sys.stderr)
        return INTERRUPTED
    if files is None:
        return Exit.USAGE
    found = inspect(files, now())
    for each in found.problems.values():
        complain(each, _advice(each, "it was not dropped" if found.usable else "nothing was dropped"))
    if not found.usable:
        return Exit.CLAIM_UNUSABLE
    dropped, trouble = _drop(layout, found.usable)
    if options.json:
        print(json.dumps({"schema": 1, "dropped": dropped, "problem": trouble and trouble.to_json()}))
    elif trouble is not None:
        complain(trouble)
    else:
        _say_dropped(found)
    if trouble is None and options.wait:
        from .cli_status import wait_for

        return wait_for(layout, dropped[-1]["fingerprint"], seconds)
    if dropped:
        warn_if_stopped(layout)
    return Exit.OK if trouble is None else trouble.exit


def _advice(found: Problem, what: str) -> Advice | None:
    """Who put a part of a claim has to put all of it: nothing of it is kept, unlike in the drop directory."""
    from shlex import quote

    from .report import Advice

    other = _OTHER_HALF.get(found.code)
    if other is None and found.code is not Code.CLAIM_STILL_ARRIVING:
        return None
    name = found.fields["file"]
    half = "only one of its two halves was given"
    if name == PASTE:
        cause = "the paste was ended before the claim was whole"
        return Advice(cause, f"{what}; paste all of it again:", "claimd put")
    if name == STANDARD_INPUT:
        if other is None:
            cause = "the input ended before the claim was whole, or the command before the pipe failed"
            return Advice(cause, f"{what}; send the whole of it again")
        command = "cat CERTIFICATE-FILE KEY-FILE | claimd put"
        return Advice(half, f"{what}; send both:", command)
    if other is None:
        command = f"claimd put {quote(printable(name))}"
        return Advice("it was copied in part", f"{what}; copy it again, then:", command)
    return Advice(half, f"{what}; give both:", f"claimd put {quote(printable(name))} {other}")


def _drop(layout: Layout, claims: tuple[Claim, ...]) -> tuple[list[dict[str, str]], Problem | None]:
    """What was dropped, and why the rest was not."""
    from .drop import put
    from .durable import Disk, disk_problem

    path, dropped = layout.drop_directory, []
    for claim in claims:
        try:
            dropped.append({"fingerprint": claim.fingerprint, "file": put(path, Disk(), claim)})
        except PermissionError:
            return dropped, problem(Code.DROP_NOT_ALLOWED, path=path, user=_user())
        except FileNotFoundError:
            return dropped, problem(Code.DROP_DIRECTORY_MISSING, path=path, detail="it is not there")
        except OSError as error:
            return dropped, disk_problem(error, path)
    return dropped, None


def _say_dropped(found: Inspection) -> None:
    from .report import remaining

    for claim in found.usable:
        certificate = claim.certificate
        left = remaining(certificate.not_after, now(), certificate.not_before)
        print(f"claim {claim.fingerprint}")
        print(f"dropped, {left}; follow it with: claimd status")


def _inspect(options: argparse.Namespace, layout: Layout) -> int:
    from . import inspection, system

    system.hide_memory()
    try:
        files = _read(options.files)
    except KeyboardInterrupt:
        return INTERRUPTED
    if files is None:
        return Exit.USAGE
    found = inspection.inspect(files, now())
    if options.json:
        print(json.dumps(inspection.document(found, now()), indent=2))
    else:
        print("\n".join(inspection.lines(found, now())))
    return Exit.OK if found.usable else Exit.CLAIM_UNUSABLE


def _read(names: list[str]) -> dict[str, bytes] | None:
    """By name, each up to a little more than a claim may have; None when one can't be read."""
    from .pem import MAX_FILE_BYTES

    files = {}
    for name in names:
        try:
            if name == "-" and os.isatty(0):
                files[PASTE] = _read_paste()
            elif name == "-":
                with open(0, "rb", closefd=False) as file:
                    files[STANDARD_INPUT] = file.read(MAX_FILE_BYTES + 1)
            else:
                with open(name, "rb") as file:
                    files[name] = file.read(MAX_FILE_BYTES + 1)
        except OSError as error:
            print(f"claimd: cannot read {name!r}: {error.strerror}", file=sys.stderr)
            return None
    return files


def _read_paste() -> bytes:
    from .paste import read_paste

    return read_paste(0, _invite, _Pasting().tell)


def _invite() -> None:
    print(
        "Paste the claim: what the aws command printed, or the certificate and then the private key.\n"
        "Nothing is shown. It ends by itself when the claim is whole; Ctrl-D ends it before.",
        file=sys.stderr,
        flush=True,
    )


class _Pasting:
    """Says what is still missing, each thing once."""

    def __init__(self) -> None:
        self._said = ""

    def tell(self, text: bytes) -> bool:
        from .inspection import inspect

        found = inspect({PASTE: text}, now())
        material = found.materials[PASTE]
        if found.claims:
            self._say("The claim is whole.")
            return True
        if material.certificates and material.keys:
            self._say("The private key is not that of the certificate: paste the other half.")
        elif material.certificates:
            self._say("The certificate is here. Now paste the private key.")
        elif material.keys:
            self._say("The private key is here. Now paste the certificate.")
        elif text.strip() and found.refusal is not None:
            self._say(f"Not yet: {found.refusal.happened}. Paste on, or paste it again.")
        return False

    def _say(self, sentence: str) -> None:
        if sentence != self._said:
            print(sentence, file=sys.stderr, flush=True)
        self._said = sentence


def _user() -> str:
    import pwd

    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


def _ready(options: argparse.Namespace, layout: Layout) -> int:
    from . import answer, ready, system

    if not layout.root:
        # What the daemon may read decides, not what root may.
        system.become_service_user()
    found = _of_another_device(layout) or ready.trouble(layout, options.config, now())
    identity = _identity_that_stays(layout, options.config) if found is None else None
    if identity is not None:
        if options.json:
            print(json.dumps({"schema": 1, "ready": False, "problem": None}))
        else:
            print("\n".join(answer.of_no_need(identity)))
        return Exit.NOTHING_TO_DO
    start = start_command(layout) if service(layout) is None else None
    said: Mapping[str, object] | None = stopped(layout) if start is not None else None
    if found is not None:
        said = found.to_json()
    if options.json:
        print(json.dumps({"schema": 1, "ready": said is None, "problem": said}))
    else:
        print("\n".join(answer.of_readiness(found, layout.drop_directory, start)))
    return Exit.OK if said is None else general(Code(said["code"])).exit


def _of_another_device(layout: Layout) -> Problem | None:
    """Who may not look into the state directory has it from the last pass."""
    from . import origin
    from .durable import Disk
    from .store import Store

    try:
        return origin.foreign(Store(layout, Disk()), layout)
    except OSError:
        told = status(layout)["problem"]
        if told is None or told["code"] != Code.STATE_OF_ANOTHER_DEVICE.value:
            return None
        return problem(Code.STATE_OF_ANOTHER_DEVICE, path=layout.state_directory)


def _identity_that_stays(layout: Layout, config_file: str | None) -> Mapping[str, Any] | None:
    """The identity of a device that takes no other one."""
    from . import config

    if config.load(layout, config_file).config.reprovision == "replace":
        return None
    found: Mapping[str, Any] | None = status(layout)["identity"]
    return found


def _sweep(options: argparse.Namespace, layout: Layout) -> int:
    from .durable import Disk, disk_problem
    from .sweep import sweep

    try:
        done = sweep(Disk(), layout.drop_directory)
    except OSError as error:
        found = disk_problem(error, layout.drop_directory)
        complain(found)
        return found.exit
    if done.left:
        complain(problem(Code.FOLDER_NOT_SWEPT))
        return Exit.RETRY
    if done.removed:
        print(f"{done.removed} names destroyed", file=sys.stderr)
    return Exit.OK
