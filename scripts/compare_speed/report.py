"""Medians, ratios of pairs, the tables and the bar."""

import statistics
from collections import defaultdict

from .scenarios import SCENARIOS

# What baton is to reach: its processor time over that of the peer, the median of the rounds' ratios.
BAR = {
    ("get-1k", "nginx"): 0.75, ("get-1k", "HAProxy"): 0.80, ("get-1k", "Envoy"): 0.25,
    ("get-64k", "nginx"): 0.60, ("get-64k", "HAProxy"): 0.75, ("get-64k", "Envoy"): 0.35,
    ("post-16k", "nginx"): 0.70, ("post-16k", "HAProxy"): 0.60, ("post-16k", "Envoy"): 0.25,
    ("close", "nginx"): 0.95, ("close", "HAProxy"): 0.95, ("close", "Envoy"): 0.40,
    ("tcp-bulk", "nginx"): 0.80, ("tcp-bulk", "HAProxy"): 0.70, ("tcp-bulk", "Envoy"): 0.80,
}
# A thousand routes against ten, both of baton.
BAR_ROUTES = 1.05
# Bytes of resident memory for an idle connection of baton.
BAR_IDLE = 1536
# The generator and the backend are what is short when they are busier than this.
LOAD_BOUND = 0.93
# Closer medians than this are no ranking.
TIE = 0.05


class Results:
    """All rounds, by scenario and proxy."""

    def __init__(self, rounds):
        self.rounds = rounds
        self.good = defaultdict(dict)
        self.failed = defaultdict(list)
        for result in rounds:
            key = (result["scenario"], result["proxy"], result.get("wrk", False))
            if result.get("failed"):
                self.failed[key[:2]].append(result["failed"])
            self.good[key][result["round"]] = result

    def values(self, scenario, proxy, name, wrk=False):
        return [result[name] for result in self.good[scenario, proxy, wrk].values() if name in result]

    def median(self, scenario, proxy, name, wrk=False):
        values = self.values(scenario, proxy, name, wrk)
        return statistics.median(values) if values else None

    def ratios(self, ours, peer, name="cpu_us"):
        """baton's figure over the other one, of the rounds in which both have it."""
        mine, theirs = self.good[*ours, False], self.good[*peer, False]
        return [mine[number][name] / theirs[number][name] for number in mine
                if number in theirs and name in mine[number] and name in theirs[number]]

    def scenarios(self):
        found = {result["scenario"] for result in self.rounds}
        return [scenario for scenario in SCENARIOS if scenario.name in found]

    def proxies(self, scenario):
        return list(dict.fromkeys(result["proxy"] for result in sorted(self.rounds, key=lambda r: r["round"])
                                  if result["scenario"] == scenario))


def cell(value, digits=0):
    return "" if value is None else f"{value:,.{digits}f}"


def versus(ratios):
    if not ratios:
        return "", ""
    return f"{statistics.median(ratios):.2f}", f"{sum(r < 1 for r in ratios)} of {len(ratios)}"


def columns(scenario):
    """Title, key and digits of the columns of a scenario."""
    if scenario.kind == "idle":
        return [("bytes per connection", "idle_bytes", 0), ("RSS, MiB", "rss_mib", 1)]
    times = [("p50, µs", "p50_us", 0), ("p99, µs", "p99_us", 0)]
    if scenario.kind == "reload":
        return [*reversed(times), ("longest, µs", "max_us", 0), ("reconnects", "reconnects", 0),
                ("RSS, MiB", "rss_mib", 1)]
    if scenario.kind == "tcp-bulk":
        return [("CPU, ns/byte", "cpu_ns_byte", 3), ("MiB/s", "mib_s", 0), ("RSS, MiB", "rss_mib", 1)]
    return [(f"CPU, µs/{scenario.unit}", "cpu_us", 2), (f"{scenario.unit}s/s", "per_s", 0), *times,
            ("RSS, MiB", "rss_mib", 1)]


def main_figure(scenario):
    return {"idle": "idle_bytes", "reload": "p99_us"}.get(scenario.kind, "cpu_us")


def derived(rounds):
    """The same figures in the units of the tables."""
    for result in rounds:
        if "rss" in result:
            result["rss_mib"] = result["rss"] / 2**20
        if result["scenario"] == "tcp-bulk" and "cpu_us" in result:
            result["cpu_ns_byte"] = result["cpu_us"] * 1000 / 1024
            result["mib_s"] = result["per_s"] / 1024
    return rounds


def span(results, scenario, proxy):
    key = "cpu_ns_byte" if scenario.kind == "tcp-bulk" else main_figure(scenario)
    values = results.values(scenario.name, proxy, key)
    digits = {"cpu_us": 1, "cpu_ns_byte": 3}.get(key, 0)
    return f"{min(values):,.{digits}f} to {max(values):,.{digits}f}" if values else ""


def table(results, scenario):
    shown = columns(scenario)
    titles = ["proxy", shown[0][0], "lowest to highest", *[title for title, _, _ in shown[1:]],
              "baton/this", "baton lower in"]
    lines = [f"### {scenario.name}: {scenario.text}", ""]
    rate = [result["rate"] for result in results.rounds if result["scenario"] == scenario.name and "rate" in result]
    if rate:
        lines += [f"{scenario.connections} connection{'s' * (scenario.connections > 1)}; "
                  f"times at {rate[0]:,} {scenario.unit}s per second, the same for all.", ""]
    lines += ["| " + " | ".join(titles) + " |", "|---|" + "---:|" * (len(titles) - 1)]
    for proxy in results.proxies(scenario.name):
        cells = [cell(results.median(scenario.name, proxy, key), digits) for _, key, digits in shown]
        failed = results.failed[scenario.name, proxy]
        name = f"{proxy}, **failed**" if failed else proxy
        ratio = versus(results.ratios((scenario.name, "baton"), (scenario.name, proxy), main_figure(scenario)))
        compared = ("", "") if proxy == "baton" else ratio
        lines.append("| " + " | ".join([name, cells[0], span(results, scenario, proxy), *cells[1:], *compared]) + " |")
    for proxy in results.proxies(scenario.name):
        failed = results.failed[scenario.name, proxy]
        if failed:
            lines += ["", f"{proxy} failed in {len(failed)} round(s): {failed[0]}"]
    return "\n".join(lines + load_note(results, scenario))


def load_note(results, scenario):
    """Whom the generator and the backend held up: then only the processor time is the proxy's."""
    bound = [proxy for proxy in results.proxies(scenario.name)
             if (results.median(scenario.name, proxy, "load_busy") or 0) > LOAD_BOUND
             and (results.median(scenario.name, proxy, "proxy_busy") or 0) < LOAD_BOUND]
    return ["", f"Throughput limited by the load generator, not the proxy: {', '.join(bound)}."] if bound else []


def verdict(value, limit, failed):
    if failed:
        return "**missed** (errors)"
    if value is None:
        return "not measured"
    return "met" if value <= limit else "**missed**"


def bar(results):
    """The table of what was to be reached; whether all that was measured was."""
    rows = []
    for (scenario, peer), limit in BAR.items():
        ratios = results.ratios((scenario, "baton"), (scenario, peer))
        value = statistics.median(ratios) if ratios else None
        rows.append((f"{scenario}: CPU, baton/{peer}", limit, value, results.failed[scenario, "baton"]))
    ratios = results.ratios(("routes-1000", "baton"), ("routes-10", "baton"))
    value = statistics.median(ratios) if ratios else None
    rows.append(("routes-1000: CPU, baton/baton with 10 routes", BAR_ROUTES, value,
                 results.failed["routes-1000", "baton"]))
    rows.append(("idle-10000: bytes per connection", BAR_IDLE, results.median("idle-10000", "baton", "idle_bytes"),
                 results.failed["idle-10000", "baton"]))
    lines = ["### The bar", "", "| figure | at most | measured | |", "|---|---:|---:|---|"]
    missed = 0
    for text, limit, value, failed in rows:
        word = verdict(value, limit, failed)
        missed += "missed" in word
        if word != "not measured":
            digits = 2 if limit < 10 else 0
            lines.append(f"| {text} | {limit:,.{digits}f} | {cell(value, digits)} | {word} |")
    return ("\n".join(lines) if len(lines) > 4 else "", missed)


def ranking(results, scenario, wrk):
    medians = {proxy: results.median(scenario, proxy, "cpu_us", wrk) for proxy in results.proxies(scenario)}
    return sorted((value, proxy) for proxy, value in medians.items() if value is not None)


def confirmation(results):
    """Whether wrk puts the proxies into the same order."""
    lines = ["### The same rows with wrk", "", "| scenario | baton-load, CPU µs | wrk, CPU µs | ranking |",
             "|---|---|---|---|"]
    for scenario in results.scenarios():
        ours, theirs = ranking(results, scenario.name, False), ranking(results, scenario.name, True)
        if not theirs or not ours:
            continue
        lines.append(f"| {scenario.name} | {order(ours)} | {order(theirs)} | "
                     f"{'agrees' if agrees(ours, theirs) else '**differs**'} |")
    return "\n".join(lines) if len(lines) > 4 else ""


def order(ranked):
    return ", ".join(f"{proxy} {value:.1f}" for value, proxy in ranked)


def agrees(ours, theirs):
    """No two proxies change places, unless they are too close in one of the two to have one."""
    first, second = ({proxy: value for value, proxy in ranked} for ranked in (ours, theirs))
    both = first.keys() & second.keys()

    def clearly_less(values, one, other):
        return values[one] < values[other] * (1 - TIE)
    return not any(clearly_less(first, one, other) and clearly_less(second, other, one)
                   for one in both for other in both)
