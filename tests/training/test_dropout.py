"""The masks that PyTorch computes are those of `weightzoo.seeds`, bit for bit."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from tests.training.helpers import TINY, make_cohort
from weightzoo import seeds
from weightzoo.training.dropout import DropoutMasks, draw32

CPU = torch.device("cpu")


def test_draw32_is_that_of_seeds() -> None:
    words = np.random.default_rng(0).integers(0, 2**32, (3, 1000), dtype=np.uint32)
    words[:, :4] = [0, 2**31 - 1, 2**31, 2**32 - 1]
    drawn = draw32(*(torch.from_numpy(row.view(np.int32)) for row in words))
    np.testing.assert_array_equal(drawn.numpy().view(np.uint32), seeds.draw32(*words))


@pytest.mark.parametrize("first_visit", [0, 12345, 2**31 - 3, 2**32 - 2, 2**33 + 1])
def test_masks_are_those_of_seeds(first_visit: int) -> None:
    rates = (0.5, 0.0, 0.3, 0.999)
    members = make_cohort([{"dropout": rate, "seed": 2**40 + row} for row, rate in enumerate(rates)]).members
    masks = DropoutMasks(TINY, members, CPU).draw(first_visit, batch=5)
    assert masks.keys() == TINY.dropout_offsets.keys()
    visits = np.array([visit % 2**32 for visit in range(first_visit, first_visit + 5)], np.uint32)
    for layer, offset in TINY.dropout_offsets.items():
        shape = TINY.shapes[layer]
        for row, (member, rate) in enumerate(zip(members, rates, strict=True)):
            key = seeds.dropout_key(member.seeds.dropout)
            keep = seeds.dropout_keep(key, visits, offset + np.arange(math.prod(shape)), rate).reshape(5, *shape)
            factors = masks[layer][row].numpy()
            np.testing.assert_array_equal(factors != 0, keep)
            np.testing.assert_allclose(factors[keep], 1 / (1 - rate), rtol=1e-6)


def test_without_dropout_nothing_is_drawn() -> None:
    assert DropoutMasks(TINY, make_cohort([{}, {}]).members, CPU).draw(0, batch=5) == {}
