"""ResNets from training to the packed zoo and back: running statistics, a checkpoint file an epoch, bounded memory."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.execution.support import artifact_bytes, store
from tests.execution.test_real_engines import Interrupted
from weightzoo import checkpoints
from weightzoo.architectures import ARCHITECTURES, architecture
from weightzoo.architectures.resnet import resnet_18
from weightzoo.datasets.images import ImageData
from weightzoo.execution import TrainSummary, recorded_member, retrain, train_descendants, train_zoo
from weightzoo.lineage import sparse_members, start_weights
from weightzoo.registry import Registry
from weightzoo.spec import SparsifySpec, ZooSpec, parse_params
from weightzoo.training.evaluation import evaluate
from weightzoo.training.protocol import Engine
from weightzoo.training.reference import ReferenceEngine
from weightzoo.training.stacked import StackedEngine
from weightzoo.verify import verify_zoo
from weightzoo.zoo import Permute, Zoo


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """ResNet-18 is a narrow one, and its checkpoints go into a file an epoch like those of the wide one."""
    monkeypatch.setitem(ARCHITECTURES, "resnet-18", functools.partial(resnet_18, width=4))
    monkeypatch.setattr(checkpoints, "PART_BYTES", 100_000)


def image_data(train: int = 24) -> ImageData:
    drawn = np.random.default_rng(0)
    sizes = {"train": train, "val": 6, "test": 52}
    return ImageData(
        name="noise",
        images={split: drawn.integers(0, 256, (n, 3, 8, 8), dtype=np.uint8) for split, n in sizes.items()},
        labels={split: np.arange(n, dtype=np.int32) % 3 for split, n in sizes.items()},
        mean=(0.5, 0.4, 0.3),
        std=(0.5, 0.4, 0.3),
        class_names=("a", "b", "c"),
        source="random numbers",
    )


def zoo_spec(epochs: int = 3, members: int = 3, **changes: object) -> ZooSpec:
    zoo = {
        "dataset": "noise",
        "architecture": "resnet-18",
        "configuration": {"kind": "seed", "seeds": {"first": 1, "count": members}},
        "factors": {"optimizer": "sgd", "learning_rate": 0.01, "weight_decay": 5e-4},
        "training": {
            "epochs": epochs,
            "batch_size": 8,
            "schedule": "one_cycle",
            "augmentation": {"crop": 2, "flip": True},
        },
    }
    return parse_params({"build": [], "datasets": {"noise": {}}, "zoos": {"z": zoo | changes}}).zoo("z")


def train(folder: Path, engine: Engine | str, spec: ZooSpec | None = None, **options: object) -> TrainSummary:
    chosen = {"threads": 1, **options}
    return train_zoo("z", spec or zoo_spec(), image_data(), store(folder), engine=engine, **chosen)  # type: ignore[arg-type]


def engines() -> dict[str, Engine]:
    return {"reference": ReferenceEngine(), "torch": StackedEngine(threads=1, members_at_once=1)}


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("name", ["reference", "torch"])
def test_interrupted_resumed_and_retrained(new_store, name: str) -> None:
    whole, parts = new_store("whole"), new_store("parts")
    train(whole, engines()[name])
    with pytest.raises(KeyboardInterrupt):
        train(parts, Interrupted(engines()[name], 2))
    train(parts, engines()[name])
    files = artifact_bytes(whole)
    assert artifact_bytes(parts) == files
    assert {path for _, path in files} == {
        "metrics.safetensors",
        *(f"checkpoints/epochs_{epoch:04d}-{epoch:04d}.safetensors" for epoch in range(4)),
    }
    tracking = store(whole)
    ((run, *_), *_) = tracking.zoo("z").known().values()
    assert tracking.find(run.run_id).data.params["augmentation"] == '{"crop": 2, "flip": true}'
    layout = architecture("resnet-18", (3, 8, 8), 3).layout
    for result in retrain(recorded_member(tracking, run.member), image_data(), engines()[name]):
        state = tracking.checkpoint(run.member, result.epoch)
        assert set(state) == set(layout.names)
        assert layout.flatten(state).tobytes() == result.state.weights[0].tobytes()


@pytest.mark.usefixtures("small")
def test_a_packed_model_evaluates_as_it_did_and_so_does_a_permuted_one(folder: Path, tmp_path: Path) -> None:
    data = image_data()
    train(folder, "auto")
    runs = Registry(f"sqlite:///{folder}/mlflow.db").query("zoo == 'z'")
    zoo = runs.assemble(tmp_path / "zoo", data=data)
    again = runs.assemble(tmp_path / "again", name="zoo", data=data)
    assert (zoo.path / "zoo.json").read_bytes() == (again.path / "zoo.json").read_bytes()
    assert {finding.severity for finding in verify_zoo(zoo.path, data=data)} == {"ok"}
    layout = zoo.layout
    assert zoo.counts["parameters"] == layout.trained < layout.size == zoo.weights([0], [1]).size
    assert zoo.models["engine"].unique().tolist() == ["torch"]

    inputs, labels = torch.from_numpy(data.inputs["test"]), torch.from_numpy(data.labels["test"]).long()
    permute = Permute(zoo.symmetries)
    for model in range(len(zoo)):
        module = zoo.module(model, epoch=3)
        with torch.no_grad():
            logits = module(inputs)
        loss = torch.nn.functional.cross_entropy(logits, labels).item()
        np.testing.assert_allclose(loss, zoo.models["test_loss"].iloc[model], rtol=1e-5)
        np.testing.assert_allclose(zoo.probe([model], [3])[0, 0], logits[:50], rtol=2e-3, atol=2e-3)
        moved = evaluate(zoo.architecture, "relu", permute(zoo.weights([model], [3]))[0], inputs, labels)
        np.testing.assert_allclose(moved.loss, loss, rtol=1e-4)
    assert not np.array_equal(zoo.weights(epochs=[0], layer="bn1"), zoo.weights(epochs=[3], layer="bn1"))


@pytest.mark.usefixtures("small")
def test_packing_holds_one_checkpoint_file_at_a_time(folder: Path, tmp_path: Path, monkeypatch) -> None:
    train(folder, "torch")
    held: list[int] = []
    read = checkpoints._read_part

    def counted(*arguments):
        part = read(*arguments)
        held.append(len(part.weights))
        return part

    monkeypatch.setattr(checkpoints, "_read_part", counted)
    Registry(f"sqlite:///{folder}/mlflow.db").query("zoo == 'z'").assemble(tmp_path / "zoo", data=image_data())
    assert held == [1] * 12


def test_without_the_data_the_size_of_the_images_is_not_known(folder: Path, tmp_path: Path, small: None) -> None:
    train(folder, "torch", zoo_spec(epochs=1, members=1))
    found = Registry(f"sqlite:///{folder}/mlflow.db").query("zoo == 'z'")
    with pytest.raises(FileNotFoundError, match="resnet-18 takes images of any size, and the runs don't say of which"):
        found.assemble(tmp_path / "zoo")


def test_the_real_resnet_18(folder: Path, tmp_path: Path) -> None:
    data = image_data(train=16)
    spec = zoo_spec(epochs=1, members=2)
    summary = train_zoo("z", spec, data, store(folder), threads=1)
    assert summary.statuses == {"finished": 2}
    zoo = Registry(f"sqlite:///{folder}/mlflow.db").query("zoo == 'z'").assemble(tmp_path / "zoo", data=data)
    assert zoo.counts["parameters"] == 11_173_962 - 7 * 513
    assert len(list((tmp_path / "zoo").glob("weights-*.safetensors"))) == 1
    reopened = Zoo.open(tmp_path / "zoo")
    with torch.no_grad():
        logits = reopened.module(1, epoch=1)(torch.from_numpy(data.inputs["test"]))
    loss = torch.nn.functional.cross_entropy(logits, torch.from_numpy(data.labels["test"]).long()).item()
    np.testing.assert_allclose(loss, reopened.models["test_loss"].iloc[1], rtol=1e-4)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("method", ["variational", {"kind": "magnitude", "sparsities": [0.5, 0.9]}], ids=str)
def test_twins_of_a_resnet(new_store: Callable[[str], Path], method: object) -> None:
    folder, data = new_store("store"), image_data()
    uri = f"sqlite:///{folder}/mlflow.db"
    dense = Registry(uri).members(train(folder, "torch").members, "z").assemble(folder / "dense", data=data)
    spec = SparsifySpec.model_validate({"start": {"zoo": "dense"}, "method": method, "epochs": 2})
    members = sparse_members(spec, dense)
    start = functools.partial(start_weights, dense, dense.architecture)
    train_descendants("twins", members, start, dense.architecture, data, store(folder), threads=1)
    zoo = Registry(uri).query("zoo == 'twins'").assemble(folder / "twins", data=data)
    assert {finding.severity for finding in verify_zoo(zoo.path, data=data)} == {"ok"}
    row = zoo.epochs[(zoo.epochs["model"] == 1) & (zoo.epochs["epoch"] == 2)].iloc[0]
    with torch.no_grad():
        right = zoo.module(1, 2)(torch.from_numpy(data.inputs["test"])).argmax(1).numpy() == data.labels["test"]
    assert row["test_accuracy"] == np.float32(right.mean())
    assert len(row["layer_sparsity"]) == len(zoo.architecture.prunable) == 21
    assert zoo.masks()[..., ~zoo.layout.is_trained].all()
    assert members[0].protocol.augmentation is not None
    start_of_twins = zoo.epochs[zoo.epochs["epoch"] == 0]["test_loss"]
    np.testing.assert_allclose(np.sort(start_of_twins), np.sort(dense.models["test_loss"]), rtol=1e-4)
