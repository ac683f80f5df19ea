"""Support vector machines on features: the two protocols against scikit-learn called as their authors do."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.svm import SVC

from ssl_zoo.errors import ConfigError
from ssl_zoo.evaluation.run import run
from ssl_zoo.evaluation.svm import evaluate
from ssl_zoo.features import Features
from tests.evaluation.test_run import Data, settings, trained  # noqa: F401


def features(count: int, seed: int, classes: int = 3, hidden: int = 0, scale: float = 1.0) -> Features:
    """Of three classes that a radius tells apart; the first ``hidden`` have no label."""
    random = np.random.default_rng(seed)
    labels = np.arange(count) % classes
    x = random.normal(size=(count, 4))
    x = x / np.linalg.norm(x, axis=1, keepdims=True) * (labels[:, None] + 1 + 0.4 * random.normal(size=(count, 1)))
    labels[:hidden] = -1
    return Features(torch.tensor(x * scale, dtype=torch.float32), torch.tensor(labels), torch.arange(count))


def test_one_fit_is_that_of_ts2vec() -> None:
    train, test = features(90, 0, hidden=9), features(60, 1, hidden=5)
    x, y = train.features[9:].double().numpy(), train.labels[9:].numpy()
    grid = {"C": [0.0001, 0.001, 0.01, 0.1, 1, 10, 100, 1000, 10000, np.inf], "kernel": ["rbf"], "gamma": ["scale"]}
    search = GridSearchCV(SVC(C=np.inf, gamma="scale"), grid, cv=5).fit(x, y)
    wanted = search.best_estimator_.score(test.features[5:].double().numpy(), test.labels[5:].numpy())
    found = evaluate(train, test, 3)
    assert found["top1"] == pytest.approx(100 * wanted, abs=1e-12) and found["top1"] > 70
    assert found["C"] == {f"{search.best_params_['C']:g}": 1}


@pytest.mark.parametrize(("count", "classes"), [(48, 3), (64, 16)])
def test_with_few_samples_errors_are_not_allowed(count: int, classes: int) -> None:
    train, test = features(count, 0, classes), features(60, 1, classes)
    wanted = SVC(C=np.inf, gamma="scale").fit(train.features.double().numpy(), train.labels.numpy())
    found = evaluate(train, test, classes)
    assert found["C"] == {"inf": 1}
    score = wanted.score(test.features.double().numpy(), test.labels.numpy())
    assert found["top1"] == pytest.approx(100 * score, abs=1e-12)


def test_folds_are_those_of_graphcl_over_both_sets() -> None:
    train, test = features(90, 0), features(30, 1, hidden=3)
    x = torch.cat([train.features, test.features[3:]]).double().numpy()
    y = torch.cat([train.labels, test.labels[3:]]).numpy()
    scores = []
    for rows, held in StratifiedKFold(n_splits=4, shuffle=True, random_state=2).split(x, y):
        search = GridSearchCV(SVC(), {"C": [0.001, 0.01, 0.1, 1, 10, 100, 1000]}, cv=5, scoring="accuracy")
        scores.append(100 * search.fit(x[rows], y[rows]).score(x[held], y[held]))
    found = evaluate(train, test, 3, folds=4, seed=2)
    assert found["by_fold"] == pytest.approx(scores, abs=1e-12)
    assert found["top1"] == pytest.approx(np.mean(scores)) and found["top1_std"] == pytest.approx(np.std(scores))
    assert sum(found["C"].values()) == 4 and math.inf not in found["C"]


def test_kernel_grid_scale_and_size_are_settings() -> None:
    train, test = features(90, 0), features(60, 1)
    assert evaluate(train, test, 3, kernel="linear", C=[1.0])["top1"] < evaluate(train, test, 3)["top1"] - 10
    # One column drowns the others, unless features are standardised.
    stretched = [part._replace(features=part.features * torch.tensor([1e3, 1, 1, 1])) for part in (train, test)]
    assert evaluate(*stretched, 3, C=[1.0], standardize=True)["top1"] > evaluate(*stretched, 3, C=[1.0])["top1"] + 10
    assert evaluate(train, test, 3, most=30)["C"] == {"inf": 1} != evaluate(train, test, 3, most=60)["C"]


def test_what_cannot_be_judged_is_a_sentence() -> None:
    train = features(90, 0)
    none = Features(train.features[:0], train.labels[:0], train.position[:0])
    with pytest.raises(ValueError, match=r"no validation sample has a label; protocol.folds=10 judges the training"):
        evaluate(train, none, 3)
    with pytest.raises(ValueError, match="folds=31: wanted 2 to 30, the labelled samples of the smallest class"):
        evaluate(train, none, 3, folds=31)
    with pytest.raises(ValueError, match=r"needs samples of two classes, got 1 class\(es\)"):
        evaluate(features(60, 0, classes=1), train, 3)


def test_folds_judge_a_run_without_validation_set(trained) -> None:  # noqa: F811
    trained.data = Data(validation=False)
    result = run(settings(trained.folder, "protocol=svm", "protocol.folds=3"))
    assert result["samples"] == {"train": 200, "test": 0} and 33 < result["top1"] < 100
    assert len(result["by_fold"]) == 3 and result["settings"]["folds"] == 3
    with pytest.raises(ConfigError, match="protocol=svm: no validation sample has a label; protocol.folds=10"):
        run(settings(trained.folder, "protocol=svm"))
    with pytest.raises(ConfigError, match="needs a validation set and this data has none"):
        run(settings(trained.folder))


def test_rows_that_no_infinite_machine_tells_apart_are_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def fit(self: SVC, *_: object) -> None:
        raise ValueError("The dual coefficients or intercepts are not finite.")

    monkeypatch.setattr(SVC, "fit", fit)
    message = r"with C=inf, which is for .*not finite.* set protocol.C=\[1.0\], or protocol.standardize=true"
    with pytest.raises(ValueError, match=message):
        evaluate(features(12, 0), features(12, 1), 3)
