"""Writing a packed zoo as an experiment of Ray Tune, the way that zoos were published; see `ray_tune`.

What a packed zoo does not hold is not written: the image data (`dataset.pt`) and the state of the optimiser. Nor are
masks and log variances: the dropped weights of sparse models are written as zeros. What else the layout has no word for
(split, group, the three seeds, the status) stands below `weightzoo` in `params.json`.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from weightzoo.architectures.graph import Architecture, BatchNorm, Dropout, Weighted
from weightzoo.published.model import SEEDS
from weightzoo.published.ray_params import ACTIVATIONS, OWN_KEY, PARAMS, SCHEDULES
from weightzoo.published.ray_results import METRIC_KEYS, PROGRESS, RESULTS
from weightzoo.published.ray_tune import CHECKPOINT, LAYOUT
from weightzoo.published.target import export_folder
from weightzoo.published.values import NOT_MEASURED
from weightzoo.zoo import Zoo

_TYPES = {"cnn-s": "CNN", "cnn-m": "CNN3", "resnet-18": "Resnet18"}
_NAMES_OF_ACTIVATIONS: dict[str | None, str] = {ours: theirs for theirs, ours in ACTIVATIONS.items()}
_NAMES_OF_SCHEDULES: dict[str | None, str | None] = {ours: theirs for theirs, ours in SCHEDULES.items()}


def export_ray_tune(zoo: Zoo, target: Path, on_progress: Callable[[int, int], None] | None = None) -> bool:
    """Write the zoo to the folder `target`; False if that export is there already, complete.

    Raises:
        FormatError: `target` is something else, or another process is writing it.
    """
    with export_folder(zoo, target, LAYOUT, {}) as folder:
        if folder is None:
            return False
        configurations: list[dict[str, Any]] = []
        for number, (_, epochs) in enumerate(zoo.epochs.groupby("model")):
            params = _params(zoo, number)
            configurations.append(params)
            name = _trial_name(zoo, number)
            if not (folder / name).is_dir():
                _write_trial(zoo, number, params, epochs, folder / name)
            if on_progress is not None:
                on_progress(number + 1, len(zoo))
        (folder / "config.json").write_text(json.dumps(_common(configurations), indent=2))
    return True


def tensor_names(architecture: Architecture, dropout: float) -> dict[str, str]:
    """Our name -> the published name of each tensor.

    The published CNNs are a list of modules, numbered with the modules that have no weights. CNN(s) has modules for
    dropout if there is dropout, CNN(m) always has.
    """
    if architecture.name not in ("cnn-s", "cnn-m"):
        return {name: name for name in architecture.layout.names}
    with_dropout = dropout > 0 or architecture.name == "cnn-m"
    modules = [layer for layer in architecture.layers if with_dropout or not isinstance(layer, Dropout)]
    numbers = {layer.name: number for number, layer in enumerate(modules) if isinstance(layer, Weighted)}
    return {
        name: f"module_list.{numbers[layer]}.{role}"
        for name in architecture.layout.names
        for layer, _, role in [name.rpartition(".")]
    }


def _write_trial(zoo: Zoo, number: int, params: Mapping[str, Any], epochs: pd.DataFrame, place: Path) -> None:
    """Write a trial under another name first, so that one that is there is whole."""
    partial = place.with_name(f".{place.name}")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    (partial / PARAMS).write_text(json.dumps(params, indent=2, sort_keys=True))
    lines = _lines(zoo, number, epochs)
    (partial / RESULTS).write_text("".join(json.dumps({**line, "config": params}) + "\n" for line in lines))
    table = io.StringIO(newline="")
    writer = csv.DictWriter(table, list(dict.fromkeys(key for line in lines for key in line)), lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    (partial / PROGRESS).write_text(table.getvalue())
    names = tensor_names(zoo.architecture, float(params.get("model::dropout") or 0))
    norms = [layer.name for layer in zoo.architecture.weighted if isinstance(layer, BatchNorm)]
    for epoch, there in zip(zoo.checkpoint_epochs, zoo.present[number], strict=True):
        if not there:
            continue
        state = zoo.state_dict(number, epoch)
        tensors = {names[name]: torch.from_numpy(array.copy()) for name, array in state.items()}
        tensors |= {
            f"{norm}.num_batches_tracked": torch.tensor(0) for norm in norms
        }  # for strict loading; not recorded
        folder = partial / f"checkpoint_{epoch:06d}"
        folder.mkdir()
        torch.save(tensors, folder / CHECKPOINT)
        (folder / ".is_checkpoint").touch()
    partial.rename(place)


def _lines(zoo: Zoo, number: int, epochs: pd.DataFrame) -> list[dict[str, Any]]:
    """The results of every epoch: -999 where not measured, NaN where the model had diverged."""
    row, known = zoo.models.iloc[number], zoo.provenance.iloc[number]
    diverged = np.inf if pd.isna(row["diverged_epoch"]) else int(row["diverged_epoch"])
    lines: list[dict[str, Any]] = []
    for epoch, *values in epochs[["epoch", *METRIC_KEYS]].itertuples(index=False):
        shown = (
            NOT_MEASURED if np.isnan(value) and epoch < diverged else float(value)  # float32 in full digits
            for value in values
        )
        line = dict(zip((keys[0] for keys in METRIC_KEYS.values()), shown, strict=True))
        lines.append({**line, "training_iteration": int(epoch), "done": False})
    lines[-1]["done"] = True
    if not pd.isna(known["ended"]):
        lines[-1]["timestamp"] = int(known["ended"].timestamp())
    if not pd.isna(known["seconds"]):
        lines[-1]["time_total_s"] = float(known["seconds"])
    return lines


def _params(zoo: Zoo, number: int) -> dict[str, Any]:
    """The configuration of a model in the words of the released code; what is not known is left out."""
    row = zoo.models.iloc[number].to_dict()
    protocol: Mapping[str, Any] = (zoo.header.spec or {}).get("protocol") or {}
    schedule: str | None = (protocol.get("schedule") or {}).get("kind")
    params = {
        "model::type": _TYPES.get(zoo.architecture.name, zoo.architecture.name),
        "model::channels_in": zoo.architecture.input_shape[0],
        "model::o_dim": zoo.architecture.classes,
        "model::nlin": _NAMES_OF_ACTIVATIONS.get(row["activation"], row["activation"]),
        "model::dropout": row["dropout"],
        "model::init_type": row["init"],
        "optim::optimizer": row["optimizer"],
        "optim::lr": row["learning_rate"],
        "optim::wd": row["weight_decay"],
        "optim::momentum": protocol.get("momentum"),
        "optim::scheduler": _NAMES_OF_SCHEDULES.get(schedule, schedule),
        "training::batchsize": protocol.get("batch_size"),
        "training::epochs_train": protocol.get("epochs"),
        "seed": row["seed_init"],
        "dataset::dump": f"{zoo.dataset_info.name}/dataset.pt",
        OWN_KEY: {
            "dataset": zoo.dataset_info.name,
            **{key: str(row[key]) for key in ("member", "group", "split", "status")},
            **{f"seed_{name}": int(row[f"seed_{name}"]) for name in SEEDS if not pd.isna(row[f"seed_{name}"])},
        },
    }
    plain = {key: value.item() if isinstance(value, np.generic) else value for key, value in params.items()}
    return {key: value for key, value in plain.items() if value is not None and value is not pd.NA and value == value}


def _trial_name(zoo: Zoo, number: int) -> str:
    experiment = hashlib.blake2b(zoo.name.encode(), digest_size=3).hexdigest()[:5]
    ended = zoo.provenance["ended"].iloc[number]
    date = "1970-01-01_00-00-00" if pd.isna(ended) else f"{ended:%Y-%m-%d_%H-%M-%S}"
    seed = zoo.models["seed_init"].iloc[number]
    tag = "" if pd.isna(seed) else f"_seed={seed}"
    return f"NN_tune_trainable_{experiment}_{number:05d}_{number}{tag}_{date}"


def _common(configurations: list[dict[str, Any]]) -> dict[str, Any]:
    """The configuration of the experiment: values that all trials share, and a list of those that differ."""
    keys = dict.fromkeys(key for params in configurations for key in params if key != OWN_KEY)
    values = {key: list(dict.fromkeys(params.get(key) for params in configurations)) for key in keys}
    return {key: own[0] if len(own) == 1 else {"grid_search": own} for key, own in values.items()}
