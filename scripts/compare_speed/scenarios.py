"""What is measured, and how one measurement of one proxy goes."""

import json
import subprocess
import time
from dataclasses import dataclass, field

from . import load, machine
from .configs import Features, route
from .load import Failed
from .machine import Cores

# Reloads of `reload-latency`, and the time between two: Envoy needs most of it to end the last but one.
RELOADS = 5
RELOAD_SPACING_S = 4
IDLE = 10_000
# Of the throughput of the slowest proxy: all are far from their limit at this rate.
RATE_SHARE = 0.4
# Requests of the first moments open connections; their times are another thing.
RATE_WARMUP_S = 0.5


@dataclass(frozen=True)
class Scenario:
    """One row of the comparison."""
    name: str
    text: str
    kind: str = "http"
    arguments: tuple = ()
    connections: int = 64
    features: Features = field(default_factory=Features)
    # Scenarios of a group are measured together, so that they can be compared with each other.
    group: str = ""
    unit: str = "request"

    def family(self):
        return self.group or self.name


def routed(count):
    return Scenario(f"routes-{count}", f"1 KiB answers, {count} prefix routes, all in use",
                    features=Features(routes=count), group="routes")


SCENARIOS = [
    Scenario("get-1k", "GET, 1 KiB answers"),
    Scenario("get-1k-c1", "GET, 1 KiB answers, one connection", connections=1),
    Scenario("get-64k", "GET, 64 KiB answers", arguments=("--path", "/bytes/65536")),
    Scenario("post-16k", "POST, 16 KiB bodies", arguments=("--method", "POST", "--body", "16384")),
    Scenario("get-1m", "GET, 1 MiB answers, 16 connections", arguments=("--path", "/bytes/1048576"), connections=16),
    Scenario("post-1m", "POST, 1 MiB bodies, 16 connections",
             arguments=("--method", "POST", "--body", "1048576"), connections=16),
    Scenario("close", "GET, 1 KiB answers, a connection for each request", arguments=("--close",)),
    routed(10), routed(100), routed(1000),
    Scenario("access-log", "GET, 1 KiB answers, access log to a file", features=Features(log=True)),
    Scenario("headers-10", "GET, 1 KiB answers, 5 request and 5 response headers set", features=Features(headers=True)),
    Scenario("websocket", "64-byte WebSocket messages that come back", kind="ws", unit="message"),
    Scenario("tcp-bulk", "bulk TCP, two connections each way", kind="tcp-bulk", connections=4, unit="KiB"),
    Scenario("tcp-connect", "TCP connections, one byte and back", kind="tcp-connect", unit="connection"),
    Scenario("idle-10000", f"{IDLE} idle keep-alive connections", kind="idle", unit="connection"),
    Scenario("reload-latency", f"GET at a fixed rate during {RELOADS} reloads", kind="reload"),
]


def arguments(scenario, proxy):
    """Of `baton-load`, without the time and the rate."""
    tcp = scenario.kind.startswith("tcp")
    target = f"127.0.0.1:{proxy.setup.tcp if tcp else proxy.setup.http}"
    command = "http" if scenario.kind in ("reload", "http") else scenario.kind
    found = [command, "--target", target, "-c", scenario.connections, *scenario.arguments]
    if scenario.features.routes:
        paths = proxy.setup.directory / "paths"
        if not paths.exists():
            paths.write_text("".join(f"{route(n)}bytes/1024\n" for n in spread(scenario.features.routes)))
        found += ["--paths", paths]
    return found


def spread(count):
    """All numbers below `count`, far ones after each other: a step that shares no divisor with them."""
    step = 7 if count <= 10 else 37
    return [(n * step) % count for n in range(count)]


class Measurement:
    """The means of all measurements."""

    def __init__(self, cores, backend):
        self.cores, self.backend = cores, backend

    def generate(self, proxy, command, seconds):
        def run():
            return load.generator(self.cores.generator, command, seconds)
        figures = load.clocked(proxy, self.backend, run)
        load.check(figures)
        return figures

    def busy(self, scenario, proxy, seconds):
        """As much as goes: processor time and throughput."""
        figures = self.generate(proxy, [*arguments(scenario, proxy), "-d", seconds], seconds)
        count = figures["bytes"] / 1024 if scenario.kind == "tcp-bulk" else figures["requests"]
        result = {"cpu_us": figures["cpu_ns"] / 1000 / count, "per_s": count / figures["seconds"],
                  "rss": figures["rss"], "load_us": figures["load_ns"] / 1000 / count,
                  "load_busy": figures["load_ns"] / 1e9 / figures["wall_s"],
                  "proxy_busy": figures["cpu_ns"] / 1e9 / figures["wall_s"], "count": count,
                  "foreign": figures["foreign"]}
        if scenario.features.log:
            self.check_log(proxy, figures["requests"])
        return result

    @staticmethod
    def check_log(proxy, requests):
        """A proxy that logs nothing has not done the work. Then makes room."""
        path = proxy.setup.log
        deadline = time.monotonic() + 15
        # The buffers are written within some seconds; a line has more than 40 bytes.
        while path.stat().st_size < requests * 40:
            if time.monotonic() > deadline:
                raise Failed(f"the log has {path.stat().st_size} bytes for {requests} requests")
            time.sleep(0.1)
        with path.open("r+") as log:
            log.truncate(0)

    def paced(self, scenario, proxy, seconds, rate):
        """At a rate that all can bear: latency."""
        command = [*arguments(scenario, proxy), "-d", seconds + RATE_WARMUP_S,
                   "--warmup", RATE_WARMUP_S, "--rate", rate]
        figures = self.generate(proxy, command, seconds)
        if scenario.features.log:
            self.check_log(proxy, figures["requests"])
        return {"rate": rate, "p50_us": figures["p50_us"], "p99_us": figures["p99_us"],
                "max_us": figures["max_us"], "paced_cpu_us": figures["cpu_ns"] / 1000 / figures["requests"]}

    def idle(self, scenario, proxy):
        """Memory of idle connections, the proxy being fresh."""
        # The first requests fill pools and tables, which are not of the connections.
        self.generate(proxy, [*arguments(Scenario("warm", ""), proxy), "-d", 0.5], 1)
        before = machine.rss_bytes(proxy.pids())
        command = Cores.pin(self.cores.generator, [load.LOAD, "idle", "--target",
                            f"127.0.0.1:{proxy.setup.http}", "-c", IDLE])
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        try:
            ready = json.loads(process.stdout.readline())
            after = machine.rss_bytes(proxy.pids())
            figures = json.loads(process.communicate("", timeout=load.PATIENCE_S)[0])
        except (ValueError, subprocess.TimeoutExpired) as error:
            raise Failed(f"the load generator failed: {error}") from None
        finally:
            process.kill()
            process.wait()
        load.check(figures)
        return {"rss": after, "idle_bytes": (after - before) / ready["ready"]}

    def reload(self, scenario, proxy, rate):
        """Latency at a fixed rate while the proxy is reloaded again and again."""
        seconds = RELOADS * RELOAD_SPACING_S + 2
        command = [load.LOAD, *arguments(scenario, proxy), "-d", seconds, "--rate", rate, "--warmup", 1]
        process = subprocess.Popen(Cores.pin(self.cores.generator, command), stdout=subprocess.PIPE, text=True)
        try:
            time.sleep(1.5)
            for number in range(RELOADS):
                known = set(machine.tree(proxy.pids()))
                proxy.reload()
                time.sleep(RELOAD_SPACING_S)
                if not set(machine.tree(proxy.pids())) - known:
                    raise Failed(f"reload {number + 1} had no effect: {proxy.last_words()[-300:]}")
            figures = json.loads(process.communicate(timeout=load.PATIENCE_S)[0])
        except (ValueError, RuntimeError, subprocess.SubprocessError) as error:
            raise Failed(f"{error}") from None
        finally:
            process.kill()
            process.wait()
        # Errors are a figure here: they are what a reload may cost. They fail the row all the same.
        return {"rate": rate, "p50_us": figures["p50_us"], "p99_us": figures["p99_us"],
                "max_us": figures["max_us"], "rss": machine.rss_bytes(proxy.pids()),
                "reconnects": figures["connections"] - scenario.connections,
                "failed": load.failures(figures)}
