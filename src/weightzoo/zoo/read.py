"""Reading a packed zoo: a model, an epoch or a layer comes without the rest, from disk as from S3."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa

from weightzoo.architectures import Architecture
from weightzoo.errors import FormatError, NotFoundError
from weightzoo.layout import Layout
from weightzoo.s3 import Location
from weightzoo.zoo import format as fmt
from weightzoo.zoo.choose import Epochs, Models, epoch_numbers, model_numbers
from weightzoo.zoo.header import DatasetInfo, ZooHeader, read_header
from weightzoo.zoo.permute import Symmetries
from weightzoo.zoo.place import Place, place_of
from weightzoo.zoo.provenance import require_unaltered
from weightzoo.zoo.shards import ShardedTensor
from weightzoo.zoo.tables import read_table

if TYPE_CHECKING:
    from torch import nn

    from weightzoo.zoo.dataset import WeightDataset


class Zoo:
    """A packed zoo, or a view of some of its models. Opening one reads only `zoo.json`, the rest is read when needed.

    Models are numbered from 0 in the order of `models`; in a view, in the view's own order. Wherever models are chosen:
    a number (negative from the end), a member id, a slice, a list of numbers, or a boolean mask such as
    `zoo.models.status == "finished"`. Epochs are always epoch numbers, never positions.

    A zoo on S3 is read by ranges of bytes: a model, an epoch or a layer moves about its own size. Its tables come as a
    whole. If an object is replaced meanwhile, reading fails with a FormatError; if S3 does, with a StorageError.

    A zoo can be pickled: it then is its path and its choice of models.
    """

    def __init__(self, place: Place, rows: np.ndarray | None = None) -> None:
        self.place = place
        self._header, self.counts, self.files = read_header(place)
        self._rows = np.arange(self._header.models) if rows is None else rows
        self._tensors: dict[str, ShardedTensor] = {}
        self._tables: dict[str, pd.DataFrame] = {}

    @classmethod
    def open(cls, path: Path | Location | str) -> Zoo:
        """The zoo in the folder `path`, or at `s3://bucket/prefix`.

        Raises:
            MissingError: there is no such folder, no zoo in it, or a file of the zoo is missing.
            FormatError: it is of another format or version, or a file does not have its recorded size.
            SpecError: it is no place where a zoo can be.
            StorageError: it is on S3, which can't be reached or refuses.
        """
        return cls(place_of(path))

    # What it is

    @property
    def path(self) -> Path | Location:
        """The folder of its files, or where on S3 they are."""
        return self.place.path

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
        """A row a model: hyperparameters, seeds, split, status, final and best metrics, parent, sparsity.

        Only a zoo with imported models has their `source` and `missing_epochs`, and may lack seeds or hyperparameters.
        """
        return self._chosen(self._table(fmt.MODELS, fmt.models_schema(sparse=self._header.sparse is not None)))

    @cached_property
    def present(self) -> np.ndarray:
        """Bool `[models, epochs]`: whether the zoo has the weights of a model at a kept epoch.

        It has not where the model did not get that far, or where an imported record lacks them.
        """
        kept = np.asarray(self.checkpoint_epochs)
        there = kept[None, :] <= self.models["last_epoch"].to_numpy(np.int64)[:, None]
        if "missing_epochs" in self.models:
            for number, missing in enumerate(self.models["missing_epochs"]):
                if missing is not None:
                    there[number] &= ~np.isin(kept, missing)
        return there

    @cached_property
    def epochs(self) -> pd.DataFrame:
        """A row a model and epoch, every epoch up to the model's last one: metrics, accuracies by class.

        `model` is the number of the model. All epochs are there, also those whose weights the zoo does not hold.
        """
        table = self._table(fmt.EPOCHS, fmt.epochs_schema(sparse=self._header.sparse is not None))
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
        return self if self._is_whole else self._view(np.arange(self._header.models))

    def select(self, models: Models | str) -> Zoo:
        """A view of some models; nothing is copied."""
        return self._view(self._rows[self._numbers(models)])

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
        self,
        models: Models | str | None = None,
        epochs: Epochs | None = None,
        layer: str | None = None,
        *,
        raw: bool = False,
    ) -> np.ndarray:
        """Float32 `[models, epochs, P]`, or the part of a layer (`conv1`) or parameter (`conv1.bias`); a copy.

        Only what is asked for is read from the disk. Epochs that a model did not reach, or lacks, are NaN. In a zoo of
        sparse models those weights that are dropped are zero; with `raw`, what they were trained to.

        Raises:
            NotFoundError: there is no such model or layer, or the zoo does not hold an epoch.
        """
        weights = self._read(self._tensor("weights", np.float32), models, epochs, self._span(layer))
        if raw or self._header.sparse is None:
            return weights
        dropped = self.masks(models, epochs, layer) == 0
        weights[dropped & ~np.isnan(weights)] = 0  # a NaN stands for an absent epoch, or for divergence
        return weights

    def masks(
        self, models: Models | str | None = None, epochs: Epochs | None = None, layer: str | None = None
    ) -> np.ndarray:
        """Uint8 `[models, epochs, P]` or a part, as of `weights`: 0 where a weight is dropped.

        Raises:
            NotFoundError: as for `weights`; or the models are dense.
        """
        return self._sparse("mask", models, epochs, layer)

    def log_variances(
        self, models: Models | str | None = None, epochs: Epochs | None = None, layer: str | None = None
    ) -> np.ndarray:
        """Float32 `[models, epochs, P]` or a part, as of `weights`: log sigma^2 of variational dropout, 0 of the rest.

        Raises:
            NotFoundError: as for `weights`; or the models were not made by variational dropout.
        """
        return self._sparse("log_variance", models, epochs, layer)

    def state_dict(self, model: int | str, epoch: int) -> dict[str, np.ndarray]:
        """The parameters of one model behind one epoch, by name; arrays that can be written to.

        Raises:
            NotFoundError: there is no such model, the zoo does not hold the epoch, or the model did not reach it.
        """
        number = int(self._numbers(model)[0])
        if epoch in self.checkpoint_epochs and not self.present[number, self.checkpoint_epochs.index(epoch)]:
            last = int(self.models["last_epoch"].iloc[number])
            reason = f"model {model} ended behind epoch {last}" if epoch > last else "its record lacks the weights"
            raise NotFoundError(f"model {model} has no epoch {epoch}: {reason}")
        return self.layout.unflatten(self.weights([number], [epoch])[0, 0])

    def module(self, model: int | str, epoch: int) -> nn.Module:
        """One model behind one epoch as a `torch.nn.Module` in eval mode, with its activation and dropout rate.

        Raises:
            NotFoundError: there is no such model, the zoo does not hold the epoch, or the model did not reach it.
            SpecError: its activation is not known.
        """
        import torch

        from weightzoo.architectures.module import build_module

        state = self.state_dict(model, epoch)
        row = self.models.iloc[int(self._numbers(model)[0])]
        module = build_module(self.architecture, str(row["activation"]), float(row["dropout"]))
        module.load_state_dict({name: torch.from_numpy(np.array(array)) for name, array in state.items()})
        return module.eval()

    def probe(self, models: Models | str | None = None, epochs: Epochs | None = None) -> np.ndarray:
        """Float16 `[models, epochs, images, classes]`: the logits on the first images of the data set's test split.

        Raises:
            NotFoundError: there is no such model, or the zoo does not hold an epoch, or no probe at all.
        """
        if not self._header.probe_images:
            raise NotFoundError(f"the zoo {self.name} holds no probe outputs")
        return self._read(self._probe, models, epochs, slice(0, self._header.probe_images))

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

        return WeightDataset(
            self, epoch_numbers(epochs, self.checkpoint_epochs, self.name), target, transform, diverged=diverged
        )

    def duplicates(self) -> tuple[tuple[int, ...], ...]:
        """Groups of models whose last kept weights are equal in every bit; models with weights that are not finite are
        left out."""
        kept = np.asarray(self.checkpoint_epochs)
        found: dict[bytes, list[int]] = defaultdict(list)
        for number in range(len(self)):
            reached = kept[self.present[number]]
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
        self.__init__(place_of(state["path"]), state["rows"])

    def _view(self, rows: np.ndarray) -> Zoo:
        """Other models of the same files, which are opened once for all views."""
        view = object.__new__(Zoo)
        view.place, view._header, view.counts, view.files = self.place, self._header, self.counts, self.files
        view._rows, view._tensors, view._tables = rows, self._tensors, self._tables
        return view

    @property
    def _is_whole(self) -> bool:
        return np.array_equal(self._rows, np.arange(self._header.models))

    def _span(self, layer: str | None) -> slice:
        return slice(0, self.layout.size) if layer is None else self.layout.span(layer)

    def _sparse(self, name: str, models: Models | str | None, epochs: Epochs | None, layer: str | None) -> np.ndarray:
        tensors = () if self._header.sparse is None else self._header.sparse.tensors
        if name not in tensors:
            held = f"only {', '.join(tensors)}" if tensors else "its models are dense"
            raise NotFoundError(f"the zoo {self.name} holds no {name}: {held}")
        return self._read(self._tensor(name, fmt.SPARSE_TENSORS[name]), models, epochs, self._span(layer))

    def _tensor(self, name: str, kind: type) -> ShardedTensor:
        """A tensor `[models, kept epochs, P]`, opened once."""
        if name not in self._tensors:
            shape = (self._header.models, len(self.checkpoint_epochs), self.layout.size)
            self._tensors[name] = ShardedTensor.open(
                self.place, lambda shard: fmt.tensor_file(name, shard), name, kind, shape
            )
        return self._tensors[name]

    @cached_property
    def _probe(self) -> ShardedTensor:
        header = self._header
        shape = (header.models, len(header.checkpoint_epochs), header.probe_images, header.architecture.classes)
        return ShardedTensor.open(self.place, fmt.probe_file, "logits", np.float16, shape)

    def _read(
        self, tensor: ShardedTensor, models: Models | str | None, epochs: Epochs | None, span: slice
    ) -> np.ndarray:
        rows = self._rows if models is None else self._rows[self._numbers(models)]
        kept = self.checkpoint_epochs
        return tensor.read(rows, [kept.index(epoch) for epoch in epoch_numbers(epochs, kept, self.name)], span)

    def _numbers(self, models: Models | str) -> np.ndarray:
        """Int64 numbers of models in this view."""
        if not isinstance(models, str):
            return model_numbers(models, len(self))
        numbers = np.flatnonzero((self.models["member"] == models).to_numpy())
        if not len(numbers):
            raise NotFoundError(f"no member {models!r} among the {len(self)} models")
        return numbers[:1]

    def _chosen(self, table: pd.DataFrame) -> pd.DataFrame:
        return table if self._is_whole else table.iloc[self._rows].reset_index(drop=True)

    def _table(self, name: str, schema: pa.Schema) -> pd.DataFrame:
        if name not in self._tables:
            self._tables[name] = self._read_table(name, schema)
        return self._tables[name]

    def _read_table(self, name: str, schema: pa.Schema) -> pd.DataFrame:
        path, source = self.place.name(name), self.place.table(name)
        try:
            table = read_table(source, self.place.size(name) or 0, schema, path)
            if name == fmt.PROVENANCE:
                require_unaltered(table, path)
        except FormatError:
            raise
        except (pa.ArrowException, OSError, ValueError) as error:
            raise FormatError(
                f"{path}: no readable Parquet file ({str(error).splitlines()[0]}); pull it again"
            ) from None
        frame = table.to_pandas()
        for column in table.column_names:
            with_missing = column in fmt.NULLABLE_INTEGERS or table[column].null_count > 0
            if with_missing and pa.types.is_integer(table[column].type):
                frame[column] = table[column].to_pandas(types_mapper=_WITH_MISSING.get)
        return frame


_WITH_MISSING = {pa.int32(): pd.Int32Dtype(), pa.int64(): pd.Int64Dtype()}
