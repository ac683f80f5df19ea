"""The values that the built optimizer uses at a step, group by group."""

from __future__ import annotations

from typing import Any

from ssl_zoo.optim.recipe import BoundRecipe
from ssl_zoo.optim.schedules import Progress
from tests.golden.recipes.composed import Composed
from tests.golden.recipes.parameters import Parameter, meant, trained


class Groups:
    """The groups of a composed optimizer, and which of them a recipe speaks of."""

    def __init__(self, composed: Composed, bound: BoundRecipe | None = None) -> None:
        self.bound = bound or composed.bound
        self.parameters = trained(composed.method, self.bound)
        self._members: dict[int, list[Parameter]] = {}
        for parameter in self.parameters:
            self._members.setdefault(parameter.group, []).append(parameter)

    def at(self, progress: Progress) -> list[dict[str, Any]]:
        """All groups with the values of that step."""
        self.bound.apply(progress)
        return [dict(group) for group in self.bound.optimizer.param_groups]

    def of(self, selector: str) -> list[int] | None:
        """Groups all of whose parameters a sentence means; None: it cannot be read."""
        means = meant(selector)
        if means is None:
            return None
        return [i for i, members in self._members.items() if all(map(means, members))]

    def others(self, selectors: list[str]) -> list[int]:
        """Groups of which no selector speaks."""
        spoken = {i for selector in selectors for i in self.of(selector) or []}
        return [i for i in self._members if i not in spoken]

    def values(self, option: str, progress: Progress, which: list[int]) -> list[float]:
        """The different values of an option in some groups, in their order."""
        groups = self.at(progress)
        return list(dict.fromkeys(float(groups[i].get(option, 0.0)) for i in which))


def selectors(groups: Any) -> list[str]:
    """Of a recorded ``lr_groups``: the parts that have a rate of their own."""
    return list(groups) if isinstance(groups, dict) else []


def near(ours: float, recorded: float, relative: float, absolute: float = 0.0) -> bool:
    return abs(ours - recorded) <= max(relative * abs(recorded), absolute)
