"""MAE: masks from recorded noise, the loss with and without standardised pixels, and the whole autoencoder."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ssl_zoo.augmentations.rng import RecordedRNG
from ssl_zoo.backbones.image.tiny import vit_mini
from ssl_zoo.backbones.image.vision_transformer import sincos_positions
from ssl_zoo.data.batch import Batch
from ssl_zoo.data.image.source import image_info
from ssl_zoo.losses.reconstruction import masked_square_error, patchify, standardize, unpatchify
from ssl_zoo.methods.mae import MAE
from ssl_zoo.modules.masking.random import random_masking
from ssl_zoo.modules.pixel_decoder import PixelDecoder
from ssl_zoo.optim.layer_decay import layer_ids, layer_scales
from tests.golden.compare import close
from tests.golden.harness import Values, double_or_single, fill, no_recipe, plain


def check_masking(case: Any, arrays: Values) -> None:
    h = case["hyperparameters"]
    x = torch.tensor(arrays["x"])
    masking = random_masking(torch.tensor(arrays["noise"]), h["mask_ratio"])
    assert masking.keep.shape[1] == h["len_keep"]
    close(x.gather(1, masking.keep.unsqueeze(-1).expand(-1, -1, x.shape[2])), arrays["x_kept"], "kept tokens")
    close(masking.mask.float(), arrays["mask"], "mask")
    close(masking.restore, arrays["ids_restore"], "ids_restore")


def check_loss(case: Any, arrays: Values) -> None:
    h = case["hyperparameters"]
    images, pred, mask = (torch.tensor(arrays[name]) for name in ("imgs", "pred", "mask"))
    patches = patchify(images, h["patch"])
    close(patches, arrays["patches"], "patches")
    side = h["img"] // h["patch"]
    close(unpatchify(patches, h["patch"], (side, side)), arrays["imgs"], "images again")
    target = standardize(patches).patches if h["norm_pix_loss"] else patches
    loss = masked_square_error(pred.requires_grad_(), target, mask, mask.sum())
    loss.backward()
    close(loss, arrays["loss"], "loss")
    close(pred.grad, arrays["grad_pred"], "gradient of the predictions")


def ours(name: str) -> str:
    """Our name of the authors' parameter."""
    if name.startswith("decoder_") or name == "mask_token":
        return "decoder." + name.removeprefix("decoder_")
    return "backbone.net." + name


def method_of(h: Any) -> MAE:
    sizes = {"embed_dim": h["dim"], "depth": h["depth"], "num_heads": h["heads"], "mlp_ratio": h["mlp_ratio"]}
    backbone = vit_mini(
        3, h["img"], patch_size=h["patch"], positions="sincos_mae", start="mae", stem="standard", **sizes
    )
    decoder = partial(
        PixelDecoder, width=h["dec_dim"], depth=h["dec_depth"], heads=h["dec_heads"], mlp_ratio=h["mlp_ratio"]
    )
    info = image_info(samples=h["N"], classes=None, image_size=h["img"], channels=3, batch_size=h["N"])
    method = MAE(backbone, no_recipe(), info, decoder, h["mask_ratio"], h["norm_pix_loss"])
    for module in method.modules():
        if isinstance(module, nn.LayerNorm):
            module.eps = h["eps"]
    return method


def check_model(case: Any, arrays: Values) -> None:
    h = case["hyperparameters"]
    method = method_of(h).to(double_or_single(arrays["imgs"]))
    start = {ours(name.removeprefix("param.")): array for name, array in plain(arrays, "param.").items()}
    places = start.pop("decoder.pos_embed")
    assert not places[:, 0].any()
    close(method.decoder.positions, places[:, 1:], "positions of the decoder")
    close(method.backbone.net.pos_embed, start["backbone.net.pos_embed"], "positions of the encoder")
    own = {name for name, _ in method.named_parameters()}
    assert own == set(start), own ^ set(start)
    fill(method, start)
    view, noise = torch.tensor(arrays["imgs"]), torch.tensor(arrays["noise"])
    rng = RecordedRNG(sample={"mask": {"noise": noise}})
    masking = method.draw(view, rng)
    close(masking.mask.to(torch.float32), arrays["mask"], "mask")
    close(method.predict(view, masking), arrays["pred"], "predictions")
    loss = method.training_loss(Batch([view], torch.arange(len(view)), None, rng))["loss"]
    loss.backward()
    close(loss, arrays["loss"], "loss")
    gradients: dict[str, Tensor | None] = {name: p.grad for name, p in method.named_parameters()}
    for name, array in plain(arrays, "grad.").items():
        close(gradients[ours(name.removeprefix("grad."))], array, name)


def check_sincos(case: Any, arrays: Values) -> None:
    for name in arrays:  # dim8_grid3_cls1
        dim, side, cls = (int(part.lstrip("dimgrcls")) for part in name.split("_"))
        positions = sincos_positions((side, side), dim, columns_first=True, dtype=torch.float64)[0].numpy()
        close(np.concatenate([np.zeros((cls, dim)), positions]), arrays[name], name)


def check_layer_decay(case: Any, arrays: Values) -> None:
    h = case["hyperparameters"]
    close(layer_ids(h["names"], h["depth"])[0], arrays["layer_id"], "layers")
    close(layer_scales(h["names"], h["layer_decay"], h["depth"]), arrays["scale"], "factors")


def check_dinov2_layer_decay(case: Any, arrays: Values) -> None:
    h = case["hyperparameters"]
    close(layer_scales(h["names"], h["lr_decay_rate"], h["num_layers"]), arrays["rates"], "factors")


CHECKS = {
    "mae": {
        "masking*": check_masking,
        "loss*": check_loss,
        "tiny_model*": check_model,
        "sincos*": check_sincos,
        "layer_decay*": check_layer_decay,
    },
    "dinov2": {"lr_decay*": check_dinov2_layer_decay},
}
