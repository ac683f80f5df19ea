"""The seeds of torch's own generators, from which dropout and its like draw."""

from __future__ import annotations

from collections.abc import Callable

import torch


def seed_generators(seed: int, device: torch.device) -> None:
    """``torch.manual_seed`` for what a step on ``device`` draws from alone.

    torch's own also asks every kind of accelerator that there might be, and formats a stack trace for each that is
    absent: 62 microseconds on a machine without any, where this takes one.
    """
    if device.type not in ("cpu", "cuda"):
        torch.manual_seed(seed)
        return
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.default_generators[device.index or 0].manual_seed(seed)


def rewinding(device: torch.device) -> Callable[[], None]:
    """A function that puts torch's generator of ``device`` back to where it is now."""
    if device.type == "cpu":
        state = torch.get_rng_state()
        return lambda: torch.set_rng_state(state)
    if device.type != "cuda" or not torch.cuda.is_initialized():  # tests have devices that are not there
        return lambda: None
    found = torch.cuda.get_rng_state(device)
    return lambda: torch.cuda.set_rng_state(found, device)
