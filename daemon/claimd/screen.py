"""What a person reads on a terminal: the status, its changes, explained failures. Pure.

Invariant: every sentence is made from the document that `claimd status --json` prints, so that text and
JSON can't disagree; the frame is plain ASCII, and a line is at most 80 columns unless a command, a path
or a name is longer.
"""

from __future__ import annotations

import math
import textwrap
from datetime import datetime
from typing import TYPE_CHECKING, Any

from . import attempt as table
from .attempt import State
from .catalogue import certificate_arn
from .errors import Code, Exit, Kind, general
from .model import DeviceState, short, spoken
from .report import is_unproven, remaining_of
from .words import COLUMNS, labelled

if TYPE_CHECKING:
    from collections.abc import Mapping

_STATE_WORDS = {
    DeviceState.UNPROVISIONED: "no identity yet, waiting for a claim",
    DeviceState.WAITING: "waiting, see below",
    DeviceState.PROVISIONING: "provisioning, a claim is being exchanged for an identity",
    DeviceState.BLOCKED: "blocked, the claim is kept until this is cured",
    DeviceState.REFUSED: "refused, see below",
    DeviceState.PROVISIONED: "provisioned, this device has its permanent identity",
}
# The straight line, as a person follows it.
_STAGES = {
    State.CLAIMED: "claim taken in",
    State.KEYS_REQUESTED: "certificate asked for",
    State.KEYS_STAGED: "certificate and key stored",
    State.REGISTERING: "registration asked for",
    State.REGISTERED: "registered",
    State.ACTIVE: "connected, identity in place",
}
_DONE, _NOW, _OPEN = "[x]", "[>]", "[ ]"
_LABEL_COLUMNS = 14
_SHOWN_FILES = 5
_SHOWN_OUTCOMES = 5
# After these the next pass is no try: it tidies up.
# The rest of a claim is a person's to bring: the next pass is the one that removes what there is of it.
NOT_TRIED_AGAIN = frozenset(
    code.value for code in Code if general(code).exit in {Exit.OK, Exit.CLAIM_UNUSABLE, Exit.NOTHING_TO_DO}
) | {
    Code.CLAIM_KEY_MISSING.value,
    Code.CLAIM_CERTIFICATE_MISSING.value,
    Code.CLAIM_STILL_ARRIVING.value,
    # An edit is seen at once; the next pass by itself is the one at the claim's end.
    Code.CONFIG_INVALID.value,
    Code.NOT_CONFIGURED.value,
}


START = "sudo systemctl start claimd"


def status_lines(
    document: Mapping[str, Any], now: datetime, columns: int = COLUMNS, *, start: str = START
) -> list[str]:
    """`claimd status` for a person: label and value, one screen. `start`: the command for the service."""
    state = DeviceState(document["state"])
    lines = _line("state", _state(document), columns)
    if document["identity"] is not None:
        lines += _identity_lines(document["identity"], columns)
    if document["attempt"] is not None:
        lines += _attempt_lines(document["attempt"], now, columns)
    found = document["problem"]
    if found is not None:
        lines += _problem_lines(found, columns)
    next_try = _next_try(document, now)
    if next_try is not None:
        lines += _line("next try", next_try, columns)
    if _needs_the_service(document):
        lines += _with_command("what to do", _start(document, start), start, columns)
    elif state is DeviceState.UNPROVISIONED and found is None:
        lines += _line("what to do", f"copy a claim into {document['drop_directory']}", columns)
    lines += _line("drop", _dropped(document), columns)
    for entry in document["drop"][:_SHOWN_FILES]:
        if found is None or entry["problem"]["message"] != found["message"]:
            lines += _line("", entry["problem"]["message"], columns)
    more = max(0, len(document["drop"]) - _SHOWN_FILES) + document["drop_more"]
    if more:
        lines += _line("", f"and {more} more that are no claim, or not yet", columns)
    for note in document["notes"]:
        lines += _line("note", note["message"], columns)
        if note["code"] == Code.OLD_CERTIFICATE_ACTIVE:
            # The only note that asks a person to do something, elsewhere and at a time of their choice.
            lines += labelled(
                "what to do",
                note["remedy"],
                width=_LABEL_COLUMNS,
                commands=note["commands"],
                columns=columns,
            )
    lines += _with_command("service", _service(document["service"], start), start, columns)
    for outcome in list(reversed(document["history"]))[:_SHOWN_OUTCOMES]:
        lines += _line("earlier", _outcome(outcome), columns)
    return lines


def _state(document: Mapping[str, Any]) -> str:
    words = _STATE_WORDS[DeviceState(document["state"])]
    attempt = document["attempt"]
    if is_unproven(document["identity"], attempt):
        return f"{words}; the identity is in place, but has not connected yet"
    if (
        document["identity"] is not None
        and attempt is not None
        and State(attempt["state"]) not in table.ENDED
    ):
        return f"{words}; a new one is on its way"
    return words


def _identity_lines(identity: Mapping[str, Any], columns: int) -> list[str]:
    certificate = str(identity.get("certificate_id"))
    name = identity.get("thing_name")
    lines = []
    if name:
        lines += _line("thing", str(name), columns)
    elif identity.get("thing_name_known"):
        lines += _line("thing", "none: the template makes none", columns)
    else:
        command = f"aws iot list-principal-things --principal {certificate_arn(certificate)}"
        lines += labelled(
            "thing",
            f"unknown, its name was lost with an answer; see {command}",
            width=_LABEL_COLUMNS,
            commands=[command],
            columns=columns,
        )
    lines += _line("certificate", certificate, columns)
    lines += _line("valid until", _time(identity.get("certificate_not_after")), columns)
    lines += _line("endpoint", f"{identity.get('endpoint')} port {identity.get('port')}", columns)
    return lines + _line("client id", str(identity.get("client_id")), columns)


def _attempt_lines(attempt: Mapping[str, Any], now: datetime, columns: int) -> list[str]:
    lines = []
    open_still = State(attempt["state"]) not in table.ENDED
    claim = attempt["claim"]
    if State(attempt["state"]) is State.REGISTERED:
        pass  # it needs no claim any more
    elif claim is not None and open_still:
        left = remaining_of(claim, now)
        lines += _line("claim", f"{short(claim['fingerprint'])}, {left}", columns)
    elif open_still:
        lines += _line("claim", "none left: copy a new one, the key that AWS issued is kept", columns)
    reached = _reached(attempt)
    if not open_still:
        if State(attempt["state"]) is State.ACTIVE:
            lines += _line(
                "attempt", f"took {_took(attempt)}, ended {_time(attempt['stages'][-1]['at'])}", columns
            )
        return lines
    previous: datetime | None = None
    for number, (stage, words) in enumerate(_STAGES.items()):
        label = f"{'attempt:' if number == 0 else '':<{_LABEL_COLUMNS}}"
        at = reached.get(stage)
        if at is None:
            lines.append(f"{label}{_OPEN} {words}")
            continue
        mark = _NOW if stage.value == attempt["state"] and stage not in table.ENDED else _DONE
        since = "" if previous is None else f"  +{(at - previous).total_seconds():.1f} s"
        lines.append(f"{label}{mark} {words:<30}{at:%H:%M:%S}{since}")
        previous = at
    return lines


def _reached(attempt: Mapping[str, Any]) -> dict[State, datetime]:
    """When each stage was reached last; what an attempt went back behind is open again."""
    reached: dict[State, datetime] = {}
    order = list(_STAGES)
    for stage in attempt["stages"]:
        state = State(stage["state"])
        if state in _STAGES:
            reached = {s: at for s, at in reached.items() if order.index(s) < order.index(state)}
            reached[state] = datetime.fromisoformat(stage["at"])
    return reached


def _took(attempt: Mapping[str, Any]) -> str:
    first, last = (datetime.fromisoformat(attempt["stages"][i]["at"]) for i in (0, -1))
    return f"{(last - first).total_seconds():.1f} s"


def _problem_lines(found: Mapping[str, Any], columns: int) -> list[str]:
    """`found`: as Problem.to_json makes it; an older worker's may lack the commands."""
    lines = _line("problem", str(found["message"]), columns)
    lines += _code_lines(str(found["code"]), columns)
    if found.get("cause"):
        lines += _line("likely cause", str(found["cause"]), columns)
    if found.get("remedy"):
        lines += labelled(
            "what to do",
            str(found["remedy"]),
            width=_LABEL_COLUMNS,
            commands=found.get("commands", ()),
            columns=columns,
        )
    return lines


def _code_lines(code: str, columns: int) -> list[str]:
    command = f"claimd explain {code}"
    return _with_command("code", f"{code} ({command})", command, columns)


def _next_try(document: Mapping[str, Any], now: datetime) -> str | None:
    attempt, service = document["attempt"], document["service"]
    at = attempt and attempt["next_try_at"]
    if document["state"] == DeviceState.BLOCKED.value and at is None:
        return None  # a pass comes when the claim expires; it is no try
    found = document["problem"]
    if at is None and service is not None and found is not None and found["code"] not in NOT_TRIED_AGAIN:
        at = service.get("next_pass_at")
    if at is None:
        return None
    when = datetime.fromisoformat(at)
    seconds = (when - now).total_seconds()
    return f"in {_span(seconds)} ({when:%H:%M:%S} UTC)" if seconds > 0 else "now"


def _span(seconds: float) -> str:
    whole = math.ceil(seconds)
    return f"{whole} s" if whole < 120 else f"{whole // 60}:{whole % 60:02d} min"


def _dropped(document: Mapping[str, Any]) -> str:
    names = document["dropped"]
    if names is None:
        return f"{document['drop_directory']} can't be listed by you"
    if not names:
        return "nothing"
    shown = ", ".join(names[:_SHOWN_FILES])
    more = f" and {len(names) - _SHOWN_FILES} more" if len(names) > _SHOWN_FILES else ""
    return f"{shown}{more} in {document['drop_directory']}"


def _needs_the_service(document: Mapping[str, Any]) -> bool:
    """It is not running, and there is something that it alone would do."""
    attempt = document["attempt"]
    under_way = attempt is not None and State(attempt["state"]) not in table.ENDED
    idle = document["state"] == DeviceState.PROVISIONED.value and not under_way and not document["dropped"]
    return document["service"] is None and not idle


def _start(document: Mapping[str, Any], start: str) -> str:
    if document["dropped"]:
        return f"start the service, it takes in what was dropped: {start}"
    if document["state"] == DeviceState.UNPROVISIONED.value:
        return f"start the service: {start}, then copy a claim into {document['drop_directory']}"
    return f"start the service: {start}"


def _service(service: Mapping[str, Any] | None, start: str) -> str:
    if service is None:
        return f"not running (start it: {start})"
    doing = "a pass is at work" if service.get("worker") else str(service.get("state"))
    return f"{doing}, process {service.get('pid')}, by {service.get('watch')}"


_RESULTS = {"active": "became the identity", "failed": "failed", "not-needed": "was not needed"}


def _outcome(outcome: Mapping[str, Any]) -> str:
    key = outcome["certificate_id"]
    other = f"certificate {short(key)}" if key and outcome["result"] == "failed" else "a claim"
    claim = f"claim {short(outcome['claim'])}" if outcome["claim"] else other
    why = f" [{outcome['code']}]" if outcome["code"] else ""
    thing = f" {outcome['thing_name']}" if outcome["thing_name"] else ""
    return f"{_time(outcome['at'])}  {claim} {_RESULTS.get(outcome['result'], outcome['result'])}{thing}{why}"


def _time(text: Any) -> str:
    try:
        return spoken(datetime.fromisoformat(text))
    except (TypeError, ValueError):
        return "unknown"


def _with_command(label: str, value: str, command: str, columns: int) -> list[str]:
    return labelled(label, value, width=_LABEL_COLUMNS, commands=[command], columns=columns)


def _line(label: str, value: str, columns: int) -> list[str]:
    if label:
        return labelled(label, value, width=_LABEL_COLUMNS, columns=columns)
    return ["  " + line[2:] for line in labelled("", value, width=_LABEL_COLUMNS, columns=columns)]


# --- changes, for a pipe


def changes(before: Mapping[str, Any] | None, after: Mapping[str, Any], now: datetime) -> list[str]:
    """What is new since `before`, a line each, oldest first; `before` None: where things stand."""
    found: list[tuple[str, str]] = []
    seen = set() if before is None else {_key(stage) for stage in _stages(before)}
    for stage in _stages(after):
        if before is not None and _key(stage) not in seen:
            found.append((stage["at"], _stage_words(stage, after["attempt"], now)))
    if before is None or _state(before) != _state(after):
        found.append(("", _state(after)))
    if _what(after) is not None and (before is None or _what(before) != _what(after)):
        found.append(("", f"{after['problem']['message']} [{after['problem']['code']}]"))
    old = [] if before is None else before["history"]
    found += [(o["at"], _outcome(o).partition("  ")[2]) for o in after["history"] if before and o not in old]
    times = [datetime.fromisoformat(at) if at else now for at, _ in found]
    return [f"{at:%H:%M:%S}  {text}" for at, (_, text) in zip(times, found, strict=True)]


def _stages(document: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [] if document["attempt"] is None else list(document["attempt"]["stages"])


def _key(stage: Mapping[str, Any]) -> tuple[str, str]:
    return stage["state"], stage["at"]


def _stage_words(stage: Mapping[str, Any], attempt: Mapping[str, Any], now: datetime) -> str:
    state = State(stage["state"])
    words = _STAGES.get(state, state.value)
    claim = attempt["claim"]
    if claim is None or state in (State.REGISTERED, State.ACTIVE):
        return words
    left = remaining_of(claim, now)
    return f"{words} (claim {short(claim['fingerprint'])}, {left})"


def _what(document: Mapping[str, Any]) -> Any:
    return None if document["problem"] is None else document["problem"]["message"]


def told(found: Mapping[str, Any], columns: int = COLUMNS) -> list[str]:
    """A problem from the document, as at the end of a wait."""
    return [
        *labelled("  what happened", str(found["message"]), width=17, columns=columns),
        *labelled("  likely cause", str(found.get("cause", "")), width=17, columns=columns),
        *labelled(
            "  what to do",
            str(found.get("remedy", "")),
            width=17,
            commands=found.get("commands", ()),
            columns=columns,
        ),
        *labelled("  code", str(found["code"]), width=17, columns=columns),
    ]


# --- colour

_GREEN, _YELLOW, _RED, _BOLD, _PLAIN = "\x1b[32m", "\x1b[33m", "\x1b[31m", "\x1b[1m", "\x1b[0m"
_STATE_COLOURS = {"provisioned": _GREEN, "blocked": _RED, "refused": _RED}

_VERDICT_COLOURS = {"ok": _GREEN, "warning": _YELLOW, "failed": _RED, "skipped": _BOLD}


def painted(line: str) -> str:
    """A line of the status with colour; the text is the same without."""
    label, _, value = line.partition(":")
    if label == "state":
        colour = _STATE_COLOURS.get(value.split(",")[0].strip(), _YELLOW)
        return f"{label}:{colour}{value}{_PLAIN}"
    if label in ("problem", "claimd"):
        return f"{label}:{_RED}{value}{_PLAIN}"
    if label.strip() == "what to do":
        return f"{label}:{_BOLD}{value}{_PLAIN}"
    first = line.split(" ", 1)[0]
    if first in _VERDICT_COLOURS and line[len(first) : 9].strip() == "":
        return f"{_VERDICT_COLOURS[first]}{first}{_PLAIN}{line[len(first) :]}"
    for mark, colour in ((_DONE, _GREEN), (_NOW, _YELLOW)):
        if mark in line[: _LABEL_COLUMNS + len(mark)]:
            return line.replace(mark, f"{colour}{mark}{_PLAIN}", 1)
    return line


# --- explain


def explained(code: Code, here: Mapping[str, Any] | None = None) -> list[str]:
    """`claimd explain CODE`; `here`: this device's problem, when it is of this code."""
    found = general(code)
    lines = [
        code.value,
        *labelled("  what happened", found.happened, width=17),
        *labelled("  likely cause", found.cause, width=17),
        *labelled("  what to do", found.remedy, width=17, commands=found.commands),
        *labelled("  by itself", BY_ITSELF[found.kind], width=17),
        *labelled("  exit code", f"{int(found.exit)} ({EXIT_WORDS[found.exit]})", width=17),
        *labelled("  documentation", found.documentation, width=17),
    ]
    if here is not None:
        commands = here.get("commands", ())
        lines += [
            "on this device now",
            *labelled("  what happened", here["message"], width=17),
            *labelled("  what to do", here["remedy"], width=17, commands=commands),
        ]
    return lines


def explained_list() -> list[str]:
    """`claimd explain --list`: a line a code, cut to the screen."""
    width = max(len(code.value) for code in Code) + 1
    return [
        f"{code.value:<{width}} {_cut(general(code).happened.removesuffix(': DETAIL'), COLUMNS - width - 1)}"
        for code in Code
    ]


def _cut(text: str, columns: int) -> str:
    return textwrap.shorten(text, columns, placeholder=" ...")


BY_ITSELF = {
    Kind.RETRY: "claimd tries again until it works, or until the claim expires",
    Kind.BLOCKED: "claimd waits, and keeps the claim, until this is cured",
    Kind.UNUSABLE: "nothing: the claim is destroyed",
    Kind.WAITING: "claimd waits and goes on when something changes",
}

EXIT_WORDS = {
    Exit.OK: "done",
    Exit.USAGE: "wrong use of the command",
    Exit.OLD_IDENTITY_SERVES: "no new identity, the old one serves",
    Exit.NOTHING_TO_DO: "nothing to do",
    Exit.CLAIM_UNUSABLE: "the claim can't be used",
    Exit.REFUSED: "refused or blocked by AWS",
    Exit.BUG: "an error in claimd",
    Exit.DISK: "the disk",
    Exit.RETRY: "not now, tried again",
    Exit.PERMISSION: "permission",
    Exit.CONFIGURATION: "the configuration",
    Exit.TIMEOUT: "time is up",
}
