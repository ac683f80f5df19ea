"""Where a method keeps what is recorded as an extra of its run: places of each key, of which the first counts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

MISSING = object()

# Attributes of the method, of its parts and keys of its tables, joined by dots. One key may mean other things in other
# methods: none of ours has two of its places.
PLACES: dict[str, tuple[str, ...]] = {
    "score_regulariser": ("penalty",),
    "lambda": ("off_diagonal", "weight"),
    "scale_loss": ("loss_scale",),
    "epsilon": ("epsilon",),
    "alpha": ("mixer.alpha", "strength", "weights.kd", "alpha"),
    "beta": ("weights.crd", "beta", "jigsaw"),
    "gamma": ("weights.ce",),
    "bn_adv_momentum": ("adversarial.twins.0.momentum",),
    "kmeans_iterations": ("iterations",),
    "kmeans.iterations": ("iterations",),
    "centre_momentum": ("centre.momentum",),
    "centre_momentum_patch": ("patch_centre.momentum",),
    "patch_sim": ("invariance",),
    "tcr_weight": ("rate",),
    "tcr_eps": ("distortion",),
    "tau_plus": ("positive_share",),
    "mix": ("mixer.kind",),
    "mix.hardest": ("hardest_of",),
    "mix.pairs": ("pairs",),
    "mix.query_mixed": ("with_query",),
    "mix.start_epoch": ("mix_start",),
    "negative_weight": ("negative_weight",),
    "positives": ("positives",),
    "slices": ("slices",),
    "norm_pix_loss": ("normalize_pixels",),
    "patch_drop.ratio": ("patch_drop",),
    "me_max_weight": ("me_max",),
    "entropy_weight": ("entropy",),
    "sinkhorn.eps": ("epsilon", "targets.epsilon"),
    "sinkhorn.iterations": ("iterations", "targets.iterations"),
    "label_smoothing": ("label_smoothing",),
    "dropout": ("dropout",),
    "unlabelled_weight": ("unlabelled",),
    "clustering.eps": ("pseudo_labels.eps",),
    "clustering.eps_gap": ("pseudo_labels.gap",),
    "clustering.min_samples": ("pseudo_labels.min_samples",),
    "clustering.k1": ("pseudo_labels.k1",),
    "clustering.k2": ("pseudo_labels.k2",),
    "sampler.instances": ("instances",),
    "weights.class": ("class_weight",),
    "weights.patch": ("patch_weight",),
    "weights.koleo": ("koleo_weight",),
    "weights.invariance": ("invariance", "weights.0"),
    "weights.variance": ("variance", "weights.1"),
    "weights.covariance": ("covariance", "weights.2"),
    "matches.location": ("matches",),
    "flip_grid": ("flip_grid",),
    "whitening.size": ("sub_batch",),
    "whitening.iterations": ("rounds",),
    "whitening.eps": ("shrinkage",),
    "patch": ("side",),
    "masks.ratio": ("mask_ratio",),
    "masks.targets": ("masks.targets",),
    "masks.target_scale": ("masks.target_scale",),
    "masks.target_aspect": ("masks.aspect_ratio",),
    "masks.contexts": ("masks.contexts",),
    "masks.context_scale": ("masks.context_scale",),
    "masks.min_keep": ("masks.min_keep",),
    "masks.allow_overlap": ("masks.allow_overlap",),
    "masks.start_epoch": ("mask_start",),
    "mask_block": ("mask_block",),
}


def found(method: Any, *paths: str) -> Any:
    """What lies at the first of the places that exists."""
    for path in paths:
        held = method
        for part in path.split("."):
            held = _below(held, part)
            if held is MISSING:
                break
        else:
            return held
    return MISSING


def _below(held: Any, part: str) -> Any:
    if isinstance(held, Mapping):
        return held.get(part, MISSING)
    if isinstance(held, (list, tuple)):
        return held[int(part)] if part.isdigit() and int(part) < len(held) else MISSING
    return getattr(held, part, MISSING)


def names(key: str) -> tuple[str, ...]:
    """Places of a recorded key; one that we do not know may be an attribute of the method."""
    return PLACES.get(key, (key,))
