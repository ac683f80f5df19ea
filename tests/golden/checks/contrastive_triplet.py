"""Contrastive pairs and triplets: losses of given ones, and the choices that are made in a labelled batch."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from ssl_zoo.data.batch import Batch
from ssl_zoo.data.image.source import image_info
from ssl_zoo.losses.pairs import chopra, distances, hadsell
from ssl_zoo.losses.triplets import triplet_margin
from ssl_zoo.methods.contrastive_pair import ContrastivePair
from ssl_zoo.methods.triplet import Triplet
from tests.golden.compare import close
from tests.golden.harness import Identity, Values, no_recipe


def leaf(array: Any, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.tensor(array).to(dtype).requires_grad_()


def rows(arrays: Values, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    return [leaf(arrays[name], dtype) for name in ("x1", "x2", "x3")]


def check_given_pairs(h: Any, arrays: Values) -> None:
    similar = torch.tensor(arrays["similar"]) == 1
    for dtype, name in ((torch.float64, "hadsell_pair"), (torch.float32, "hadsell_pair_f32")):
        x1, x2, _ = rows(arrays, dtype)
        found = hadsell(distances(x1, x2).diagonal(), similar, h["margin"])
        close(found.mean(), arrays[name], name)
        if dtype == torch.float64:
            close(found.sum(), arrays["hadsell_pair_sum"], "sum over the pairs")
            found.mean().backward()
            close(x1.grad, arrays["hadsell_pair_grad_x1"], "gradient of the pairs")
    x1, x2, _ = rows(arrays)
    found = chopra(distances(x1, x2, order=1.0).diagonal(), similar, h["Q"])
    close(found, arrays["chopra_per_pair"], "exponential loss of each pair")
    close(found.mean(), arrays["chopra_mean"], "exponential loss")
    found.mean().backward()
    close(x1.grad, arrays["chopra_grad_x1"], "gradient of the exponential loss")


def check_given_triplets(h: Any, arrays: Values) -> None:
    x1, x2, x3 = rows(arrays)
    loss = triplet_margin(x1, x2, x3, h["margin"]).mean()
    close(loss, arrays["triplet"], "triplets of squared distances")
    loss.backward()
    close(x1.grad, arrays["triplet_grad_anchor"], "gradient of the anchors")
    close(x3.grad, arrays["triplet_grad_negative"], "gradient of the negatives")
    close(triplet_margin(*rows(arrays, torch.float32), h["margin"]).mean(), arrays["triplet_f32"], "in float32")
    plain = triplet_margin(*rows(arrays), h["margin"], squared=False).mean()
    close(plain, arrays["torch_tripletmargin_p2"], "triplets of distances")


METHODS = {
    "online_contrastive_allpairs": partial(ContrastivePair, form="online", negatives="all"),
    "online_contrastive_hardneg": partial(ContrastivePair, form="online", negatives="hardest"),
    "online_triplet_all": partial(Triplet, negatives="all"),
    "online_triplet_hardest": partial(Triplet, negatives="hardest"),
}


def check_choices(h: Any, arrays: Values) -> None:
    labels = torch.tensor(arrays["batch_labels"])
    assert labels.max() < h["classes"]
    info = image_info(samples=len(labels), classes=h["classes"], image_size=1, channels=1, batch_size=len(labels))
    for name, make in METHODS.items():
        z = leaf(arrays["batch_embeddings"])
        method = make(Identity(z.shape[1]), no_recipe(), info, Identity, margin=h["margin"], positives="label").double()
        out = method.training_loss(Batch([z], torch.arange(len(z)), labels, None))
        close(out["loss"], arrays[name], name)
        out["loss"].backward()
        close(z.grad, arrays[f"{name}_grad"], f"gradient of {name}")
        if "triplets" in out:
            close(out["triplets"].long(), arrays[f"{name}_count"], f"number of {name}")


def check(case: Any, arrays: Values) -> None:
    for part in (check_given_pairs, check_given_triplets, check_choices):
        part(case["hyperparameters"], arrays)


CHECKS = {"contrastive_triplet": {"all": check}}
