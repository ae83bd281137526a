"""The states of a zoo's models as a PyTorch data set: a weight vector, and what is to be predicted from it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.utils.data import Dataset

from weightzoo.errors import NotFoundError
from weightzoo.zoo import format as fmt

if TYPE_CHECKING:
    from weightzoo.zoo.read import Zoo

Target = Tensor | tuple[Tensor, ...]


class WeightDataset(Dataset[Any]):
    """Every (model, epoch) of a zoo that was reached, model by model; the items are read from the disk one by one.

    An item is the weight vector float32 `[P]`, behind `transform` if there is one; with a target `(vector, target)`.
    `target` names a metric, which is taken at the item's epoch, `epoch` itself, or any other column of `zoo.models`. A
    number comes as float32 scalar, a name as int64 index into `classes[target]`, the sorted values in the whole zoo, so
    that the views of a zoo agree on it. Several targets come as a tuple.

    States at and behind a model's divergence, whose weights need not be finite, are left out unless `diverged` is set.
    It can be pickled, and used by several workers of a `DataLoader`.

    Raises:
        NotFoundError: there is no such target.
    """

    def __init__(
        self,
        zoo: Zoo,
        epochs: Sequence[int],
        target: str | Sequence[str] | None = None,
        transform: Callable[[Tensor], Tensor] | None = None,
        *,
        diverged: bool = False,
    ) -> None:
        self.zoo = zoo
        self.transform = transform
        reached = zoo.present[:, [zoo.checkpoint_epochs.index(epoch) for epoch in epochs]]
        if not diverged:
            end = zoo.models["diverged_epoch"].fillna(np.iinfo(np.int32).max).to_numpy(np.int64)
            reached = reached & (np.asarray(epochs)[None, :] < end[:, None])
        self._models, positions = np.nonzero(reached)
        self._epochs = np.asarray(epochs, np.int64)[positions]
        self.classes: dict[str, tuple[str, ...]] = {}
        self._single = isinstance(target, str)
        names = () if target is None else (target,) if isinstance(target, str) else tuple(target)
        self._targets = tuple(self._values(name) for name in names)

    @property
    def states(self) -> pd.DataFrame:
        """The number of the model and the epoch of every item."""
        return pd.DataFrame({"model": self._models, "epoch": self._epochs})

    def __len__(self) -> int:
        return len(self._models)

    def __getitem__(self, index: int) -> Tensor | tuple[Tensor, Target]:
        """The item `index`."""
        if not -len(self) <= index < len(self):
            raise IndexError(f"no state {index}; there are {len(self)}")
        vector = torch.from_numpy(self.zoo.weights([int(self._models[index])], [int(self._epochs[index])])[0, 0])
        if self.transform is not None:
            vector = self.transform(vector)
        if not self._targets:
            return vector
        targets = tuple(values[index] for values in self._targets)
        return vector, targets[0] if self._single else targets

    def _values(self, name: str) -> Tensor:
        """A target's value at every state, `[states]`."""
        if name == "epoch":
            return torch.tensor(self._epochs, dtype=torch.float32)
        if name in fmt.METRICS:
            measured = self.zoo.epochs.set_index(["model", "epoch"])[name]
            at_states = measured.reindex(pd.MultiIndex.from_frame(self.states))
            return torch.tensor(at_states.to_numpy(np.float32))
        models = self.zoo.models
        if name not in models:
            known = ", ".join(["epoch", *models.columns])
            raise NotFoundError(f"no target {name!r}; there are {known}")
        if pd.api.types.is_numeric_dtype(models[name]):
            return torch.tensor(models[name].to_numpy(np.float32, na_value=np.nan)[self._models])
        everyone = self.zoo.whole.models[name].dropna()
        self.classes[name] = tuple(sorted(everyone.unique()))
        codes = pd.Categorical(models[name], categories=list(self.classes[name])).codes
        return torch.tensor(np.asarray(codes, np.int64)[self._models])
