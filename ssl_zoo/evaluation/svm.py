"""Support vector machines on frozen features: one fit and one test, or folds over all labelled samples."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from sklearn.model_selection import GridSearchCV, StratifiedKFold, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from ssl_zoo.features import Features, labelled
from ssl_zoo.ranges import Positive, Size

SPLIT = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 1e1, 1e2, 1e3, 1e4, math.inf)  # C, of one fit: TS2Vec
FOLDED = (1e-3, 1e-2, 1e-1, 1.0, 1e1, 1e2, 1e3)  # C, in every fold: InfoGraph, GraphCL
INNER = 5  # folds in which C is chosen
FEW = 50  # samples below which nothing is chosen
ITERATIONS = 10_000_000  # of the solver, at most: some C never converge

Kernel = Literal["rbf", "linear", "poly", "sigmoid"]


def evaluate(
    train: Features,
    test: Features,
    classes: int,
    folds: Size | None = None,
    kernel: Kernel = "rbf",
    C: Sequence[Positive] | None = None,
    standardize: bool = False,
    most: Size = 10_000,
    seed: int = 0,
) -> dict[str, Any]:
    """The protocol of ``conf/protocol/svm.yaml``.

    With ``folds`` every labelled sample, of the training and of the validation set, is tested once by a machine that
    the other folds trained: ``evaluate_embedding.py`` of fanyun-sun/InfoGraph, which GraphCL took over. Without, the
    training set trains and the validation set tests: ``tasks/_eval_protocols.py`` of zhihanyue/ts2vec. Both choose C
    by accuracy in five inner folds of what trains. Where that has fewer than 50 samples, or fewer than five a class,
    TS2Vec takes C infinite, and so does this.

    Args:
        classes: Number of classes.
        folds: 2 or more; None: one fit.
        kernel: Of the machine; its width is scikit-learn's ``gamma="scale"``.
        C: From which the weight of errors is chosen; None: 1e-4 to 1e4 and infinity, in folds 1e-3 to 1e3.
        standardize: Whether features come to mean 0 and deviation 1 of what trains.
        most: Training samples at most, of one fit: a stratified choice.
        seed: Of the folds, and of that choice.

    Returns:
        ``top1`` in percent; with folds its mean, ``top1_std`` over them and ``by_fold``; ``C``, what was chosen, how
        often.

    Raises:
        ValueError: If there are too few labelled samples for that.
    """
    grid = (SPLIT if folds is None else FOLDED) if C is None else tuple(C)
    machine = SVC(kernel=kernel, gamma="scale", max_iter=ITERATIONS)
    model = make_pipeline(StandardScaler(), machine) if standardize else make_pipeline(machine)
    x, y = _arrays(train)
    if folds is None:
        return _once(model, (x, y), _arrays(test), grid, most, seed)
    other, of_other = _arrays(test)
    return _in_folds(model, np.concatenate([x, other]), np.concatenate([y, of_other]), grid, folds, seed)


def _arrays(part: Features) -> tuple[np.ndarray, np.ndarray]:
    """``[N, F]`` float64 and ``[N]`` of what has a label."""
    x, y = labelled(part.features, part.labels)
    return x.to(torch.float64).numpy(), y.numpy()


def _once(model: Any, train: Any, test: Any, grid: Sequence[float], most: int, seed: int) -> dict[str, Any]:
    x, y = train
    if not len(test[1]):
        raise ValueError(
            "no validation sample has a label; protocol.folds=10 judges the training samples in folds, and "
            "data.val_fraction=0.1 holds some of them out"
        )
    _check_classes(y)
    if len(y) > most:
        # A class of one sample cannot be cut.
        alike = y if np.bincount(y)[np.unique(y)].min() > 1 else None
        x, _, y, _ = train_test_split(x, y, train_size=most, random_state=seed, stratify=alike)
    fitted, chosen = _fitted(model, x, y, grid)
    return {"top1": 100.0 * float(fitted.score(*test)), "C": {f"{chosen:g}": 1}, "folds": None}


def _in_folds(model: Any, x: np.ndarray, y: np.ndarray, grid: Sequence[float], folds: int, seed: int) -> dict[str, Any]:
    _check_classes(y)
    least = int(np.bincount(y)[np.unique(y)].min())
    if not 2 <= folds <= least:
        raise ValueError(f"folds={folds}: wanted 2 to {least}, the labelled samples of the smallest class")
    scores, counts = [], dict[str, int]()
    for rows, held in StratifiedKFold(folds, shuffle=True, random_state=seed).split(x, y):
        fitted, chosen = _fitted(model, x[rows], y[rows], grid)
        scores.append(100.0 * float(fitted.score(x[held], y[held])))
        counts[f"{chosen:g}"] = counts.get(f"{chosen:g}", 0) + 1
    return {
        "top1": float(np.mean(scores)),
        "top1_std": float(np.std(scores)),
        "by_fold": scores,
        "C": dict(sorted(counts.items(), key=lambda item: float(item[0]))),
        "folds": folds,
    }


def _check_classes(y: np.ndarray) -> None:
    if len(np.unique(y)) < 2:
        raise ValueError(f"a support vector machine needs samples of two classes, got {len(np.unique(y))} class(es)")


def _fitted(model: Any, x: np.ndarray, y: np.ndarray, grid: Sequence[float]) -> tuple[Any, float]:
    """The machine of the best C of ``grid``, trained on all rows, and that C."""
    if len(grid) == 1 or len(y) // len(np.unique(y)) < INNER or len(y) < FEW:
        chosen = grid[0] if len(grid) == 1 else math.inf
        try:
            return model.set_params(svc__C=chosen).fit(x, y), chosen
        except ValueError as error:  # of rows that cannot be told apart without an error
            raise ValueError(
                f"with C={chosen:g}, which is for features that classes do not share, there is no machine ({error}); "
                "set protocol.C=[1.0], or protocol.standardize=true"
            ) from None
    search = GridSearchCV(model, {"svc__C": list(grid)}, cv=INNER)
    with warnings.catch_warnings():
        # A class of fewer than five is missing in some inner folds, as in the authors'.
        warnings.filterwarnings("ignore", message="The least populated class", category=UserWarning)
        search.fit(x, y)
    return search.best_estimator_, float(search.best_params_["svc__C"])
