"""A picture of a file that `--json` wrote: processor time of each proxy against baton's.

Run by `scripts/compare-speed --plot` with a Python that has matplotlib.
"""

import json
import statistics
import sys
from collections import defaultdict

FIGURES = {"idle-10000": "idle_bytes", "reload-latency": "p99_us"}
COLOURS = {"baton": "#1b6e53", "baton, plain build": "#7fb8a4", "nginx": "#8fb8de", "HAProxy": "#e3b23c",
           "Envoy": "#b0a8b9", "bare relay": "#555555", "bare relay, splicing": "#999999"}


def medians(rounds):
    found = defaultdict(list)
    for result in rounds:
        name = FIGURES.get(result["scenario"], "cpu_us")
        if name in result and not result.get("wrk"):
            found[result["scenario"], result["proxy"]].append(result[name])
    return {key: statistics.median(values) for key, values in found.items()}


def label(scenario):
    return {"idle-10000": "idle-10000 (memory)", "reload-latency": "reload-latency (p99)"}.get(scenario, scenario)


def main():
    import matplotlib
    matplotlib.use("svg")
    from matplotlib import pyplot
    source, target = sys.argv[1:]
    with open(source) as file:
        data = json.load(file)
    figures = medians(data["rounds"])
    scenarios = [name for name in dict.fromkeys(name for name, _ in figures) if (name, "baton") in figures]
    proxies = [proxy for proxy in COLOURS if any((name, proxy) in figures for name in scenarios)]
    _, axes = pyplot.subplots(figsize=(9, 0.6 + 0.2 * len(scenarios) * (len(proxies) + 1)))
    height = 0.8 / len(proxies)
    for number, proxy in enumerate(proxies):
        places = [place + number * height for place, name in enumerate(scenarios) if (name, proxy) in figures]
        values = [figures[name, proxy] / figures[name, "baton"] for name in scenarios if (name, proxy) in figures]
        bars = axes.barh(places, values, height, label=proxy, color=COLOURS[proxy])
        axes.bar_label(bars, fmt="%.2f", padding=2, fontsize=7)
    axes.set_yticks([place + 0.4 - height / 2 for place in range(len(scenarios))], map(label, scenarios))
    axes.invert_yaxis()
    axes.axvline(1, color="black", linewidth=0.5)
    axes.set_xlabel("processor time, relative to baton (shorter is better)")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    pyplot.tight_layout()
    pyplot.savefig(target)


if __name__ == "__main__":
    main()
