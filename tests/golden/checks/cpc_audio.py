"""CPC on sounds and on sentences: the authors' network, the criterion through the method, and the loss of sentences."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ssl_zoo.augmentations.rng import RecordedRNG
from ssl_zoo.backbones.audio.cpc import cpc_encoder
from ssl_zoo.backbones.base import Frames
from ssl_zoo.data.batch import Batch, DataInfo
from ssl_zoo.losses.predictive_coding import batch_time_info_nce
from ssl_zoo.methods.cpc import CPC
from tests.golden.compare import close
from tests.golden.harness import Identity, Values, fill, no_recipe, plain


class Given(Identity):
    """A network whose frames are the recorded ones."""

    has_frames = True

    def __init__(self, encoded: Tensor, context: Tensor) -> None:
        super().__init__(context.shape[2])
        self.frames = Frames(context.mean(1), encoded, context)
        self.frame_widths = context.shape[2], encoded.shape[2]

    def forward_frames(self, view: Tensor) -> Frames:
        return self.frames


def check_audio(case: Any, arrays: Values) -> None:
    h = case["hyperparameters"]
    for dtype, suffix in ((torch.float64, ""), (torch.float32, "_f32")):
        _check_criterion(h, arrays, dtype, suffix, reverse=False)
        _check_criterion(h, arrays, dtype, suffix, reverse=True)
    _check_network(h, arrays)


def _check_criterion(h: Any, arrays: Values, dtype: torch.dtype, suffix: str, reverse: bool) -> None:
    prefix = "rev_" if reverse else ""
    leaves = [torch.tensor(arrays[name]).to(dtype).requires_grad_() for name in ("context", "encoded")]
    context, encoded = (x.flip(1) if reverse else x for x in leaves)
    rows = torch.tensor(arrays[f"{prefix}neg_flat_index"]).view(h["B"], h["neg"], h["S"] - h["K"])
    sequence, shift = rows // h["S"], (rows - torch.arange(rows.shape[2])) % h["S"]
    drawn = {"sequence": sequence[:, None], "shift": shift[:, None] - 1}
    network: Any = Given(encoded, context)
    info, unused = DataInfo(h["B"], None, h["B"], {}), nn.Identity
    method = CPC(network, no_recipe(), info, unused, steps=h["K"], negatives=h["neg"]).to(dtype)
    weights = {f"{k}.weight": arrays[f"W_{k + 1}"] for k in range(h["K"])}
    fill(method.predictors, weights)
    batch = Batch([encoded], torch.arange(h["B"]), None, RecordedRNG(sample={"negatives": drawn}))
    out = method.training_loss(batch)
    out["loss"].backward()
    losses, hits = method._sampled(method.predictors(context), encoded, batch.rng, 1)
    close(losses, arrays[f"{prefix}loss_per_step{suffix}"], "losses", arrays[f"{prefix}loss_per_step"])
    close(out["loss"], np.asarray(arrays[f"{prefix}loss_per_step{suffix}"].sum()), "their sum")
    if suffix:
        return
    close(hits.float(), arrays[f"{prefix}accuracy_per_step"], "accuracies")
    close(leaves[0].grad, arrays[f"{prefix}grad_context"], "gradient of the context")
    close(leaves[1].grad, arrays[f"{prefix}grad_encoded"], "gradient of the frames")
    if not reverse:
        close(method.predictors[0].weight.grad, arrays["grad_W_1"], "gradient of a prediction")


def _check_network(h: Any, arrays: Values) -> None:
    assert h["ar"] == "GRU" and arrays["waveform"].shape[2] == h["win"]
    network = cpc_encoder(16000, arrays["waveform"].shape[1], width=h["hid"], context=h["H"]).double()
    fill(network.net, {name.removeprefix("model_w_"): value for name, value in plain(arrays, "model_w_").items()})
    frames = network.forward_frames(torch.tensor(arrays["waveform"]).double())
    close(frames.encoded, arrays["model_encoded"], "frames")
    close(frames.context, arrays["model_context"], "context")
    close(frames.pooled, arrays["model_context"].mean(1), "features")
    memory: Any = network.net.gAR
    fill(memory, {name.removeprefix("keep_w_"): value for name, value in plain(arrays, "keep_w_").items()})
    first, kept = memory["baseNet"](torch.tensor(arrays["model_encoded"][:1]))
    close(first, arrays["keep_first"], "a first part")
    close(memory["baseNet"](torch.tensor(arrays["model_encoded"][:1]), kept)[0], arrays["keep_second"], "what follows")


def check_text(case: Any, arrays: Values) -> None:
    h = case["hyperparameters"]
    predictions, targets = (torch.tensor(arrays[f"nce_{name}"]).double() for name in ("prediction", "target"))
    losses, hits = batch_time_info_nce(predictions, targets, 0)
    close(losses, arrays["nce_loss_per_step"], "losses of recorded predictions")
    close(hits.float(), arrays["nce_accuracy_per_step"], "accuracies of recorded predictions")
    # The network of sentences, which there is none of here, around the method.
    layers = Sentences(h)
    fill(layers, {name.removeprefix("w_"): value for name, value in plain(arrays, "w_").items() if "Wk" not in name})
    close(layers.sentences(torch.tensor(arrays["tokens"][0])), arrays["sentence_embeddings_f32"], "sentences")
    network: Any = Given(*layers(torch.tensor(arrays["tokens"])))
    info = DataInfo(h["B"], None, h["B"], {})
    method = CPC(network, no_recipe(), info, nn.Identity, steps=h["k"], variant="batch_time", bias=True)
    fill(method.predictors, {n.removeprefix("w_Wk."): value for n, value in plain(arrays, "w_Wk").items()})
    frames = network.frames
    own, hits = method._batch_time(method.predictors(frames.context), frames.encoded, RecordedRNG(), 1)
    close(own, arrays["loss_per_step_f32"], "losses")
    close(hits, arrays["accuracy_per_step_f32"], "accuracies")
    own.sum().backward()
    gradients = {name: p.grad for name, p in layers.named_parameters()}
    gradients |= {f"Wk.{name}": p.grad for name, p in method.predictors.named_parameters()}
    for name, gradient in gradients.items():
        close(gradient, arrays[f"grad_{name}"], f"gradient of {name}")


class Sentences(nn.Module):
    """Embedding, one convolution, the mean over a sentence, and a GRU: ``CPCv1`` of model/models.py."""

    def __init__(self, h: Any) -> None:
        super().__init__()
        self.embedding = nn.Embedding(h["vocab"], h["emb"], padding_idx=0)
        self.encoder = nn.ModuleDict({"conv_blocks": nn.ModuleList([nn.Conv1d(h["emb"], h["dim"], 1)])})
        self.gru = nn.GRU(h["dim"], h["dim"], batch_first=True)

    def sentences(self, tokens: Tensor) -> Tensor:
        """``[N, L]`` -> ``[N, D]``, padding included."""
        conv: Any = self.encoder["conv_blocks"]
        return conv[0](self.embedding(tokens).mT).relu().mean(2)

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        encoded = self.sentences(tokens.flatten(0, 1)).view(*tokens.shape[:2], -1)
        return encoded, self.gru(encoded)[0]


CHECKS = {"cpc_audio": {"*": check_audio}, "cpc_text": {"*": check_text}}
