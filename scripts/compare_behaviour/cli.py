"""The command line of scripts/compare-behaviour."""

import argparse
import contextlib
import fnmatch
import importlib
import pkgutil
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from compare_speed import machine

from . import accepted, cases, programs
from .compare import compare

ROOT = Path(__file__).resolve().parent.parent.parent


def main(description):
    options = parse(description)
    chosen = [case for case in all_cases() if wanted(case, options)]
    if options.list:
        print("\n".join(f"{case.area}: {case.name}" for case in chosen))
        return 0
    if not chosen:
        raise SystemExit("no case has such a name: `--list` shows all")
    untold = [entry for entry in accepted.ACCEPTED if not told(entry)]
    for entry in untold:
        print(f"{entry.told[0]} does not say {entry.told[1]!r}, which accepts `{entry.item}`")
    if options.told:
        return 1 if untold else 0
    envoy = programs.Envoy(Path(options.envoy or machine.envoy_program()).resolve())
    baton = programs.Baton(Path(options.program or build()).resolve())
    used, unlisted = run(chosen, envoy, baton, options)
    unused = [] if narrowed(options) else [entry for entry in accepted.ACCEPTED if entry not in used]
    for entry in unused:
        print(f"not seen any more: `{entry.item}`, accepted because {entry.reason}")
    print(f"{len(chosen)} cases, {unlisted} differences that are not accepted")
    return 1 if unlisted or untold or unused else 0


def parse(description):
    parser = argparse.ArgumentParser(prog="scripts/compare-behaviour", description=description,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", action="append", default=[], metavar="PATTERN", help="cases with such a name")
    parser.add_argument("--area", action="append", default=[], metavar="NAME", help="cases of this file")
    parser.add_argument("--list", action="store_true", help="show the names of the cases and end")
    parser.add_argument("--told", action="store_true", help="only look whether docs/ tells each accepted difference")
    parser.add_argument("--all", action="store_true", help="show accepted differences too")
    parser.add_argument("--verbose", action="store_true", help="show everything that was seen")
    parser.add_argument("--no-stats", action="store_true", help="leave statistics out")
    parser.add_argument("--jobs", type=int, default=4, help="cases at a time (default: 4, because most only wait)")
    parser.add_argument("--envoy", metavar="PATH", help="Envoy's program (default: the one of PyPI)")
    parser.add_argument("--program", metavar="PATH", help="baton's program (default: a debug build of this tree)")
    return parser.parse_args()


def narrowed(options):
    return bool(options.case or options.area or options.no_stats)


def all_cases():
    found = []
    for module in pkgutil.iter_modules(cases.__path__):
        for case in importlib.import_module(f"{cases.__name__}.{module.name}").CASES:
            case.area = module.name.replace("_", "-")
            found.append(case)
    names = [case.name for case in found]
    assert len(set(names)) == len(names), "two cases have one name"
    return found


def wanted(case, options):
    by_name = not options.case or any(fnmatch.fnmatchcase(case.name, f"*{pattern}*") for pattern in options.case)
    return by_name and (not options.area or case.area in options.area)


def told(entry):
    name, words = entry.told
    return words in " ".join((ROOT / name).read_text().split())


def build():
    subprocess.run(["cargo", "build", "--locked", "--quiet"], cwd=ROOT, check=True)
    return ROOT / "target/debug/baton"


def run(chosen, envoy, baton, options):
    """The entries that were used, and the number of differences nobody accepts."""
    used, unlisted = set(), 0
    # Ends the programs that run, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))
    with ThreadPoolExecutor(options.jobs) as pool, cancelling(pool):
        for case, result in zip(chosen, pool.map(lambda case: attempt(case, envoy, baton), chosen)):
            if isinstance(result, programs.Failed) and result.missing():
                print(f"{case.area}: {case.name}\n    not compared: {result.missing()}")
                continue
            if isinstance(result, programs.Failed):
                print(f"{case.area}: {case.name}\n    {result}")
                unlisted += 1
                continue
            found, seen = result
            if options.no_stats:
                found = [difference for difference in found if not difference.item.startswith("stat ")]
            used |= {difference.accepted() for difference in found}
            unlisted += sum(difference.accepted() is None for difference in found)
            show(case, found, seen, options)
            sys.stdout.flush()
    return used, unlisted


@contextlib.contextmanager
def cancelling(pool):
    """What has not begun does not begin when this one is stopped."""
    try:
        yield
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        raise


def attempt(case, envoy, baton):
    try:
        return compare(case, envoy, baton)
    except programs.Failed as error:
        return error


def show(case, found, seen, options):
    shown = [difference for difference in found if options.all or difference.accepted() is None]
    if shown or options.verbose:
        print(f"{case.area}: {case.name}")
    for difference in shown:
        print(f"    {difference.item}\n        Envoy  {difference.envoy}\n        baton  {difference.baton}")
        if entry := difference.accepted():
            print(f"        accepted: {entry.reason}")
    if options.verbose:
        for program, items in zip(("Envoy", "baton"), seen):
            print(f"  {program} saw")
            for item, value in sorted(items.items()):
                print(f"    {item}: {value}")
