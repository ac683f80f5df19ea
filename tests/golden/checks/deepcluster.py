"""DeepCluster: features to clusters, clusters to labels and to an order of samples, the Sobel filter, a rate."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from ssl_zoo.augmentations.registry import build
from ssl_zoo.augmentations.rng import Draw
from ssl_zoo.data.sampler import Groups, balanced_order
from ssl_zoo.modules.kmeans import kmeans
from ssl_zoo.modules.pca import pca_whiten
from ssl_zoo.modules.power_iteration import basins
from ssl_zoo.modules.reassignment import Reassignment, by_cluster, compact
from ssl_zoo.optim.schedules import InverseRoot, Progress
from tests.golden.compare import close
from tests.golden.harness import Values


def check_preprocess(case: Any, arrays: Values) -> None:
    out = pca_whiten(torch.tensor(arrays["features"]), case["hyperparameters"]["pca"])
    close(out @ out.T, arrays["gram"], "products of the whitened rows")
    u, _, v = torch.linalg.svd(out.T @ torch.tensor(arrays["out"]))  # signs and equal components are arbitrary
    close(out @ u @ v, arrays["out"], "whitened rows, turned onto theirs")


def check_kmeans(case: Any, arrays: Values) -> None:
    h = case["hyperparameters"]
    x, recorded = torch.tensor(arrays["x"]), torch.tensor(arrays["assignment"])
    starts: Any = ("random", "++")
    found = min((kmeans(x, h["k"], h["niter"], redo=20, init=start) for start in starts), key=lambda run: run.inertia)
    distances = torch.cdist(x.double(), found.centroids.double()).square()
    near = distances.gather(1, found.assignment[:, None])[:, 0]
    assert (near <= distances.min(1).values + 1e-6).all(), "every point belongs to its nearest centroid"
    assert found.inertia <= float(arrays["objective_last"]) * (1 + 1e-5), "the authors' objective is reached"
    parts = [x[recorded == k].double() for k in recorded.unique()]
    theirs = sum(float((part - part.mean(0)).square().sum()) for part in parts)
    assert found.inertia <= theirs * (1 + 1e-5), "so is that of their assignment"


def check_arrange(case: Any, arrays: Values) -> None:
    labels, other = (torch.tensor(arrays[name]) for name in ("labels", "other_labels"))
    order = by_cluster(labels)
    close(order, arrays["reassigned_image_order"], "order of the images, cluster by cluster")
    close(compact(labels)[order], arrays["reassigned_target"], "targets without empty clusters")
    assigned = Reassignment(len(labels), int(max(labels.max(), other.max())) + 1).double()
    assigned.replace(other)
    assigned.replace(labels)
    close(assigned.agreement, arrays["nmi"], "mutual information with the labels before")
    close(assigned.labels[order], arrays["reassigned_target"], "labels that the method trains on")


def check_sampler(case: Any, arrays: Values) -> None:
    offsets, members = torch.tensor(arrays["offsets"]), torch.tensor(arrays["flat_lists"])
    number = torch.empty_like(members)
    for cluster, (first, end) in enumerate(zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True)):
        number[members[first:end]] = cluster
    h = case["hyperparameters"]
    order = balanced_order(Groups(number, None), np.random.RandomState(h["numpy_seed"]), h["N"])
    close(order, arrays["indices"], "samples that an epoch reads")
    counts = number[order].bincount(minlength=len(offsets) - 1)
    close(counts, arrays["index_counts_per_cluster"], "how often it reads each cluster")


def check_pic(case: Any, arrays: Values) -> None:
    h = case["hyperparameters"]
    assert arrays["neighbours"].shape[1] == h["nnn"] + 1
    found = basins(arrays["neighbours"], arrays["sqdist"], h["sigma"], h["alpha"], h["iterations"])
    close(found, arrays["clusters"], "clusters of the graph")


def check_sobel(case: Any, arrays: Values) -> None:
    x = torch.tensor(arrays["x"])
    draw = Draw(torch.tensor(0), torch.zeros(len(x), dtype=torch.int64))
    close(build({"image/sobel": {}}, x.shape[-1])(x, draw), arrays["out"], "filtered images")


def check_rate(case: Any, arrays: Values) -> None:
    h = case["hyperparameters"]
    rate = InverseRoot(h["lr0"], h["lr0"] * h["wd"])
    steps = arrays["t"].tolist()
    close([rate(Progress(step, max(steps) + 1, 1)) for step in steps], arrays["lr"], "rates")


CHECKS = {
    "deepcluster": {
        "preprocess*": check_preprocess,
        "kmeans*": check_kmeans,
        "arrange*": check_arrange,
        "sampler*": check_sampler,
        "pic*": check_pic,
        "sobel*": check_sobel,
        "lr_helper*": check_rate,
    }
}
