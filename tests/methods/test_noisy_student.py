"""Noisy Student: which rows count for what, dropout of its own for each sample, and what is refused."""

from __future__ import annotations

import pytest
import torch

from ssl_zoo import build
from ssl_zoo.errors import ConfigError
from ssl_zoo.evaluation.classifier import Classes
from ssl_zoo.optim.schedules import Progress
from tests import helpers


def method_of(*extra):
    cfg = helpers.tiny_config("noisy_student", extra)
    cfg.method.teacher.timm = None
    return build.build_method(cfg, helpers.info()).train()


def batch_of(labelled=3):
    batch = helpers.tiny_batch([16])
    batch.label[labelled:] = -1
    guesses = torch.rand(helpers.ROWS, helpers.CLASSES, generator=torch.Generator().manual_seed(0))
    batch.extra["pseudo"] = guesses / guesses.sum(1, keepdim=True)
    return batch


def logits_of(method, batch):
    return method.top(method.backbone(batch.views[0]))


def test_labelled_rows_count_by_label_and_the_others_by_guess():
    method = method_of("method.dropout=0", "method.label_smoothing=0.2", "method.unlabelled=3")
    batch = batch_of()
    out = method.training_loss(batch)
    log_p = logits_of(method, batch).log_softmax(1)
    named = torch.nn.functional.one_hot(batch.label[:3], 4) * 0.8 + 0.2 / 4
    torch.testing.assert_close(out["labelled"], -(named * log_p[:3]).sum(1).mean())
    torch.testing.assert_close(out["unlabelled"], -(batch.extra["pseudo"][3:] * log_p[3:]).sum(1).mean())
    torch.testing.assert_close(out["loss"], out["labelled"] + 3 * out["unlabelled"])


def test_hard_guesses_are_smoothed_like_labels():
    method = method_of("method.dropout=0", "method.hard=true")
    batch = batch_of()
    out = method.training_loss(batch)
    logits, guess = logits_of(method, batch)[3:], batch.extra["pseudo"][3:].argmax(1)
    wanted = torch.nn.functional.cross_entropy(logits, guess, label_smoothing=0.1)
    torch.testing.assert_close(out["unlabelled"], wanted)


def test_without_guesses_only_labels_count():
    method = method_of()
    batch = batch_of()
    batch.extra.clear()
    assert set(method.training_loss(batch)) == {"loss"}


def test_a_teacher_beside_the_student_looks_at_the_last_view():
    method = helpers.tiny_method("noisy_student", ["method.temperature=0.5"])
    batch = helpers.tiny_batch([16, 16])
    torch.testing.assert_close(method.guess(batch), (method.teacher(batch.views[1])[1] / 0.5).softmax(1))


def test_dropout_depends_on_the_sample_and_not_on_the_batch_around_it():
    method = method_of("method.dropout=0.5").eval()  # batch norm of its own rows would tell the batches apart
    seen = []
    method.top.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    batch = batch_of()
    method.training_loss(batch)
    half = batch_of()
    half.views, half.label = [view[:4] for view in half.views], half.label[:4]
    half.rng.slot, half.extra = half.rng.slot[:4], {"pseudo": half.extra["pseudo"][:4]}
    method.training_loss(half)
    torch.testing.assert_close(seen[1], seen[0][:4])
    share = (seen[0] == 0).float().mean().item()
    assert 0.3 < share < 0.7


@pytest.mark.parametrize(("step", "momentum"), [(0, 2 / 11), (9, 11 / 20), (99_999, 0.9999)])
def test_the_average_forgets_its_first_steps_and_takes_the_statistics_of_batch_norms_along(step, momentum):
    method = helpers.tiny_method("noisy_student", dtype=torch.float64)
    assert method.momentum == 0.9999 and method.encoder is not method.backbone and method.classifier is not method.top
    method.progress = Progress(step, 200_000, 1000)
    before = {name: tensor.clone() for name, tensor in method.average.net.state_dict().items()}
    helpers.train_step(method, helpers.tiny_batch([16, 16], dtype=torch.float64))
    student = torch.nn.Sequential(method.backbone, method.top).state_dict()
    followed = [name for name, tensor in before.items() if tensor.is_floating_point()]
    assert any(name.endswith("running_var") for name in followed)
    for name in followed:
        wanted = momentum * before[name] + (1 - momentum) * student[name]
        torch.testing.assert_close(method.average.net.state_dict()[name], wanted, rtol=1e-12, atol=1e-12)


def test_the_average_is_what_is_evaluated_and_teaches():
    method = helpers.tiny_method("noisy_student", ["method.momentum=0.5"])
    helpers.train_step(method, helpers.tiny_batch([16, 16]))
    batch = helpers.tiny_batch([16, 16], 1)
    method.eval()
    logits = method.classifier(method.encoder(batch.views[0]))
    torch.testing.assert_close(Classes(method).embed(batch.views[0]), logits)
    assert (logits - logits_of(method, batch)).abs().max() > 1e-4
    none = helpers.tiny_method("noisy_student", ["method.momentum=0"])
    helpers.train_step(none, helpers.tiny_batch([16, 16]))
    none.eval()
    torch.testing.assert_close(Classes(none).embed(batch.views[0]), logits_of(none, batch))


def test_wrong_arguments_are_refused():
    with pytest.raises(ConfigError, match="method.dropout=1.0: wanted a share of the features"):
        method_of("method.dropout=1.0")
