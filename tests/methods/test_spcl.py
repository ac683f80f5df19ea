"""SpCL: the two domains' losses and batch norms on any number of processes, their order, and what evaluation reads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from ssl_zoo import build
from ssl_zoo.data.batch import Batch
from ssl_zoo.distributed import world_size
from ssl_zoo.errors import ConfigError
from ssl_zoo.export import export
from ssl_zoo.losses.hybrid import hybrid_memory
from ssl_zoo.methods.spcl import SpCL
from ssl_zoo.runs import read_checkpoint
from tests.helpers import quickly, tiny_batch, tiny_method, train_step, view_sizes
from tests.methods import test_epoch_hooks as runs
from tests.pool import GlooPool

SOURCE = "method.source=true"


def method_of(*extra: str) -> SpCL:
    method = tiny_method("spcl", extra, torch.float64)
    assert isinstance(method, SpCL)
    return method


def two_domains(step: int = 0) -> Batch:
    """This rank's rows of a batch in which source and target alternate."""
    batch = tiny_batch(view_sizes("spcl"), step, torch.float64)
    assert batch.label is not None
    batch.label = torch.where(torch.arange(len(batch.index)) % 2 == 0, batch.label, -1)
    return batch


def adapt(*extra: str) -> dict[str, Any]:
    """Losses of some steps on both domains, the first gradients, and the state."""
    method = method_of(SOURCE, *extra)
    outs = [train_step(method, two_domains(step)) for step in range(3)]
    losses = torch.stack([out["loss"] for out in outs])
    if world_size() > 1:
        torch.distributed.all_reduce(losses)
        losses /= world_size()
    state = {name: value for name, value in method.state_dict().items() if isinstance(value, torch.Tensor)}
    return {"losses": losses, **outs[0]["gradients"], **{f"state {name}": value for name, value in state.items()}}


# Of both domains: all 8, those of one process, all again.
@pytest.mark.parametrize("group", quickly(["null", "4", "8"], ["4"]))
def test_two_processes_with_two_domains_equal_one(group: str, pool: GlooPool) -> None:
    one = adapt(f"batch_norm.group={group}")
    assert any("source_norms" in name and "running_var" in name for name in one)
    for two in pool.run(adapt, f"batch_norm.group={group}"):
        assert two.keys() == one.keys()
        for name, value in one.items():
            torch.testing.assert_close(two[name], value, rtol=1e-10, atol=1e-10, msg=lambda m, n=name: f"{n}: {m}")


def test_domains_that_a_rank_holds_unequally_are_normalised_over_all_ranks(pool: GlooPool) -> None:
    one = uneven()
    for two in pool.run(uneven):
        torch.testing.assert_close(two, one, rtol=1e-10, atol=1e-10)


def uneven() -> torch.Tensor:
    method, batch = method_of(SOURCE), tiny_batch(view_sizes("spcl"), 0, torch.float64)
    assert batch.label is not None
    batch.label = torch.where(batch.label < 2, batch.label, -1)
    train_step(method, batch)
    return torch.cat([value.flatten() for name, value in method.named_buffers() if "running" in name])


def norms_of(method: SpCL) -> tuple[list[Any], list[Any]]:
    """Batch norms of the source, and of the target, in the order of the network."""
    assert method.source_norms is not None
    target = [part for part in method.network.modules() if isinstance(part, torch.nn.modules.batchnorm._BatchNorm)]
    return list(method.source_norms.twins), target


def test_each_domain_has_its_norms_equal_at_the_start_and_apart_afterwards() -> None:
    method, batch = method_of(SOURCE), two_domains()
    source, target = norms_of(method)
    assert len(source) == len(target) > 1
    for mine, other in zip(source, target, strict=True):
        for name, value in other.state_dict().items():
            assert torch.equal(mine.state_dict()[name], value)
    batch.views[0][0::2] += 3.0
    train_step(method, batch)
    for mine, other in zip(source, target, strict=True):
        assert mine.num_batches_tracked == other.num_batches_tracked == 1
        assert not torch.allclose(mine.running_mean, other.running_mean) and not torch.equal(mine.weight, other.weight)


def test_rows_of_one_domain_do_not_feel_the_other() -> None:
    outs = []
    for shift in (0.0, 3.0):
        method, batch = method_of(SOURCE), two_domains()
        batch.views[0][0::2] += shift
        outs.append((method.training_loss(batch)["features"], norms_of(method)[1]))
    (z, target), (moved, other) = outs
    assert torch.equal(z[1::2], moved[1::2]) and not torch.allclose(z[0::2], moved[0::2])
    assert all(torch.equal(a.running_mean, b.running_mean) for a, b in zip(target, other, strict=True))


def test_without_a_source_there_are_no_other_norms() -> None:
    method, adapted = method_of(), method_of(SOURCE)
    assert method.source_norms is None
    own, more = (list(m.state_dict()) for m in (method, adapted))
    assert [name for name in more if not name.startswith("source_norms.twins.")] == own
    assert all(torch.equal(adapted.state_dict()[name], value) for name, value in method.backbone.state_dict().items()
               for name in [f"backbone.{name}"])  # fmt: skip


def test_the_loss_is_the_sum_of_the_domains_means() -> None:
    method = method_of("method.source=true")
    batch = tiny_batch(view_sizes("spcl"), 0, torch.float64)
    batch.label = torch.tensor([0, -1, -1, 1, 0, -1, -1, -1])
    method.memory.labels[4:] = torch.arange(64) % 7 + 4
    out = method.training_loss(batch)
    row = torch.where(batch.label >= 0, batch.label, 4 + batch.index)
    memory = method.memory
    losses = hybrid_memory(out["features"], memory.features, memory.labels, memory.labels[row], 11, 0.05)
    source = batch.label >= 0
    torch.testing.assert_close(out["loss"], losses[source].mean() + losses[~source].mean(), rtol=1e-12, atol=0)


def test_labels_are_not_read_without_a_source() -> None:
    with_labels, without = (tiny_batch(view_sizes("spcl"), 0, torch.float64) for _ in range(2))
    without.label = None
    assert torch.equal(*(method_of().training_loss(batch)["loss"] for batch in (with_labels, without)))


def test_evaluation_reads_unit_features_behind_the_norm() -> None:
    method = method_of().eval()
    view = tiny_batch(view_sizes("spcl"), 0, torch.float64).views[0]
    z = method.embed(view)
    torch.testing.assert_close(z.norm(dim=1), torch.ones(8).double())
    torch.testing.assert_close(z, torch.nn.functional.normalize(method.neck(method.backbone(view)), dim=1))
    assert [name for name, _ in method.neck.named_parameters()] == ["weight"]  # no offset


def test_evaluation_reads_the_targets_norms() -> None:
    method = method_of(SOURCE)
    for step in range(2):
        train_step(method, two_domains(step))
    method.eval()
    view = two_domains(2).views[0]
    z = method.embed(view)
    with torch.no_grad():
        for norm in norms_of(method)[0]:
            for value in norm.state_dict().values():
                value.fill_(7)
    assert torch.equal(method.embed(view), z) and method.encoder is method.backbone
    with torch.no_grad():
        for norm in norms_of(method)[1]:
            norm.running_mean.add_(torch.arange(len(norm.running_mean)))
    assert not torch.allclose(method.embed(view), z)


ADAPT = (SOURCE, "data.labels=0.25")  # 12 of 48 samples keep their labels


@pytest.fixture(scope="module")
def adapted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("adapted")
    runs.fit("spcl", folder, *ADAPT)
    return folder


def test_a_run_with_two_domains_reads_half_of_each(adapted: Path) -> None:
    _, cfg, checkpoint = build.load_method(adapted)
    data = build.build_data(cfg)
    data.load_state_dict({**checkpoint["ImageData"], "position": {"epoch": 2, "consumed": 0}})
    known = torch.cat([raw.label for raw in data.train_dataloader()]) >= 0
    assert known.view(6, 8).tolist() == [[True, False] * 4] * 6
    groups = checkpoint["ImageData"]["groups"]
    assert groups["domain"].sum() == 12 and groups["number"][groups["domain"]].unique().tolist() == [0, 1, 2, 3]
    assert groups["number"][~groups["domain"]].min() == 4 and groups["instances"] == 4


@pytest.mark.slow
def test_a_run_with_two_domains_that_is_cut_off_continues_bit_for_bit(adapted: Path, tmp_path: Path) -> None:
    stop = f"+callbacks.stop={{_target_: {runs.__name__}.Stop, where: step, at: 8}}"  # of 6 in each epoch
    with pytest.raises(runs.Stopped):
        runs.fit("spcl", tmp_path, *ADAPT, stop)
    resumed = runs.fit("spcl", tmp_path, *ADAPT, f"resume={tmp_path}/checkpoints/last.ckpt")
    whole = read_checkpoint(adapted)["state_dict"]
    assert whole.keys() == resumed.keys() and any(name.startswith("source_norms") for name in whole)
    values = {name: value for name, value in whole.items() if isinstance(value, torch.Tensor)}
    assert [name for name, value in values.items() if not torch.equal(value, resumed[name])] == []


@pytest.mark.slow
def test_the_targets_norms_are_exported(adapted: Path, tmp_path: Path) -> None:
    file = export(adapted, "safetensors", tmp_path)
    method, _, _ = build.load_method(adapted)
    assert isinstance(method, SpCL)
    found, wanted = load_file(file), method.backbone.net.state_dict()
    assert found.keys() == wanted.keys() and all(torch.equal(found[name], value) for name, value in wanted.items())
    means = {name for name in wanted if name.endswith("running_mean")}
    twins = [norm.running_mean for norm in norms_of(method)[0]]
    assert means and not any(torch.equal(found[name], twin) for name in means for twin in twins)
    assert json.loads(file.with_suffix(".json").read_text())["verified"]["difference"] < 1e-5


def test_an_odd_batch_is_refused_before_anything_is_extracted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SpCL, "extract", None)
    with pytest.raises(ConfigError, match="data.batch_size=9: half .* from the other, which wants an even number, "):
        runs.fit("spcl", tmp_path, *ADAPT, "data.batch_size=9")


def test_radii_that_leave_no_room_for_the_gap_are_refused_when_it_is_built() -> None:
    with pytest.raises(ConfigError, match=r"eps=0.01 -\+ eps_gap=0.02 are radii .*; wanted numbers in \(0, 1\)"):
        tiny_method("spcl", ["method.eps=0.01"])
