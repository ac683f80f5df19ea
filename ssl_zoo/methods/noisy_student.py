"""Noisy Student: a student learns, with noise, what its teacher says of unlabelled samples without."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_zoo.backbones.base import Backbone
from ssl_zoo.data.batch import Batch, DataInfo
from ssl_zoo.distributed import mean_of_chosen
from ssl_zoo.losses.self_training import cross_entropy_rows, sharpened
from ssl_zoo.methods.base import Method
from ssl_zoo.modules.dropout import dropout
from ssl_zoo.modules.ema import EMA
from ssl_zoo.optim.recipe import OptimizerRecipe
from ssl_zoo.optim.schedules import Schedule, value
from ssl_zoo.ranges import NonNegative, Positive, Rate, Share
from ssl_zoo.teachers import load_teacher


class NoisyStudent(Method):
    """Self-training with noise, Xie et al. 2019, https://arxiv.org/abs/1911.04252 (algorithm 1).

    As ``main.py`` of google-research/noisystudent@aac52bf: cross-entropy of the labelled rows (smoothed) plus
    ``unlabelled`` times that of the others against the teacher's classes, each a mean over its own rows. The classes
    come from a file (``data.pseudo_labels``), which is the paper's way, or from a ``teacher`` that runs beside the
    student on the last view, without noise. With neither only labels count: that trains the first teacher. The noise is
    RandAugment in the views, ``dropout`` here and ``backbone.drop_path_rate`` in networks that have one. What is
    evaluated, and guesses the classes for the next student, is a moving average of the weights and of the batch norms'
    statistics; its momentum after t steps is ``(1 + t) / (10 + t)``, at most ``momentum`` (TensorFlow's
    ``ExponentialMovingAverage`` with ``num_updates``).

    Args:
        teacher: As :func:`ssl_zoo.teachers.load_teacher`, of a network with a classifier; all None: none.
        unlabelled: Weight of the unlabelled rows' loss; the authors' ratio of unlabelled to labelled rows in a batch.
        hard: The teacher's likeliest class, smoothed like a label, instead of its probabilities.
        temperature: > 0, of the teacher's probabilities.
        label_smoothing: In [0, 1).
        dropout: Share of the features that a row loses before the classifier, in [0, 1).
        momentum: Of the average, in the long run; 0: the weights themselves are evaluated.
    """

    views_required = (1, 0)
    views_allowed = (2, 0)
    needs_labels = True

    def __init__(
        self,
        backbone: Backbone,
        optimizer: OptimizerRecipe,
        data_info: DataInfo,
        teacher: Mapping[str, Any] | None = None,
        unlabelled: NonNegative = 1.0,
        hard: bool = False,
        temperature: Positive = 1.0,
        label_smoothing: Rate = 0.1,
        dropout: Rate = 0.5,
        momentum: Share | Schedule = 0.9999,
    ) -> None:
        super().__init__(backbone, optimizer)
        if data_info.classes is None:
            raise ValueError("method=noisy_student needs some labels and the data has none; choose a labelled data set")
        if not 0 <= dropout < 1:
            raise ValueError(f"method.dropout={dropout}: wanted a share of the features, at least 0 and below 1")
        named = teacher is not None and (teacher.get("checkpoint") or teacher.get("timm"))
        self.teacher = load_teacher(teacher, data_info) if teacher is not None and named else None
        if self.teacher is not None and self.teacher.classes is None:
            raise ValueError("method.teacher has no classifier to guess classes with; take a fine-tuned network")
        self.top = nn.Linear(backbone.out_features, data_info.classes)
        self.average = EMA(nn.Sequential(backbone, self.top), statistics=True)
        self.momentum = momentum
        self.unlabelled, self.hard, self.temperature = unlabelled, hard, temperature
        self.label_smoothing, self.dropout = label_smoothing, dropout

    @property
    def encoder(self) -> nn.Module:
        """The averaged backbone."""
        return cast(nn.Sequential, self.average.net)[0]

    @property
    def classifier(self) -> nn.Module:
        """The averaged classifier, which evaluation and the next student ask."""
        return cast(nn.Sequential, self.average.net)[1]

    def training_loss(self, batch: Batch) -> dict[str, Tensor]:
        assert batch.label is not None  # needs_labels
        h = self.backbone(batch.views[0])                                            # [B, F]
        logits = self.top(dropout(h, self.dropout, batch.rng.sample("dropout")))     # [B, C]
        labelled = batch.label != -1                                                 # [B]
        loss = mean_of_chosen(cross_entropy_rows(logits, batch.label, self.label_smoothing), labelled)
        guessed = self.guess(batch)
        if guessed is None:
            return {"loss": loss}        # no features: a probe asks for those of the average, on which it is tested
        other = self.guessed_loss(logits, guessed, ~labelled)
        return {"loss": loss + self.unlabelled * other, "labelled": loss, "unlabelled": other}

    def after_step(self) -> None:
        taken = self.progress.step + 1
        momentum = min(value(self.momentum, self.progress), (1 + taken) / (10 + taken))
        self.average.update(nn.Sequential(self.backbone, self.top), momentum)

    def guess(self, batch: Batch) -> Tensor | None:
        """The teacher's classes ``[B, C]``, from the file or by looking at the last view; None without either."""
        if "pseudo" in batch.extra:
            return sharpened(batch.extra["pseudo"], self.temperature)
        if self.teacher is None:
            return None
        _, logits = self.teacher(batch.views[-1])
        assert logits is not None
        return torch.softmax(logits.float() / self.temperature, dim=1)

    def guessed_loss(self, logits: Tensor, guessed: Tensor, rows: Tensor) -> Tensor:
        """Mean over the unlabelled rows of all processes; smoothing is for hard classes only."""
        if self.hard:
            guessed = F.one_hot(guessed.argmax(1), guessed.shape[1]).to(guessed.dtype)
        return mean_of_chosen(cross_entropy_rows(logits, guessed, self.label_smoothing if self.hard else 0.0), rows)
