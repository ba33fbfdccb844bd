"""The parts of `scripts/compare-speed`."""
