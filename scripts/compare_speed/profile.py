"""Where the processor time of a request goes: samples of perf, by what the kernel was asked for."""

import re
import subprocess

from . import machine
from .load import Failed
from .run import WARMUP_S, say

# Samples per second; odd, so that they do not fall in step with a timer.
FREQUENCY = 2503
# What is asked for, and the functions of the kernel that do it, all they call included.
CALLS = {
    "sending": ["sys_sendto", "sys_sendmsg", "do_writev"],
    "of this the other side's TCP": ["__local_bh_enable_ip"],
    "of this waking the other side": ["sock_def_readable"],
    "of this copying in": ["_copy_from_iter"],
    "receiving": ["sys_recvfrom"],
    "of this copying out": ["_copy_to_iter"],
    "splicing": ["sys_splice"],
    "waiting": ["sys_epoll_wait", "sys_epoll_pwait"],
    "accepting": ["sys_accept4"],
    "saying what to wait for": ["sys_epoll_ctl"],
    "closing": ["sys_close", "sys_shutdown"],
    "page faults": ["asm_exc_page_fault"],
}


def record(pids, path, seconds):
    """Begins to take samples of processes; ends by itself."""
    command = ["perf", "record", "-q", "-g", "-F", str(FREQUENCY), "-o", str(path),
               "-p", ",".join(map(str, pids)), "--", "sleep", str(seconds)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def report(path, *options):
    command = ["perf", "report", "-i", str(path), "-g", "none", *options]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def shares(path):
    """Share of all samples in each function of the kernel and what it calls, and in the kernel at all."""
    found = {}
    for line in report(path, "--children", "--sort", "sym").splitlines():
        match = re.match(r"\s+([\d.]+)%\s+[\d.]+%\s+\[k\] (?:__[a-z0-9]+_(?=sys_))?(\S+)", line)
        if match:
            found[match[2]] = max(found.get(match[2], 0), float(match[1]) / 100)
    kernel = sum(float(line.split("%")[0]) / 100 for line in
                 report(path, "--no-children", "--sort", "dso").splitlines() if "[kernel" in line)
    return found, kernel


def profile(runner, scenario):
    """The parts of the time of a request, microseconds, of each proxy that did not fail."""
    columns = {}
    for name in runner.options.peers:
        say(f"{scenario.name}: {name}")
        with runner.started(name, scenario) as proxy:
            try:
                columns[proxy.name] = parts(runner, scenario, proxy)
            except Failed as error:
                say(f"  {scenario.name} {proxy.name}: {error}")
    return columns


def parts(runner, scenario, proxy):
    seconds = runner.options.seconds
    runner.measure.busy(scenario, proxy, WARMUP_S)
    path = proxy.setup.directory / "perf.data"
    samples = record(machine.tree(proxy.pids()), path, seconds)
    try:
        total = runner.measure.busy(scenario, proxy, seconds)["cpu_us"]
    finally:
        # It ends by itself soon after the run, or with the proxy.
        _, errors = samples.communicate()
    if samples.returncode:
        raise SystemExit(f"perf cannot take samples here: {errors.strip()[-300:]}")
    found, kernel = shares(path)
    times = {"all": total, "outside of the kernel": total * (1 - kernel)}
    rest = total * kernel
    for what, functions in CALLS.items():
        times[what] = total * sum(found.get(function, 0) for function in functions)
        if not what.startswith("of "):
            rest -= times[what]
    times["the rest of the kernel"] = max(rest, 0)
    return times


def table(scenario, columns):
    """As Markdown; what is nothing for everybody is left out."""
    unit, factor = ("ns/KiB", 1000) if scenario.kind == "tcp-bulk" else (f"µs/{scenario.unit}", 1)
    lines = [f"### {scenario.name}: {scenario.text}", "",
             f"| {unit} | {' | '.join(columns)} |", f"|---|{'---:|' * len(columns)}"]
    for what in next(iter(columns.values())):
        values = [times[what] * factor for times in columns.values()]
        if max(values) >= 0.05 * factor:
            lines.append(f"| {what} | {' | '.join(f'{value:,.1f}' for value in values)} |")
    return "\n".join(lines)
