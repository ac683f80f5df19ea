"""The linear probe against scikit-learn and against autograd."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression

from ssl_zoo.evaluation import linear
from ssl_zoo.evaluation.linear import fit, held_out, linear_probe, objective


def random_data(n=400, m=300, dim=12, classes=7, spread=1.0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    centres = spread * torch.randn(classes, dim, generator=generator, dtype=dtype)
    labels = torch.randint(classes, (n + m,), generator=generator)
    noise = torch.randn(n + m, dim, generator=generator, dtype=dtype)
    x = centres[labels] + noise @ torch.randn(dim, dim, generator=generator, dtype=dtype) / dim**0.5
    return x[:n], labels[:n], x[n:], labels[n:]


def test_the_objective_and_its_gradient_equal_autograd(monkeypatch):
    x, labels, _, _ = random_data()
    monkeypatch.setattr(linear, "BLOCK", 7 * 33)  # 33 rows at a time
    head = torch.randn(13, 7, dtype=torch.float64, requires_grad=True)
    wanted = F.cross_entropy(x @ head[:-1] + head[-1], labels) + 0.3 / 2 * head[:-1].square().sum()
    wanted.backward()
    loss, grad = objective(x, labels, head.detach(), 0.3)
    assert loss.item() == pytest.approx(wanted.item(), rel=1e-12)
    torch.testing.assert_close(grad, head.grad, rtol=1e-10, atol=1e-13)


def test_standardised_features_are_those_of_a_batch_norm_without_scale_and_offset():
    train, _, test, _ = random_data()
    norm = torch.nn.BatchNorm1d(12, eps=1e-300, momentum=1.0, affine=False, dtype=train.dtype)  # in front of MAE's head
    wanted = norm(train)
    norm.running_var *= (len(train) - 1) / len(train)  # torch keeps the unbiased variance for the test samples
    got = linear._standardised(train, test)
    torch.testing.assert_close(got[0], wanted)
    torch.testing.assert_close(got[1], norm.eval()(test))


@pytest.mark.parametrize("l2", [1.0, 1e-2, 1e-4])
def test_a_fit_equals_scikit_learn(l2):
    x, labels, _, _ = random_data()
    head = fit(x, labels, l2, torch.zeros(13, 7, dtype=x.dtype), iterations=2000, tolerance=1e-9)
    reference = LogisticRegression(C=1 / (l2 * len(x)), tol=1e-10, max_iter=10_000).fit(x.numpy(), labels.numpy())
    # Biases are defined up to a common shift: compare them centred.
    np.testing.assert_allclose(head[:-1].T.numpy(), reference.coef_, atol=1e-4)
    np.testing.assert_allclose((head[-1] - head[-1].mean()).numpy(), reference.intercept_, atol=1e-4)


def test_the_probe_equals_scikit_learn_on_standardised_features():
    train, labels, test, wanted = random_data()
    result = linear_probe(train * 50 + 3, labels, test * 50 + 3, wanted, [1e-3], iterations=1000)
    mean, std = train.mean(0), train.std(0, correction=0)
    reference = LogisticRegression(C=1 / (1e-3 * len(train)), tol=1e-8, max_iter=10_000)
    reference.fit(((train - mean) / std).numpy(), labels.numpy())
    scores = reference.predict_proba(((test - mean) / std).numpy())
    top5 = np.mean([label in row for label, row in zip(wanted.numpy(), np.argsort(-scores)[:, :5], strict=True)])
    assert result["top1"] == pytest.approx(100 * np.mean(scores.argmax(1) == wanted.numpy()), abs=0.4)
    assert result["top5"] == pytest.approx(100 * top5, abs=0.4)
    assert result["l2"] == 1e-3 and result["held_out"] == {}


def test_the_penalty_is_chosen_on_the_held_out_part_by_class_and_never_on_the_test_set():
    train, labels, test, wanted = random_data(n=120, spread=0.5)
    result = linear_probe(train, labels, test, wanted, [1e-4, 1e-1, 10.0])
    assert list(result["held_out"]) == ["10", "0.1", "0.0001"]
    assert result["held_out"][f"{result['l2']:g}"] == max(result["held_out"].values())
    shuffled = linear_probe(train, labels, test, wanted.roll(1), [1e-4, 1e-1, 10.0])
    assert (shuffled["l2"], shuffled["held_out"]) == (result["l2"], result["held_out"])


def test_the_held_out_part_is_a_seeded_share_of_every_class():
    labels = torch.tensor([0] * 50 + [1] * 20 + [2])
    mask = held_out(labels, 0.1, seed=0)
    assert [int(mask[labels == each].sum()) for each in (0, 1, 2)] == [5, 2, 0]
    assert torch.equal(mask, held_out(labels, 0.1, seed=0)) and not torch.equal(mask, held_out(labels, 0.1, seed=1))


def test_the_probe_repeats_itself_and_leaves_the_global_generator_alone():
    data = random_data(dtype=torch.float32)
    before = torch.get_rng_state()
    assert linear_probe(*data) == linear_probe(*data)
    assert torch.equal(torch.get_rng_state(), before)


def test_dead_dimensions_large_offsets_and_unlabelled_rows_change_nothing():
    train, labels, test, wanted = random_data()
    plain = linear_probe(train, labels, test, wanted, [1e-2])
    dead = torch.full((len(train), 2), 7.0, dtype=train.dtype)
    train = torch.cat([torch.cat([train, dead], 1), torch.full((5, 14), 1e3, dtype=train.dtype)])
    labels = torch.cat([labels, torch.full((5,), -1)])
    test = torch.cat([test, dead[: len(test)]], 1)
    assert linear_probe(train, labels, test, wanted, [1e-2]) == plain


def test_sizes_of_real_runs_take_seconds():
    train, labels, test, wanted = random_data(5000, 1000, 128, 10, 0.3, torch.float32)
    start = time.process_time()
    result = linear_probe(train, labels, test, wanted)
    assert result["top1"] > 90 and time.process_time() - start < 20  # about 1 s of CPU time on an idle machine


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": torch.full((40,), -1)}, "a linear probe needs labels: got 0 labelled to train and 30 to test"),
        ({"test_labels": torch.full((30,), -1)}, "got 40 labelled to train and 0 to test"),
        ({"classes": 2}, "the linear probe was told of 2 classes and the training set holds label"),
    ],
)
def test_wrong_arguments_are_named(change, message):
    train, labels, test, wanted = random_data(40, 30)
    with pytest.raises(ValueError) as error:
        linear_probe(**({"train": train, "labels": labels, "test": test, "test_labels": wanted} | change))
    assert message in str(error.value)
