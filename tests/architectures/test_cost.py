"""Multiply-adds against PyTorch's own count."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from weightzoo.architectures import ARCHITECTURES
from weightzoo.architectures.cost import multiply_adds
from weightzoo.architectures.module import build_module


@pytest.mark.parametrize(
    ("name", "shape"), [("cnn-s", (3, 28, 28)), ("cnn-m", (3, 32, 32)), ("resnet-18", (3, 32, 32))]
)
def test_they_are_half_the_operations_that_pytorch_counts(name, shape):
    built = ARCHITECTURES[name](shape, 10)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        build_module(built, "relu").eval()(torch.zeros(1, *shape))
    assert 2 * multiply_adds(built) == counter.get_total_flops()
