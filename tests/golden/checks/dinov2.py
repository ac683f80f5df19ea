"""DINOv2: targets by centring and Sinkhorn-Knopp, KoLeo, patches, the whole objective, masks, and rates."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import torch

from ssl_zoo.augmentations.rng import RecordedRNG
from ssl_zoo.data.batch import Batch
from ssl_zoo.distributed import rank
from ssl_zoo.losses.koleo import koleo, nearest_rows
from ssl_zoo.losses.masked_distillation import masked_distillation, summed_distillation
from ssl_zoo.methods.dinov2 import DINOv2
from ssl_zoo.modules.dino_head import DINOHead
from ssl_zoo.modules.masking.block import StratifiedMasks, block_masks, masked_patches
from ssl_zoo.optim.layer_decay import layer_scales
from ssl_zoo.optim.schedules import Constant, Held, Progress, Schedule, Warmup, WarmupCosine
from tests.golden.checks.ibot import Given, halves, joined
from tests.golden.checks.masks import Draws, Recorder, attempts_of, draw_blocks, split
from tests.golden.compare import close
from tests.golden.harness import Identity, Values, double_or_single, fill, no_recipe, plain, steps_of


def method_of(h: Any, width: int, dtype: torch.dtype, **others: Any) -> DINOv2:
    arguments = {"projector": Identity, "masks": StratifiedMasks(), "teacher_temperature": h["teacher_temp"],
                 "temperature": h.get("student_temp", 0.1), "iterations": h.get("n_iterations", 3),
                 "centre_momentum": h.get("center_momentum", 0.9), **others}  # fmt: skip
    return DINOv2(Given(width), no_recipe(), **arguments).to(dtype).train()


# Targets and losses


def check_centring(case: Any, arrays: Values) -> None:
    h = case["hyperparameters"]
    method = method_of(h, h["out_dim"], double_or_single(arrays["teacher_step1"]), centring="centre")
    centre: Any = method.targets.centres[0]
    for t in steps_of(arrays, "loss_step{}"):
        close(centre.value, arrays[f"center_used_step{t}"], f"centre before step {t}")
        p = method.targets(torch.tensor(arrays[f"teacher_step{t}"]), 0, method.teacher_temperature)
        close(p.view(2, -1, h["out_dim"]), arrays[f"targets_step{t}"], f"targets of step {t}")
        student = torch.tensor(arrays[f"student_step{t}"]).requires_grad_()
        loss = summed_distillation(student.chunk(h["local"]), p.chunk(2), h["student_temp"])
        loss.backward()
        method.on_after_backward()
        close(loss, arrays[f"loss_step{t}"], f"loss of step {t}")
        close(student.grad, arrays[f"grad_student_step{t}"], f"gradient of step {t}")
    close(centre.value, arrays["center_final"], "centre at the end")


def check_patches(case: Any, arrays: Values) -> None:
    h = case["hyperparameters"]
    method = method_of(h, h["K"], double_or_single(arrays["teacher_masked_step1"]), centring="centre")
    centre: Any = method.targets.centres[1]
    _, counts = masked_patches(torch.tensor(arrays["mask"]))
    for t in steps_of(arrays, "loss_step{}"):
        close(centre.value[None], arrays[f"center_used_step{t}"], f"centre before step {t}")
        p = method.targets(torch.tensor(arrays[f"teacher_masked_step{t}"]), 1, method.teacher_temperature)
        student = torch.tensor(arrays[f"student_masked_step{t}"]).requires_grad_()
        loss = masked_distillation(student, p, counts, h["B"], h["student_temp"])
        loss.backward()
        method.on_after_backward()
        for name in ("loss", "dense_loss"):
            close(loss, arrays[f"{name}_step{t}"], f"{name} of step {t}")
        close(student.grad, arrays[f"grad_student_step{t}"], f"gradient of step {t}")
    close(centre.value[None], arrays["center_final"], "centre at the end")


def check_sinkhorn(case: Any, arrays: Values) -> None:
    h = case["hyperparameters"]
    scores = torch.tensor(arrays["teacher"])
    method = method_of(h, h["K"], scores.dtype)
    for which, name in enumerate(("q_cls", "q_patch")):
        close(method.targets(scores, which, method.teacher_temperature), arrays[name], name)


def replay_sinkhorn(h: Any, scores: list[np.ndarray], which: int) -> np.ndarray:
    own = torch.tensor(scores[rank()])
    method = method_of(h, own.shape[1], own.dtype)
    return method.targets(own, which, method.teacher_temperature).numpy()


def check_sinkhorn_world(case: Any, arrays: Values, pools: Any) -> None:
    h = case["hyperparameters"]
    ranks = range(h["world_size"])
    for which, name in enumerate(("cls", "patch")):
        scores = [arrays[f"{name}_teacher_rank{r}"] for r in ranks]
        wanted = [arrays[f"{name}_q_rank{r}"] for r in ranks]
        for r, q in enumerate(pools(h["world_size"]).run(replay_sinkhorn, h, scores, which)):
            close(q, wanted[r], f"{name} of rank {r}")
        one = replay_sinkhorn(h, [np.concatenate(scores)], which)
        close(one, np.concatenate(wanted), f"{name} of one process")


def check_koleo(case: Any, arrays: Values) -> None:
    h = case["hyperparameters"]
    x = torch.tensor(arrays["x"]).requires_grad_()
    assert h["duplicate_rows"] == (len(x.unique(dim=0)) < len(x))
    loss = koleo(x, h["eps"])
    loss.backward()
    close(nearest_rows(torch.nn.functional.normalize(x.detach(), dim=1)), arrays["nn_index"], "nearest")
    close(loss, arrays["loss"], "loss")
    close(x.grad, arrays["grad_x"], "gradient")


# The whole objective


def head_like(values: dict[str, np.ndarray]) -> Any:
    """A partial head with the widths of recorded parameters."""
    widths = [array.shape[0] for name, array in values.items() if name.startswith("mlp.") and array.ndim == 2]
    return partial(DINOHead, hidden=widths[:-1], bottleneck=widths[-1],
                   out_features=len(values["last_layer.weight_v"]), norm_last_layer=False)  # fmt: skip


def check_composite(case: Any, arrays: Values) -> None:
    h = case["hyperparameters"]
    heads = {}
    for who in ("student_head", "teacher_head", "student_ibot_head", "teacher_ibot_head"):
        values = plain(arrays, f"{who}.")
        heads[who] = {name.removeprefix(f"{who}."): array for name, array in values.items()}
    method = method_of(
        h, h["dim"], double_or_single(arrays["student_global_cls_step1"]),
        projector=head_like(heads["student_head"]),
        patch_projector=head_like(heads["student_ibot_head"]) if h["ibot_separate_head"] else None,
        centring={"centering": "centre", "sinkhorn_knopp": "sinkhorn"}[h["centering"]],
        class_weight=h["dino_loss_weight"], patch_weight=h["ibot_loss_weight"], koleo_weight=h["koleo_loss_weight"],
    )  # fmt: skip
    ours: dict[str, Any] = {"student_head": method.projector, "teacher_head": method.teacher_projector.net}
    if method.teacher_patch_projector is not None:
        ours |= {"student_ibot_head": method.patch_projector, "teacher_ibot_head": method.teacher_patch_projector.net}
    for who, module in ours.items():
        fill(module, heads[who])
    for t in steps_of(arrays, "total_step{}"):
        compare_step(case, arrays, method, t)
        if t == 1:
            for who, module in ours.items():
                for name, p in module.named_parameters():
                    if (key := f"grad_{who}.{name}") in arrays:
                        close(p.grad, arrays[key], key)


def compare_step(case: Any, arrays: Values, method: DINOv2, t: int) -> None:
    h = case["hyperparameters"]
    tokens = [joined(arrays[f"{who}_global_cls_step{t}"], arrays[f"{who}_global_patch_step{t}"])
              for who in ("student", "teacher")]  # fmt: skip
    crops = torch.tensor(arrays[f"student_local_cls_step{t}"]).chunk(h["local_crops"]) if h["local_crops"] else ()
    views = [view.clone().requires_grad_() for view in (*halves(*tokens), *crops)]
    masks = torch.tensor(arrays[f"mask_step{t}"])
    method.masks = lambda *_: masks
    method.zero_grad()
    out = method.training_loss(Batch(list(views), torch.arange(h["B"]), None, None))
    out["loss"].backward()
    method.on_after_backward()
    close(out["loss"], arrays[f"total_step{t}"], f"loss of step {t}")
    logged = {"dino_global_crops_loss": out["global"], "koleo_loss": h["koleo_loss_weight"] * out["koleo"] / 2,
              "ibot_loss": out["patch"] / 2}  # fmt: skip
    logged |= {"dino_local_crops_loss": out["local"]} if h["local_crops"] else {}
    for name, found in logged.items():
        close(found, arrays[f"logged_{name}_step{t}"], f"{name} of step {t}")
    gradient = torch.cat([view.grad[:, 0] for view in views[:2]])  # type: ignore[index]
    close(gradient[:, 0], arrays[f"grad_student_global_cls_step{t}"], f"gradient of class tokens, step {t}")
    close(gradient[:, 1:], arrays[f"grad_student_global_patch_step{t}"], f"gradient of patches, step {t}")
    if crops:
        gradient = torch.cat([view.grad for view in views[2:]])  # type: ignore[misc]
        close(gradient, arrays[f"grad_student_local_cls_step{t}"], f"gradient of local crops, step {t}")


# Masks


def check_masks(case: Any, arrays: Values) -> None:
    h = case["hyperparameters"]
    source, draws = Recorder(h["seed"]), split(arrays)
    for target, rows in zip(h["targets"], draws, strict=True):
        draw_blocks(source, h["grid"], target, h["min_num_patches"], h["max_num_patches"], h["aspect"])
        assert source.taken() == rows, "the recorded draws are not those of the seed"
    grid, smallest, largest = (h["grid"], h["grid"]), h["min_num_patches"], h["max_num_patches"]
    aspects = (h["aspect"][0], h["aspect"][1])
    masks = block_masks(torch.tensor(h["targets"]), attempts_of(draws), grid, smallest, largest, aspects)
    close(masks, arrays["masks"], "masks")


def check_collate(case: Any, arrays: Values) -> None:
    h = case["hyperparameters"]
    rows, crops = h["batch"], len(arrays["collated_masks"]) // h["batch"]
    total, patches = crops * rows, h["grid"] ** 2
    masks = StratifiedMasks(h["mask_probability"], h["mask_ratio_min_max"])
    source = Recorder(h["python_random_seed"])
    numbers, draws = drawn_by_collate(source, masks, total, h["grid"])
    order = list(range(total))
    source.source.shuffle(order)
    blocks = attempts_of([draws[i] for i in order])(0)  # [crops * B, A, 4]
    blocks = blocks.unflatten(0, (crops, rows)).transpose(0, 1)  # [B, crops, A, 4]
    rng = RecordedRNG(
        sample={"masks": {("blocks", 0): blocks}},
        shared={"masks": {"ratio": torch.tensor(numbers), "": torch.tensor(order)}},
    )
    found = masks(rng, crops, rows, (h["grid"], h["grid"]))
    close(found, arrays["collated_masks"], "masks")
    index, counts = masked_patches(found)
    assert found.shape == (total, patches)
    close(index, arrays["mask_indices_list"], "positions of hidden patches")
    close(1.0 / counts, arrays["masks_weight"], "weights of hidden patches")
    close(torch.tensor([len(index)]), arrays["n_masked_patches"], "number of hidden patches")


def drawn_by_collate(
    source: Recorder, masks: StratifiedMasks, total: int, grid: int
) -> tuple[list[float], list[Draws]]:
    """Uniform numbers of the ratios of the masked crops, and the draws of all masks, before they are shuffled."""
    masked = int(total * masks.share)
    bounds = torch.linspace(*masks.ratios, masked + 1)
    numbers: list[float] = []
    draws: list[Draws] = []
    for i in range(masked):
        numbers.append(source.source.random())
        ratio = bounds[i] + (bounds[i + 1] - bounds[i]) * numbers[-1]
        target = int(grid**2 * ratio)
        draw_blocks(source, grid, target, masks.smallest, masks.largest * grid**2, (0.3, 1 / 0.3))
        draws.append(source.taken())
    return numbers, [*draws, *([] for _ in range(total - masked))]


# Rates


def check_schedules(case: Any, arrays: Values) -> None:
    for name, h in case["hyperparameters"].items():
        total, warmup, start = h["total"], h["warmup"], h.get("start", 0.0)
        schedule: Schedule = WarmupCosine(h["base"], h["final"], start=start, warmup_steps=warmup, style="linspace")
        run = total
        if warmup >= total:  # the teacher's temperature: a warm-up, then its end for the rest of a longer run
            schedule, run = Warmup(Constant(h["base"]), start=start, warmup_steps=warmup, style="linspace"), 2 * total
        schedule = Held(schedule, steps=h.get("freeze", 0), restart=True)
        found = [schedule(Progress(step, run, 1)) for step in range(len(arrays[name]))]
        close(np.array(found), arrays[name], name)


def check_lr_decay(case: Any, arrays: Values) -> None:
    h = case["hyperparameters"]
    found = zip(h["names"], layer_scales(h["names"], h["lr_decay_rate"], h["num_layers"]), strict=True)
    everything = h["force_is_backbone"]  # else what is not below "backbone" keeps the whole rate
    rates = [scale if everything or name.startswith("backbone") else 1.0 for name, scale in found]
    close(np.array(rates), arrays["rates"], "rates")


DIFFERS = {
    "dinov2/collate*/upperbound": "size of a buffer for hidden patches, filled up with zeros; ours holds them alone",
    "dinov2/collate*/collated_*_crops": "numbers in place of images, which show that rows are crop by crop, as the "
    "masks, compared, show too",
}
CHECKS = {
    "dinov2": {
        "dino_centering*": check_centring,
        "ibot_patch*": check_patches,
        "sinkhorn_world*": check_sinkhorn_world,
        "sinkhorn*": check_sinkhorn,
        "koleo*": check_koleo,
        "composite*": check_composite,
        "masks*": check_masks,
        "collate*": check_collate,
        "schedules*": check_schedules,
        "lr_decay*": check_lr_decay,
    }
}
