"""Average precision and matching by hand and by scikit-learn; cameras; the command."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import average_precision_score

from ssl_zoo.errors import ConfigError
from ssl_zoo.evaluation import retrieval
from ssl_zoo.evaluation.retrieval import evaluate, retrieve
from ssl_zoo.evaluation.run import run
from ssl_zoo.features import Features
from tests.evaluation.test_run import settings, trained  # noqa: F401  (a fixture)


def angles(*degrees: float) -> torch.Tensor:
    radians = torch.tensor(degrees).deg2rad()
    return torch.stack([radians.cos(), radians.sin()], 1)


def random_features(n: int = 40) -> Features:
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(5, (n,), generator=generator)
    x = torch.eye(5)[labels] + 0.8 * torch.randn(n, 5, generator=generator)
    return Features(x, labels, torch.arange(n))


def test_one_query_by_hand() -> None:
    # Hits at places 2 and 4 of 4: (1/2 + 2/4) / 2; the first hit is the second.
    found = retrieve(angles(0), torch.tensor([7]), angles(10, 20, 30, 40), torch.tensor([1, 7, 1, 7]), ranks=(1, 2))
    assert found == {"map": pytest.approx(50), "cmc1": 0.0, "cmc2": 100.0, "queries": 1}


@pytest.mark.parametrize("block", [2**23, 41])
def test_each_sample_among_all_others_as_scikit_learn_has_it(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retrieval, "BLOCK", block)
    x, labels, _ = random_features()
    unit = F.normalize(x, dim=1)
    precisions, places = [], []
    for i in range(len(x)):
        others = torch.arange(len(x)) != i
        scores, hits = (unit[others] @ unit[i]).numpy(), (labels[others] == labels[i]).numpy()
        precisions.append(average_precision_score(hits, scores))
        places.append(1 + int((scores > scores[hits].max()).sum()))
    found = evaluate(random_features(), random_features(), 5)
    assert found["map"] == pytest.approx(100 * sum(precisions) / len(x), rel=1e-6)
    for k in (1, 5, 10):
        assert found[f"cmc{k}"] == pytest.approx(100 * sum(place <= k for place in places) / len(x))
    assert found["queries"] == 40 and found["gallery"] == "test"


def test_a_network_that_maps_everything_to_one_point_gains_nothing_from_the_order() -> None:
    labels = torch.arange(20) // 10
    found = retrieve(torch.ones(20, 3), labels, torch.ones(20, 3), labels, torch.arange(20))
    assert found["map"] == pytest.approx(100 * 9 / 19) and found["cmc1"] == found["cmc5"] == 0


def test_cameras_and_samples_without_a_label_are_left_out() -> None:
    gallery, labels = angles(1, 2, 3, 4), torch.tensor([7, -1, 5, 7])
    cameras = torch.tensor([0]), torch.tensor([0, 0, 0, 1])
    with_all = retrieve(angles(0), torch.tensor([7]), gallery, labels)
    apart = retrieve(angles(0), torch.tensor([7]), gallery, labels, cameras=cameras)
    assert with_all["map"] == pytest.approx(100 * (1 + 2 / 3) / 2) and with_all["cmc1"] == 100
    assert apart["map"] == pytest.approx(50) and apart["cmc1"] == 0  # 5 comes first; the same camera's 7 does not count


def test_queries_without_a_hit_are_not_counted() -> None:
    found = retrieve(angles(0, 0), torch.tensor([7, 9]), angles(1), torch.tensor([7]))
    assert found["queries"] == 1 and found["map"] == 100
    with pytest.raises(ValueError, match="no query has another sample of its label in the gallery"):
        retrieve(angles(0), torch.tensor([9]), angles(1), torch.tensor([7]))


def test_the_training_set_as_gallery() -> None:
    train, test = random_features(), Features(angles(0), torch.tensor([1]), torch.tensor([0]))
    wide = Features(F.pad(test.features, (0, 3)), test.labels, test.position)
    assert evaluate(train, wide, 5, gallery="train") == {
        **retrieve(wide.features, wide.labels, train.features, train.labels), "gallery": "train"
    }


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gallery": "tran"}, r"protocol.gallery=tran: did you mean 'train'\?"),
        ({"ranks": [0]}, r"protocol.ranks=\[0\]: wanted whole numbers from 1 on"),
        ({"cameras": "nowhere.txt"}, "protocol.cameras=nowhere.txt: there is no such file"),
        ({"cameras": "short.txt"}, "protocol.cameras=short.txt: 3 numbers for 40 validation samples"),
        ({"cameras": "words.txt"}, "protocol.cameras=words.txt: wanted a whole number a line"),
        ({"cameras": "short.txt", "gallery": "train"}, "wanted protocol.gallery=test with it"),
    ],
)
def test_settings_that_cannot_be(options: dict, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("short.txt").write_text("1\n2\n3\n")
    Path("words.txt").write_text("one\n")
    with pytest.raises(ConfigError, match=message):
        evaluate(random_features(), random_features(), 5, **options)


def test_the_command_writes_and_prints_it(trained, capsys, tmp_path: Path) -> None:  # noqa: F811
    result = run(settings(trained.folder, "protocol=retrieval"))
    assert (trained.folder / "evaluation" / "retrieval.json").is_file()
    assert 20 < result["map"] < 100 and result["queries"] == 60 and result["cmc1"] <= result["cmc5"] <= result["cmc10"]
    printed = capsys.readouterr().out
    assert "retrieval on digits" in printed and f"{result['map']:.2f}" in printed and "cmc10 (%)" in printed
    cameras = tmp_path / "cameras.txt"
    cameras.write_text("\n".join(str(i % 2) for i in range(60)))
    apart = run(settings(trained.folder, "protocol=retrieval", f"protocol.cameras={cameras}"))
    assert apart["map"] < result["map"]


def test_unique_labels_say_where_else_to_look():
    x, labels = torch.randn(4, 3), torch.arange(4)
    only = Features(x, labels, labels)
    with pytest.raises(ConfigError, match="is every label unique.; protocol.gallery=train searches the train"):
        evaluate(only, only, 4)
    assert evaluate(only, only, 4, gallery="train")["map"] == 100.0
