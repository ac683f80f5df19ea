"""Random: the network as it was drawn, a row of every table that training has to beat."""

from __future__ import annotations

from ssl_zoo.methods.base import Method


class Random(Method):
    """A network without any training (the baseline "Random" of Zhang et al. 2016, https://arxiv.org/abs/1603.08511).

    Its run takes no step: it leaves a checkpoint of the networks as ``seed`` draws them, or as ``backbone.weights``
    gives them, which all protocols judge as they do others. Its views are those of evaluation alone; another
    ``augmentation`` is for a comparison with the methods that have it.
    """

    trains = False
    views_required = (0, 0)
    views_allowed = (None, None)
