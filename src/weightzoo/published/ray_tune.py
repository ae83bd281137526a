"""Reading a model zoo as published by Schürholt et al. (2022, arXiv 2209.14764): an experiment of Ray Tune.

    <experiment>/NN_tune_trainable_<id>_<number>_<tag>_<date>/
        params.json                   the configuration of the trial
        result.json, progress.csv     a line an epoch; the number of the epoch is `training_iteration`
        checkpoint_000000/checkpoints the state dict behind epoch 0, by `torch.save`; the number may be unpadded

Tensors are told by their order and shape: names depend on whether a model has dropout. Where a configuration
contradicts the weights, the weights are right, and a note says so. `dataset.pt` and `optimizer` are not read.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, cast

import numpy as np

from weightzoo.architectures import Architecture
from weightzoo.checkpoints import ranges
from weightzoo.errors import FormatError, LayoutError, MissingError, UnsafeError
from weightzoo.members import ConfigKind, record_hash
from weightzoo.published import ray_params
from weightzoo.published.files import SourceFolder
from weightzoo.published.model import Identity, PublishedModel
from weightzoo.published.ray_params import PARAMS
from weightzoo.published.ray_results import PROGRESS, RESULTS, read_results
from weightzoo.published.source import IN_MEMORY, Remark, Source, architecture_of, dataset_of
from weightzoo.published.states import StateReader
from weightzoo.published.values import is_deep, parsed_json

LAYOUT = "ray-tune"
CHECKPOINT = "checkpoints"  # a file, in spite of its name
_MAX_PARAMS, _MAX_CHECKPOINT = 2**20, 2**31  # bytes
_SIDES = {"tiny-imagenet": 64}  # of the images of a ResNet-18, in pixels, if not 32; the CNNs have a size of their own
_FOLDER = re.compile(r"checkpoint_(\d{1,6})")
_NUMBER = re.compile(r"_(\d{5,})_")  # of a trial, in its folder's name


@dataclass(frozen=True)
class Trial:
    """A trial as its folder lists it; see `weightzoo.published.source.Published`."""

    experiment: Path
    identity: Identity
    params: Mapping[str, Any]
    epochs: Mapping[int, str]  # epoch -> the name of its checkpoint folder
    expected: tuple[int, ...]  # the epochs that at least one trial of the experiment has a checkpoint of
    bytes: int

    def read(self) -> PublishedModel:
        """Read the results, and the weights of every checkpoint.

        Raises:
            UnsafeError: a file of it is more than data.
            FormatError: none of its checkpoints can be read; the message has the reason of the first.
            LayoutError: its weights fit no architecture.
            MissingError: it has no checkpoints.
        """
        if not self.epochs:
            raise MissingError("it has no checkpoints")
        source, folder = SourceFolder(self.experiment), self.experiment / self.identity.source
        side = _SIDES.get(self.identity.dataset, 32)
        architecture, kept, weights, broken = _weights(source, folder, self.epochs, side)
        results = read_results(source, folder)
        last = max([kept[-1], *results.lines])
        metrics, measured = results.metrics(last)
        started, ended, seconds = results.duration()
        planned = self.identity.protocol["epochs"] or last
        absent = [epoch for epoch in self.expected if epoch <= last and epoch not in self.epochs]
        silent = [epoch for epoch in range(1, last + 1) if epoch not in results.lines]
        gaps = [
            *([f"no checkpoint of epoch {ranges(absent)}"] if absent else []),
            *([f"no results of epoch {ranges(silent)}"] if silent else []),
            *([f"ends behind epoch {last} of {planned}"] if last < planned else []),
        ]
        return PublishedModel(
            identity=self.identity,
            architecture=architecture,
            kept=kept,
            weights=weights,
            metrics=metrics,
            measured=measured,
            times=results.times(last),
            seconds=seconds,
            started=started,
            ended=ended,
            problems=(*broken, *results.problems, *gaps),
            notes=ray_params.contradictions(self.params, architecture),
        )


def scan_experiment(path: Path | str, dataset: str | None = None) -> Source:
    """List the trials of an experiment folder, reading their configurations alone.

    `dataset` names the image data set; by default the experiment's name, or its path of the data, tells.

    Raises:
        MissingError: there is no such folder, or no trial in it.
        SpecError: nothing tells the data set.
    """
    path = Path(path)
    if not path.is_dir():
        raise MissingError(f"{path}: no such folder; give the folder of an experiment")
    source = SourceFolder(path)
    listed: list[tuple[str, Mapping[str, Any], Mapping[int, str]]] = []
    refused: list[Remark] = []
    for folder in _folders(path):
        try:
            listed.append((folder, *_list_trial(source, folder)))
        except (FormatError, OSError) as error:
            refused.append(Remark("refused", folder, str(error)))
    if not listed and not refused:
        raise MissingError(f"{path}: no trial folders in it; give the folder of an experiment")
    if dataset is None and listed:
        first = listed[0][1]
        names = (path.absolute().name, str(first.get("dataset::dump", "")), str(path.absolute()))
        dataset = ray_params.dataset(first) or dataset_of(*names)
    configurations = {json.dumps(ray_params.hyperparameters(params), sort_keys=True) for _, params, _ in listed}
    kind: ConfigKind = "grid" if len(configurations) > 1 else "seed"
    expected = tuple(sorted(frozenset[int]().union(*(epochs for _, _, epochs in listed))))
    models: list[Trial] = []
    for folder, params, epochs in listed:
        identity, size = _identity(source, folder, params, epochs, str(dataset), kind)
        models.append(Trial(path, identity, params, epochs, expected, size))
    return Source(tuple(models), tuple(refused))


def is_experiment(path: Path) -> bool:
    """Whether a folder looks like an experiment: it has a folder with a configuration or with checkpoints."""
    return any((path / folder / PARAMS).is_file() or "_trainable_" in folder for folder in _folders(path))


def _folders(path: Path) -> list[str]:
    """The folders that are trials or should be, in the order of their numbers where they have one."""
    with os.scandir(path) as entries:
        names = [entry.name for entry in entries if entry.is_dir() and not entry.name.startswith((".", "__"))]
    return sorted(names, key=lambda name: (int(_NUMBER.findall(name)[0]) if _NUMBER.search(name) else -1, name))


def _list_trial(source: SourceFolder, folder: str) -> tuple[Mapping[str, Any], Mapping[int, str]]:
    """The configuration, and the checkpoint folder of every epoch."""
    place = source.path / folder
    if place.is_symlink():
        source.refuse_outside(place)
    params = parsed_json(source.read(place / PARAMS, _MAX_PARAMS), PARAMS)
    if not isinstance(params, dict) or is_deep(params):
        raise FormatError(f"{PARAMS}: is no JSON object, or nested too deeply")
    epochs: dict[int, str] = {}
    with os.scandir(place) as entries:
        for entry in entries:
            number = _FOLDER.fullmatch(entry.name)
            if number is None:
                continue
            if entry.is_symlink():
                source.refuse_outside(entry.path)
            epoch = int(number[1])
            # padded and unpadded names of one epoch: the padded one, which newer versions write
            epochs[epoch] = max(epochs.get(epoch, ""), entry.name, key=len)
    return cast("dict[str, Any]", params), dict(sorted(epochs.items()))


def _identity(
    source: SourceFolder,
    folder: str,
    params: Mapping[str, Any],
    epochs: Mapping[int, str],
    dataset: str,
    kind: ConfigKind,
) -> tuple[Identity, int]:
    """Who a trial is, and the bytes of its checkpoints."""
    place = source.path / folder
    checkpoints = [place / epoch / CHECKPOINT for epoch in epochs.values()]
    sizes = {source.name(file): _size(file) for file in (place / RESULTS, place / PROGRESS, *checkpoints)}
    identity = Identity(
        layout=LAYOUT,
        source=folder,
        stated=params,
        dataset=dataset,
        configuration=kind,
        hyperparameters=ray_params.hyperparameters(params),
        seeds=ray_params.seeds(params),
        protocol=ray_params.protocol(params),
        digest=record_hash({"files": sizes, "configuration": kind}),
        recorded=ray_params.recorded(params),
    )
    return identity, sum(sizes[source.name(file)] or 0 for file in checkpoints)


def _size(file: Path) -> int | None:
    try:
        return file.stat().st_size
    except OSError:
        return None


@cache
def _reader() -> StateReader:
    """One a process: what it learns of a pickle serves all trials."""
    return StateReader()


def _weights(
    source: SourceFolder, trial: Path, epochs: Mapping[int, str], side: int
) -> tuple[Architecture, tuple[int, ...], np.ndarray, list[str]]:
    """The architecture, the epochs that could be read, their weights `[K, P]`, and what is wrong with the others."""
    built: Architecture | None = None
    vectors = np.empty((0, 0), np.float32)
    kept: list[int] = []
    broken: list[str] = []
    for epoch, folder in epochs.items():
        where = f"{folder}/{CHECKPOINT}"
        try:
            state = _reader().read(source.read(trial / where, _MAX_CHECKPOINT), where)
            if built is None:
                built = architecture_of((tensor.shape for name, tensor in state.items() if not _is_count(name)), side)
                vectors = _room(len(epochs), built.layout.size)
            vectors[len(kept)] = _vector(state, built, where)
            kept.append(epoch)
        except UnsafeError:
            raise
        except MissingError:
            broken.append(f"{where}: no such file")
        except (FormatError, LayoutError) as error:
            broken.append(str(error))
    if built is None:
        raise FormatError(broken[0])
    return built, tuple(kept), vectors[: len(kept)], broken


def _vector(state: Mapping[str, np.ndarray], built: Architecture, where: str) -> np.ndarray:
    """The weight vector of a state dict whose tensors are those of the architecture, in its order."""
    tensors = {name: tensor for name, tensor in state.items() if not _is_count(name)}
    for (own, tensor), (name, shape) in zip(tensors.items(), built.layout.parameters, strict=False):
        if tensor.shape != shape or tensor.dtype != np.float32 or _role(own) != _role(name):
            found = f"{own} is {tensor.dtype} {list(tensor.shape)}"
            raise LayoutError(f"{where}: {found}, expected the {_role(name)} float32 {list(shape)} of {name}")
    if len(tensors) != len(built.layout.parameters):
        raise LayoutError(f"{where}: {len(tensors)} tensors, expected {len(built.layout.parameters)}")
    return np.concatenate([tensor.reshape(-1) for tensor in tensors.values()])


def _is_count(name: str) -> bool:
    """Whether a tensor only counts the batches that a batch normalisation has seen, which PyTorch makes no use of."""
    return _role(name) == "num_batches_tracked"


def _role(name: str) -> str:
    """`weight` of `module_list.0.weight`."""
    return name.rpartition(".")[2]


def _room(epochs: int, size: int) -> np.ndarray:
    """Where a model's weights are gathered: in memory, or if they are large in a file that vanishes with the array."""
    if 4 * epochs * size <= IN_MEMORY:
        return np.empty((epochs, size), np.float32)
    with tempfile.TemporaryFile(prefix="weightzoo-") as file:
        file.truncate(4 * epochs * size)
        return np.memmap(file, np.float32, "r+", shape=(epochs, size))
