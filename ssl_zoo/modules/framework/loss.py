"""What a comparison trains, and with which extractions and similarities it goes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ssl_zoo.distributed import gather
from ssl_zoo.losses.clustering import swapped_prediction
from ssl_zoo.losses.redundancy import barlow_twins
from ssl_zoo.modules.comparison import Seen, Way, scores_of
from ssl_zoo.modules.similarity import Similarity, described, offers
from ssl_zoo.ranges import NonNegative

# What another choice has to offer; what the loss does with it; a choice that offers it; the setting that asks for it.
Need = tuple[str, str, str, str | None]
VECTORS: Need = ("vectors", "compares vectors with vectors", "extraction=projection", None)


class OfWays(nn.Module):
    """Terms of the ways that an extraction has seen, whose sum is trained on.

    Args:
        both: Take both directions, where there are two.
        add: Add these, as the authors of SimCLR and BYOL; False: their mean.
    """

    needs: tuple[Need, ...] = (VECTORS,)
    of_way: Any  # (way, memory, similarity) -> terms

    def __init__(self, both: bool = True, add: bool = False) -> None:
        super().__init__()
        self.both, self.add = both, add

    def forward(self, seen: Seen, similarity: Similarity) -> dict[str, Tensor]:
        used = seen.directions if self.both else seen.directions[:1]
        share = 1 if self.add else 1 / len(used)
        found = [(share * way.weight, self.of_way(way, seen.memory, similarity)) for ways in used for way in ways]
        return {name: torch.stack([weight * terms[name] for weight, terms in found]).sum() for name in found[0][1]}


class Contrast(OfWays):
    """Right answers against others.

    Args:
        of: A loss of :mod:`ssl_zoo.losses.scores`.
        own_view: The other samples in the query's own view are answers too (SimCLR).
        stop_gradient: Answers do not learn.
    """

    needs = (
        VECTORS,
        ("both ways", "wants both views to ask (both=true)", "extraction=projection", "both"),
        ("one network", "wants answers of the query's own view (own_view=true)", "extraction=projection", "own_view"),
    )

    def __init__(
        self, of: Callable[..., Tensor], own_view: bool = False, stop_gradient: bool = False, both: bool = True,
        add: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(both, add)
        self.of, self.own_view, self.stop_gradient = of, own_view, stop_gradient

    def of_way(self, way: Way, memory: Tensor | None, similarity: Similarity) -> dict[str, Tensor]:
        *scores, penalty = scores_of(way, similarity, memory, self.own_view, self.stop_gradient)
        return {"contrast": self.of(*scores), "penalty": penalty}


class Regression(OfWays):
    """Squared distance from the right answers; nothing is a wrong one (BYOL)."""

    needs = (VECTORS, ("distance", "measures a distance", "similarity=cosine", None))

    def of_way(self, way: Way, memory: Tensor | None, similarity: Similarity) -> dict[str, Tensor]:
        return {"distance": similarity.distance(way.query[:, :, None], way.key[:, way.match])}


class CrossCorrelation(nn.Module):
    """Dimensions of both views correlate as the identity, ``off_diagonal`` weighing what is off it (Barlow Twins)."""

    needs = (
        ("one network", "correlates the dimensions of one network's two outputs", "extraction=projection", None),
        ("product", "correlates dimensions by plain products", "similarity=dot", None),
    )

    def __init__(self, off_diagonal: NonNegative = 0.0051) -> None:
        super().__init__()
        self.off_diagonal = off_diagonal

    def forward(self, seen: Seen, similarity: Similarity) -> dict[str, Tensor]:
        a, b = (gather(x[:, 0]) for x in seen.directions[0][0][:2])                  # 2 x [W * B, D]
        return {"correlation": barlow_twins(a, b, self.off_diagonal)}


class SwappedPrediction(nn.Module):
    """Each view predicts the clusters of the others (SwAV)."""

    needs = (
        ("clusters", "predicts assignments to clusters", "extraction=clusters", None),
        ("sphere", "has prototypes on the unit sphere", "similarity=cosine", None),
    )

    def forward(self, seen: Seen, similarity: Similarity) -> dict[str, Tensor]:
        return {"prediction": swapped_prediction(seen.scores, seen.assignments, similarity.temperature)}


def misfit(extraction: Any, similarity: Mapping[str, Any], loss: Any, settings: Mapping[str, Any]) -> str | None:
    """The sentence about choices that do not go together, or None: two classes, with settings after each."""
    offered = extraction.offers | offers(**similarity)
    for offer, wants, fix, setting in loss.needs:
        if offer not in offered and (setting is None or settings.get(setting)):
            got = {"extraction": extraction.__name__, "similarity": described(similarity)}[group := fix.split("=")[0]]
            fix = f"method/contrastive/{fix}" + (f", or method.loss.{setting}=false" if setting else "")
            return f"method.loss ({loss.__name__}) {wants}, which the {group} ({got}) does not offer; set {fix}"
    return None
