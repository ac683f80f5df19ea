"""Agreement of clusters with labels by hand, the protocol, and its command."""

from __future__ import annotations

import itertools

import pytest
import torch

from ssl_zoo.errors import ConfigError
from ssl_zoo.evaluation.clustering import agreement, evaluate, matched_accuracy
from ssl_zoo.evaluation.run import run
from ssl_zoo.features import Features
from tests.evaluation.test_run import settings, trained  # noqa: F401  (a fixture)


def features(n: int = 90, noise: float = 0.3, unlabelled: int = 0, seed: int = 0) -> Features:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % 3
    x = torch.eye(3, 5)[labels] + noise * torch.randn(n, 5, generator=generator)
    labels[:unlabelled] = -1
    return Features(x, labels, torch.arange(n))


def test_accuracy_by_hand() -> None:
    # Cluster 1 stands for class 0 (3 samples), cluster 0 for class 1 (2): 5 of 6.
    found, labels = torch.tensor([1, 1, 1, 0, 0, 0]), torch.tensor([0, 0, 0, 1, 1, 0])
    assert matched_accuracy(found, labels) == pytest.approx(500 / 6)
    # Four clusters, two classes: two of them stand for none.
    assert matched_accuracy(torch.tensor([0, 1, 2, 3]), torch.tensor([0, 0, 1, 1])) == 50.0
    # One cluster for three classes.
    assert matched_accuracy(torch.zeros(6).long(), torch.tensor([0, 0, 0, 1, 1, 2])) == 50.0


def test_accuracy_is_that_of_the_best_permutation() -> None:
    generator = torch.Generator().manual_seed(0)
    found, labels = (torch.randint(4, (50,), generator=generator) for _ in range(2))
    best = max((torch.tensor(order)[found] == labels).sum() for order in itertools.permutations(range(4)))
    assert matched_accuracy(found, labels) == pytest.approx(2.0 * int(best))


def test_measures_of_perfect_and_of_unrelated_clusters() -> None:
    labels = torch.arange(60) % 3
    assert agreement((labels + 1) % 3, labels) == {"acc": 100.0, "nmi": pytest.approx(100), "ari": pytest.approx(100)}
    unrelated = agreement(torch.arange(60) // 20, labels)
    assert unrelated["acc"] == pytest.approx(35) and abs(unrelated["nmi"]) < 1 and abs(unrelated["ari"]) < 5


def test_the_protocol_clusters_the_split_it_is_told() -> None:
    train, test = features(noise=2.0, seed=1), features(noise=0.1, unlabelled=5)
    result = evaluate(train, test, 3, redo=3)
    assert (result["acc"], result["acc_std"], result["clusters"], result["split"]) == (100.0, 0.0, 3, "test")
    assert set(result["by_seed"]) == {"0", "1", "2"} and set(result["by_seed"]["0"]) == {"acc", "nmi", "ari"}
    noisy, both = (evaluate(train, test, 3, split=split, redo=3) for split in ("train", "both"))
    assert noisy["acc"] < both["acc"] < 100
    assert evaluate(train, test, 3, clusters=2, redo=3)["acc"] < 70


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"split": "tset"}, r"protocol.split=tset: did you mean 'test'\?"),
        ({"seeds": []}, "protocol.seeds is empty"),
        ({"clusters": 91}, "protocol.clusters=91: wanted 1 to 90, the labelled samples of test"),
    ],
)
def test_settings_that_cannot_be(options: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        evaluate(features(), features(), 3, **options)


def test_the_command_writes_and_prints_it(trained, capsys) -> None:  # noqa: F811
    result = run(settings(trained.folder, "protocol=clustering", "protocol.redo=2"))
    assert (trained.folder / "evaluation" / "clustering.json").is_file()
    assert 33 < result["acc"] <= 100 and result["clusters"] == 3
    printed = capsys.readouterr().out
    assert "clustering on digits" in printed
    assert all(f"{name} (%)" in printed for name in ("acc", "nmi", "ari")) and f"{result['acc']:.2f}" in printed
