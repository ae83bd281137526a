"""Image data sets: where each comes from, how it is split and preprocessed, all as `ImageData`."""

from weightzoo.datasets.images import ImageData
from weightzoo.datasets.preparation import prepare
from weightzoo.datasets.shared import prepare_into

__all__ = ["ImageData", "prepare", "prepare_into"]
