"""Starting, reloading and stopping each proxy the way its own users do."""

import os
import random
import re
import signal
import subprocess
import time
from pathlib import Path

from . import configs, machine
from .load import LOAD
from .machine import ROOT, Cores


class Proxy:
    """A proxy of one scenario; all its processes end with `stop`."""
    name = ""

    def __init__(self, setup, cores):
        self.setup, self.cores = setup, cores
        self.processes = []

    def launch(self, command):
        # Appending, so that the log can be cut off between two rounds.
        name = "access.log" if self.setup.features.log else "output"
        with (self.setup.directory / name).open("a") as output, \
                (self.setup.directory / "errors").open("a") as errors:
            process = subprocess.Popen(Cores.pin(self.cores, command), stdin=subprocess.DEVNULL,
                                       stdout=output, stderr=errors)
        self.processes.append(process)

    def write(self, name, text):
        path = self.setup.directory / name
        new = path.with_suffix(".new")
        new.write_text(text)
        new.rename(path)
        return path

    def wait(self):
        try:
            for port in [self.setup.http, self.setup.tcp]:
                machine.wait_for_port(port, self.processes[-1])
        except RuntimeError as error:
            raise SystemExit(f"{self.name} did not start: {error}\n{self.last_words()}") from None

    def last_words(self):
        texts = [path.read_text(errors="replace") for path in
                 [self.setup.directory / "errors", self.setup.directory / "error.log"] if path.exists()]
        return "\n".join("".join(texts).splitlines()[-20:])

    def pids(self):
        return [process.pid for process in self.processes if process.poll() is None]

    def signal(self, number):
        for process in self.processes:
            if process.poll() is None:
                process.send_signal(number)

    def stop(self):
        members = machine.tree(self.pids())
        self.signal(signal.SIGTERM)
        for _ in range(60):
            if not self.pids():
                break
            time.sleep(0.05)
        self.signal(signal.SIGKILL)
        for process in self.processes:
            process.wait()
        # A master that had to be killed leaves its workers.
        for pid in members:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        self.processes = []

    def start(self):
        raise NotImplementedError

    def reload(self):
        raise NotImplementedError


class Baton(Proxy):
    name = "baton"
    program = ROOT / "target/release/baton"

    def start(self):
        path = self.write("envoy.yaml", configs.envoy(self.setup))
        # Everything else has its default: statistics, timeouts, escrow, ledger. No probation, because
        # a generation on probation leaves the connections where they are, and a reload is measured.
        self.launch([self.program, "run", "-c", path, "--concurrency", self.setup.workers,
                     "--base-id", self.setup.http, "--control-socket", self.control(), "--probation-s", 0])

    def control(self):
        return self.setup.directory / "control.sock"

    def reload(self):
        subprocess.run([self.program, "reload", "--control-socket", self.control()],
                       check=True, capture_output=True)

    def stop(self):
        # The second signal ends what waits for clients.
        self.signal(signal.SIGTERM)
        time.sleep(0.05)
        super().stop()

    @classmethod
    def version(cls):
        return version([cls.program, "--version"])


class Plain(Baton):
    """What `cargo build --release` makes, beside another baton."""
    name = "baton, plain build"


class Floor(Proxy):
    """Reads and writes and does nothing else."""
    name = "bare relay"
    options = ()

    def start(self):
        setup = self.setup
        self.launch([LOAD, "relay", *self.options, f"{setup.http}=127.0.0.1:{setup.upstream_http}",
                     f"{setup.tcp}=127.0.0.1:{setup.upstream_tcp}"])

    @staticmethod
    def version():
        return version([LOAD, "--version"])


class Splice(Floor):
    """The same by splice(2)."""
    name = "bare relay, splicing"
    options = ("--splice",)


class Nginx(Proxy):
    name = "nginx"

    def command(self, *more):
        return ["nginx", "-p", str(self.setup.directory), "-c", str(self.setup.directory / "nginx.conf"), *more]

    def start(self):
        self.write("nginx.conf", configs.nginx(self.setup, os.geteuid() == 0))
        self.launch(self.command("-g", "daemon off;"))

    def reload(self):
        subprocess.run(self.command("-s", "reload"), check=True, capture_output=True)

    @staticmethod
    def version():
        return version(["nginx", "-v"])


class Haproxy(Proxy):
    name = "HAProxy"

    def start(self):
        self.write("routes.map", configs.haproxy_map(self.setup))
        path = self.write("haproxy.cfg", configs.haproxy(self.setup))
        self.launch(["haproxy", "-W", "-f", path])

    def reload(self):
        self.signal(signal.SIGUSR2)

    @staticmethod
    def version():
        return version(["haproxy", "-v"])


class Envoy(Proxy):
    name = "Envoy"
    program = ""

    def __init__(self, setup, cores):
        super().__init__(setup, cores)
        self.base, self.epoch = random.randrange(1000, 30000), 0

    def start(self):
        path = self.write("envoy.yaml", configs.envoy(self.setup))
        # Two epochs cannot start while a third still ends, hence the short times; they are of no
        # importance unless it is reloaded.
        self.launch([self.program, "-c", path, "--concurrency", self.setup.workers, "--base-id", self.base,
                     "--restart-epoch", self.epoch, "--drain-time-s", 1, "--parent-shutdown-time-s", 2,
                     "-l", "warning"])

    def reload(self):
        if not self.pids():
            raise RuntimeError("no Envoy is left")
        self.epoch += 1
        self.start()

    def stop(self):
        super().stop()
        # It leaves its shared memory behind; the name is that of the first epoch.
        Path(f"/dev/shm/envoy_shared_memory_{self.base * 10}").unlink(missing_ok=True)

    @classmethod
    def version(cls):
        return version([cls.program, "--version"])


def version(command):
    """The last version in the first line; a path before it may have one, too."""
    output = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    first = (output.stdout + output.stderr).strip().partition("\n")[0]
    return (re.findall(r"\b\d+\.\d+\.\d+", first) or ["unknown"])[-1]


PROXIES = {"baton": Baton, "plain": Plain, "floor": Floor, "splice": Splice, "nginx": Nginx, "haproxy": Haproxy,
           "envoy": Envoy}


def prepare(names, program=None):
    """Finds or installs the programs and builds ours; `program` is the baton to measure, if not that."""
    if "nginx" in names:
        machine.need_nginx()
    if "haproxy" in names:
        machine.need("haproxy")
    if "envoy" in names:
        Envoy.program = machine.envoy_program()
    if program:
        Plain.program, Baton.program = Baton.program, program.resolve(strict=True)
    ours = ["-p", "baton-load"] if program and "plain" not in names else ["-p", "baton-load", "-p", "baton"]
    subprocess.run(["cargo", "build", "--quiet", "--release", *ours], cwd=ROOT, check=True)
