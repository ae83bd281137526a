"""What all layouts of published zoos have in common: a list of models to read, and what is wrong with the others."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, Protocol

from weightzoo.architectures import ARCHITECTURES, Architecture
from weightzoo.errors import LayoutError, SpecError
from weightzoo.published.model import Identity, PublishedModel

IN_MEMORY = 2**28  # bytes of one model's weights; what exceeds this is kept in files
# How the published names say which data set it was, the longer names first.
_DATASETS = {
    "fashion-mnist": r"f(ashion)?[-_]?mnist",
    "mnist": r"mnist",
    "svhn": r"svhn",
    "usps": r"usps",
    "cifar100": r"cifar[-_]?100",
    "cifar10": r"cifar[-_]?10",
    "stl10": r"stl[-_]?(10)?",
    "tiny-imagenet": r"tiny[-_]?imagenet",
}


@dataclass(frozen=True)
class Remark:
    """What is to be said of one model of a source."""

    kind: Literal[
        "refused", "partial", "note"
    ]  # not imported; imported with gaps; imported, with a contradiction settled
    source: str
    reason: str

    def __str__(self) -> str:
        line = f"{self.kind:<7}  {self.source}: {self.reason}"
        return "".join(letter if letter.isprintable() else "?" for letter in line)  # names of files may hold anything


class Published(Protocol):
    """A published model that can be read, in this process or, pickled, in another."""

    @property
    def identity(self) -> Identity:
        """Who it is."""
        ...

    @property
    def bytes(self) -> int:
        """About how much its weights take."""
        ...

    def read(self) -> PublishedModel:
        """Read it.

        Raises:
            UnsafeError: a file of it is more than data.
            FormatError: it is damaged, or not what it should be.
            MissingError: its files are not there.
            LayoutError: it fits no architecture that is known.
        """
        ...


@dataclass(frozen=True)
class Source:
    """A published zoo on disk: its models in their order, and what is said of those that can't even be listed."""

    models: tuple[Published, ...]
    refused: tuple[Remark, ...]


def dataset_of(*texts: str) -> str:
    """The image data set that the first of these names or paths names.

    Raises:
        SpecError: none does.

    >>> dataset_of("zoos/tune_zoo_f_mnist_uniform")
    'fashion-mnist'
    """
    for text in texts:
        for name, pattern in _DATASETS.items():
            if re.search(rf"(?<![a-z]){pattern}(?![a-z0-9])", text.lower()):
                return name
    raise SpecError(f"{texts[0]!r} does not say which data set it was trained on; give it with --dataset")


def architecture_of(shapes: Iterable[tuple[int, ...]], side: int) -> Architecture:
    """The architecture whose parameters have these shapes, in this order.

    `side` is the height and width of the images, for architectures that take any.

    Raises:
        LayoutError: none has.
    """
    wanted = tuple(shapes)
    if wanted and len(wanted[0]) == 4 and wanted[-1]:
        for build in ARCHITECTURES.values():
            built = build((wanted[0][1], side, side), wanted[-1][-1])
            if tuple(shape for _, shape in built.layout.parameters) == wanted:
                return built
    shown = ", ".join("x".join(map(str, shape)) for shape in wanted[:4])
    raise LayoutError(
        f"tensors of shapes {shown}{', ...' if len(wanted) > 4 else ''} are no {' or '.join(ARCHITECTURES)}; refused"
    )
