"""The command line of `scripts/compare-speed`."""

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
from pathlib import Path

from . import machine, network, plot, profile, report
from .machine import Cores
from .proxies import PROXIES, prepare
from .run import LONG_KINDS, run, running, say
from .scenarios import IDLE, SCENARIOS

# Descriptors of one process: the idle connections, both sides of the others, and some.
FILES = IDLE * 2 + 5000


def options_of(description):
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [scenario.name for scenario in SCENARIOS]
    parser.add_argument("--scenario", nargs="+", choices=names, default=names, metavar="NAME",
                        help=f"of {', '.join(names)}")
    parser.add_argument("--peers", nargs="+", choices=[name for name in PROXIES if name != "baton"],
                        default=["nginx", "haproxy", "envoy"], metavar="NAME", help="of nginx, haproxy, envoy, "
                        "plain: the plain release build, beside --program, floor: a relay that does nothing else, "
                        "and splice: the same by splice(2)")
    parser.add_argument("--program", type=Path, metavar="FILE", help="the baton to measure, for example that of "
                        "scripts/build-release; else a plain release build")
    parser.add_argument("--workers", type=int, choices=[1, 2], default=1, help="worker threads or processes of each")
    parser.add_argument("--rounds", type=int, help="interleaved rounds (10; quick: 3)")
    parser.add_argument("--seconds", type=float, help="of a run (5; quick: 2)")
    parser.add_argument("--rate", type=int, help="requests per second for the latencies, instead of 40 %% of what "
                        "the slowest proxy can")
    parser.add_argument("--congestion", default="cubic", metavar="NAME", help="congestion control of all "
                        "connections, in a network namespace of this script; cubic is Linux's default, and the pacing "
                        "of BBR can cost as much as the rest of a bulk transfer. "
                        f"{network.HOST}: what this machine has")
    parser.add_argument("--quick", action="store_true", help="3 rounds of 2 s: for daily use, not for claims")
    parser.add_argument("--confirm", action="store_true", help="repeats some rows with wrk")
    parser.add_argument("--profile", action="store_true", help="where the time goes: one run of each with perf")
    parser.add_argument("--json", type=Path, metavar="FILE", help="writes every round")
    parser.add_argument("--plot", type=Path, metavar="FILE.svg", help="draws a picture")
    options = parser.parse_args()
    options.rounds = options.rounds or (3 if options.quick else 10)
    options.seconds = options.seconds or (2 if options.quick else 5)
    options.peers = list(dict.fromkeys(["baton", *options.peers]))
    return options


def introduction(options, cores, about, rounds):
    proxies = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    load = sorted(set(cores.generator + cores.backend))
    return (f"{options.rounds} interleaved rounds of {options.seconds:g} s, {options.workers} worker(s) on core(s) "
            f"{cores.proxy}, generator and backend on {load}; {about['machine']['cpu']}, Linux "
            f"{about['machine']['kernel']}, {about['congestion']} congestion control.\n\n{proxies}.\n\n"
            "Figures are medians of the rounds; "
            "*baton/this* is the median of the ratios of the same round, less than 1 where baton needs less."
            + noise(rounds))


def noise(rounds):
    """How much of the machine went to somebody else meanwhile."""
    found = sorted(result["foreign"] for result in rounds if "foreign" in result)
    if not found:
        return ""
    return (f" Other programs and the host took {statistics.median(found):.0%} of the cores' time "
            f"(median of the runs; {found[-1]:.0%} at worst).")


def save(path, about, options, rounds):
    used = {name: str(value) if isinstance(value, Path) else value for name, value in vars(options).items()}
    path.write_text(json.dumps({**about, "options": used, "rounds": rounds}, indent=1) + "\n")


def draw(path, saved):
    python = machine.tool_python("matplotlib")
    subprocess.run([str(python), plot.__file__, str(saved), str(path)], check=True)


def warn_if_busy():
    load = os.getloadavg()[0]
    if load > 0.5:
        say(f"warning: the machine is busy (load {load:.1f}); ratios of pairs help, but do not trust the figures")


def print_profiles(options, scenarios, cores):
    print(f"{network.congestion_control()} congestion control.", end="\n\n", flush=True)
    failed = False
    with running(options, cores) as runner:
        for scenario in scenarios:
            if scenario.kind in LONG_KINDS:
                continue
            columns = profile.profile(runner, scenario)
            if columns:
                print(profile.table(scenario, columns), end="\n\n", flush=True)
            failed |= len(columns) < len(options.peers)
    return 1 if failed else 0


def prepare_all(options):
    """Everything that needs the network, then goes where there is none."""
    prepare(options.peers, options.program)
    if options.confirm:
        machine.need("wrk")
    if options.profile:
        machine.need_perf()
    if options.plot:
        # Later it is found without the network.
        machine.tool_python("matplotlib")
    if options.congestion == network.HOST:
        return
    machine.need_ip()
    reason = network.enter(options.congestion)
    if reason:
        say(f"warning: no network of its own ({reason}); connections have the congestion control of this machine")


def main(description):
    # A terminated run stops its proxies, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    options = options_of(description)
    scenarios = [scenario for scenario in SCENARIOS if scenario.name in options.scenario]
    warn_if_busy()
    if options.program and not options.program.is_file():
        sys.exit(f"--program: there is no file {options.program}")
    prepare_all(options)
    machine.raise_file_limit(FILES)
    cores = Cores(options.workers)
    if options.profile:
        return print_profiles(options, scenarios, cores)
    about = {"machine": machine.description(), "congestion": network.congestion_control(), "versions":
             {PROXIES[name].name: PROXIES[name].version() for name in options.peers}}
    rounds = report.derived(run(options, scenarios, cores))
    results = report.Results(rounds)
    print(introduction(options, cores, about, rounds), end="\n\n")
    for scenario in results.scenarios():
        print(report.table(results, scenario), end="\n\n")
    if options.confirm:
        print(report.confirmation(results), end="\n\n")
    text, missed = report.bar(results)
    print(text)
    if options.json or options.plot:
        saved = options.json or machine.ROOT / "target/compare-speed.json"
        save(saved, about, options, rounds)
    if options.plot:
        draw(options.plot, saved)
    failed = sum(len(failures) for (_, proxy), failures in results.failed.items() if proxy == "baton")
    if missed:
        say(f"{missed} figure(s) of the bar missed")
    if failed:
        say(f"baton failed in {failed} round(s)")
    return 1 if failed or missed else 0
