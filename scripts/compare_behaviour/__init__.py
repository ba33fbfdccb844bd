"""Envoy and baton side by side: see scripts/compare-behaviour."""
