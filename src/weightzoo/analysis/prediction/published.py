"""Published scores of the same predictions on other zoos, to hold against."""

from __future__ import annotations

from typing import Literal

Column = Literal["W", "s(W)", "embedding"]

REFERENCE = (
    "Schürholt, Kostadinov & Borth 2021, Self-Supervised Representation Learning on Neural Network Weights for Model "
    "Characteristic Prediction, arXiv 2110.15288 (zoos of 4,970 parameters a model)"
)
DATASETS = ("mnist", "fashion-mnist", "cifar10", "svhn")

# W / s(W) / embedding, for each of DATASETS; R2, below the line the share that is right; in per cent.
_TABLE = {
    "epoch": "25.8/33.2/50.0 26.6/34.6/51.3 25.7/30.3/53.3 22.8/37.8/52.6",
    "accuracy": "74.7/81.5/94.9 70.9/78.5/96.2 76.4/82.9/92.7 80.5/82.1/91.1",
    "generalisation gap": "23.4/24.4/27.4 48.1/41.1/49.0 37.7/37.4/40.4 38.7/42.2/44.2",
    "learning rate": "29.3/34.3/37.1 33.5/35.6/42.4 27.4/32.3/44.7 24.5/33.4/49.1",
    # ----
    "activation": "88.6/81.1/88.7 89.8/82.4/90.1 88.3/80.3/90.0 86.9/78.8/87.2",
    "init": "94.6/72.0/80.6 95.7/76.5/86.7 93.5/73.3/82.6 91.0/73.0/82.8",
    "optimiser": "76.7/65.4/66.4 79.9/67.4/73.0 74.0/65.5/71.0 72.5/68.2/72.3",
}
_COLUMNS = ("W", "s(W)", "embedding")


def published(target: str, column: Column, dataset: str) -> float | None:
    """The published R2 or share of a row on `dataset`, on MNIST if it is none of the four; None if there is none.

    >>> published("accuracy", "s(W)", "digits")
    0.815
    """
    if target not in _TABLE:
        return None
    names = sorted(DATASETS, key=len, reverse=True)
    chosen = next((name for name in names if dataset.startswith(name)), "mnist")
    values = _TABLE[target].split()[DATASETS.index(chosen)].split("/")
    return round(float(values[_COLUMNS.index(column)]) / 100, 4)
