"""The order of things: in each round the proxies are started and measured one after another."""

import os
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

from . import load, machine
from .configs import Setup
from .load import Failed
from .proxies import PROXIES
from .scenarios import RATE_SHARE, Measurement

# Figures of few are worth as much here: memory hardly varies, and a reload takes seconds.
LONG_KINDS = ("idle", "reload")
WARMUP_S = 0.5


def say(text):
    print(text, file=sys.stderr, flush=True)


class Runner:
    """Runs scenarios and keeps the result of every round."""

    def __init__(self, options, cores, backend, directory):
        self.options, self.cores, self.backend, self.directory = options, cores, backend, directory
        self.measure = Measurement(cores, backend)
        self.results = []
        self.number = 0

    @contextmanager
    def started(self, name, scenario):
        """A proxy with a directory and ports of its own."""
        self.number += 1
        directory = self.directory / f"{self.number}-{name}"
        directory.mkdir()
        http, tcp, admin = machine.free_ports(3)
        setup = Setup(directory, http, tcp, admin, self.backend.ports["http"], self.backend.ports["tcp"],
                      self.options.workers, scenario.features)
        proxy = PROXIES[name](setup, self.cores.proxy)
        try:
            proxy.start()
            proxy.wait()
            yield proxy
        finally:
            proxy.stop()

    def keep(self, scenario, proxy, number, measure, *arguments):
        """One result; what goes wrong is one, too."""
        try:
            result = measure(scenario, proxy, *arguments)
        except Failed as error:
            result = {"failed": str(error)}
        if result.get("failed"):
            say(f"  {scenario.name} {proxy.name}: {result['failed']}")
        self.results.append({"scenario": scenario.name, "proxy": proxy.name, "round": number, **result})
        return result

    def turn(self, items, number):
        """Another one is the first in each round."""
        start = number % len(items)
        return items[start:] + items[:start]

    def family(self, scenarios):
        if scenarios[0].kind in LONG_KINDS:
            for scenario in scenarios:
                self.long(scenario)
            return
        pairs = [(name, scenario) for scenario in scenarios for name in self.options.peers]
        rates = self.rates(pairs)
        for number in range(self.options.rounds):
            say(f"{', '.join(s.name for s in scenarios)}: round {number + 1} of {self.options.rounds}")
            for name, scenario in self.turn(pairs, number):
                # Fresh ones each time: where its memory happens to be makes a process faster or slower by
                # some percent for as long as it lives.
                with self.started(name, scenario) as proxy:
                    self.keep(scenario, proxy, number, self.round, rates)

    def round(self, scenario, proxy, rates):
        self.measure.busy(scenario, proxy, WARMUP_S)
        result = self.measure.busy(scenario, proxy, self.options.seconds)
        if scenario.name in rates:
            result |= self.measure.paced(scenario, proxy, max(self.options.seconds / 2, 1), rates[scenario.name])
        return result

    def rates(self, pairs):
        """Finds for each scenario the rate at which latency is measured."""
        slowest = {}
        for name, scenario in pairs:
            try:
                with self.started(name, scenario) as proxy:
                    found = self.measure.busy(scenario, proxy, 1)["per_s"]
            except Failed as error:
                say(f"  {scenario.name} {name}: warming up: {error}")
                continue
            slowest[scenario.name] = min(found, slowest.get(scenario.name, found))
        if self.options.rate:
            slowest = dict.fromkeys(slowest, self.options.rate / RATE_SHARE)
        kinds = {scenario.name: scenario.kind for _, scenario in pairs}
        return {name: max(round(rate * RATE_SHARE), 1) for name, rate in slowest.items()
                if kinds[name] != "tcp-bulk"}

    def long(self, scenario):
        """Fresh proxies in each of fewer rounds, one at a time."""
        rounds = max(1, self.options.rounds // 3)
        rate = self.options.rate or 1000
        for number in range(rounds):
            say(f"{scenario.name}: round {number + 1} of {rounds}")
            for name in self.turn(self.options.peers, number):
                with self.started(name, scenario) as proxy:
                    if scenario.kind == "idle":
                        self.keep(scenario, proxy, number, self.measure.idle)
                    else:
                        self.keep(scenario, proxy, number, self.measure.reload, rate)

    def confirm(self, scenarios):
        """Some rows again with wrk."""
        script = self.directory / "post.lua"
        script.write_text('wrk.method = "POST"\nwrk.body = string.rep("x", 16384)\n')
        known = {"get-1k": [], "close": ["-H", "Connection: close"], "post-16k": ["-s", str(script)]}
        for scenario in scenarios:
            if scenario.name not in known:
                continue
            for number in range(self.options.rounds):
                say(f"{scenario.name} with wrk: round {number + 1} of {self.options.rounds}")
                for name in self.turn(self.options.peers, number):
                    with self.started(name, scenario) as proxy:
                        self.keep(scenario, proxy, number, self.wrk, known[scenario.name])

    def wrk(self, scenario, proxy, options):
        seconds = max(1, round(self.options.seconds))

        def run():
            return load.wrk(self.cores.generator, proxy.setup.http, options, scenario.connections, seconds)
        figures = load.clocked(proxy, self.backend, run)
        return {"wrk": True, "cpu_us": figures["cpu_ns"] / 1000 / figures["requests"],
                "per_s": figures["requests"] / figures["wall_s"]}


def families(scenarios):
    found = {}
    for scenario in scenarios:
        found.setdefault(scenario.family(), []).append(scenario)
    return found.values()


@contextmanager
def running(options, cores):
    """A runner with its backend."""
    backend = load.Backend(cores.backend)
    try:
        with tempfile.TemporaryDirectory(prefix="compare-speed-") as name:
            yield Runner(options, cores, backend, Path(name))
    finally:
        backend.stop()


def run(options, scenarios, cores):
    """All results, as one dictionary for each proxy, scenario and round."""
    with running(options, cores) as runner:
        began = time.monotonic()
        for family in families(scenarios):
            runner.family(family)
        if options.confirm:
            runner.confirm(scenarios)
        say(f"measured for {time.monotonic() - began:.0f} s on {os.cpu_count()} cores")
        return runner.results
