"""Which numbers series are divided by before anything else, and when: rules of the authors of TS2Vec.

``datautils.py`` of zhihanyue/ts2vec@b0088e14. All statistics are those of the training set.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Normalize = Literal["auto", "none", "dataset", "channel"]

# Sets of the UCR archive that were stored without normalisation; TS2Vec's ``load_UCR`` standardises these alone.
UCR_RAW = frozenset(
    "AllGestureWiimoteX AllGestureWiimoteY AllGestureWiimoteZ BME Chinatown Crop EOGHorizontalSignal "
    "EOGVerticalSignal Fungi GestureMidAirD1 GestureMidAirD2 GestureMidAirD3 GesturePebbleZ1 GesturePebbleZ2 "
    "GunPointAgeSpan GunPointMaleVersusFemale GunPointOldVersusYoung HouseTwenty InsectEPGRegularTrain "
    "InsectEPGSmallTrain MelbournePedestrian PickupGestureWiimoteZ PigAirwayPressure PigArtPressure PigCVP PLAID "
    "PowerCons Rock SemgHandGenderCh2 SemgHandMovementCh2 SemgHandSubjectCh2 ShakeGestureWiimoteZ SmoothSubspace "
    "UMD".split()
)
KINDS = {
    "none": "series are taken as they are stored",
    "dataset": "all series are standardised by one mean and deviation of the training set",
    "channel": "each channel is standardised by its mean and deviation in the training set",
}


def statistics(train: Tensor, kind: str) -> tuple[Tensor, Tensor] | None:
    """Mean and deviation (divided by N, not N - 1) of each channel of ``[N, T, C]``, NaN aside; None: as it is.

    A channel that never changes has the deviation 1, as scikit-learn's StandardScaler.
    """
    if kind == "none":
        return None
    rows = train.double().flatten() if kind == "dataset" else train.double().flatten(0, 1)
    mean = rows.nanmean(0)
    deviation = (rows - mean).square().nanmean(0).sqrt()
    # What rounding leaves of a constant is no deviation.
    deviation = torch.where(deviation > 10 * torch.finfo(torch.float32).eps * mean.abs(), deviation, 1.0)
    channels = train.shape[2]
    return mean.nan_to_num(0.0).expand(channels), deviation.nan_to_num(1.0).expand(channels)


def standardised(values: Tensor, found: tuple[Tensor, Tensor] | None) -> Tensor:
    """``[N, T, C]`` by the :func:`statistics` of the training set."""
    return values if found is None else ((values.double() - found[0]) / found[1]).float()
