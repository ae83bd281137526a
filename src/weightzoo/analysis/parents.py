"""The models that those of a zoo started from, out of the zoo that holds them, if it lies beside."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from weightzoo.errors import WeightzooError

if TYPE_CHECKING:
    from weightzoo.zoo import Zoo


def parent_states(zoo: Zoo) -> tuple[Zoo, np.ndarray, np.ndarray] | None:
    """The zoo of the parents, the number of each model's parent there (int64 `[models]`), and behind which epoch.

    Looked for in the folders beside the zoo's own, in the order of their names. None if the models have no parents, or
    no such zoo has all of them with that architecture.
    """
    from weightzoo.zoo import Zoo

    parents: list[str | None] = zoo.models["parent"].astype(object).where(zoo.models["parent"].notna(), None).tolist()
    if not parents or None in parents:
        return None
    for path in zoo.place.beside():
        try:
            other = Zoo.open(path)
            if other.architecture != zoo.architecture:
                continue
            number = {member: row for row, member in enumerate(other.models["member"])}
        except WeightzooError:  # whatever lies there, it is not asked for
            continue
        if all(parent in number for parent in parents):
            rows = np.array([number[parent] for parent in parents], np.int64)
            return other, rows, zoo.models["parent_epoch"].to_numpy(np.int64)
    return None
