"""What a method sees of graphs."""

from __future__ import annotations

from ssl_zoo.augmentations.pipeline import Augmentation


class GraphViews(Augmentation):
    """What ``conf/augmentation`` has for graphs."""

    modality = "graph"
    drawn_by = "ssl_zoo.report.graphs.save_graph_views"
