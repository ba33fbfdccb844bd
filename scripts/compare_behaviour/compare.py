"""Differences between two observations, and which of them are on purpose."""

import fnmatch
import re
from dataclasses import dataclass

from .accepted import ACCEPTED
from . import programs

# Values that are times.
TIMES = ["* header x-envoy-upstream-service-time", "stat *.update_time", "stat *_time_ms"]
# Values that are times left: so many ms apart are the same.
TIMES_LEFT = ["* header x-envoy-expected-rq-timeout-ms"]
SAME_MS = 100
ABSENT = "(none)"
# A response, a request or a line of the log, and what of it.
MESSAGE = re.compile(r"(client \d+ response \d+|backend \w+ connection \d+ request \d+|log \d+) (.+)")


@dataclass
class Difference:
    case: str
    item: str
    envoy: str
    baton: str

    def accepted(self):
        """The entry that accepts it, or None."""
        for entry in ACCEPTED:
            if all(fnmatch.fnmatchcase(value, pattern) for value, pattern in [
                    (self.case, entry.case), (self.item, entry.item),
                    (self.envoy, entry.envoy), (self.baton, entry.baton)]):
                return entry
        return None


def differences(case, envoy, baton):
    """Every item that is not the same in both."""
    found = []
    envoy, baton = whole_messages(envoy, baton)
    for item in sorted({*envoy, *baton}, key=order):
        ours, theirs = baton.get(item, ABSENT), envoy.get(item, ABSENT)
        if any(fnmatch.fnmatchcase(item, pattern) for pattern in TIMES) and ABSENT not in (ours, theirs):
            continue
        if any(fnmatch.fnmatchcase(item, pattern) for pattern in TIMES_LEFT) and near(ours, theirs):
            continue
        if item.startswith("stat "):
            ours, theirs = baton.get(item, "0"), envoy.get(item, "0")
        if ours != theirs:
            found.append(Difference(case.name, item, theirs, ours))
    return found


def near(ours, theirs):
    return ours.isdigit() and theirs.isdigit() and abs(int(ours) - int(theirs)) < SAME_MS


def whole_messages(envoy, baton):
    """A message or log line that only one of them has becomes one item."""
    groups = [{match[1] for item in items if (match := MESSAGE.match(item))} for items in (envoy, baton)]
    alone = groups[0] ^ groups[1]
    return tuple(shorten(items, alone) for items in (envoy, baton))


def shorten(items, alone):
    short = {}
    for item, value in items.items():
        match = MESSAGE.match(item)
        if not match or match[1] not in alone:
            short[item] = value
        elif match[2] in ("line", "body", "code"):
            short[match[1]] = ", ".join(filter(None, [short.get(match[1]), value]))
    return short


def order(item):
    """Clients first, then backends, log, pages and statistics; numbers by value."""
    kinds = ["client", "backend", "log", "page", "stat"]
    return kinds.index(item.split(" ")[0]), [part.zfill(6) if part.isdigit() else part for part in re.split(r"[ ]", item)]


def compare(case, envoy, baton):
    """The differences that two runs of both programs show alike, and all that was seen in the last run."""
    first = programs.observe(envoy, case), programs.observe(baton, case)
    found = differences(case, *first)
    if any(difference.accepted() is None for difference in found):
        again = programs.observe(envoy, case), programs.observe(baton, case)
        second = differences(case, *again)
        found = [difference for difference in found if difference in second]
    return found, first
