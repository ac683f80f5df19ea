"""Where the host waits for a GPU in a step of training."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch
from omegaconf import DictConfig

from ssl_zoo.benchmarks.gpu_agreement import attempt, methods, pipelines, place, raw_batch, ready
from ssl_zoo.benchmarks.gpu_rows import Row, Setting, row
from ssl_zoo.benchmarks.steps import one_step
from ssl_zoo.data.image.datamodule import ImageData


@contextmanager
def refused(device: torch.device) -> Iterator[list[str]]:
    """Operations that make the host wait for the device raise in here; the list gets the place of the first."""
    found: list[str] = []
    if device.type == "cuda":
        torch.cuda.set_sync_debug_mode("error")
    try:
        yield found
    except RuntimeError as error:
        if "synchroniz" not in str(error):
            raise
        found.append(place(error))
    finally:
        if device.type == "cuda":
            torch.cuda.set_sync_debug_mode("default")


def waits_of_step(cfg: DictConfig, data: ImageData, device: torch.device) -> list[str]:
    """Where the third step waits: its batch, its views and the whole of its training step, in bfloat16."""
    method, stream = ready(cfg, data, device), iter(data.train_dataloader())

    def one() -> None:
        batch = data.on_after_batch_transfer(next(stream).to(device), 0)
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            one_step(method, batch)

    one()  # buffers are made and constants are moved
    one()
    with refused(device) as found:
        one()
    return found


def waits_of_views(data: ImageData, device: torch.device) -> list[str]:
    raws = [raw_batch(data, micro).to(device) for micro in range(2)]
    data.on_after_batch_transfer(raws[0], 0)
    with refused(device) as found:
        data.on_after_batch_transfer(raws[1], 0)
    return found


def host_waits(setting: Setting) -> Iterator[Row]:
    """One row for every method, and one for every pipeline that waits."""
    for name, cfg, data in methods(setting):
        if cfg is None:
            yield row(f"host_waits/{name}", None, "places", note=f"not run: {data}")
            continue
        found, note = attempt(partial(waits_of_step, cfg, data, setting.device))
        waits = None if found is None else len(found)
        yield row(f"host_waits/{name}", waits, "places", "<= 0", note=note or "; ".join(found))
    places = {name: found for name, data in pipelines(setting) if (found := waits_of_views(data, setting.device))}
    note = "; ".join(f"{name}: {found[0]}" for name, found in places.items())
    yield row("host_waits_of_views", len(places), "pipelines", "<= 0", note=note)
