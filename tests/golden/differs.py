"""Recorded cases and results that ours do not equal, on purpose: ``method/case[/array]`` (patterns) and the reason.

The test of such a case passes because of the entry here, and prints the reason.
"""

DIFFERS: dict[str, str] = {
    "simclr/param_counts*/r18*": (
        "the TF code projects the shortcut of every stage, also of the first one of ResNet-18 and -34; ours have "
        "torchvision's layers, so that weights can be exchanged"
    ),
    "byol/augment_ops*/hsv": "a step on the way: our hue rotation does not form HSV, and its result is compared",
    "barlowtwins/loss*/bn_running_*": "our standardisation is part of the loss, which needs no running statistics",
    "byol/update*/target_bnstate*.predictor.*": "the target's predictor is run but never used; our teacher has none",
    **dict.fromkeys(
        ("moco/world*/*_after_step[!1]*_buffer/*", "moco/world*/*_after_step1[0-9]*_buffer/*"),
        "the authors' DDP overwrites running statistics with rank 0's before each forward; ours are the mean over "
        "groups, the same on any number of processes (compared after step 1, where both start equal)",
    ),
}
