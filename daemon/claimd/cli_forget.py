"""The way out: claimd forget."""

from __future__ import annotations

import argparse
import os
import sys
import time
from typing import TYPE_CHECKING

from .errors import Exit
from .terminal import INTERRUPTED, columns, complain, say, tell
from .words import wrapped

if TYPE_CHECKING:
    from .forget import Memory, Remembered
    from .model import Layout
    from .store import Store
    from .terminal import Commands

ADOPT = "sudo claimd provision --adopt"


def add_to(commands: Commands) -> None:
    forget = commands.add_parser(
        "forget", help="destroy this device's identity, its open attempt and its claims"
    )
    forget.add_argument("--yes", action="store_true", help="do not ask")
    forget.add_argument(
        "--generalize",
        action="store_true",
        help="prepare an image for cloning: also what was dropped; fails if a secret is left",
    )
    forget.set_defaults(command=_forget)


def _forget(options: argparse.Namespace, layout: Layout) -> int:
    from . import logs, system
    from .durable import Disk, disk_problem
    from .forget import (
        Memory,
        NotAgreedError,
        clear_the_drop,
        clear_what_hooks_have_seen,
        forgotten,
        left_behind,
        memory,
        take_back_words,
    )
    from .hooks import Hooks
    from .lock import for_a_moment
    from .looking import elapsed
    from .store import Store

    system.hide_memory()
    if not options.generalize:
        _give_up_root(layout)
    os.umask(0o027)
    logs.to_journal()
    store = Store(layout, Disk())
    there = Memory((), (), has_record=False)

    def remember(found: Memory) -> None:
        nonlocal there
        there = found
        if options.generalize:
            # Root's own, so it goes before root is given up; by now all is agreed, and no pass is at work.
            with Hooks(layout, store, store.disk).locked():
                clear_what_hooks_have_seen(layout, store)
            _give_up_root(layout)

    try:
        there = memory(store)
        if there.is_empty and not store.is_forgetting() and not options.generalize:
            print("nothing to forget: this device has no identity, no attempt and no claim")
            return Exit.NOTHING_TO_DO
        if not options.yes and not _agreed(there):
            return Exit.USAGE
        wait = for_a_moment(elapsed, time.sleep, lambda: False, _say_meanwhile)
        with forgotten(store, wait, agreed=None if options.yes else there, found=remember):
            take_back_words(layout, store)
            if options.generalize:
                clear_the_drop(layout, store)
            left = left_behind(layout) if options.generalize else []
    except NotAgreedError:
        words = (
            "nothing was destroyed: this device has got an identity since the question was asked;"
            " look at it with claimd status, and run claimd forget again if it is to go"
        )
        tell([words], sys.stderr)
        return Exit.USAGE
    except KeyboardInterrupt:
        tell(["claimd: given up; " + _how_far(store, there)], sys.stderr)
        return INTERRUPTED
    except OSError as error:
        found = disk_problem(error, layout.state_directory)
        complain(found)
        tell([_how_far(store, there)], sys.stderr)
        return found.exit
    tell(["forgotten: this device has no identity, no attempt and no claim any more"], sys.stdout)
    _name_the_commands(there)
    if options.generalize:
        return _judge_image(left)
    _say_whether_ready(store, options.config)
    return Exit.OK


def _give_up_root(layout: Layout) -> None:
    """Before anything is written that the daemon has to write as well."""
    from . import system

    if not layout.root:
        system.become_service_user()


def _how_far(store: Store, there: Memory) -> str:
    """Of one that was broken off. For what is gone the commands are named now: nobody else knows it."""
    try:
        begun, left = store.is_forgetting(), {*store.staged()}
        gone = any(each.certificate_id not in left for each in there.identities)
        gone = gone or (there.has_record and not store.has_record)
    except OSError:
        return "how far it came can't be told now: run claimd forget again"
    if not (begun or gone):
        return "nothing was destroyed"
    _name_the_commands(there)
    if begun:
        return "what was begun is finished by the service's next pass, or by claimd forget again"
    return "identity, attempt and claims are destroyed; what status says of them goes with the next pass"


def _say_meanwhile(sentence: str) -> None:
    tell([sentence], sys.stderr)


def _say_whether_ready(store: Store, config_file: str | None) -> None:
    """In latest.txt: nothing that the service watches has changed, so that it may look in an hour only."""
    from . import ready
    from .answering import Answers
    from .terminal import now

    found = ready.trouble(store.layout, config_file, now())
    Answers(store.layout, store).tell_readiness(now(), found)


def _agreed(there: Memory) -> bool:
    """Ask on a terminal; elsewhere there is nobody to ask."""
    if not sys.stdin.isatty():
        print(
            "claimd forget destroys what can't be got back; without a terminal it needs --yes",
            file=sys.stderr,
        )
        return False
    if there.is_foreign:
        whose = (
            "This disk was copied from another device, which keeps its own; only what is on this one is"
            f" destroyed. If it is the same device with a new /etc/machine-id, answer no and run: {ADOPT}"
        )
        say(wrapped(whose, commands=[ADOPT], columns=columns(sys.stdout)))
    for each in there.identities:
        what = "the identity of" if each.serves else "a key of"
        print(f"{what} {_thing(each)}, certificate {each.certificate_id}")
    print(f"claims: {len(there.claims)}")
    print(
        "All of this is destroyed. This device then needs a new claim. Type yes to go on: ",
        end="",
        flush=True,
    )
    if sys.stdin.readline().strip() == "yes":
        return True
    print("nothing was destroyed")
    return False


def _thing(each: Remembered) -> str:
    return each.thing_name or "a thing whose name is not known"


def _name_the_commands(there: Memory) -> None:
    if not there.identities:
        return
    if there.is_foreign:
        _warn_of_the_original(there)
        return
    from .catalogue import certificate_arn
    from .documents import deactivation

    lines = ["AWS still knows the certificates. Whoever may, ends them there with:"]
    for each in there.identities:
        lines += [f"  {command}" for command in deactivation(each.certificate_id, each.thing_name)]
        if each.thing_name is None:
            lines += [
                "  # its things, each for the command that detaches it:",
                f"  aws iot list-principal-things --principal {certificate_arn(each.certificate_id)}",
            ]
        lines.append(f"  aws iot delete-certificate --certificate-id {each.certificate_id} --force-delete")
    tell(lines, sys.stdout)


def _warn_of_the_original(there: Memory) -> None:
    """No command to paste: it would take down the device that was copied, which knows its certificates."""
    belongs = (
        "In AWS this belongs to the device that the disk was copied from. Leave it alone as long as that"
        " device lives: ending it there takes that device down."
    )
    gone = (
        "Only where that device is gone for good, or is this very one with a new /etc/machine-id, somebody"
        " with the rights ends it there."
    )
    lines = [
        *wrapped(belongs, columns=columns(sys.stdout)),
        *(f"  certificate {each.certificate_id} of {_thing(each)}" for each in there.identities),
        *wrapped(gone, columns=columns(sys.stdout)),
    ]
    tell(lines, sys.stdout)


def _judge_image(left: list[str]) -> int:
    if not left:
        tell(["the image holds no secret and no memory of this device"], sys.stdout)
        return Exit.OK
    lines = [
        "claimd: the image must not be cloned: these are still there",
        *(f"  {path}" for path in left),
        "  what to do: stop the service (sudo systemctl stop claimd), remove them, try again",
    ]
    tell(lines, sys.stderr)
    return Exit.DISK
