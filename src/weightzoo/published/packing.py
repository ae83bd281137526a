"""A published zoo straight into a packed one, without a tracking store in between."""

from __future__ import annotations

import dataclasses
import json
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

from weightzoo.architectures import Architecture
from weightzoo.errors import FormatError, LayoutError, MissingError
from weightzoo.published.model import PublishedModel
from weightzoo.published.source import IN_MEMORY, Published, Remark, Source
from weightzoo.workers import in_order, worth_it
from weightzoo.zoo import DatasetInfo, ZooHeader, write_zoo
from weightzoo.zoo.write import refuse_foreign

_TRIED = 2  # models that are read to see how long it takes; the first one longer, since its pickle is learnt
_SENDING_SECONDS = 0.02  # that sending a model between processes may cost; reading a small CNN's 51 files takes 0.01


def pack(
    source: Source,
    path: Path,
    *,
    name: str | None = None,
    workers: int = 1,
    on_progress: Callable[[int, int], None] | None = None,
) -> tuple[Remark, ...]:
    """Read all models of a source and write them as a packed zoo at `path`; what there is to be said of them.

    How many there are, and at which epochs, shows only when all have been read: until then their weights are kept in a
    file beside `path`, of the size of the zoo.

    Raises:
        NothingImportedError: no model could be read.
        FormatError: `path` is something other than a zoo.
    """
    refuse_foreign(path)
    remarks = list(source.refused)
    path.absolute().parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=path.absolute().parent, prefix=f".{path.name}.weights-") as file:
        models: list[PublishedModel] = []
        for number, read in enumerate(read_all(source, workers)):
            if isinstance(read, Remark):
                remarks.append(read)
            else:
                remarks += remarks_on(read)
                models.append(_without_weights(read, file))
            if on_progress is not None:
                on_progress(number + 1, len(source.models))
        if not models:
            raise NothingImportedError(remarks)
        header = _header(models, name or path.absolute().name)
        write_zoo(path, header, (model.zoo_record(header) for model in _with_weights(models, file)))
    return tuple(remarks)


def read_all(source: Source, workers: int) -> Iterator[PublishedModel | Remark]:
    """Every model of a source in order, or why it is refused; all of them have the architecture of the first."""
    expected: Architecture | None = None
    for read in _reads(source.models, workers):
        if isinstance(read, PublishedModel):
            expected = expected or read.architecture
            read = of_architecture(read, expected)
        yield read


def _reads(models: Sequence[Published], workers: int) -> Iterator[PublishedModel | Remark]:
    """The models as they are read: here, unless that takes longer than to have them sent by other processes."""
    seconds = 0.0
    for model in models[:_TRIED]:
        start = time.perf_counter()
        read = read_one(model)
        seconds = time.perf_counter() - start
        yield read
    rest = models[_TRIED:]
    sent = seconds > _SENDING_SECONDS and all(model.bytes <= IN_MEMORY for model in rest)
    yield from in_order(read_one, rest, workers=worth_it(workers, len(rest), seconds) if sent else 1)


def read_one(model: Published) -> PublishedModel | Remark:
    """A model, or why it is refused."""
    try:
        return model.read()
    except (FormatError, LayoutError, MissingError) as error:
        return Remark("refused", model.identity.source, str(error))


def of_architecture(model: PublishedModel, expected: Architecture) -> PublishedModel | Remark:
    """The model if it has the architecture that all models of a zoo must have, or else why it is refused."""
    if model.architecture == expected:
        return model
    own, other = (f"a {one.name} of {one.layout.size:,} parameters" for one in (model.architecture, expected))
    return Remark("refused", model.identity.source, f"is {own}, the models before it are {other}; import it by itself")


def remarks_on(model: PublishedModel) -> list[Remark]:
    """What is missing of a model, in one remark, and what contradicts itself."""
    source = model.identity.source
    partial = [Remark("partial", source, "; ".join(model.problems))] if model.problems else []
    return [*partial, *(Remark("note", source, note) for note in model.notes)]


class NothingImportedError(FormatError):
    """Every model of a source was refused."""

    def __init__(self, remarks: Sequence[Remark]) -> None:
        first = remarks[0]
        super().__init__(
            f"none of the {len(remarks)} models can be imported, the first is {first.source}: {first.reason}"
        )
        self.remarks = tuple(remarks)


def _without_weights(model: PublishedModel, file: IO[bytes]) -> PublishedModel:
    for row in model.weights:
        file.write(np.ascontiguousarray(row).data)
    return dataclasses.replace(model, weights=np.empty((0, 0), np.float32))


def _with_weights(models: Sequence[PublishedModel], file: IO[bytes]) -> Iterator[PublishedModel]:
    file.flush()
    position = 0
    for model in models:
        shape = (len(model.kept), model.architecture.layout.size)
        weights = np.memmap(file, np.float32, "r", position, shape)
        position += weights.nbytes
        yield dataclasses.replace(model, weights=weights)


def _header(models: Sequence[PublishedModel], name: str) -> ZooHeader:
    first, built = models[0].identity, models[0].architecture
    definitions = (model.identity.definition(built, model.kept) for model in models)
    protocols = {json.dumps(definition["protocol"], sort_keys=True) for definition in definitions}
    spec: dict[str, Any] = {
        "dataset": first.dataset,
        "architecture": built.name,
        "configuration": first.configuration,
        "protocol": json.loads(protocols.pop()) if len(protocols) == 1 else None,
    }
    return ZooHeader(
        name=name,
        architecture=built,
        dataset=DatasetInfo(first.dataset, None, tuple(map(str, range(built.classes)))),
        checkpoint_epochs=tuple(sorted({epoch for model in models for epoch in model.kept})),
        models=len(models),
        spec=spec,
    )
