"""Names a collapse of the features, or of what the loss compares, while the run can still be stopped."""

from __future__ import annotations

import math
from typing import Any

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from pytorch_lightning.utilities import rank_zero_warn
from torch import Tensor

from ssl_zoo.callbacks.observe import batch_features
from ssl_zoo.data.batch import Batch
from ssl_zoo.distributed import gather
from ssl_zoo.ranges import NonNegative, Size


def spread(features: Tensor) -> Tensor:
    """Mean standard deviation of the dimensions of L2-normalised features, times sqrt(F); SimSiam, Sec. 4.1.

    Args:
        features: ``[B, F]``.

    Returns:
        1 for directions that fill the sphere evenly, 0 for constant ones; features after a ReLU, all of whose
        directions lie in one corner of the sphere, reach about 0.7. https://arxiv.org/abs/2011.10566
    """
    unit = F.normalize(features, dim=1)
    return unit.std(0, correction=0).mean() * features.shape[1] ** 0.5


def effective_rank(features: Tensor) -> Tensor:
    """Exponential of the entropy of the normalised singular values of centred features ``[B, F]``, 1 to min(B-1, F).

    Roy and Vetterli 2007; RankMe, https://arxiv.org/abs/2210.02885 eq. 1-2, uses it uncentred. The eigenvalues of the
    smaller Gram matrix are the squared singular values. Constant features have rank 0.
    """
    x = (features - features.mean(0)).double()
    gram = x @ x.T if len(x) <= x.shape[1] else x.T @ x
    eigenvalues = torch.linalg.eigvalsh(gram).clamp(min=0)
    # Rounding leaves eigenvalues near 1e-16 of the largest, whose square roots would count as 1e-8 each.
    eigenvalues = eigenvalues.where(eigenvalues > 1e-12 * eigenvalues.max(), 0.0)
    values = eigenvalues.sqrt()
    p = values / values.sum().clamp(min=1e-30)
    entropy = -(p * p.clamp(min=1e-30).log()).sum()
    return entropy.exp() * (values.sum() > 0)


def information(assignments: Tensor) -> tuple[Tensor, Tensor]:
    """How much the assignments ``[B, K]`` tell of the sample, and the entropy of their mean; both in nats.

    The first is the mutual information of sample and cluster: the entropy of the mean row less the mean entropy of the
    rows. It is 0 when all rows are alike: uniform (then the second is ln K), or all at one cluster (then it is 0).
    """
    p = assignments.double()
    p = p / p.sum(1, keepdim=True)
    whole = torch.special.entr(p.mean(0)).sum()
    return whole - torch.special.entr(p).sum(1).mean(), whole


class Collapse(pl.Callback):
    """Watch the features of a training batch every N steps; name each kind of collapse once, with what to change.

    Logs ``collapse/std`` (:func:`spread`) and ``collapse/rank`` (:func:`effective_rank`) of the global batch. A method
    may return ``embeddings`` ``[B, D]``, which its loss compares, and ``assignments`` ``[B, K]``, its targets: they go
    long before the features do. Logged as ``collapse/embedding_std``, ``_rank`` and ``collapse/information``.

    Args:
        every_n_steps: Optimizer steps between readings; nothing is computed in between.
        patience: Readings in a row before a warning about features or the loss.
        early_patience: Readings in a row before a warning about embeddings or assignments.
        shrunk_below: Share of their highest spread or rank so far under which embeddings count as collapsed.
        informed_above: Share of the most that assignments could tell (ln of the smaller of K and rows) under which they
            count as collapsed.
        constant_below: ``collapse/std`` under which the output counts as constant.
        dead_above: Share of dimensions without any variation above which the features count as dead.
        uniform_within: Relative distance of the loss from the method's ``uniform_loss`` (ln K), or the one that it
            reports for the batch, that counts as stuck.
        max_rows: Rows of the global batch that are read.
    """

    def __init__(
        self,
        every_n_steps: Size = 10,
        patience: Size = 20,
        early_patience: Size = 5,
        shrunk_below: NonNegative = 0.35,
        informed_above: NonNegative = 0.004,
        constant_below: NonNegative = 0.01,
        dead_above: NonNegative = 0.5,
        uniform_within: NonNegative = 0.002,
        max_rows: Size = 512,
    ) -> None:
        self.every_n_steps = every_n_steps
        self.patience = patience
        self.early_patience = early_patience
        self.shrunk_below = shrunk_below
        self.informed_above = informed_above
        self.constant_below = constant_below
        self.dead_above = dead_above
        self.uniform_within = uniform_within
        self.max_rows = max_rows
        self.latest: dict[str, float] = {}
        self._streak: dict[str, int] = {}
        self._highest: dict[str, float] = {}
        self._read_at = 0

    def on_train_start(self, trainer: pl.Trainer, method: Any) -> None:
        self._read_at = trainer.global_step
        method.metrics.update(self.latest)

    def on_train_batch_end(self, trainer: pl.Trainer, method: Any, outputs: Any, batch: Batch, batch_idx: int) -> None:
        step = trainer.global_step
        told = outputs if isinstance(outputs, dict) else {}
        if step == 1 and not self._highest and "embeddings" in told:  # from where they fall
            self._shape(gather(told["embeddings"].detach().float())[: self.max_rows])
        if step == self._read_at or step % self.every_n_steps:  # the first: other micro-batches of the same step
            return
        self._read_at = step
        features = gather(batch_features(method, outputs, batch))[: self.max_rows]
        self.latest, dead = self._measure(features)
        if "embeddings" in told:
            self._judge_embeddings(gather(told["embeddings"].detach().float())[: self.max_rows])
        if "assignments" in told:
            self._judge_assignments(gather(told["assignments"].detach().float())[: self.max_rows])
        method.report(self.latest)
        loss = told.get("loss")
        # Lightning hands out the loss divided by the number of micro-batches.
        loss = None if loss is None else float(loss) * trainer.accumulate_grad_batches
        self._judge(dead, len(features))
        self._judge_loss(loss, told.get("uniform_loss"), method.uniform_loss)

    @staticmethod
    @torch.no_grad()
    def _measure(features: Tensor) -> tuple[dict[str, float], float]:
        if not bool(features.isfinite().all()):  # the eigenvalues of NaN raise; the NaN guard says what happened
            return {"collapse/std": math.nan, "collapse/rank": math.nan}, 0.0
        scale = features.abs().mean().clamp(min=1e-30)
        dead = (features.std(0, correction=0) <= 1e-6 * scale).float().mean()
        std, rank, share = torch.stack([spread(features), effective_rank(features).float(), dead]).tolist()
        return {"collapse/std": std, "collapse/rank": rank}, share

    def _shape(self, embeddings: Tensor) -> dict[str, float]:
        """Spread and rank of the embeddings; the highest so far are kept."""
        shape, _ = self._measure(embeddings)
        now = {name: shape[f"collapse/{name}"] for name in ("std", "rank")}
        self._highest = {name: max(self._highest.get(name, 0.0), value) for name, value in now.items()}
        return now

    def _judge_embeddings(self, embeddings: Tensor) -> None:
        now = self._shape(embeddings)
        self.latest |= {f"collapse/embedding_{name}": value for name, value in now.items()}
        # A batch of few rows has a low rank by itself.
        low = {name: value < self.shrunk_below * self._highest[name] and len(embeddings) >= 16
               for name, value in now.items()}
        words = {name: f"fell from {self._highest[name]:.{digits}f} to {now[name]:.{digits}f}"
                 for name, digits in (("std", 2), ("rank", 1))}
        self._count("alike", low["std"], (
            f"the embeddings that the loss compares become alike (their spread {words['std']}): every image gets the "
            "same one. Nothing keeps them apart: give the method its predictor (method.predictor) and its "
            "stop-gradient or teacher back, or lower the learning rate (optimizer.values.lr)"
        ), self.early_patience)
        self._count("directions", low["rank"] and not low["std"], (
            f"the embeddings that the loss compares use few directions (their effective rank {words['rank']}): samples "
            "are told apart by few numbers only. Stop the gradient of the targets (method.stop_gradient=true, or a "
            "teacher), raise the weight of a variance or decorrelation term, or lower the learning rate "
            "(optimizer.values.lr)"
        ), self.early_patience)  # fmt: skip

    def _judge_assignments(self, assignments: Tensor) -> None:
        rows, clusters = assignments.shape
        told, whole = torch.stack(information(assignments)).tolist()
        most = math.log(min(rows, clusters))
        self.latest["collapse/information"] = told
        nothing = rows >= 16 and told < self.informed_above * most
        uniform = whole > 0.5 * math.log(clusters)
        self._count("shared", nothing and uniform, (
            f"every sample is assigned to all {clusters} clusters alike (the assignments tell {told:.3f} of {most:.2f} "
            "nats about the sample): the targets are uniform, and the loss goes to ln K. Lower epsilon "
            "(method.epsilon) or the temperature of the targets, or use fewer prototypes"
        ), self.early_patience)
        self._count("one", nothing and not uniform, (
            f"all samples are assigned to the same few of {clusters} clusters (the assignments tell {told:.3f} of "
            f"{most:.2f} nats about the sample). Centre or balance the targets (method.centring=true, Sinkhorn), or "
            "raise their temperature"
        ), self.early_patience)  # fmt: skip

    def _judge(self, dead: float, rows: int) -> None:
        std, rank = self.latest["collapse/std"], self.latest["collapse/rank"]
        constant = std < self.constant_below
        # A batch of few rows has a low rank by itself.
        flat = not constant and (dead > self.dead_above or (rank < 2 and rows >= 16))
        self._count("constant", constant, (
            f"every sample gets the same output (collapse/std {std:.4f}, below {self.constant_below:g}). The loss no "
            "longer pushes samples apart: lower the learning rate (optimizer.values.lr), lengthen the warm-up, raise "
            "the batch size, and in a method of your own check the stop-gradient, the predictor and the teacher"
        ))
        self._count("dimensions", flat, (
            f"the features use few of their dimensions (effective rank {rank:.1f}, {dead:.0%} of the dimensions never "
            "vary). Lower the learning rate or raise weight decay, use stronger augmentation, and where the method "
            "has one raise the weight of its variance or decorrelation term"
        ))  # fmt: skip

    def _judge_loss(self, loss: float | None, of_batch: Tensor | None, of_method: float | None) -> None:
        uniform = of_method if of_batch is None else float(of_batch)
        if loss is None or uniform is None:
            return
        name = "ln K" if of_batch is None else "its parts at ln K"
        self._count("uniform", abs(loss / uniform - 1) < self.uniform_within, (
            f"the loss stays at {loss:.4f}, that of uniform assignments ({name} = {uniform:.4f}): no cluster is told "
            "from another. Lower epsilon or the temperature of the assignments, use fewer prototypes, freeze the "
            "prototypes for longer, or lower the learning rate"
        ))  # fmt: skip

    def _count(self, kind: str, seen: bool, words: str, patience: int | None = None) -> None:
        """Warn at the reading that completes the streak; a kind that was named keeps its count and stays silent."""
        patience = patience or self.patience
        count = self._streak.get(kind, 0)
        if count >= patience:
            return
        self._streak[kind] = count + 1 if seen else 0
        if self._streak[kind] == patience:
            steps = patience * self.every_n_steps
            rank_zero_warn(f"collapse, for {steps} steps: {words}.", category=UserWarning)

    def state_dict(self) -> dict[str, Any]:
        return {"latest": dict(self.latest), "streak": dict(self._streak), "highest": dict(self._highest)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.latest = dict(state_dict["latest"])
        self._streak = dict(state_dict["streak"])
        self._highest = dict(state_dict.get("highest", {}))  # checkpoints of earlier versions have none
