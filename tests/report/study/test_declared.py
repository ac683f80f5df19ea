"""The decisive experiments as their files say them: how many runs, what they vary, and what is judged."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from ssl_zoo import build, composing, config, sweeps
from ssl_zoo.errors import ConfigError
from ssl_zoo.report.study import declared
from ssl_zoo.report.study.declared import PAPER, REST, Study
from ssl_zoo.report.study.drawings import DRAWINGS

# Experiment -> runs at the size of the paper, runs of the small form.
RUNS = {
    "barlow_batch_size": (12, 12), "byol_bn_ablation": (6, 9), "dino_centring_sharpening": (4, 8),
    "infomin_ucurve": (6, 15), "long_tail_balance": (8, 12), "mae_mask_ratio": (10, 12), "moco_v2_ablation": (8, 12),
    "moco_v3_stability": (6, 8), "multicrop_ablation": (6, 12), "negatives_cost": (12, 18),
    "simclr_augmentation_grid": (36, 32), "simclr_batch_and_epochs": (30, 12), "simclr_head_ablation": (12, 18),
    "simsiam_stopgrad": (2, 6), "supcon_vs_ce": (3, 9),
}  # fmt: skip
NAMES = [name for base in RUNS for name in (base, f"{base}_tiny")]


def jobs(name: str) -> list[dict[str, str]]:
    return [dict(word.split("=", 1) for word in job) for job in sweeps.expand([f"experiment={name}"])]


def labels(study: Study, found: list[dict[str, str]]) -> set[tuple[str, ...]]:
    return {tuple(axis.label(job[axis.key]) for axis in study.axes) for job in found}


def composed(*words: str) -> dict[str, Any]:
    return config.plain(config.load(list(words)))


def test_each_has_a_form_of_the_papers_size_and_a_small_one() -> None:
    assert sorted(name for name in declared.names() if not name.startswith("framework")) == sorted(NAMES)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_the_sweep_is_what_the_study_says(name: str) -> None:
    study, found = declared.load(name), jobs(name)
    base, small = name.removesuffix("_tiny"), name.endswith("_tiny")
    assert len(found) == RUNS[base][small]
    assert {key for job in found for key in job} == {"experiment", *(axis.key for axis in study.axes)} | {
        key for job in found for key in job if key in ("seed", "optimizer")
    }
    there = labels(study, found)
    assert len(there) * len({job.get("seed") for job in found}) == len(found)
    for claim in study.claims:
        for side in (claim.more, claim.less):
            if isinstance(side, tuple):
                assert any(all(w in (REST, label) for w, label in zip(side, one, strict=True)) for one in there), side
    for entry in study.draw:
        (drawing, of), *_ = entry.items()
        assert drawing in DRAWINGS and (drawing == "curves" or of in {PAPER, *study.measures})
    assert bool(study.limits) == small


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_every_run_can_be_built(name: str) -> None:
    def judge(cfg: Any, resolved: dict[str, Any] | None) -> None:
        try:
            config.quick_check(cfg, resolved)
        except ConfigError as error:  # the data lie elsewhere
            assert [line for line in str(error).splitlines() if not line.startswith("data.root=")] == []
        build.check_signatures(cfg, resolved)

    with composing.composer() as composer:
        sweeps.check(sweeps.plan([f"experiment={name}"], composer), composer, judge)


def test_the_small_form_is_the_large_one_with_fewer_samples_and_epochs() -> None:
    large, small = composed("experiment=simsiam_stopgrad"), composed("experiment=simsiam_stopgrad_tiny")
    assert large["study"] == {key: value for key, value in small["study"].items() if key not in ("limits", "measured")}
    assert (large["backbone"]["_target_"], small["backbone"]["_target_"]) == (
        "ssl_zoo.backbones.image.resnet50", "ssl_zoo.backbones.image.tiny.resnet8")  # fmt: skip
    assert (small["data"]["subset"], small["trainer"]["max_epochs"], small["backbone"]["width"]) == (3000, 10, 16)


def test_the_norm_of_byols_heads_is_one_setting() -> None:
    cfg = composed("experiment=byol_bn_ablation_tiny", "backbone=resnet8_gn_ws", "method.projector.norm=layer")
    assert (cfg["method"]["projector"]["norm"], cfg["method"]["predictor"]["norm"]) == ("layer", "layer")
    assert cfg["backbone"]["norm"] == "group" and cfg["data"]["subset"] == 5000


@pytest.mark.parametrize("head, wanted", [
    ("none", ("ssl_zoo.modules.heads.NoHead", None, None)), ("linear", ("ssl_zoo.modules.heads.MLP", [], 32)),
    ("mlp", ("ssl_zoo.modules.heads.MLP", [-1], 32)),
])  # fmt: skip
def test_the_heads_of_simclr(head: str, wanted: tuple[Any, ...]) -> None:
    cfg = composed("experiment=simclr_head_ablation_tiny", f"study.arm.head={head}", "study.arm.width=32")
    projector = cfg["method"]["projector"]
    assert (projector["_target_"], projector.get("hidden"), projector.get("out_features")) == wanted


def test_one_view_of_the_grid_has_both_changes_and_a_pair_of_one_has_it_once() -> None:
    for first, second in itertools.product(("crop", "colour"), repeat=2):
        words = ["experiment=simclr_augmentation_grid_tiny", f"study.arm.first={first}", f"study.arm.second={second}"]
        still, changed = composed(*words)["augmentation"]["views"]
        names = [next(iter(op)) for op in changed["ops"]]
        known = {"crop": "image/random_resized_crop", "colour": "image/color_jitter"}
        second_op = "image/flip" if first == second else known[second]
        assert names == ["image/random_resized_crop", known[first], second_op]
        assert [next(iter(op)) for op in still["ops"]] == ["image/random_resized_crop"]
        assert changed["tie"] == {"image/random_resized_crop": 0} and changed["ops"][2] != changed["ops"][1]


@pytest.mark.parametrize("arm, keys", [
    ("end_to_end", ("SimCLR", 256, None, None)), ("bank", ("InstDisc", 128, 512, None)),
    ("queue", ("MoCo v2", 128, None, 512)),
])  # fmt: skip
def test_negatives_come_from_the_batch_a_bank_or_a_queue(arm: str, keys: tuple[Any, ...]) -> None:
    cfg = composed("experiment=negatives_cost_tiny", f"arm=negatives_cost/{arm}", "study.arm.negatives=n512")
    method = cfg["method"]
    found = (cfg["card"]["name"], cfg["data"]["batch_size"], method.get("negatives"), method.get("queue_size"))
    assert found == keys and "memory" in cfg["callbacks"] and not cfg["callbacks"]["online_knn"]


def test_crops_at_about_equal_cost() -> None:
    for arm, pixels in (("two", 2 * 16**2), ("multi", 2 * 12**2 + 4 * 8**2)):
        views = composed("experiment=multicrop_ablation_tiny", f"study.arm.crops={arm}")["augmentation"]["views"]
        assert sum(view["count"] * view["size"] ** 2 for view in views) == pixels
