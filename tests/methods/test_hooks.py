"""A method that takes a hook of the base for itself still runs what the base does there."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Iterator

from ssl_zoo import methods
from ssl_zoo.methods.base import Method

# What a method is made of.
WRITTEN = {"__init__", "training_loss", "before_step", "after_step", "encoder", "embed", "share_problem"}


def subclasses(of: type) -> Iterator[type]:
    for found in of.__subclasses__():
        yield found
        yield from subclasses(found)


def test_methods_that_override_a_hook_of_the_base_call_it():
    for module in pkgutil.iter_modules(methods.__path__):
        importlib.import_module(f"{methods.__name__}.{module.name}")
    hooks = {name for name, value in vars(Method).items() if inspect.isfunction(value)} - WRITTEN
    taken = [(kind, name) for kind in subclasses(Method) for name in sorted(hooks & vars(kind).keys())]
    assert taken, "no method overrides a hook: the test looks at nothing"
    silent = [f"{kind.__name__}.{name}" for kind, name in taken
              if f"super().{name}(" not in inspect.getsource(vars(kind)[name])]  # fmt: skip
    assert not silent
