"""Digits of a few classes, which CNN(s) learns within a second."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from weightzoo.datasets import prepare
from weightzoo.datasets.images import ImageData
from weightzoo.spec import DatasetSpec


@pytest.fixture(scope="session")
def three_digits() -> ImageData:
    """The zeros, ones and twos of the digits."""
    return first_digits(3)


def first_digits(classes: int) -> ImageData:
    """The digits below a number."""
    data = prepare("digits", DatasetSpec())
    own = {split: np.flatnonzero(labels < classes) for split, labels in data.labels.items()}
    return dataclasses.replace(
        data,
        images={split: data.images[split][rows] for split, rows in own.items()},
        labels={split: data.labels[split][rows] for split, rows in own.items()},
        class_names=data.class_names[:classes],
    )
