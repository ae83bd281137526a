"""Statistics of batch normalisation for weights that were never trained: those between two models."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch
from torch.optim.swa_utils import update_bn

from weightzoo.architectures import Architecture
from weightzoo.architectures.module import build_module

BATCH = 200


def repaired(architecture: Architecture, activation: str, weights: np.ndarray, inputs: np.ndarray) -> np.ndarray:
    """The weights float32 `[N, P]` with running means and variances of these `inputs [B, channels, height, width]`.

    The units of an interpolated network vary less than those of its ends, which batch normalisation undoes once its
    statistics are those of the network itself (Jordan, Sedghi, Saukh, Entezari and Neyshabur 2023, "REPAIR:
    REnormalizing Permuted Activations for Interpolation Repair", arXiv 2211.08403, section 3). They are the means over
    batches of the batches' own, as PyTorch's `update_bn` has them. Networks without batch normalisation stay as they
    are.
    """
    result = np.array(weights, np.float32)
    if not architecture.layout.buffers:
        return result
    network = build_module(architecture, activation)
    images = torch.from_numpy(np.ascontiguousarray(inputs, np.float32))
    bounds = [*range(0, len(images), BATCH), len(images)]
    batches = [images[start:stop] for start, stop in pairwise(bounds)]
    for vector in result:
        tensors = architecture.layout.unflatten(vector)  # views: what is written there shows in the vector
        network.load_state_dict({name: torch.from_numpy(array) for name, array in tensors.items()})
        update_bn(batches, network)
        state = network.state_dict()
        for name in architecture.layout.buffers:
            tensors[name][...] = state[name].numpy()
    return result
