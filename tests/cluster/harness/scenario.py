"""The list of scenarios: functions whose names are sentences."""

import importlib
import pkgutil
from dataclasses import dataclass
from typing import Callable

_all = []


@dataclass(frozen=True)
class Scenario:
    name: str
    function: Callable
    quick: bool
    seconds: int
    by_name: bool


def scenario(quick=False, seconds=480, by_name=False):
    """Marks a function as a scenario. quick: one of those that stand for a rung of the recovery ladder. seconds: its limit.
    by_name: it needs more than the cluster does, and runs only when it is named."""

    def keep(function):
        _all.append(Scenario(function.__name__, function, quick, seconds, by_name))
        return function

    return keep


def load(package):
    for module in sorted(m.name for m in pkgutil.iter_modules(package.__path__)):
        importlib.import_module(f"{package.__name__}.{module}")
    return list(_all)
