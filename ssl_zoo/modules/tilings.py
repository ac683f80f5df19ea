"""Views that are cut into tiles, for methods that know where each tile lay: what does not go with them, in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ssl_zoo.augmentations import registry
from ssl_zoo.augmentations.image.patches import Tiles
from ssl_zoo.augmentations.image.views import ViewSpec

WANTED = "end its ops with image/jigsaw"


def tiling_of(view: Mapping[str, Any]) -> Tiles | None:
    """The operation that cuts an entry of ``augmentation.views`` into tiles; None: the last one does not."""
    last = registry.build(view["ops"][-1], ViewSpec.parse(view).side) if view["ops"] else None
    return last if isinstance(last, Tiles) else None


def count_problem(tiles: int, view: Mapping[str, Any], name: str) -> str | None:
    """The sentence about a view, called ``name``, that has not the tiles of ``method.tiles``, or cannot have them."""
    tiling = tiling_of(view)
    if tiling is None or tiling.shape[0] * tiling.shape[1] != tiles:
        got = _ending(view) if tiling is None else f"has {tiling.shape[0] * tiling.shape[1]} tiles"
        return (
            f"method.tiles={tiles}: {name} of augmentation.views {got}; {WANTED}, and set method.tiles to the square "
            "of its grid"
        )
    return _fit_problem(view, tiling)


def place_problem(shape: tuple[int, int], view: Mapping[str, Any]) -> str | None:
    """The sentence about a view whose tiles do not lie as ``method.grid`` says."""
    tiling = tiling_of(view)
    if tiling is None or tiling.shape != shape:
        got = _ending(view) if tiling is None else f"has {_words(tiling.shape)} tiles"
        return (
            f"method.grid: {_words(shape)}, and the view of augmentation.views {got}; {WANTED} or image/spaced_tiles "
            "of that grid"
        )
    return _fit_problem(view, tiling)


def order_problem(view: Mapping[str, Any], method: str) -> str | None:
    """The sentence about a view whose tiles have lost the order that ``method`` asks for."""
    tiling = tiling_of(view)
    if tiling is None or not tiling.shuffle:
        return None
    return (
        f"{method} knows the places of tiles by their order, and those of augmentation.views come in any; set "
        "shuffle: false in image/jigsaw"
    )


def _words(shape: tuple[int, int]) -> str:
    return f"{shape[0]} x {shape[1]}"


def _ending(view: Mapping[str, Any]) -> str:
    return f"ends with {registry.parse(view['ops'][-1])[0] if view['ops'] else 'nothing'}"


def _fit_problem(view: Mapping[str, Any], tiling: Tiles) -> str | None:
    """Tiles that are too large for the image that the last crop before them makes, where one says its size."""
    crops: list[Any] = [registry.build(entry, ViewSpec.parse(view).side) for entry in view["ops"][:-1]]
    sizes = [op.size for op in crops if getattr(op, "crops", False)]
    try:
        if sizes:
            tiling.check(*sizes[-1])
    except ValueError as error:
        return f"augmentation.views: {error}"
    return None
