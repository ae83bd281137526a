"""Loss, accuracy and per-class accuracy of a stack of models, in PyTorch, without dropout."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.func import functional_call, vmap
from torch.nn import functional

from weightzoo.architectures import Architecture
from weightzoo.architectures.module import Network, build_module, parameters_of
from weightzoo.datasets.images import SplitName
from weightzoo.training.devices import DeviceData, Images, to_tensor
from weightzoo.training.protocol import PROBE_SIZE, Metrics, SparseMetrics

BATCH = 200  # images at a time, so that on a CPU the activations of a CNN stay within its cache
LAYER_BYTES = 64_000_000  # that one layer's outputs may take: fewer images at a time of a ResNet at 64 pixels, say
CUDA_MEMBERS = 64  # models at a time there
CUDA_LAYER_BYTES = 1_000_000_000  # that one layer's outputs may take in all these models


@dataclass(frozen=True)
class Evaluation:
    """What M models make of N images.

    The loss is NaN where it is not finite or a weight of the model is not. An image with a NaN logit counts as wrong.
    """

    loss: np.ndarray  # float32 [M], mean cross-entropy in nats
    accuracy: np.ndarray  # float32 [M]
    class_accuracy: np.ndarray  # float32 [M, C]; NaN for a class without images
    logits: np.ndarray | None = None  # float32 [M, N, C], if they were asked for


def evaluate(
    architecture: Architecture,
    activation: str,
    weights: np.ndarray | Tensor,
    inputs: np.ndarray | Tensor | Images,
    labels: np.ndarray | Tensor,
    *,
    device: torch.device | str = "cpu",
    keep_logits: bool = False,
) -> Evaluation:
    """Evaluate weight vectors float32 `[M, P]` on inputs float32 `[N, channels, height, width]`, labels int `[N]`.

    Losses and counts are added up in float64. On a CPU each model runs by itself, which is faster there and gives the
    result of the model alone, bit for bit; on CUDA all run stacked.

    Raises:
        LayoutError: the weight vectors are not as long as the architecture has parameters.
        SpecError: the activation is unknown.
    """
    network = build_module(architecture, activation).to(device).eval()
    vectors = to_tensor(weights, device)
    images = inputs if isinstance(inputs, Images) else to_tensor(inputs, device)
    targets = to_tensor(labels, device, torch.int64)
    parameters = parameters_of(architecture, vectors)
    return evaluate_stack(
        network,
        parameters,
        images,
        targets,
        architecture.classes,
        keep_logits=keep_logits,
        at_once=sizes_at_once(architecture),
    )


def sizes_at_once(architecture: Architecture) -> tuple[int, int]:
    """How many images an evaluation takes at a time, and on CUDA how many models."""
    layer = 4 * max(architecture.activation_sizes)
    images = max(1, min(BATCH, LAYER_BYTES // layer))
    return images, max(1, min(CUDA_MEMBERS, CUDA_LAYER_BYTES // (images * layer)))


@torch.no_grad()
def evaluate_stack(
    network: Network,
    parameters: Mapping[str, Tensor],
    inputs: Tensor | Images,
    labels: Tensor,
    classes: int,
    *,
    keep_logits: bool = False,
    at_once: tuple[int, int] = (BATCH, CUDA_MEMBERS),
) -> Evaluation:
    """`evaluate` for a network in evaluation mode, parameters `[M, *shape]`, inputs and labels int64 on one device.

    Parameters include the buffers.
    """
    nats: list[Tensor] = []
    hits: list[Tensor] = []
    logits: list[Tensor] = []
    batch, chunk = at_once
    for start in range(0, max(1, len(labels)), batch):
        inputs_B, labels_B = inputs[start : start + batch], labels[start : start + batch]
        logits_MBC = _logits(network, parameters, inputs_B, chunk)
        labels_MB = labels_B.expand(len(logits_MBC), -1)
        nats.append(functional.cross_entropy(logits_MBC.mT, labels_MB, reduction="none"))
        hits.append(is_correct(logits_MBC, labels_MB))
        if keep_logits:
            logits.append(logits_MBC)
    finite_M = torch.stack([tensor.isfinite().flatten(1).all(1) for tensor in parameters.values()]).all(0)
    loss_M = torch.cat(nats, 1).double().mean(1)
    hits_MN = torch.cat(hits, 1).double()
    one_hot_NC = functional.one_hot(labels, classes).double()
    return Evaluation(
        loss=to_numpy(torch.where(finite_M & loss_M.isfinite(), loss_M, torch.nan)),
        accuracy=to_numpy(hits_MN.mean(1)),
        class_accuracy=to_numpy(hits_MN @ one_hot_NC / one_hot_NC.sum(0)),
        logits=to_numpy(torch.cat(logits, 1)) if keep_logits else None,
    )


def measure(
    network: Network,
    parameters: Mapping[str, Tensor],
    data: DeviceData,
    running: Tensor | None,
) -> Metrics:
    """The metrics of one epoch of M members with parameters `[M, *shape]`.

    `running` `[2, M]` is the training loss and accuracy as met while training; None, before training, evaluates on the
    training images instead. The network is put in evaluation mode.
    """
    network.eval()

    def on(split: SplitName, stop: int | None = None, *, keep_logits: bool = False) -> Evaluation:
        inputs, labels = data.inputs[split], data.labels[split][:stop]
        inputs = inputs if stop is None else inputs[:stop]
        return evaluate_stack(
            network,
            parameters,
            inputs,
            labels,
            data.architecture.classes,
            keep_logits=keep_logits,
            at_once=sizes_at_once(data.architecture),
        )

    val, test, probe = on("val"), on("test"), on("test", PROBE_SIZE, keep_logits=True)
    assert probe.logits is not None
    if running is None:
        train = on("train")
        train_loss, train_accuracy = train.loss, train.accuracy
    else:
        loss, accuracy = running.unbind()
        train_loss, train_accuracy = to_numpy(torch.where(loss.isfinite(), loss, torch.nan)), to_numpy(accuracy)
    return Metrics(
        train_loss=train_loss,
        train_accuracy=train_accuracy,
        val_loss=val.loss,
        val_accuracy=val.accuracy,
        test_loss=test.loss,
        test_accuracy=test.accuracy,
        val_class_accuracy=val.class_accuracy,
        test_class_accuracy=test.class_accuracy,
        probe_logits=to_numpy(torch.from_numpy(probe.logits), torch.float16),
    )


Measured = TypeVar("Measured", Metrics, SparseMetrics)


def join(parts: Sequence[Measured], members: int) -> Measured:
    """The metrics of several groups of members as those of all; of the first `members` of all, to be exact."""
    kind = type(parts[0])
    names = [field.name for field in dataclasses.fields(kind)]
    return kind(**{name: np.concatenate([getattr(part, name) for part in parts])[:members] for name in names})


def is_correct(logits: Tensor, labels: Tensor) -> Tensor:
    """Whether the largest of the logits `[..., C]` is the label's `[...]`; never, if one of them is NaN."""
    return (logits.argmax(-1) == labels) & ~logits.isnan().any(-1)


def to_numpy(tensor: Tensor, dtype: torch.dtype = torch.float32) -> np.ndarray:
    """A copy on the host that shares no memory, every NaN in it the one bit pattern of `np.nan`."""
    array = tensor.detach().to("cpu", dtype, copy=True).numpy()
    array[np.isnan(array)] = np.nan
    return array


def _logits(network: Network, parameters: Mapping[str, Tensor], inputs: Tensor, chunk: int) -> Tensor:
    """Logits `[M, B, C]` of each of the M models on the same inputs `[B, ...]`; on CUDA, `chunk` models at a time."""

    def one(own: Mapping[str, Tensor]) -> Tensor:
        return functional_call(network, dict(own), (inputs,))

    members = len(next(iter(parameters.values())))
    if inputs.is_cuda and min(chunk, members) > 1:
        return vmap(one, chunk_size=chunk)(parameters)
    return torch.stack([one({name: tensor[row] for name, tensor in parameters.items()}) for row in range(members)])
