"""Scenarios on real nodes. Each gets a World (harness/world.py) and breaks one thing."""
