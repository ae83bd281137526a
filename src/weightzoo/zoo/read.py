"""Reading a packed zoo: a model, an epoch or a layer comes from the memory map without the rest."""

from __future__ import annotations

import hashlib
import itertools
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from weightzoo.architectures import Architecture
from weightzoo.checkpoints import ranges
from weightzoo.errors import FormatError, MissingError, NotFoundError
from weightzoo.layout import Layout
from weightzoo.zoo import format as fmt
from weightzoo.zoo.header import DatasetInfo, ZooHeader, read_header
from weightzoo.zoo.permute import Symmetries
from weightzoo.zoo.tensors import open_tensor

if TYPE_CHECKING:
    from torch import nn

    from weightzoo.zoo.dataset import WeightDataset

Models = int | str | slice | Sequence[int] | Sequence[bool] | np.ndarray | pd.Series
Epochs = int | slice | Iterable[int]


class Zoo:
    """A packed zoo, or a view of some of its models. Opening one reads only `zoo.json`, the rest is read when needed.

    Models are numbered from 0 in the order of `models`; in a view, in the view's own order. Wherever models are chosen:
    a number (negative from the end), a member id, a slice, a list of numbers, or a boolean mask such as
    `zoo.models.status == "finished"`. Epochs are always epoch numbers, never positions.

    A zoo can be pickled: it then is its path and its choice of models.
    """

    def __init__(self, path: Path, rows: np.ndarray | None = None) -> None:
        self.path = path
        self._header, self.counts, self.files = read_header(path)
        self._rows = np.arange(self._header.models) if rows is None else rows

    @classmethod
    def open(cls, path: Path | str) -> Zoo:
        """The zoo in the folder `path`.

        Raises:
            MissingError: there is no such folder, no zoo in it, or a file of the zoo is missing.
            FormatError: it is of another format or version, or a file does not have its recorded size.
        """
        if "://" in str(path):
            raise FormatError(f"{path}: a zoo is opened from a local folder; pull or copy it first")
        return cls(Path(path).absolute())

    # What it is

    @property
    def header(self) -> ZooHeader:
        """All that the models share."""
        return self._header

    @property
    def name(self) -> str:
        """The zoo's name."""
        return self._header.name

    @property
    def architecture(self) -> Architecture:
        """The layer graph of all models."""
        return self._header.architecture

    @property
    def layout(self) -> Layout:
        """Names, shapes and places of the parameters in a weight vector."""
        return self.architecture.layout

    @cached_property
    def symmetries(self) -> Symmetries:
        """The groups of interchangeable hidden units."""
        return Symmetries.of(self.architecture)

    @property
    def dataset_info(self) -> DatasetInfo:
        """The image data set that the models were trained on."""
        return self._header.dataset

    @property
    def checkpoint_epochs(self) -> tuple[int, ...]:
        """The epochs whose weights the zoo holds, ascending."""
        return self._header.checkpoint_epochs

    @property
    def rows(self) -> np.ndarray:
        """Int64 `[models]`: the row of each model in the zoo's files. Differs from its number only in a view."""
        return self._rows.copy()

    def __len__(self) -> int:
        return len(self._rows)

    def __repr__(self) -> str:
        return f"<Zoo {self.name}: {len(self):,} models of {self.architecture.name} on {self.dataset_info.name}>"

    @cached_property
    def models(self) -> pd.DataFrame:
        """A row a model: hyperparameters, seeds, split, status, final and best metrics, parent."""
        return self._chosen(self._table(fmt.MODELS, fmt.MODELS_SCHEMA))

    @cached_property
    def epochs(self) -> pd.DataFrame:
        """A row a model and epoch, every epoch up to the model's last one: metrics, accuracies by class.

        `model` is the number of the model. All epochs are there, also those whose weights the zoo does not hold.
        """
        table = self._table(fmt.EPOCHS, fmt.EPOCHS_SCHEMA)
        if self._is_whole:
            return table
        number = pd.Series(np.arange(len(self._rows)), index=self._rows)
        table = table[table["model"].isin(self._rows.tolist())].assign(
            model=lambda t: t["model"].map(number).astype(np.int32)
        )
        return table.sort_values(["model", "epoch"], ignore_index=True)

    @cached_property
    def provenance(self) -> pd.DataFrame:
        """A row a model: run, seconds, dates, machine, version, as far as they are known."""
        return self._chosen(self._table(fmt.PROVENANCE, fmt.PROVENANCE_SCHEMA))

    # Views

    @property
    def whole(self) -> Zoo:
        """The zoo that this is a view of; itself if it is no view."""
        return self if self._is_whole else Zoo(self.path)

    def select(self, models: Models) -> Zoo:
        """A view of some models; nothing is copied."""
        return Zoo(self.path, self._rows[self._numbers(models)])

    def split(self, name: str) -> Zoo:
        """A view of the models of one split: train, val or test.

        Raises:
            NotFoundError: there is no such split.
        """
        if name not in ("train", "val", "test"):
            raise NotFoundError(f"no split {name!r}; there are train, val, test")
        return self.select((self.models["split"] == name).to_numpy())

    # Weights

    def weights(
        self, models: Models | None = None, epochs: Epochs | None = None, layer: str | None = None
    ) -> np.ndarray:
        """Float32 `[models, epochs, P]`, or the part of a layer (`conv1`) or parameter (`conv1.bias`); a copy.

        Only what is asked for is read from the disk. Epochs that a model did not reach are NaN.

        Raises:
            NotFoundError: there is no such model or layer, or the zoo does not hold an epoch.
        """
        span = slice(0, self.layout.size) if layer is None else self.layout.span(layer)
        return self._read(self._weight_shards, models, epochs, span)

    def state_dict(self, model: int | str, epoch: int) -> dict[str, np.ndarray]:
        """The parameters of one model behind one epoch, by name; arrays that can be written to.

        Raises:
            NotFoundError: there is no such model, the zoo does not hold the epoch, or the model did not reach it.
        """
        number = int(self._one(model))
        last = int(self.models["last_epoch"].iloc[number])
        if epoch > last and epoch in self.checkpoint_epochs:
            raise NotFoundError(f"model {model} ended behind epoch {last}; epoch {epoch} was not trained")
        return self.layout.unflatten(self.weights([number], [epoch])[0, 0])

    def module(self, model: int | str, epoch: int) -> nn.Module:
        """One model behind one epoch as a `torch.nn.Module` in eval mode, with its activation and dropout rate.

        Raises:
            NotFoundError: there is no such model, the zoo does not hold the epoch, or the model did not reach it.
        """
        import torch

        from weightzoo.architectures.module import build_module

        state = self.state_dict(model, epoch)
        row = self.models.iloc[int(self._one(model))]
        module = build_module(self.architecture, str(row["activation"]), float(row["dropout"]))
        module.load_state_dict({name: torch.from_numpy(np.array(array)) for name, array in state.items()})
        return module.eval()

    def probe(self, models: Models | None = None, epochs: Epochs | None = None) -> np.ndarray:
        """Float16 `[models, epochs, images, classes]`: the logits on the first images of the data set's test split.

        Raises:
            NotFoundError: there is no such model, or the zoo does not hold an epoch, or no probe at all.
        """
        if not self._header.probe_images:
            raise NotFoundError(f"the zoo {self.name} holds no probe outputs")
        return self._read(self._probe_shards, models, epochs, slice(0, self._header.probe_images))

    def dataset(
        self,
        epochs: Epochs | None = None,
        target: str | Sequence[str] | None = None,
        transform: Callable[[Any], Any] | None = None,
        *,
        diverged: bool = False,
    ) -> WeightDataset:
        """The model states at some epochs as a `torch.utils.data.Dataset`; see `WeightDataset`."""
        from weightzoo.zoo.dataset import WeightDataset

        return WeightDataset(self, self._epochs(epochs), target, transform, diverged=diverged)

    def duplicates(self) -> tuple[tuple[int, ...], ...]:
        """Groups of models whose last kept weights are equal in every bit; models with weights that are not finite are
        left out."""
        last = self.models["last_epoch"].to_numpy()
        kept = np.asarray(self.checkpoint_epochs)
        found: dict[bytes, list[int]] = defaultdict(list)
        for number in range(len(self)):
            reached = kept[kept <= last[number]]
            if not len(reached):
                continue
            final = self.weights([number], [int(reached[-1])])
            if np.isfinite(final).all():
                found[hashlib.blake2b(final.tobytes(), digest_size=16).digest()].append(number)
        return tuple(tuple(numbers) for numbers in found.values() if len(numbers) > 1)

    # How it is read

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "rows": self._rows}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["path"], state["rows"])

    @property
    def _is_whole(self) -> bool:
        return np.array_equal(self._rows, np.arange(self._header.models))

    @cached_property
    def _weight_shards(self) -> list[np.ndarray]:
        return self._shards(fmt.weights_file, "weights", np.float32, (self.layout.size,))

    @cached_property
    def _probe_shards(self) -> list[np.ndarray]:
        shape = (self._header.probe_images, self.architecture.classes)
        return self._shards(fmt.probe_file, "logits", np.float16, shape)

    def _shards(self, name: Callable[[int], str], tensor: str, kind: type, shape: tuple[int, ...]) -> list[np.ndarray]:
        """The memory maps of all shards: each but the last has as many models as the first."""
        shards: list[np.ndarray] = []
        while (first := sum(map(len, shards))) < self._header.models:
            path = self.path / name(len(shards))
            mapped, _ = open_tensor(path, tensor)
            left = self._header.models - first
            models = min(len(shards[0]), left) if shards else max(1, min(len(mapped), left))
            expected = (models, len(self.checkpoint_epochs), *shape)
            if mapped.dtype != kind or mapped.shape != expected:
                got = f"{mapped.dtype} {list(mapped.shape)}"
                raise FormatError(
                    f"{path}: {tensor} is {got}, expected {np.dtype(kind)} {list(expected)}; pull it again"
                )
            shards.append(mapped)
        return shards

    def _read(self, shards: list[np.ndarray], models: Models | None, epochs: Epochs | None, span: slice) -> np.ndarray:
        rows = self._rows if models is None else self._rows[self._numbers(models)]
        positions = _as_slice([self.checkpoint_epochs.index(epoch) for epoch in self._epochs(epochs)])
        shape, kind = self._sliced_shape(shards, positions, span)
        result = np.empty((len(rows), *shape), kind)
        shard, start = np.divmod(rows, len(shards[0]) if shards else 1)
        for first, end in _runs(rows, shard):
            block = shards[shard[first]][start[first] : start[first] + (end - first)]
            result[first:end] = block[:, positions, span]
        return result

    def _sliced_shape(
        self, shards: list[np.ndarray], positions: slice | list[int], span: slice
    ) -> tuple[tuple[int, ...], np.dtype[Any]]:
        """The shape and type of one model's part."""
        kept = len(self.checkpoint_epochs)
        taken = len(range(*positions.indices(kept))) if isinstance(positions, slice) else len(positions)
        width = span.stop - span.start
        if not shards:
            return (taken, width), np.dtype(np.float32)
        return (taken, width, *shards[0].shape[3:]), shards[0].dtype

    def _numbers(self, models: Models) -> np.ndarray:
        """Int64 model numbers in this view."""
        if isinstance(models, int | np.integer | str):
            return np.asarray([self._one(models)])
        if isinstance(models, slice):
            return np.arange(len(self))[models]
        chosen = np.asarray(models)
        if chosen.dtype == bool:
            if chosen.shape != (len(self),):
                raise NotFoundError(f"the mask has {chosen.size} entries for {len(self)} models")
            return np.flatnonzero(chosen)
        if chosen.size == 0:
            return np.empty(0, np.int64)
        if chosen.ndim != 1 or not np.issubdtype(chosen.dtype, np.integer):
            raise NotFoundError(f"models are numbers from 0 to {len(self) - 1}, a mask or a slice; got {models!r:.60}")
        outside = chosen[(chosen < -len(self)) | (chosen >= len(self))]
        if len(outside):
            raise NotFoundError(f"no model {outside[0]}; there are {len(self)}, numbered from 0")
        return np.where(chosen < 0, chosen + len(self), chosen)

    def _one(self, model: int | str) -> int:
        if isinstance(model, str):
            numbers = np.flatnonzero((self.models["member"] == model).to_numpy())
            if not len(numbers):
                raise NotFoundError(f"no member {model!r} among the {len(self)} models")
            return int(numbers[0])
        return int(self._numbers([model])[0])

    def _epochs(self, epochs: Epochs | None) -> list[int]:
        """Epoch numbers that are all held."""
        kept = self.checkpoint_epochs
        if epochs is None:
            return list(kept)
        if isinstance(epochs, slice):
            wanted = range(kept[-1] + 1)[epochs]
            return [epoch for epoch in kept if epoch in wanted]
        given = [epochs] if isinstance(epochs, int | np.integer) else list(epochs)
        missing = [epoch for epoch in given if epoch not in kept]
        if missing:
            raise NotFoundError(f"the zoo {self.name} does not hold epoch {missing[0]}; it holds {ranges(kept)}")
        return [int(epoch) for epoch in given]

    def _chosen(self, table: pd.DataFrame) -> pd.DataFrame:
        return table if self._is_whole else table.iloc[self._rows].reset_index(drop=True)

    def _table(self, name: str, schema: pa.Schema) -> pd.DataFrame:
        path = self.path / name
        try:
            table = pq.read_table(path)
        except FileNotFoundError:
            raise MissingError(f"{path}: no such file; assemble or pull the zoo again") from None
        except (pa.ArrowException, OSError, ValueError) as error:
            raise FormatError(
                f"{path}: no readable Parquet file ({str(error).splitlines()[0]}); pull it again"
            ) from None
        if not table.schema.equals(schema):
            differing = sorted(set(schema) ^ set(table.schema), key=str)
            raise FormatError(f"{path}: columns differ from the format at {', '.join(map(str, differing))}")
        frame = table.to_pandas()
        for column in fmt.NULLABLE_INTEGERS:
            if column in frame:
                frame[column] = table[column].to_pandas(types_mapper={pa.int32(): pd.Int32Dtype()}.get)
        return frame


def _as_slice(positions: list[int]) -> slice | list[int]:
    """Ascending positions at equal distances as a slice, which the memory map reads without an intermediate copy."""
    step = positions[1] - positions[0] if len(positions) > 1 else 1
    if positions and step > 0 and positions == list(range(positions[0], positions[-1] + 1, step)):
        return slice(positions[0], positions[-1] + 1, step)
    return positions


def _runs(rows: np.ndarray, shard: np.ndarray) -> list[tuple[int, int]]:
    """`[first, end)` of each run of consecutive rows within one shard."""
    if not len(rows):
        return []
    breaks = np.flatnonzero((np.diff(rows) != 1) | (np.diff(shard) != 0)) + 1
    edges = [0, *breaks.tolist(), len(rows)]
    return list(itertools.pairwise(edges))
