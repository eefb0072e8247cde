"""The watcher, `claimd run`: watches, waits, starts workers, and tells the service manager.

Invariant: it decides nothing about claims and keeps nothing that matters; it may die at any moment.
It is level-triggered: each turn of its loop compares what is there with what was there when the last pass
began, and a hint only says when to look. Its import closure holds no SDK, asyncio, pydantic or
cryptography: each is megabytes for years.
"""

from __future__ import annotations

import gc
import logging
import os
import signal
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from . import lock, logs, supervision, verdict
from .agenda import Agenda
from .child import Child, ending, environment, same_program
from .durable import disk_problem
from .errors import Exit
from .notify import Notifier, watchdog_seconds
from .wakeup import Wakeup
from .watch import Entries, Place, Watch, entries, files

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .model import Layout

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Pace:
    """Every time limit of the watcher, in seconds."""

    tick: float = 60.0  # the one timer: rescan and watchdog
    poll: float = 2.0  # between two looks where nothing tells of changes, or of another pass's end
    show: float = 60.0  # `config show` takes 0.3 s, on a slow board 10 s
    margin: float = 60.0  # over timeouts.pass_seconds: imports, and looking at a copy in progress
    kill: float = 2.0  # from SIGTERM to SIGKILL for a child that hangs
    stop: float = 1.7  # the same when the service stops, which may take 2 s


# A process that even SIGKILL does not end at once (a disk that hangs) is not waited for longer.
_LAST_LOOK_SECONDS = 0.1


def run(
    layout: Layout, config_file: str | None, command: Sequence[str] | None = None, pace: Pace | None = None
) -> int:
    """Run until SIGTERM or SIGINT. `command`: what stands for `claimd` itself."""
    logs.to_stderr()
    try:
        held = supervision.take_lock(layout)
    except OSError as error:
        found = disk_problem(error, layout.run_directory)
        log.error("cannot start: %s; what to do: %s", found.happened, found.remedy)
        return int(found.exit)
    if held is None:
        log.error("cannot start: another claimd run is at work process=%s", supervision.holder(layout))
        return int(Exit.RETRY)
    try:
        Service(layout, config_file, command or same_program(), pace or Pace()).serve()
    finally:
        os.close(held)
    return int(Exit.OK)


@dataclass
class _Work:
    """A child and its limits. `kill_at` is set once it was asked to end."""

    child: Child
    began: float
    kill_at: float | None = None


class Service:
    def __init__(self, layout: Layout, config_file: str | None, command: Sequence[str], pace: Pace) -> None:
        self._layout = layout
        self._config_file = config_file
        self._command = command
        self._pace = pace
        self._environment = environment(os.environ)
        interval = watchdog_seconds(os.environ)
        self._tick = pace.tick if interval is None else min(pace.tick, interval / 2)
        self._notify = Notifier(os.environ.get("NOTIFY_SOCKET"))
        self._wakeup = Wakeup()
        self._watch = Watch(_places(layout, config_file), self._wakeup.ring)
        self._agenda = Agenda()
        self._supervision = supervision.Supervision(layout)
        self._pass: _Work | None = None
        self._seen: Entries = frozenset()  # in the drop directory when the last pass began
        self._left: Entries = frozenset()  # what is open, as the last pass left it
        self._awaits_another = False
        self._show: _Work | None = None
        self._show_wanted = True
        self._config_seen: Entries = frozenset()  # when it was last read
        self._configuration = verdict.Configuration()
        self._reloading = False
        self._next_tick = 0.0
        self._next_poll = 0.0
        self._stop_by: float | None = None

    def serve(self) -> None:
        self._wakeup.listen((signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD))
        self._watch.listen_to_failures()
        now = time.monotonic()
        self._look(now)
        self._agenda.hint(now)
        self._turn(now)
        self._notify.ready()
        # What was imported stays for good: the collector need not go through it ever again.
        gc.collect()
        gc.freeze()
        while not self._is_over():
            self._wakeup.sleep(self._next_deadline() - time.monotonic(), self._descriptors())
            self._turn(time.monotonic())
        self._watch.close()

    def _turn(self, now: float) -> None:
        self._obey(self._wakeup.take_signals(), now)
        self._collect(now)
        self._enforce_limits(now)
        if self._stop_by is None:
            if self._watch.take_hint() or now >= self._next_look():
                self._look(now)
            self._start_what_is_due(now)
        self._supervision.publish()
        self._notify.status(self._supervision.words())

    # --- time and signals -----------------------------------------------------------------------

    def _next_look(self) -> float:
        polls = self._watch.problem is not None or self._awaits_another
        return min(self._next_tick, self._next_poll) if polls else self._next_tick

    def _next_deadline(self) -> float:
        found = [self._limit(work) for work in self._at_work()]
        if self._stop_by is not None:
            found.append(self._stop_by + _LAST_LOOK_SECONDS)
        else:
            found.append(self._next_look())
            if self._agenda.due is not None and self._pass is None:
                found.append(self._agenda.due)
        return min(found)

    def _is_over(self) -> bool:
        if self._stop_by is None:
            return False
        return not self._at_work() or time.monotonic() >= self._stop_by + _LAST_LOOK_SECONDS

    def _at_work(self) -> list[_Work]:
        return [work for work in (self._pass, self._show) if work is not None]

    def _descriptors(self) -> list[int]:
        found = [work.child.descriptor for work in self._at_work()]
        return [descriptor for descriptor in found if descriptor is not None]

    def _obey(self, signals: set[int], now: float) -> None:
        if self._stop_by is not None:
            return
        if signals & {signal.SIGTERM, signal.SIGINT}:
            log.info("stopping")
            self._notify.stopping()
            self._supervision.stopping()
            self._stop_by = now + self._pace.stop
            for work in self._at_work():
                work.child.send(signal.SIGTERM)
                work.kill_at = self._stop_by if work.kill_at is None else min(work.kill_at, self._stop_by)
        elif signal.SIGHUP in signals:
            log.info("reloading the configuration")
            self._notify.reloading()
            self._reloading = self._show_wanted = True

    # --- looking --------------------------------------------------------------------------------

    def _look(self, now: float) -> None:
        """What changed, whatever the hint was."""
        thorough = now >= self._next_tick
        if thorough:
            self._next_tick = now + self._tick
            self._notify.alive()
            self._show_wanted = self._show_wanted or self._configuration.is_unread
        self._next_poll = now + self._pace.poll
        self._renew_watch(thorough=thorough)
        if self._pass is None:
            changed = self._is_left_open()
            # No event tells of the end of a command, or of its death.
            self._awaits_another = changed and lock.is_held(self._layout.state_directory)
            if self._has_news() or (changed and not self._awaits_another):
                self._agenda.hint(now)
        if self._config_entries() != self._config_seen:
            self._show_wanted = True

    def _renew_watch(self, *, thorough: bool) -> None:
        """Before anything is looked at: what comes later than the look is then an event."""
        before = self._watch.problem
        self._watch.renew(thorough=thorough)
        after = self._watch.problem
        if after != before:
            if after is None:
                log.info("watching by inotify again")
            else:
                log.warning("no events from now on, looking every %g s: %s", self._pace.poll, after)
        self._supervision.watching(after)

    def _has_news(self) -> bool:
        """Something came or changed since the last pass began. What went away needs no pass; what is
        stuck there and was seen by a pass needs no second one."""
        return bool(entries(self._layout.drop_directory) - self._seen)

    def _is_left_open(self) -> bool:
        """By a pass by hand, or a `claimd forget` that was broken off: when and how it goes on is known to
        who reads it. What was removed needs no pass."""
        return any(inode for _, inode, _, _ in self._open_entries() - self._left)

    def _open_entries(self) -> Entries:
        return files(self._layout.attempt_file, self._layout.forgetting_file)

    def _config_entries(self) -> Entries:
        if self._config_file is not None:
            return files(self._config_file)
        drop_ins = os.path.join(self._layout.config_directory, "conf.d")
        return files(self._layout.config_file) | entries(drop_ins, follow=True)

    # --- children -------------------------------------------------------------------------------

    def _start_what_is_due(self, now: float) -> None:
        due = self._agenda.due
        if self._pass is None and due is not None and now >= due:
            self._start_pass(now)
        if self._show is None and self._show_wanted:
            self._start_show(now)
        if self._pass is None and self._agenda.due is not None:
            self._supervision.next_pass(self._agenda.due - now)

    def _start_pass(self, now: float) -> None:
        self._agenda.started(now)
        # Before the pass looks: what comes while it works is news for the next one.
        self._seen = entries(self._layout.drop_directory)
        child = self._spawn("provision", "--json")
        if isinstance(child, str):
            self._crashed(verdict.not_started(child), int(Exit.BUG), now)
            return
        self._pass = _Work(child, now)
        self._supervision.pass_began(child.pid)

    def _start_show(self, now: float) -> None:
        self._show_wanted = False
        # Before it is read, for the same reason.
        self._config_seen = self._config_entries()
        child = self._spawn("config", "show", "--json")
        if isinstance(child, str):
            self._configured(verdict.unread(child), now)
            return
        self._show = _Work(child, now)

    def _spawn(self, *arguments: str) -> Child | str:
        """A child of the same program, or why there is none."""
        options = ["--root", self._layout.root] if self._layout.root else []
        if self._config_file is not None:
            options += ["--config", self._config_file]
        try:
            return Child((*self._command, *options, *arguments), self._environment)
        except OSError as error:
            return error.strerror or str(error)

    def _collect(self, now: float) -> None:
        for work in self._at_work():
            work.child.read()
        if self._pass is not None and self._pass.child.ended():
            work, self._pass = self._pass, None
            self._left = self._open_entries()
            self._pass_ended(work, now)
        if self._show is not None and self._show.child.ended():
            work, self._show = self._show, None
            how = "no answer in time" if work.kill_at is not None else ending(work.child.status or 0)
            self._configured(verdict.of_configuration(work.child.output(), how), now)

    def _pass_ended(self, work: _Work, now: float) -> None:
        status = work.child.status or 0
        exit_code = os.waitstatus_to_exitcode(status)
        if work.kill_at is not None and self._stop_by is None:
            self._crashed(verdict.timed_out(self._pass_limit()), exit_code, now)
            return
        found = verdict.of_pass(work.child.output(), ending(status))
        if found.failed:
            self._crashed(found, exit_code, now)
            return
        self._agenda.ended(now, found.after_seconds)
        self._supervision.pass_ended(found, exit_code, 0)
        self._supervision.next_pass(found.after_seconds)
        if self._stop_by is None and self._has_news():
            self._agenda.hint(now)

    def _crashed(self, found: verdict.Verdict, exit_code: int, now: float) -> None:
        self._agenda.crashed(now)
        self._supervision.pass_ended(found, exit_code, self._agenda.crashes_in_row)
        message = "" if found.problem is None else found.problem["message"]
        log.error("%s; next pass in %g s", message, (self._agenda.due or now) - now)

    def _configured(self, found: verdict.Configuration, now: float) -> None:
        before, self._configuration = self._configuration, found
        self._supervision.configured(found)
        if found.problem is not None and found.problem != before.problem:
            log.warning("%s; what to do: %s", found.problem["message"], found.problem.get("remedy"))
        if (found.sha256, found.problem) != (before.sha256, before.problem):
            # A pass may have waited for just this.
            self._agenda.hint(now)
        if self._reloading:
            self._reloading = False
            self._agenda.hint(now)
            self._notify.ready()

    def _enforce_limits(self, now: float) -> None:
        for work in self._at_work():
            if now < self._limit(work):
                continue
            if work.kill_at is None:
                work.child.send(signal.SIGTERM)
                work.kill_at = now + self._pace.kill
            else:
                work.child.send(signal.SIGKILL)
                work.kill_at = now + self._pace.kill  # and again, should it hang in the kernel

    def _limit(self, work: _Work) -> float:
        """When something must be done about a child that is still at work."""
        if work.kill_at is not None:
            return work.kill_at
        return work.began + (self._pass_limit() if work is self._pass else self._pace.show)

    def _pass_limit(self) -> float:
        return self._configuration.pass_seconds + self._pace.margin


def _places(layout: Layout, config_file: str | None) -> tuple[Place, ...]:
    """What is watched. The drop directory's parent, because a directory that was replaced tells nothing; the
    state directory, because a command leaves there what the service has to go on with."""
    configuration = (
        Place(layout.config_directory, recursive=True)
        if config_file is None
        else Place(os.path.dirname(os.path.abspath(config_file)))
    )
    return (
        Place(layout.drop_directory),
        Place(os.path.dirname(layout.drop_directory), contents=False),
        configuration,
        Place(layout.state_directory),
    )
