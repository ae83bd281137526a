"""Small experiments in the layout of the published zoos, by plain PyTorch and JSON: random weights, made-up metrics."""

from __future__ import annotations

import json
from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch
from torch import nn

EPOCHS = 3


def network(kind: str = "CNN", channels: int = 1, classes: int = 10, *, dropout_modules: bool = False) -> nn.Module:
    """The published models: a `module_list` whose numbers depend on whether there are dropout modules."""
    act, drop = nn.Tanh, [nn.Dropout(0.5)] if dropout_modules else []
    if kind == "CNN":
        layers = [
            *[nn.Conv2d(channels, 8, 5), nn.MaxPool2d(2, 2), act(), *drop],
            *[nn.Conv2d(8, 6, 5), nn.MaxPool2d(2, 2), act(), *drop],
            *[nn.Conv2d(6, 4, 2), act(), nn.Flatten()],
            *[nn.Linear(36, 20), act(), *drop, nn.Linear(20, classes)],
        ]
    elif kind == "CNN3":  # has dropout modules at any rate
        layers = [
            *[nn.Conv2d(channels, 16, 3), nn.MaxPool2d(2, 2), act(), nn.Dropout(0.0)],
            *[nn.Conv2d(16, 32, 3), nn.MaxPool2d(2, 2), act(), nn.Dropout(0.0)],
            *[nn.Conv2d(32, 15, 3), nn.MaxPool2d(2, 2), act(), nn.Dropout(0.0)],
            *[nn.Flatten(), nn.Linear(60, 20), act(), nn.Dropout(0.0), nn.Linear(20, classes)],
        ]
    else:  # CNN2 of the released code: no architecture of ours
        layers = [
            nn.Conv2d(channels, 6, 5),
            nn.Conv2d(6, 9, 5),
            nn.Conv2d(9, 6, 2),
            nn.Linear(54, 20),
            nn.Linear(20, 10),
        ]
    module = nn.Module()
    module.module_list = nn.ModuleList(layers)
    return module


def state(seed: int, **kind: Any) -> OrderedDict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shapes = network(**kind).state_dict()
    return OrderedDict((name, torch.randn(each.shape, generator=generator)) for name, each in shapes.items())


def params(seed: int = 1, **changes: Any) -> dict[str, Any]:
    return {
        "model::type": "CNN",
        "model::channels_in": 1,
        "model::o_dim": 10,
        "model::nlin": "tanh",
        "model::dropout": 0,
        "model::init_type": "uniform",
        "model::use_bias": False,
        "optim::optimizer": "adam",
        "optim::lr": 0.0003,
        "optim::wd": 0,
        "optim::momentum": 0.9,
        "seed": seed,
        "training::batchsize": 10,
        "training::epochs_train": EPOCHS,
        "training::output_epoch": 1,
        "dataset::dump": "/somewhere/zoos/MNIST/tune_zoo_mnist_uniform/dataset.pt",
        "cuda": False,
    } | changes


def result(epoch: int, seed: int, config: dict[str, Any]) -> dict[str, Any]:
    """A line of result.json: at epoch 0 the training loss and accuracy are -999."""
    generator = torch.Generator().manual_seed(1000 * seed + epoch)
    values = torch.rand(4, generator=generator, dtype=torch.float64).tolist()
    return {
        "train_loss": values[0] if epoch else -999,
        "train_acc": values[1] if epoch else -999,
        "test_loss": values[2],
        "test_acc": values[3],
        "done": False,
        "trial_id": f"a1b2c_{seed:05d}",
        "training_iteration": epoch,
        "timestamp": 1650000000 + 10 * epoch,
        "time_this_iter_s": 10.0,
        "time_total_s": 10.0 * (epoch + 1),
        "hostname": "node",
        "config": config,
    }


def write_trial(
    experiment: Path,
    number: int,
    *,
    config: dict[str, Any] | None = None,
    epochs: int = EPOCHS,
    padded: bool = True,
    first_line: int = 0,
    **kind: Any,
) -> Path:
    """Write trial `number`; `first_line` 1 leaves out the results of epoch 0, as some published trials do."""
    config = params(number) if config is None else config
    folder = experiment / f"NN_tune_trainable_a1b2c_{number:05d}_{number}_seed={number}_2022-05-17_09-17-12"
    folder.mkdir(parents=True)
    (folder / "params.json").write_text(json.dumps(config, indent=2))
    lines = [result(epoch, number, config) for epoch in range(first_line, epochs + 1)]
    (folder / "result.json").write_text("".join(json.dumps(line) + "\n" for line in lines))
    columns = [key for key in lines[0] if key != "config"]
    rows = [",".join(str(line[key]) for key in columns) for line in lines]
    (folder / "progress.csv").write_text("\n".join([",".join(columns), *rows]) + "\n")
    for epoch in range(epochs + 1):
        place = folder / (f"checkpoint_{epoch:06d}" if padded else f"checkpoint_{epoch}")
        place.mkdir()
        torch.save(state(100 * number + epoch, **kind), place / "checkpoints")
        torch.save({"state": {}, "param_groups": []}, place / "optimizer")
        (place / ".is_checkpoint").touch()
        (place / ".tune_metadata").write_bytes(b"\x80\x04}.")
    return folder


def write_experiment(folder: Path, trials: int, **options: Any) -> Path:
    for number in range(trials):
        write_trial(folder, number, config=params(number + 1), **options)
    (folder / "config.json").write_text(json.dumps(params()))
    (folder / "dataset.pt").write_bytes(b"never read")
    return folder


def vector(seed: int, **kind: Any) -> torch.Tensor:
    """The published weight vector: per layer in order, weight.flatten() then bias."""
    return torch.cat([tensor.flatten() for tensor in state(seed, **kind).values()])
