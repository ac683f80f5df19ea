"""``trainer=fsdp`` is ``trainer=ddp`` with parameters in pieces: the same numbers, and each goes on from the other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Checkpoint
from torch import Tensor

from ssl_zoo import build, config, sharding, worker
from ssl_zoo.distributed import rank, world_size
from ssl_zoo.errors import ConfigError
from ssl_zoo.ranks import Ranks
from ssl_zoo.rendezvous import Meeting, Present
from ssl_zoo.shards import is_shard
from ssl_zoo.signatures import locate
from ssl_zoo.trainer import make_trainer
from tests.helpers import METHODS, SIZE, TINY, tiny_config, tiny_method
from tests.pool import GlooPool

STEPS, HALF = 5, 3
RUN = [
    "data.source.samples=48", "data.source.val_samples=16", "data.workers=0", "trainer=cpu", "trainer.devices=2",
    "trainer.max_epochs=-1", f"trainer.max_steps={STEPS}", "logger=none", "callbacks=none",
]  # fmt: skip
CLIP = "trainer.clip={mode: per_tensor, value: 0.1}"
FOUR = {"simclr": ["optimizer=lars"], "byol": [], "dino": [CLIP], "mae": []}


class Keep(Checkpoint):
    """One in the middle and one at the end."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder, self.name = folder, name

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        if trainer.global_step in (HALF, STEPS):
            trainer.save_checkpoint(self.folder / f"{self.name}-{trainer.global_step}.ckpt")


def meeting() -> Meeting:
    """Of the processes of the pool, whose group is open."""
    found = Ranks(rank(), world_size(), rank(), "0", "127.0.0.1", 0, "the pool")
    return Meeting(found, None, [Present("here", "0", i) for i in range(world_size())])


def fit(
    name: str, words: list[str], strategy: str, folder: Path, label: str, resume: Path | None = None, **options: Any
) -> Any:
    """Five steps of a method in float64, or what is left of them; the method."""
    cfg = tiny_config(name, [*RUN, *words])
    cfg.run_dir, cfg.resume = str(folder), None
    method, data = worker.build_run(cfg)
    chosen: dict[str, Any] = {"accelerator": "cpu", "devices": 2, "strategy": strategy, "precision": "64-true"}
    chosen |= {"max_steps": STEPS, "max_epochs": -1, **options}
    trainer = make_trainer([Keep(folder, label)], [], folder, meeting(), **chosen)
    worker.prepare(method, trainer.strategy.root_device, False)
    trainer.fit(method, datamodule=data, ckpt_path=resume, weights_only=True)
    return method


def both_ways(name: str, words: list[str], folder: Path) -> list[str]:
    """Runs under either strategy, and each continued under the other; names of what was split."""
    method = fit(name, words, "fsdp", folder, "fsdp")
    split = [key for key, p in method.named_parameters() if is_shard(p)]
    assert split == [key for key, _ in method.named_parameters()]
    fit(name, words, "ddp", folder, "ddp")
    fit(name, words, "ddp", folder, "fsdp-then-ddp", folder / f"fsdp-{HALF}.ckpt")
    fit(name, words, "fsdp", folder, "ddp-then-fsdp", folder / f"ddp-{HALF}.ckpt")
    return split


def read(path: Path) -> dict[str, Any]:
    found = torch.load(path, map_location="cpu", weights_only=True)
    assert isinstance(found, dict)
    return found


def check_equal(found: Any, wanted: Any, path: str = "") -> None:
    """All numbers of two states to 1e-9, and all else."""
    assert type(found) is type(wanted), path
    if isinstance(wanted, dict):
        assert list(found) == list(wanted), path
        for key, value in wanted.items():
            check_equal(found[key], value, f"{path}.{key}")
    elif isinstance(wanted, list):
        assert len(found) == len(wanted), path
        for i, value in enumerate(wanted):
            check_equal(found[i], value, f"{path}.{i}")
    elif isinstance(wanted, Tensor):
        torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-9, msg=lambda m: f"{path}: {m}")
    else:
        assert found == wanted, path


@pytest.mark.parametrize("name", ["simclr", *(pytest.param(name, marks=pytest.mark.slow) for name in [*FOUR][1:])])
def test_five_steps_equal_those_of_ddp_and_each_goes_on_from_the_other(
    name: str, pool: GlooPool, tmp_path: Path
) -> None:
    pool.run(both_ways, name, FOUR[name], tmp_path)
    check_all(tmp_path, ("fsdp", "fsdp-then-ddp", "ddp-then-fsdp"))


def check_all(folder: Path, labels: tuple[str, ...] = ("fsdp",)) -> None:
    """Against DDP's."""
    wanted = read(folder / f"ddp-{STEPS}.ckpt")
    assert wanted["optimizer_states"][0]["state"]
    for label in labels:
        found = read(folder / f"{label}-{STEPS}.ckpt")
        assert found.keys() == wanted.keys()
        for group in (*found["optimizer_states"][0]["param_groups"], *wanted["optimizer_states"][0]["param_groups"]):
            group.pop("fused", None)  # the same numbers by another kernel
        for part in ("state_dict", "optimizer_states", "global_step"):
            check_equal(found[part], wanted[part], f"{label}: {part}")


def alike(name: str, words: list[str], folder: Path, options: dict[str, Any]) -> None:
    for strategy in ("ddp", "fsdp"):
        fit(name, words, strategy, folder, strategy, **options)


@pytest.mark.slow
@pytest.mark.parametrize(("precision", "tolerance"), [("32-true", 1e-5), ("bf16-mixed", 1e-2)])
def test_in_other_precisions_too_weights_and_sums_are_float32(
    precision: str, tolerance: float, pool: GlooPool, tmp_path: Path
) -> None:
    """And with gradients that add up over two micro-batches. Gloo gives the sum where it is asked for a mean."""
    pool.run(alike, "byol", ["trainer.accumulate=2"], tmp_path, {"precision": precision, "accumulate": 2})
    found, wanted = (read(tmp_path / f"{strategy}-{STEPS}.ckpt")["state_dict"] for strategy in ("fsdp", "ddp"))
    for key, value in wanted.items():
        assert found[key].dtype == value.dtype in (torch.float32, torch.int64), key
        torch.testing.assert_close(
            found[key], value, rtol=tolerance, atol=tolerance, msg=lambda m, k=key: f"{k}: {m}"
        )


def look(folder: Path) -> Tensor:
    """Features from a trained method that is in pieces, as many times as this process likes."""
    method = fit("dino", [], "fsdp", folder, "fsdp").eval()
    view = torch.randn(4, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    with torch.no_grad(), sharding.gathered(method), sharding.gathered(method):
        found = [method.embed(view) for _ in range(1 + rank())][-1]
        assert not any(map(is_shard, method.parameters()))
    assert all(map(is_shard, method.parameters()))
    return found


@pytest.mark.slow
def test_processes_look_at_the_whole_network_without_waiting_for_one_another(pool: GlooPool, tmp_path: Path) -> None:
    first, second = pool.run(look, tmp_path)
    method = tiny_method("dino", dtype=torch.float64).eval()
    method.load_state_dict(read(tmp_path / f"fsdp-{STEPS}.ckpt")["state_dict"])
    view = torch.randn(4, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    torch.testing.assert_close(first, method.embed(view), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(second, first, rtol=0, atol=0)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted({*METHODS} - {*FOUR}))
def test_every_method_equals_ddp_or_says_why_not(name: str, pool: GlooPool, tmp_path: Path) -> None:
    method = locate(config.load([f"method={name}", *TINY]).method._target_)
    if method.unsplittable is not None:
        cfg = config.load([f"method={name}", *TINY, "trainer=fsdp"])
        with pytest.raises(ConfigError, match=f"trainer.strategy=fsdp: {method.__name__} .*; use trainer=ddp"):
            build.check_signatures(cfg)
        return
    pool.run(alike, name, [], tmp_path, {})
    check_all(tmp_path)


@pytest.mark.parametrize(("words", "told"), [
    (["trainer.precision=16-mixed"],
     "trainer.strategy=fsdp with trainer.precision=16-mixed: a gradient scaler looks at whole gradients; set "
     "trainer.precision=bf16-mixed (float32 weights, half the memory for activations), or trainer=ddp"),
    (["trainer.precision=bf16-true"],
     "trainer.strategy=fsdp with trainer.precision=bf16-true: the numbers of a block travel together, and batch norms "
     "keep float32 where the others do not; set trainer.precision=bf16-mixed (float32 weights, half the memory for "
     "activations), or trainer=ddp"),
    (["trainer.compile=true"],
     "trainer.strategy=fsdp with trainer.compile=True: a network is compiled as a whole, and its blocks are put "
     "together one by one; set trainer.compile=false, or trainer=ddp"),
    (["method.grad_cache=2"],
     "trainer.strategy=fsdp with method.grad_cache=2: a chunk is embedded again while blocks are taken apart; set "
     "method.grad_cache=1 and trainer.activation_checkpointing=true, or trainer=ddp"),
])  # fmt: skip
def test_what_does_not_go_with_pieces_is_refused_before_anything_is_built(words: list[str], told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config.quick_check(config.load([*TINY, "trainer=fsdp", *words]))
    assert str(caught.value) == told


def test_recomputed_and_compiled_at_once_is_refused() -> None:
    with pytest.raises(ConfigError, match="the compiler itself decides what it keeps for the gradient; set one of"):
        config.quick_check(config.load([*TINY, "trainer.activation_checkpointing=true", "trainer.compile=true"]))
