"""Pins and places: what is read once and never changes while the harness runs."""

import os
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pitcrew"
STATE = Path(os.environ.get("PITCREW_CLUSTER") or "/var/lib/pitcrew-cluster")


def _pins():
    lines = (ROOT / "scripts" / "versions").read_text().splitlines()
    pairs = (re.fullmatch(r"([A-Z]+)=(\S+)", line) for line in lines)
    return {pair[1]: pair[2] for pair in pairs if pair}


PINS = _pins()
KUBERNETES = os.environ.get("PITCREW_KUBERNETES") or PINS["KUBERNETES"]


class NotRun(Exception):
    """This machine can't run that; the text says why. Never to be counted as passed."""


class Failed(Exception):
    """What was attempted did not happen; the text says what, and where to look."""
