"""One run of one program: started with a case's configuration, used by its clients, asked, stopped."""

import fnmatch
import itertools
import json
import random
import re
import socket
import subprocess
import tempfile
import time
from pathlib import Path

from . import actors, world
from .case import REFUSES, file_text

READY_LIMIT_S = 60
SETTLE_LIMIT_S = 5
STOP_LIMIT_S = 5
STATS = ["http.test.*", "cluster.*", "listener.test.*", "tcp.test.*"]
BASE_IDS = itertools.count(random.randrange(10_000, 1_000_000))


class Envoy:
    name = "Envoy"

    def __init__(self, program):
        self.program = program

    def command(self, config, directory):
        return [self.program, "-c", config, "--concurrency", "1", "--base-id", str(next(BASE_IDS)),
                "--file-flush-interval-msec", "50", "--log-level", "warning"]


class Baton:
    name = "baton"

    def __init__(self, program):
        self.program = program

    def command(self, config, directory):
        return [self.program, "run", "-c", config, "--concurrency", "1", "--base-id", str(next(BASE_IDS)),
                "--control-socket", directory / "control.sock", "--log-level", "warning"]


class Failed(Exception):
    """The program did not start or ended by itself."""

    def missing(self):
        """What baton says that it does not do yet; documented by not being in docs/CONFIG.md."""
        found = re.search(r"error: (.* is not implemented\b.*)", str(self))
        return found and found[1]


def observe(program, case):
    """Everything that was seen: item and value."""
    seen = {}
    named = re.findall(r"@port:(\w+)@", json.dumps(case.config) + json.dumps(case.files))
    scripts = {**dict.fromkeys(named, REFUSES), **case.backends}
    backends = {name: actors.Backend(name, script, seen) for name, script in scripts.items()}
    with tempfile.TemporaryDirectory(prefix="compare-") as name:
        directory = Path(name)
        here = world.World(directory, {name: free_port() for name in world.listeners(case)}, backends)
        for name, resources in case.files.items():
            here.write(name, file_text(resources))
        path = here.write("envoy.yaml", json.dumps(case.config, indent=1))
        with (directory / "output").open("wb") as output:
            process = subprocess.Popen([*map(str, program.command(path, directory))], stdout=output,
                                       stderr=output, stdin=subprocess.DEVNULL, cwd=directory)
        try:
            wait_ready(process, directory)
            for number, actions in enumerate(case.clients, 1):
                actors.run_client(number, actions, here, seen)
            read_stats(directory, case, seen)
            if process.poll() is not None:
                raise Failed(f"ended with {process.returncode}")
        except (Failed, OSError) as error:
            text = (directory / "output").read_text(errors="replace")
            raise Failed(f"{program.name}, case {case.name!r}: {error}\n{text[:700]}") from error
        finally:
            stop(process)
            for backend in backends.values():
                backend.finish()
        read_log(directory, seen)
    return {here.normal(item): here.normal(value) for item, value in seen.items()}


def free_port():
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return held.getsockname()[1]


def wait_ready(process, directory):
    until = time.monotonic() + READY_LIMIT_S
    while time.monotonic() < until:
        if process.poll() is not None:
            raise Failed(f"did not start, code {process.returncode}")
        try:
            if world.admin(directory, "/ready")[0] == 200:
                return
        except OSError:
            pass
        time.sleep(0.02)
    raise Failed("did not get ready")


def read_stats(directory, case, seen):
    """Counters once every client is gone. What is 0 or was never made is the same."""
    until = time.monotonic() + SETTLE_LIMIT_S
    while True:
        text = world.admin(directory, "/stats")[1]
        stats = dict(line.split(": ", 1) for line in text.splitlines() if ": " in line)
        active = [name for name in stats if re.fullmatch(r"(http|tcp)\.test\.downstream_[cr][xq]_active|"
                                                         r"cluster\.[^.]+\.upstream_rq_active", name)]
        if all(stats[name] == "0" for name in active) or time.monotonic() > until:
            break
        time.sleep(0.05)
    for name, value in stats.items():
        is_text = name.endswith(".version_text") and value != '""'
        if (value.isdigit() and value != "0" or is_text) and any(fnmatch.fnmatchcase(name, p) for p in STATS + case.stats):
            seen[f"stat {name}"] = value


def stop(process):
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(0.3)
        except subprocess.TimeoutExpired:
            # baton waits for clients; a second signal ends that.
            process.terminate()
            try:
                process.wait(STOP_LIMIT_S)
            except subprocess.TimeoutExpired:
                process.kill()
    process.wait()


def read_log(directory, seen):
    path = directory / "access.log"
    lines = path.read_text("latin-1").splitlines() if path.exists() else []
    seen["log lines"] = str(len(lines))
    for number, line in enumerate(lines, 1):
        for field in line.split("\t"):
            name, _, value = field.partition("=")
            seen[f"log {number} {name}"] = value
