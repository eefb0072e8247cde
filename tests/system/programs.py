"""Programs that the tests run in the machine, and what they look at there."""

from __future__ import annotations

import json

from .world import DROP, TECHNICIAN, Device, World

CAP_DAC_READ_SEARCH = 1 << 2

# A consumer as an application would be one: its own user, in the group that may read the key.
CONSUMER = """
import json, os, socket, ssl, sys
place = os.path.realpath("/var/lib/claimd/identity/current")
identity = json.load(open(place + "/identity.json"))
context = ssl.create_default_context(cafile=identity["paths"]["root_ca"])
context.load_cert_chain(identity["paths"]["certificate"], identity["paths"]["private_key"])
raw = socket.create_connection((identity["endpoint"], identity["port"]), timeout=20)
link = context.wrap_socket(raw, server_hostname=identity["endpoint"])
client = identity["client_id"].encode()
body = b"\\x00\\x04MQTT\\x04\\x02\\x00\\x3c" + len(client).to_bytes(2, "big") + client
link.sendall(b"\\x10" + bytes([len(body)]) + body)
answer = link.recv(4)
sys.exit(0 if answer == b"\\x20\\x02\\x00\\x00" else "CONNACK " + answer.hex())
"""

PROBE = """
import ctypes, json, mmap, os, socket, time
libc = ctypes.CDLL(None, use_errno=True)
def tried(act):
    try:
        act()
    except OSError as error:
        return os.strerror(error.errno)
    return "done"
def call(name, *arguments):
    def act():
        if getattr(libc, name)(*arguments) < 0:
            raise OSError(ctypes.get_errno(), name)
    return act
def write(path):
    def act():
        with open(path, "w"):
            pass
        os.unlink(path)
    return act
def read(path):
    def act():
        if not open(path, "rb").read(1):
            raise OSError(61, "an empty file stands there")
    return act
def suid():
    open("/tmp/x", "w").close()
    os.chmod("/tmp/x", 0o4755)
def executable():
    mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
def multicast():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as out:
        out.sendto(b"x", ("224.0.0.251", 5353))
found = {
    "write state": tried(write("/var/lib/claimd/probe")),
    "write drop": tried(write("/var/spool/claimd/drop/probe")),
    "write result": tried(write("/var/spool/claimd/result/probe")),
    "write run": tried(write("/run/claimd/probe")),
    "read another's 0600": tried(read("/var/spool/claimd/drop/private")),
    "write etc": tried(write("/etc/claimd/probe")),
    "write usr": tried(write("/usr/lib/claimd/probe")),
    "write var": tried(write("/var/lib/probe")),
    "read shadow": tried(read("/etc/shadow")),
    "read host keys": tried(read("/etc/ssh/ssh_host_ed25519_key")),
    "read home": tried(read("/home/ubuntu/.ssh/authorized_keys")),
    "read root": tried(read("/root/claimd.deb")),
    "see init": tried(read("/proc/1/environ")),
    "see proc/sys": tried(read("/proc/sys/kernel/osrelease")),
    "internet": tried(lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM).close()),
    "multicast": tried(multicast),
    "unix": tried(lambda: socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).close()),
    "netlink": tried(lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW).close()),
    "packets": tried(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW).close()),
    "namespace": tried(call("unshare", 0x10000000)),
    "mount": tried(call("mount", b"none", b"/tmp", b"tmpfs", 0, None)),
    "set-id bit": tried(suid),
    "writable code": tried(executable),
    "device": tried(lambda: os.mknod("/tmp/null", 0o20666, os.makedev(1, 3))),
    "host name": tried(lambda: socket.sethostname("x")),
    "clock": tried(lambda: time.clock_settime(time.CLOCK_REALTIME, time.time())),
    "chown": tried(lambda: os.chown("/var/lib/claimd", 0, 0)),
    "become root": tried(lambda: os.setuid(0)),
    "priority": tried(lambda: os.nice(-1)),
    "personality": tried(call("personality", 0x0008)),
    "trace": tried(call("ptrace", 16, 1, 0, 0)),
}
print(json.dumps(found))
"""

ALLOWED = {
    *("write state", "write drop", "write result", "write run", "read another's 0600"),
    *("internet", "unix"),
}


def probe(machine: Device) -> dict[str, str]:
    """What a program may do in the very unit: all its directives, another command. By name."""
    machine.write("/usr/local/lib/probe.py", PROBE)
    machine.run("sh", "-c", f"umask 077; echo private >{DROP}/private; chown {TECHNICIAN} {DROP}/private")
    unit = machine.read("/usr/lib/systemd/system/claimd.service")
    unit = unit.replace("Type=notify", "Type=oneshot").replace("Restart=on-failure", "Restart=no")
    unit = unit.replace("/usr/bin/claimd run", "/usr/bin/python3 -I /usr/local/lib/probe.py")
    machine.write("/run/systemd/system/probe.service", unit.replace("WatchdogSec=180\n", ""))
    machine.run("systemctl", "daemon-reload")
    machine.run("systemctl", "start", "probe.service")
    machine.run("rm", "/run/systemd/system/probe.service", f"{DROP}/private")
    # By its form, not by _COMM=: journald knows the sender's name only if it looks while that lives.
    machine.run("journalctl", "--sync")
    said = machine.run("journalctl", "--no-pager", "-o", "cat", "-u", "probe.service")
    found: dict[str, str] = json.loads([line for line in said.splitlines() if line.startswith("{")][-1])
    return found


def connected_worker_s_capabilities(world: World) -> set[int] | None:
    """Once its SDK's threads are there: so after the capability should have gone."""
    pid = world.worker_pid()
    found = [] if pid is None else _capabilities(world, pid)
    return set(found) if len(found) > 2 else None


def capabilities(world: World, pid: int) -> set[int]:
    """Permitted and effective, of every thread."""
    return set(_capabilities(world, pid))


def _capabilities(world: World, pid: int) -> list[int]:
    """Two a thread. In one look, and of those threads that live: a worker's come and go."""
    script = f"cat /proc/{pid}/task/*/status 2>/dev/null"
    lines = world.machine.run("sh", "-c", script, check=False).splitlines()
    return [int(line.split()[1], 16) for line in lines if line.startswith(("CapPrm:", "CapEff:"))]
