"""A contrastive method as five choices: augmentation, encoder, extraction, similarity, loss."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from ssl_zoo.backbones.base import Backbone
from ssl_zoo.data.batch import Batch, DataInfo
from ssl_zoo.errors import ConfigError
from ssl_zoo.methods.base import Method
from ssl_zoo.modules.framework.extraction import Extraction
from ssl_zoo.modules.framework.loss import misfit
from ssl_zoo.modules.similarity import Similarity
from ssl_zoo.optim.recipe import OptimizerRecipe
from ssl_zoo.renamed import blocks_of_before
from ssl_zoo.signatures import locate, views_problem


class Contrastive(Method):
    """The framework of Falcon & Cho 2020, https://arxiv.org/abs/2009.00104; YADIM is one choice of it.

    Args:
        extraction: What represents a view: called with the encoder and what is known of the data.
        similarity: How two are compared: called with their width.
        loss: What the comparison trains. Choices that do not go together are a ConfigError, before anything is built.
    """

    tensor_views = True
    views_required = (1, 0)
    views_allowed = (None, None)
    compares = "batch"

    def __init__(
        self,
        backbone: Backbone,
        optimizer: OptimizerRecipe,
        data_info: DataInfo,
        extraction: Callable[[Backbone, DataInfo], Extraction],
        similarity: Callable[[int], Similarity],
        loss: nn.Module,
    ) -> None:
        super().__init__(backbone, optimizer)
        kind, settings = getattr(extraction, "func", extraction), getattr(similarity, "keywords", {})
        if problem := misfit(kind, settings, type(loss), vars(loss)):
            raise ConfigError(problem)
        self.extraction = extraction(backbone, data_info)
        self.similarity = similarity(self.extraction.width)
        self.loss = loss
        self.begins, self.uniform_loss = self.extraction.begins, self.extraction.uniform_loss
        self.register_load_state_dict_pre_hook(blocks_of_before)

    @classmethod
    def view_problem(cls, settings: Mapping[str, Any], views: list[dict[str, Any]]) -> str | None:
        extraction, loss = (locate(settings[part]["_target_"]) for part in ("extraction", "loss"))
        problem = misfit(extraction, settings["similarity"], loss, settings["loss"])
        return problem or views_problem(extraction, views)

    def before_step(self) -> None:
        self.extraction.before_step(self.backbone, self.progress)

    def after_step(self) -> None:
        self.extraction.after_step(self.backbone, self.progress)

    def training_loss(self, batch: Batch) -> dict[str, Tensor]:
        seen = self.extraction(self.backbone, batch, self.similarity, self.progress)
        terms = self.loss(seen, self.similarity)
        return {"loss": sum(terms.values()), "features": seen.features, **terms}

    def embed(self, view: Any) -> Tensor:
        return self.extraction.embed(self.backbone, view)
