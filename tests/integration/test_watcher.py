"""`claimd run`: what it notices, what it starts, what it says, and that nothing ends it but a signal."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from claimd import lock
from claimd.durable import Disk
from claimd.forget import forgotten
from claimd.service import Pace
from claimd.store import Store
from device import DEADLINE_SECONDS, wait_for
from watcher import CONFIGURED, NOTHING_TO_DO, STILL, Manager, Watcher, is_alive, prints, wakeups

pytest_plugins = ("watcher",)

HANGS = "echo up >'{0}'; exec sleep 1000"
DEAF = "trap '' TERM; echo up >'{0}'; while :; do sleep 1000; done"


def wait_for_end(pid: int) -> None:
    """Who was killed runs once more to die, and waits for its turn like everybody."""
    wait_for(lambda: not is_alive(pid), f"the end of process {pid}")


def copied(watcher: Watcher, name: str = "claim.pem") -> None:
    watcher.device.put(name, "a claim")


def renamed_into_place(watcher: Watcher) -> None:
    """As rsync and most SFTP clients do."""
    watcher.device.put(".claim.pem.x7Gd2", "a claim").rename(watcher.device.drop / "claim.pem")


def moved_from_elsewhere(watcher: Watcher) -> None:
    elsewhere = watcher.directory / "claim.pem"
    elsewhere.write_text("a claim")
    elsewhere.rename(watcher.device.drop / "claim.pem")


def linked(watcher: Watcher) -> None:
    elsewhere = watcher.directory / "claim.pem"
    elsewhere.write_text("a claim")
    os.link(elsewhere, watcher.device.drop / "claim.pem")


class TestHints:
    @pytest.mark.parametrize("arrive", [copied, renamed_into_place, moved_from_elsewhere, linked])
    def test_what_arrives_starts_a_pass(self, watcher: Watcher, arrive: Callable[[Watcher], None]) -> None:
        before = watcher.start_and_settle()
        arrive(watcher)
        watcher.wait_for_pass(before)
        watcher.stop()

    def test_the_pass_starts_with_the_first_byte(self, watcher: Watcher) -> None:
        """While the file is still open for writing: imports overlap the copying."""
        before = watcher.start_and_settle()
        with (watcher.device.drop / "claim.pem").open("w") as file:
            file.write("-----BEGIN")
            file.flush()
            watcher.wait_for_pass(before)
        watcher.stop()

    def test_what_comes_while_a_pass_works_gets_a_pass(self, watcher: Watcher) -> None:
        go_on = watcher.directory / "go on"
        watcher.worker(f"while [ ! -e '{go_on}' ]; do sleep 0.02; done\n" + prints(NOTHING_TO_DO, 4))
        watcher.start()
        wait_for(lambda: watcher.passes() == 1, "the first pass")
        copied(watcher)
        go_on.touch()
        watcher.wait_for_pass(1)
        watcher.stop()

    def test_what_lies_there_at_the_start_gets_a_pass(self, watcher: Watcher) -> None:
        copied(watcher)
        watcher.start()
        watcher.wait_for_pass(0)
        watcher.stop()

    def test_without_any_event_the_timer_finds_it(self, watcher: Watcher) -> None:
        """Into a directory that is no place of inotify's: a mount over the drop directory would be such."""
        before = watcher.start_and_settle(replace(STILL, tick=0.2))
        copied(watcher)
        watcher.wait_for_pass(before)
        watcher.stop()

    def test_the_worker_says_when_to_come_back(self, watcher: Watcher) -> None:
        watcher.worker(prints({**NOTHING_TO_DO, "after_seconds": 0.5}, 75))
        watcher.start()
        watcher.wait_for_pass(2)
        watcher.stop()

    def test_a_file_that_stays_gets_one_pass(self, watcher: Watcher) -> None:
        """What is refused lies there until somebody takes it away: no reason to try it for ever."""
        before = watcher.start_and_settle(replace(STILL, tick=0.1))
        # At once: a copy that a pass begins in the middle of changes once more, and gets another one.
        moved_from_elsewhere(watcher)
        watcher.wait_for_pass(before)
        watcher.wait_for_fact(lambda f: f["passes"] > before, "the pass to end")
        counted = watcher.passes()
        ticks = watcher.facts()
        time.sleep(0.5)  # several ticks in which nothing may happen
        assert watcher.passes() == counted
        assert watcher.facts() == ticks
        watcher.stop()


class TestAPassByHand:
    """What it leaves open the service goes on with: the record says when, and a pass reads the record."""

    @staticmethod
    def keep(watcher: Watcher, text: str = "{}") -> None:
        Disk().write_file(watcher.device.layout.attempt_file, text.encode(), 0o600)

    def test_what_it_kept_gets_a_pass(self, watcher: Watcher) -> None:
        before = watcher.start_and_settle()
        self.keep(watcher)
        watcher.wait_for_pass(before)
        watcher.stop()

    def test_a_forgetting_that_was_broken_off_gets_a_pass(self, watcher: Watcher) -> None:
        """On a device that has its identity the next one is a week away. One that comes to its end gets none:
        a pass would begin a new memory in an image that was just cleared."""
        self.keep(watcher)
        before = watcher.start_and_settle(replace(STILL, poll=0.1))
        store = Store(watcher.device.layout, Disk())
        with forgotten(store):
            pass
        time.sleep(0.5)  # several looks in which nothing may happen
        assert watcher.passes() == before
        with store.locked():
            store.begin_forgetting()
            time.sleep(0.5)
            assert watcher.passes() == before
        watcher.wait_for_pass(before)
        watcher.stop()

    def test_while_it_works_it_is_left_alone(self, watcher: Watcher) -> None:
        """Its end, or its death, makes no event."""
        before = watcher.start_and_settle(replace(STILL, poll=0.1))
        works = os.open(watcher.device.layout.state_directory, os.O_RDONLY | os.O_DIRECTORY)
        lock.take(works)
        self.keep(watcher)
        time.sleep(0.5)  # several looks in which nothing may happen
        assert watcher.passes() == before
        os.close(works)
        watcher.wait_for_pass(before)
        watcher.stop()

    def test_what_a_pass_of_its_own_kept_is_no_news(self, watcher: Watcher) -> None:
        attempt = watcher.device.layout.attempt_file
        script = f"echo $$ >'{attempt}.new'; mv '{attempt}.new' '{attempt}'\n"
        watcher.worker(script + prints(NOTHING_TO_DO, 4))
        before = watcher.start_and_settle(replace(STILL, tick=0.1))
        self.keep(watcher)
        watcher.wait_for_pass(before)
        watcher.wait_for_fact(lambda f: f["passes"] > before, "the pass to end")
        time.sleep(0.5)  # several ticks in which nothing may happen
        assert watcher.passes() == before + 1
        watcher.stop()

    def test_a_look_at_the_state_and_what_was_forgotten_are_none(self, watcher: Watcher) -> None:
        self.keep(watcher)
        before = watcher.start_and_settle(replace(STILL, tick=0.1))
        layout = watcher.device.layout
        watcher.device.status()
        Disk().probe(layout.state_directory)  # as doctor does
        Disk().write_volatile(layout.status_file, b"{}", 0o644)
        Disk().remove_file(layout.attempt_file)
        time.sleep(0.5)  # several ticks in which nothing may happen
        assert watcher.passes() == before
        watcher.stop()

    def test_without_a_state_directory_the_drop_directory_is_looked_at(self, watcher: Watcher) -> None:
        state = Path(watcher.device.layout.state_directory)
        state.rmdir()
        before = watcher.start_and_settle(replace(STILL, poll=0.1))
        assert watcher.facts()["watch_problem"] == f"{state} is no directory that can be read"
        copied(watcher)
        watcher.wait_for_pass(before)
        state.mkdir()
        watcher.wait_for_fact(lambda f: f["watch"] == "inotify", "inotify again")
        watcher.stop()


class TestTheDropDirectoryItself:
    def test_replaced(self, watcher: Watcher) -> None:
        """For a moment there is none: a look at just that moment makes it poll until there is one again."""
        before = watcher.start_and_settle(replace(STILL, poll=0.1))
        watcher.device.drop.rename(watcher.device.drop.with_name("old"))
        watcher.device.drop.mkdir()
        copied(watcher)
        watcher.wait_for_pass(before)
        watcher.wait_for_fact(lambda f: f["watch"] == "inotify", "inotify again")
        self.assert_an_event_arrives(watcher)
        watcher.stop()

    def test_exchanged_with_one_that_is_full(self, watcher: Watcher) -> None:
        before = watcher.start_and_settle()
        new = watcher.device.drop.with_name("new")
        new.mkdir()
        (new / "claim.pem").write_text("a claim")
        watcher.device.drop.rename(watcher.device.drop.with_name("old"))
        new.rename(watcher.device.drop)
        watcher.wait_for_pass(before)
        watcher.stop()

    def test_deleted_and_remade(self, watcher: Watcher) -> None:
        watcher.start_and_settle(replace(STILL, poll=0.1))
        watcher.device.drop.rmdir()
        facts = watcher.wait_for_fact(lambda f: f["watch"] == "polling", "polling")
        assert facts["watch_problem"] == f"{watcher.device.drop} is no directory that can be read"
        watcher.device.drop.mkdir()
        watcher.wait_for_fact(lambda f: f["watch"] == "inotify", "inotify again")
        self.assert_an_event_arrives(watcher)
        journal = watcher.stop()
        assert "no events from now on, looking every 0.1 s" in journal
        assert "watching by inotify again" in journal

    def test_deleted_and_remade_at_once(self, watcher: Watcher) -> None:
        """The new one may get the number of the old one's inode."""
        before = watcher.start_and_settle(replace(STILL, poll=0.1))
        for _ in range(5):
            watcher.device.drop.rmdir()
            watcher.device.drop.mkdir()
        copied(watcher)
        watcher.wait_for_pass(before)
        watcher.wait_for_fact(lambda f: f["watch"] == "inotify", "inotify again")
        self.assert_an_event_arrives(watcher)
        watcher.stop()

    def test_its_parent_replaced(self, watcher: Watcher) -> None:
        """Nothing watches above it: the timer sees that."""
        before = watcher.start_and_settle(replace(STILL, tick=0.2))
        spool = watcher.device.drop.parent
        spool.rename(spool.with_name("old"))
        watcher.device.drop.mkdir(parents=True)
        copied(watcher)
        watcher.wait_for_pass(before)
        watcher.stop()

    def test_a_link_is_not_watched(self, watcher: Watcher) -> None:
        """Whoever may replace the directory by a link would have claimd read elsewhere."""
        elsewhere = watcher.directory / "elsewhere"
        elsewhere.mkdir()
        watcher.device.drop.rmdir()
        watcher.device.drop.symlink_to(elsewhere)
        watcher.start_and_settle()
        assert watcher.facts()["watch"] == "polling"
        watcher.stop()

    def assert_an_event_arrives(self, watcher: Watcher) -> None:
        before = watcher.passes()
        copied(watcher, f"another-{before}.pem")
        watcher.wait_for_pass(before)


def has_user_namespaces() -> bool:
    return subprocess.run(["unshare", "-Ur", "true"], capture_output=True, check=False).returncode == 0


class TestInotifyWithoutRoom:
    def test_the_kernel_s_queue_overflows(self, watcher: Watcher) -> None:
        """While it sleeps more happens than the queue holds; what came last was never told of."""
        limit = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
        before = watcher.start_and_settle()
        watcher.send(signal.SIGSTOP)
        try:
            junk = watcher.device.drop / "junk"
            for _ in range(limit // 3 + 100):  # create, close, delete
                os.close(os.open(junk, os.O_CREAT | os.O_WRONLY))
                junk.unlink()
            copied(watcher)
        finally:
            watcher.send(signal.SIGCONT)
        watcher.wait_for_pass(before)
        watcher.wait_for_fact(lambda f: f["state"] == "watching", "the end of the pass")
        before = watcher.passes()
        copied(watcher, "another.pem")
        watcher.wait_for_pass(before)
        assert "overflow" not in watcher.stop(), "no technician can do anything about it"

    @pytest.mark.skipif(not has_user_namespaces(), reason="no user namespaces for an ordinary user here")
    @pytest.mark.parametrize("limit", ["max_inotify_instances", "max_inotify_watches"])
    def test_none_left_and_back_again(self, watcher: Watcher, limit: str) -> None:
        """The limits of a user namespace are its own: nobody else's inotify is touched."""
        path = f"/proc/sys/user/{limit}"
        prefix = ("unshare", "-Ur", "sh", "-c", f'echo 0 >{path} && exec "$@"', "sh")
        watcher.start_and_settle(replace(STILL, poll=0.1, tick=0.2), prefix=prefix)
        facts = watcher.wait_for_fact(lambda f: f["watch"] == "polling", "polling")
        assert facts["watch_problem"].startswith("inotify can't be used: ")
        before = watcher.passes()
        copied(watcher)
        watcher.wait_for_pass(before)

        assert watcher.process is not None
        enter = ["nsenter", "--preserve-credentials", "-U", "-t", str(watcher.process.pid)]
        subprocess.run([*enter, "sh", "-c", f"echo 100 >{path}"], check=True)
        watcher.wait_for_fact(lambda f: f["watch"] == "inotify", "inotify again")
        watcher.stop()


class TestTheManager:
    def test_ready_status_and_stopping(self, managed: Watcher) -> None:
        assert managed.manager is not None
        managed.start_and_settle()
        managed.manager.wait_for("READY=1")
        managed.manager.wait_for(f"STATUS=watching {managed.device.drop}")
        managed.stop()
        managed.manager.wait_for("STOPPING=1")
        messages = managed.manager.drain()
        assert messages.count("READY=1") == 1
        assert messages.count("STOPPING=1") == 1
        assert messages[-1] in ("STATUS=stopping", "STOPPING=1")
        assert not any(message.startswith("WATCHDOG") for message in messages if "=1" not in message)

    def test_an_abstract_address(self, watcher: Watcher) -> None:
        watcher.manager = Manager(f"@claimd-test-{os.getpid()}")
        watcher.start()
        watcher.manager.wait_for("READY=1")
        watcher.stop()

    def test_reload(self, managed: Watcher) -> None:
        """systemd.service(5), Type=notify-reload: RELOADING=1 with the time, and READY=1 once it is done."""
        assert managed.manager is not None
        managed.start_and_settle()
        shown, passes = len(managed.calls("show")), managed.passes()
        number = len(managed.manager.drain())
        before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        managed.send(signal.SIGHUP)
        managed.manager.wait_for("READY=1", after=number)
        after = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        assert len(managed.calls("show")) == shown + 1, "the configuration was read before READY=1"
        messages = managed.manager.messages[number:]
        reloading = next(m for m in messages if m.startswith("RELOADING=1"))
        found = re.fullmatch(r"RELOADING=1\nMONOTONIC_USEC=(\d+)", reloading)
        assert found is not None and before <= int(found[1]) <= after
        assert messages.index(reloading) < messages.index("READY=1")
        managed.wait_for_pass(passes)
        managed.stop()

    def test_the_watchdog_is_fed_at_half_its_time(self, managed: Watcher) -> None:
        assert managed.manager is not None
        managed.start(WATCHDOG_USEC="400000")
        manager = managed.manager
        wait_for(lambda: manager.drain().count("WATCHDOG=1") >= 4, "four times WATCHDOG=1")
        managed.stop()

    def test_the_watchdog_of_another_process(self, managed: Watcher) -> None:
        assert managed.manager is not None
        managed.start_and_settle(WATCHDOG_USEC="100000", WATCHDOG_PID="1")
        time.sleep(0.5)  # five of its times, in which nothing may be sent
        assert managed.manager.drain().count("WATCHDOG=1") <= 1, "the one of the first look"
        managed.stop()

    def test_a_manager_that_is_gone(self, managed: Watcher) -> None:
        assert managed.manager is not None
        before = managed.start_and_settle()
        managed.manager.close()
        copied(managed)
        managed.wait_for_pass(before)
        managed.stop()


class TestConfiguration:
    def test_unconfigured_then_configured(self, managed: Watcher) -> None:
        assert managed.manager is not None
        problem = {"code": "not-configured", "message": "endpoint is not set", "remedy": "set it"}
        managed.shower(prints({"schema": 1, "problem": problem}, 78))
        before = managed.start_and_settle()
        assert managed.facts()["configuration"] == {"ok": False, "problem": problem, "sha256": None}
        managed.manager.wait_for(f"STATUS=watching {managed.device.drop}; endpoint is not set")
        managed.shower(prints(CONFIGURED))
        managed.device.configure("endpoint = 'x'")
        managed.wait_for_fact(lambda f: f["configuration"]["ok"], "the new configuration")
        managed.wait_for_pass(before)
        journal = managed.stop()
        assert "endpoint is not set; what to do: set it" in journal

    def test_a_drop_in_that_comes_changes_and_goes(self, watcher: Watcher) -> None:
        watcher.start_and_settle()
        drop_in = Path(watcher.device.layout.config_directory) / "conf.d/10-site.toml"
        drop_in.parent.mkdir()

        def come() -> None:
            drop_in.write_text("a = 1")

        def change() -> None:
            drop_in.write_text("a = 22")

        for happen in (come, change, drop_in.unlink):
            watcher.assert_reads_again(happen)
        watcher.stop()

    def test_a_file_of_its_own(self, watcher: Watcher) -> None:
        file = watcher.directory / "own.toml"
        file.write_text("a = 1")
        watcher.start_and_settle(config_file=str(file))
        assert watcher.calls("show")[-1].split()[1:] == [
            *("--root", str(watcher.device.root), "--config", str(file)),
            *("config", "show", "--json"),
        ]
        watcher.assert_reads_again(lambda: file.write_text("a = 22"))
        watcher.stop()

    def test_config_show_fails_and_recovers(self, watcher: Watcher) -> None:
        """The program that reads it failed: the files need not change for another try."""
        watcher.shower("kill -SEGV $$")
        watcher.start_and_settle(replace(STILL, tick=0.2))
        found = watcher.facts()["configuration"]["problem"]
        assert found["code"] == "internal-error"
        assert found["message"] == "an error in claimd itself: claimd config show: killed by SIGSEGV"
        watcher.shower(prints(CONFIGURED))
        watcher.wait_for_fact(lambda f: f["configuration"]["ok"], "another try")
        watcher.stop()

    @pytest.mark.parametrize("output", ["echo nonsense", "echo '[]'", "head -c 600000 /dev/zero", ":"])
    def test_config_show_says_nothing_that_can_be_read(self, watcher: Watcher, output: str) -> None:
        watcher.shower(output)
        watcher.start_and_settle()
        message = watcher.facts()["configuration"]["problem"]["message"]
        assert message == "an error in claimd itself: claimd config show: exit code 0"
        watcher.stop()

    def test_config_show_hangs(self, watcher: Watcher) -> None:
        watcher.shower(HANGS.format(watcher.directory / "up"))
        watcher.start_and_settle(replace(STILL, show=0.3))
        message = watcher.facts()["configuration"]["problem"]["message"]
        assert message == "an error in claimd itself: claimd config show: no answer in time"
        watcher.stop()

    def test_without_the_configuration_s_directory(self, watcher: Watcher) -> None:
        Path(watcher.device.layout.config_directory).rmdir()
        before = watcher.start_and_settle(replace(STILL, poll=0.1))
        copied(watcher)
        watcher.wait_for_pass(before)
        Path(watcher.device.layout.config_directory).mkdir()
        watcher.device.configure("endpoint = 'x'")
        watcher.wait_for_fact(lambda f: f["watch"] == "inotify", "inotify")
        watcher.stop()


class TestStopping:
    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    @pytest.mark.parametrize("script", [HANGS, DEAF])
    def test_in_mid_attempt(self, watcher: Watcher, number: signal.Signals, script: str) -> None:
        up = watcher.directory / "up"
        watcher.worker(script.format(up))
        watcher.start()
        wait_for(up.exists, "the worker")
        worker = watcher.pid_of_worker()
        process = watcher.process
        assert process is not None
        watcher.send(number)
        _, journal = process.communicate(timeout=DEADLINE_SECONDS)
        assert process.returncode == 0, journal
        wait_for_end(worker)

    def test_the_worker_s_last_word_is_heard(self, watcher: Watcher) -> None:
        up = watcher.directory / "up"
        said = {**NOTHING_TO_DO, "outcome": "interrupted", "exit": 75}
        end = prints(said, 75)
        # No `wait`: a signal that comes just before it leaves dash in there to the end of what it waits for.
        watcher.worker(f"trap '{end}' TERM; echo up >'{up}'; while :; do sleep 0.05; done")
        watcher.start(replace(STILL, stop=DEADLINE_SECONDS))
        wait_for(up.exists, "the worker")
        watcher.stop()
        facts = watcher.facts()
        assert facts["last_pass"]["outcome"] == "interrupted"
        assert facts["state"] == "stopping" or facts["worker"] is None

    def test_a_second_one_does_not_start(self, watcher: Watcher) -> None:
        watcher.start_and_settle()
        first = watcher.process
        assert first is not None
        watcher.start()
        second = watcher.process
        assert second is not None
        _, journal = second.communicate(timeout=DEADLINE_SECONDS)
        assert second.returncode == 75
        assert f"another claimd run is at work process={first.pid}" in journal
        watcher.process = first
        watcher.stop()

    def test_started_with_its_signals_blocked(self, watcher: Watcher) -> None:
        """Whoever starts it may have blocked them; a service that can't be stopped is killed after 90 s."""
        code = (
            "import os, signal, sys; signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM});"
            "signal.signal(signal.SIGHUP, signal.SIG_IGN); os.execv(sys.argv[1], sys.argv[1:])"
        )
        watcher.start_and_settle(prefix=(sys.executable, "-c", code))
        watcher.stop()


class TestTheCommand:
    """The command itself: `run` goes past the command line's parser, and must still take its options."""

    @pytest.mark.parametrize("options", [["--root", "root"], ["--root=root"], ["--root", "./root/"]])
    def test_a_root_in_the_current_directory(self, watcher: Watcher, options: list[str]) -> None:
        watcher.process = subprocess.Popen(
            [sys.executable, "-m", "claimd", *options, "run"],
            cwd=watcher.directory,
            stderr=subprocess.PIPE,
            text=True,
        )
        watcher.wait_for_fact(lambda f: f["configuration"]["problem"], "supervisor.json")
        assert "not configured: set endpoint and template.name" in watcher.stop()


class TestBadWorkers:
    def test_a_native_crash(self, managed: Watcher) -> None:
        assert managed.manager is not None
        managed.worker("kill -SEGV $$")
        managed.start()
        facts = managed.wait_for_fact(lambda f: f["crashes_in_row"] >= 2, "two crashes")
        assert facts["last_pass"]["outcome"] == "pass-crashed"
        words = "the pass ended abnormally: killed by SIGSEGV, without a result"
        assert facts["last_pass"]["problem"]["message"] == words
        assert facts["next_pass_at"] is not None
        managed.manager.wait_for(f"STATUS=watching {managed.device.drop}; {words}; next pass at ")
        managed.worker(prints(NOTHING_TO_DO, 4))
        facts = managed.wait_for_fact(lambda f: f["crashes_in_row"] == 0, "a pass that ends well")
        assert facts["last_pass"]["problem"] is None
        journal = managed.stop()
        assert f"{words}; next pass in 1 s" in journal
        assert f"{words}; next pass in 2 s" in journal

    def test_killed_from_outside(self, watcher: Watcher) -> None:
        up = watcher.directory / "up"
        watcher.worker(HANGS.format(up))
        watcher.start()
        wait_for(up.exists, "the worker")
        os.kill(watcher.pid_of_worker(), signal.SIGSEGV)
        facts = watcher.wait_for_fact(lambda f: f["crashes_in_row"] == 1, "the crash")
        assert "killed by SIGSEGV" in facts["last_pass"]["problem"]["message"]
        watcher.stop()

    @pytest.mark.parametrize("script", [HANGS, DEAF])
    def test_one_that_hangs_is_ended(self, watcher: Watcher, script: str) -> None:
        values = {"timeouts": {"pass_seconds": 0.3}}
        watcher.shower(prints({**CONFIGURED, "values": values}))
        up = watcher.directory / "up"
        watcher.worker(script.format(up))
        # The limit is that of the configuration, once it is known.
        watcher.start(replace(STILL, margin=0.2, kill=0.2))
        wait_for(up.exists, "the worker")
        worker = watcher.pid_of_worker()
        facts = watcher.wait_for_fact(lambda f: f["crashes_in_row"] >= 1, "its end")
        assert facts["last_pass"]["outcome"] == "pass-timed-out"
        message = facts["last_pass"]["problem"]["message"]
        assert message == "the pass did not end within 0.5 s and was stopped"
        wait_for_end(worker)  # on a busy machine it may be a later one
        watcher.stop()

    def test_what_it_started_ends_with_it(self, watcher: Watcher) -> None:
        up = watcher.directory / "up"
        watcher.worker(f"sleep 1000 & echo $! >'{up}'; wait")
        watcher.start()
        wait_for(lambda: up.exists() and up.read_text(), "the worker")
        watcher.stop()
        wait_for_end(int(up.read_text()))

    def test_one_that_leaves_its_pipe_open_to_another(self, watcher: Watcher) -> None:
        """The pass is over when the worker is, whoever else holds its output."""
        watcher.worker("sleep 1000 2>/dev/null &\n" + prints(NOTHING_TO_DO, 4))
        watcher.start_and_settle()
        watcher.stop()
        for call in watcher.calls():
            os.killpg(int(call.split()[0]), signal.SIGKILL)

    @pytest.mark.parametrize(
        "output", ["echo nonsense", "echo '{\"schema\": 2}'", "head -c 600000 /dev/zero", ":"]
    )
    def test_one_that_says_nothing_that_can_be_read(self, watcher: Watcher, output: str) -> None:
        watcher.worker(output)
        watcher.start()
        facts = watcher.wait_for_fact(lambda f: f["crashes_in_row"] >= 1, "its end")
        message = facts["last_pass"]["problem"]["message"]
        assert message == "the pass ended abnormally: exit code 0, without a result"
        watcher.stop()

    def test_a_lot_of_output_before_the_last_line(self, watcher: Watcher) -> None:
        watcher.worker("head -c 1000000 /dev/zero | tr '\\0' x; echo\n" + prints(NOTHING_TO_DO, 4))
        watcher.start()
        facts = watcher.wait_for_fact(lambda f: f["passes"] >= 1, "the end of the pass")
        assert facts["last_pass"]["outcome"] == "idle"
        watcher.stop()

    def test_a_program_that_is_gone(self, watcher: Watcher) -> None:
        """As while a package is being replaced."""
        watcher.start_and_settle()
        shutil.move(watcher.program, watcher.program.with_name("moved"))
        copied(watcher)
        facts = watcher.wait_for_fact(lambda f: f["crashes_in_row"] >= 1, "the failure")
        message = facts["last_pass"]["problem"]["message"]
        assert message == (
            "the pass ended abnormally: the process can't be started: No such file or directory"
        )
        shutil.move(watcher.program.with_name("moved"), watcher.program)
        watcher.wait_for_fact(lambda f: f["crashes_in_row"] == 0, "a pass")
        watcher.stop()


class TestWhatAChildGets:
    def test_no_word_of_the_manager_s_and_no_secret(self, managed: Watcher) -> None:
        managed.start_and_settle(
            WATCHDOG_USEC="60000000", LISTEN_FDS="1", CREDENTIALS_DIRECTORY="/x", A_SECRET="s"
        )
        managed.stop()
        for kind in ("provision", "show"):
            given = (managed.directory / f"{kind}.environment").read_text()
            names = {line.partition("=")[0] for line in given.splitlines()}
            assert "PATH" in names
            assert not names & {
                *("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS"),
                *("CREDENTIALS_DIRECTORY", "A_SECRET"),
            }

    def test_no_descriptor_but_three(self, watcher: Watcher) -> None:
        before = watcher.start_and_settle()
        # At once, so that there is one pass: another would be stopped while it writes its list.
        moved_from_elsewhere(watcher)
        watcher.wait_for_pass(before)
        watcher.stop()
        listing = (watcher.directory / "provision.descriptors").read_text()
        # The fourth is the directory that `ls` itself reads.
        assert set(re.findall(r"(\d+) -> ", listing)) == {"0", "1", "2", "3"}, listing
        assert "0 -> /dev/null" in listing

    def test_its_signals_are_as_new(self, watcher: Watcher) -> None:
        watcher.worker(
            f"grep -E 'Sig(Blk|Ign)' /proc/self/status >'{watcher.directory}/signals'\n"
            + prints(NOTHING_TO_DO, 4)
        )
        watcher.start_and_settle()
        watcher.stop()
        masks = re.findall(r":\s*([0-9a-f]+)", (watcher.directory / "signals").read_text())
        ignored = [n for n in signal.Signals if int(masks[1], 16) >> (n - 1) & 1]
        assert int(masks[0], 16) == 0
        assert not {signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGPIPE} & set(ignored)


class TestIdleness:
    def test_nothing_wakes_it(self, watcher: Watcher) -> None:
        watcher.start_and_settle(Pace(tick=3600))
        assert watcher.process is not None
        pid = watcher.process.pid
        wait_for(lambda: self.rests(pid), "two seconds without a wake-up")
        # It is not dead, either.
        before = watcher.passes()
        copied(watcher)
        watcher.wait_for_pass(before)
        assert wakeups(pid) > 0
        watcher.stop()

    def test_a_long_upload_does_not_keep_it_awake(self, watcher: Watcher) -> None:
        """Writes into an open file are no events for it: a slow link makes thousands of them."""
        before = watcher.start_and_settle(Pace(tick=3600))
        assert watcher.process is not None
        pid = watcher.process.pid
        with (watcher.device.drop / "claim.pem").open("w") as file:
            file.write("x")
            file.flush()
            watcher.wait_for_pass(before)
            wait_for(lambda: self.rests(pid), "rest")
            counted, passes = wakeups(pid), watcher.passes()
            for _ in range(200):
                file.write("x")
                file.flush()
            time.sleep(0.5)  # in which nothing may happen
            assert watcher.passes() == passes
            woken = wakeups(pid) - counted
        assert woken < 20, woken
        watcher.stop()

    @staticmethod
    def rests(pid: int) -> bool:
        before = wakeups(pid)
        time.sleep(2)
        return wakeups(pid) == before
