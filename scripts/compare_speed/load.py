"""Running `baton-load` and wrk, and what a run cost the proxy."""

import json
import os
import re
import resource
import subprocess
import time

from . import machine
from .machine import ROOT, Cores

LOAD = ROOT / "target/release/baton-load"
# A run takes its time and a grace period; far beyond that it hangs.
PATIENCE_S = 60


class Failed(Exception):
    """A run whose figures mean nothing."""


class Backend:
    """The server behind all proxies; it ends when its standard input is closed."""

    def __init__(self, cores):
        self.process = subprocess.Popen(Cores.pin(cores, [LOAD, "backend"]), stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, text=True)
        self.ports = json.loads(self.process.stdout.readline())

    def stop(self):
        self.process.stdin.close()
        self.process.wait(timeout=10)


def generator(cores, arguments, seconds):
    """Runs `baton-load`; its line of JSON."""
    output = patiently(Cores.pin(cores, [LOAD, *arguments]), seconds)
    try:
        return json.loads(output.splitlines()[-1])
    except (IndexError, ValueError):
        raise Failed(f"the load generator failed: {output[-500:]}") from None


def patiently(command, seconds):
    """All output of a program that must end in time."""
    try:
        return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                              timeout=seconds + PATIENCE_S).stdout.strip()
    except subprocess.TimeoutExpired:
        raise Failed(f"`{command[3]}` did not end") from None


def failures(figures):
    """`3 errors (cut 3)`, or nothing."""
    if not figures["errors"]:
        return ""
    kinds = ", ".join(f"{name} {count}" for name, count in figures["failures"].items())
    return f"{figures['errors']} errors ({kinds})"


def check(figures):
    if figures["errors"]:
        raise Failed(failures(figures))
    if not figures["requests"]:
        raise Failed("no request was answered")


def clocked(proxy, backend, run):
    """The figures of a run with the processor time of the proxy and of the load beside it."""
    def own():
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        return usage.ru_utime + usage.ru_stime
    proxy_before, backend_before = machine.cpu_sample(proxy.pids()), machine.cpu_sample([backend.process.pid])
    busy_before, own_before, began = machine.busy_ns(), own(), time.monotonic()
    figures = run()
    took, own_used = time.monotonic() - began, own() - own_before
    used = machine.cpu_used(proxy_before, machine.cpu_sample(proxy.pids()))
    backend_used = machine.cpu_used(backend_before, machine.cpu_sample([backend.process.pid]))
    if not proxy.pids():
        raise Failed("the proxy ended")
    load_used = backend_used + int(own_used * 1e9)
    foreign = machine.busy_ns() - busy_before - used - load_used
    figures.update(cpu_ns=used, load_ns=load_used, wall_s=took,
                   foreign=max(foreign / 1e9 / took / os.cpu_count(), 0),
                   rss=machine.rss_bytes(proxy.pids()))
    return figures


def wrk(cores, port, arguments, connections, seconds):
    """A second opinion: the same load from an independent generator."""
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", *arguments]
    path = "/" if "-s" in arguments else "/bytes/1024"
    output = patiently(Cores.pin(cores, [*command, f"http://127.0.0.1:{port}{path}"]), seconds)
    found = re.search(r"(\d+) requests in", output)
    errors = re.findall(r"(?:Socket errors|Non-2xx).*", output)
    if not found or errors:
        raise Failed(f"wrk: {errors or output}")
    return {"requests": int(found.group(1)), "errors": 0}
