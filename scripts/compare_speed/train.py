"""Runs baton alone through the scenarios, for a compiler that wants to see what it does."""

from types import SimpleNamespace

from . import machine, proxies
from .load import Failed
from .machine import Cores
from .run import LONG_KINDS, running, say
from .scenarios import SCENARIOS


def train(program, seconds):
    """Serves each scenario for some seconds; fails when an answer was wrong."""
    proxies.prepare(["baton"], program)
    machine.raise_file_limit(8192)
    try:
        with running(SimpleNamespace(workers=1), Cores(1)) as runner:
            for scenario in SCENARIOS:
                if scenario.kind in LONG_KINDS:
                    continue
                with runner.started("baton", scenario) as proxy:
                    figures = runner.measure.busy(scenario, proxy, seconds)
                    # The next generation reads the file and takes over, as the first one did.
                    proxy.reload()
                    say(f"  {scenario.name}: {figures['count']:.0f}")
    except Failed as error:
        raise SystemExit(f"training failed: {error}") from None
