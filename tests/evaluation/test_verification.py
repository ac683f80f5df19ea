"""Verification of pairs: by hand, by scikit-learn, by loops; the choice of pairs; the command and its picture."""

from __future__ import annotations

import json
from itertools import combinations

import matplotlib.image
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import accuracy_score, roc_auc_score, roc_curve

from ssl_zoo.errors import ConfigError
from ssl_zoo.evaluation import verification
from ssl_zoo.evaluation.run import run
from ssl_zoo.evaluation.verification import best_threshold, choose_pairs, equal_error_rate, evaluate
from ssl_zoo.features import Features
from tests.evaluation.test_run import settings, trained  # noqa: F401  (a fixture)


def features(n: int = 40, seed: int = 0, noise: float = 0.8) -> Features:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(5, (n,), generator=generator)
    return Features(torch.eye(5)[labels] + noise * torch.randn(n, 5, generator=generator), labels, torch.arange(n))


def by_loops(part: Features, similarity: str = "cosine") -> tuple[np.ndarray, np.ndarray]:
    x, labels = part.features.double(), part.labels
    pairs = list(combinations(range(len(x)), 2))
    unit = F.normalize(x, dim=1)
    cosine = similarity == "cosine"
    scores = [float(unit[i] @ unit[j]) if cosine else -float((x[i] - x[j]).norm()) for i, j in pairs]
    return np.array([bool(labels[i] == labels[j]) for i, j in pairs]), np.array(scores)


@pytest.mark.parametrize("similarity", ["cosine", "euclidean"])
@pytest.mark.parametrize("block", [2**16, 37])
def test_all_pairs_as_scikit_learn_has_them(similarity: str, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verification, "BLOCK", block)
    train, test = features(seed=1, noise=0.4), features(noise=0.4)
    found = evaluate(train, test, 5, similarity, balanced=False, fpr=[0.05, 0.2])  # type: ignore[arg-type]
    same, scores = by_loops(test, similarity)
    fpr, tpr, _ = roc_curve(same, scores)
    assert found["auc"] == pytest.approx(100 * roc_auc_score(same, scores), rel=1e-12)
    assert found["tpr_at_0.05"] == pytest.approx(100 * tpr[fpr <= 0.05].max())
    assert found["tpr_at_0.2"] == pytest.approx(100 * tpr[fpr <= 0.2].max())
    assert found["pairs"] == {"same": int(same.sum()), "different": int((~same).sum())}
    of_train, train_scores = by_loops(train, similarity)
    best = max(accuracy_score(of_train, train_scores >= threshold) for threshold in train_scores)
    assert accuracy_score(of_train, train_scores >= found["threshold"] - 1e-12) == best
    assert found["acc"] == pytest.approx(100 * accuracy_score(same, scores >= found["threshold"] - 1e-12))
    curve = found["curve"]
    points = np.stack([fpr, tpr], 1)[None] - np.stack([curve["fpr"], curve["tpr"]], 1)[:, None]
    assert np.abs(points).max(2).min(1).max() < 1e-6  # each is one of all
    assert (curve["fpr"][0], curve["fpr"][-1], curve["tpr"][-1]) == (0, 1, 1) and len(curve["fpr"]) <= 200
    assert sum(found["scores"]["same"]) == same.sum() and sum(found["scores"]["different"]) == (~same).sum()


def test_the_equal_error_rate_by_hand() -> None:
    # Scores 4 3 2 1 of same, different, same, different: (0, .5), (.5, .5), (.5, 1), (1, 1): equal at .5.
    fpr, tpr, _ = roc_curve([True, False, True, False], [4, 3, 2, 1], drop_intermediate=False)
    assert equal_error_rate(fpr, tpr) == 0.5
    assert equal_error_rate(np.array([0, 0, 1.0]), np.array([0, 1.0, 1.0])) == 0  # perfect
    assert equal_error_rate(np.array([0, 0.2, 1.0]), np.array([0, 0.6, 1.0])) == pytest.approx(1 / 3)  # 0.2 + 0.8 s


def test_a_network_that_maps_everything_to_one_point_is_at_chance() -> None:
    part = features()._replace(features=torch.ones(40, 3))
    found = evaluate(part, part, 5)
    assert (found["eer"], found["auc"], found["acc"]) == (50, 50, 50) and found["tpr_at_0.1"] == 0


def test_nothing_is_called_the_same_where_that_is_best() -> None:
    same, scores = np.array([False, False, True]), np.array([3.0, 2.0, 1.0])
    assert best_threshold(same, scores) > 3.0


def test_pairs_are_different_ones_of_both_kinds_and_chosen_by_the_seed() -> None:
    labels = torch.tensor([2, 0, 1, 0, 2, 2, 1, 0, 0])
    every = choose_pairs(labels, 100, balanced=False)
    found = {(min(i, j), max(i, j)) for i, j in zip(every.first.tolist(), every.second.tolist(), strict=True)}
    assert found == set(combinations(range(9), 2)) and len(every.first) == 36
    assert torch.equal(every.same, labels[every.first] == labels[every.second]) and int(every.same.sum()) == 10
    for balanced, kinds in ((True, 6), (False, None)):
        one, same, other = (choose_pairs(labels, 12, balanced, seed) for seed in (0, 0, 1))
        assert all(torch.equal(a, b) for a, b in zip(one, same, strict=True))
        assert not torch.equal(one.first, other.first) or not torch.equal(one.second, other.second)
        assert len(set(zip(one.first.tolist(), one.second.tolist(), strict=True))) == 12
        assert torch.equal(one.same, labels[one.first] == labels[one.second])
        assert kinds is None or int(one.same.sum()) == kinds
    assert int(choose_pairs(labels, 1000, balanced=True).same.sum()) == 10  # all of one label, as many of two


def test_a_choice_of_pairs_is_uniform() -> None:
    labels = torch.tensor([0, 0, 0, 1, 1])
    counts: dict[tuple[int, int], int] = {}
    for seed in range(600):
        chosen = choose_pairs(labels, 4, False, seed)
        for pair in zip(chosen.first.tolist(), chosen.second.tolist(), strict=True):
            counts[pair] = counts.get(pair, 0) + 1
    assert len(counts) == 10 and all(190 < count < 290 for count in counts.values())  # 240 each


def test_samples_without_a_label_are_left_out_and_a_threshold_may_be_given() -> None:
    part = features()
    labels = F.pad(part.labels, (0, 9), value=-1)
    more = Features(torch.cat([part.features, torch.rand(9, 5)]), labels, torch.arange(49))
    blank = part._replace(labels=torch.full((40,), -1))
    assert evaluate(blank, more, 5, threshold=0.3) == evaluate(blank, part, 5, threshold=0.3)
    told = "the threshold is of training samples: wanted pairs of one label and pairs of two, and the 0 labelled"
    with pytest.raises(ValueError, match=rf"{told} samples make 0 and 0; .*; or set protocol\.threshold"):
        evaluate(blank, part, 5)


def test_what_makes_no_pairs_is_told() -> None:
    part = features()
    with pytest.raises(ValueError, match="the 40 labelled samples make 780 and 0; it takes two classes, one of them"):
        evaluate(part, part._replace(labels=torch.zeros(40, dtype=torch.int64)), 5)
    with pytest.raises(ConfigError, match="protocol.similarity=cosin: did you mean 'cosine'"):
        evaluate(part, part, 5, "cosin")  # type: ignore[arg-type]


def test_the_command_writes_numbers_and_a_picture(trained) -> None:  # noqa: F811
    found = run(settings(trained.folder, "protocol=verification", "protocol.most=500"))
    assert found is not None and found["pairs"] == {"same": 250, "different": 250}
    folder = trained.folder / "evaluation"
    kept = json.loads((folder / "verification.json").read_text())
    assert kept["auc"] == found["auc"] > 55 and 0 < kept["eer"] < 50
    picture = matplotlib.image.imread(folder / "verification.png")
    assert picture.shape[:2] == (528, 1100) and len(np.unique(picture.reshape(-1, picture.shape[2]), axis=0)) > 50


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["protocol.fpr=[2]"], r"protocol.fpr=\[2\]: .* wants a list, each a number between 0 and 1"),
        (["protocol.most=0"], "protocol.most=0: .* wants a whole number of at least 1"),
    ],
)
def test_wrong_settings_are_told(words: list[str], told: str, trained) -> None:  # noqa: F811
    with pytest.raises(ConfigError, match=told):
        run(settings(trained.folder, "protocol=verification", *words))
