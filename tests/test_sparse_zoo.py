"""Sparse twins from end to end: trained, recorded, packed, read, checked."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from tests.execution.support import artifact_bytes, store
from tests.execution.test_real_engines import Interrupted
from weightzoo import inspection
from weightzoo.checkpoints import read_checkpoints
from weightzoo.datasets import prepare
from weightzoo.datasets.images import ImageData
from weightzoo.errors import FormatError, NotFoundError, QueryError, SpecError
from weightzoo.execution import recorded_member, train_descendants, train_zoo
from weightzoo.execution.parents import parent_state
from weightzoo.execution.retraining import retrain
from weightzoo.lineage import architecture_on, parent_runs, sparse_members, start_weights
from weightzoo.members import Cohort, Member
from weightzoo.registry import Registry
from weightzoo.spec import DatasetSpec, Magnitude, SparsifySpec, Variational, parse_params
from weightzoo.training import choose_engine
from weightzoo.training.sparse import SparseEngine
from weightzoo.verify import verify_zoo
from weightzoo.zoo import Zoo
from weightzoo.zoo.header import StoredFile

EPOCHS = 3
METHODS = {"variational": Variational(kl_weight=0.1, log_variance=-5.0), "magnitude": Magnitude(sparsities=(0.4, 0.8))}
DENSE = {
    "dataset": "digits",
    "architecture": "cnn-s",
    "configuration": {"kind": "grid", "seeds": [1, 2]},
    "factors": {"activation": "relu", "dropout": [0, 0.3], "learning_rate": 0.01},
    "training": {"epochs": 2, "batch_size": 10},
    "engine": "torch",
}


@pytest.fixture(scope="module")
def digits() -> ImageData:
    return prepare("digits", DatasetSpec(train=60, val=40))


@pytest.fixture(scope="module")
def dense(tmp_path_factory, empty_database, digits) -> Zoo:
    folder = tmp_path_factory.mktemp("dense")
    shutil.copy(empty_database, folder / "mlflow.db")
    spec = parse_params({"build": [], "datasets": {"digits": {}}, "zoos": {"dense": DENSE}}).zoo("dense")
    members = train_zoo("dense", spec, digits, store(folder), threads=1).members
    registry = Registry(f"sqlite:///{folder}/mlflow.db")
    return registry.members(members, "dense").assemble(folder / "zoos" / "dense", data=digits)


def twins_of(dense: Zoo, method: str, **settings) -> tuple[Member, ...]:
    section = {"start": {"zoo": "dense"}, "method": METHODS[method], "epochs": EPOCHS} | settings
    return sparse_members(SparsifySpec(**section), dense)


def train(folder: Path, dense: Zoo, members: tuple[Member, ...], data: ImageData, **settings):
    built = architecture_on(dense, data)
    start = {"engine": "auto", "threads": 1, "parent_runs": parent_runs(dense), **settings}
    return train_descendants(
        "z", members, lambda some: start_weights(dense, built, some), built, data, store(folder), **start
    )


@pytest.fixture(scope="module", params=METHODS)
def twins(request, tmp_path_factory, dense, digits) -> tuple[Path, Zoo]:
    """A store with the runs of the dense zoo and of its twins, and the packed twins."""
    folder = shutil.copytree(dense.path.parent.parent, tmp_path_factory.mktemp(request.param) / "store")
    train(folder, dense, twins_of(dense, request.param), digits)
    runs = Registry(f"sqlite:///{folder}/mlflow.db").query("zoo == 'z'")
    return folder, runs.assemble(folder / "zoos" / "twins", data=digits)


def test_the_stored_mask_gives_the_recorded_accuracy(twins, digits):
    _, zoo = twins
    assert zoo.checkpoint_epochs == (1, 2, 3)
    images = {split: torch.from_numpy(digits.inputs[split]) for split in ("val", "test")}
    dropped = 0
    for number in range(len(zoo)):
        for epoch in zoo.checkpoint_epochs:
            network = zoo.module(number, epoch)
            weights = np.concatenate([p.detach().numpy().ravel() for p in network.state_dict().values()])
            mask, raw = zoo.masks([number], [epoch])[0, 0], zoo.weights([number], [epoch], raw=True)[0, 0]
            np.testing.assert_array_equal(weights, np.where(mask == 1, raw, 0))
            np.testing.assert_array_equal(weights, zoo.weights(number, epoch)[0, 0])
            dropped += (mask == 0).sum()
            row = zoo.epochs[(zoo.epochs["model"] == number) & (zoo.epochs["epoch"] == epoch)].iloc[0]
            for split, inputs in images.items():
                with torch.no_grad():
                    right = network(inputs).argmax(1).numpy() == digits.labels[split]
                assert row[f"{split}_accuracy"] == np.float32(right.mean())
            sizes = [zoo.layout.span(name).stop - zoo.layout.span(name).start for name in zoo.header.sparse.prunable]
            assert row["sparsity"] == pytest.approx((mask == 0).sum() / sum(sizes))
            assert row["sparsity"] == pytest.approx(np.dot(row["layer_sparsity"], sizes) / sum(sizes), rel=1e-5)
    assert dropped > 100
    item = zoo.dataset(epochs=[3])[0]
    np.testing.assert_array_equal(item.numpy(), zoo.weights(0, 3)[0, 0])


def test_runs_registry_and_zoo_know_the_lineage_and_the_sparsity(twins, dense):
    folder, zoo = twins
    parents = dense.models.set_index("member")
    tracking = store(folder)
    for row in zoo.models.itertuples():
        assert row.parent_epoch == 2
        for name in ("split", "group", "init", "optimizer", "learning_rate", "dropout", "seed_order", "seed_dropout"):
            assert getattr(row, name) == parents[name][row.parent]
        run = tracking.find(row.member)
        assert run.data.tags["mlflow.parentRunId"] == tracking.find(row.parent).info.run_id
        for name in ("sparsity", "train_objective"):
            history = tracking.client.get_metric_history(run.info.run_id, name)
            recorded = zoo.epochs[zoo.epochs["model"] == row.Index][name]
            assert [point.step for point in sorted(history, key=lambda point: point.step)] == list(range(EPOCHS + 1))
            assert recorded.iloc[-1] == np.float32(run.data.metrics[name]) == getattr(row, name)
    kind = zoo.header.spec["sparsification"]["kind"]
    found = Registry(f"sqlite:///{folder}/mlflow.db").query(f"sparsity > 0 and sparsification == '{kind}'").frame()
    assert set(found["member"]) == set(zoo.models["member"])
    first = zoo.epochs[zoo.epochs["epoch"] == 0]
    assert not first["sparsity"].any()
    last_of_parents = dense.epochs[dense.epochs["epoch"] == 2].set_index("model")
    order = [dense.models["member"].tolist().index(parent) for parent in zoo.models["parent"]]
    np.testing.assert_allclose(first["test_loss"], last_of_parents["test_loss"].to_numpy()[order], rtol=1e-4)
    loss, objective = zoo.epochs["train_loss"], zoo.epochs["train_objective"]
    assert (objective[zoo.epochs["epoch"] > 0] > loss[zoo.epochs["epoch"] > 0]).all() == (kind == "variational")


def test_what_is_stored_is_what_the_engine_gave(twins, dense, digits):
    folder, zoo = twins
    member = recorded_member(store(folder), zoo.models["member"][1])
    engine = choose_engine("auto", zoo.architecture, Cohort((member,)))
    assert set(zoo.models["engine"]) == {engine.name}
    *_, last = retrain(member, digits, engine, parent_state(store(folder), member))
    assert zoo.weights(1, 3, raw=True).tobytes() == last.state.weights.tobytes()
    np.testing.assert_array_equal(zoo.masks(1, 3)[0], last.state.slots["mask"])
    if "log_variance" in last.state.slots:
        assert zoo.log_variances(1, 3).tobytes() == last.state.slots["log_variance"].tobytes()
    else:
        with pytest.raises(NotFoundError, match="holds no log_variance: only mask"):
            zoo.log_variances(1, 3)
    with pytest.raises(NotFoundError, match="holds no mask: its models are dense"):
        dense.masks()
    np.testing.assert_array_equal(dense.weights(raw=True), dense.weights())


def test_a_checkpoint_is_that_of_the_sparse_network(twins, monkeypatch, tmp_path):
    folder, zoo = twins
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder}/mlflow.db")
    path = inspection.export_checkpoint(zoo.models["member"][0], 2, tmp_path / "epoch2.pt")
    for name, tensor in torch.load(path, weights_only=True).items():
        np.testing.assert_array_equal(tensor.numpy(), zoo.state_dict(0, 2)[name])


@pytest.mark.parametrize("name", ["torch", "lanes"])
@pytest.mark.parametrize("method", METHODS)
def test_interrupted_it_gives_the_same_bytes_and_so_does_packing_twice(new_store, dense, digits, method, name):
    whole, parts = new_store("whole"), new_store("parts")
    members = twins_of(dense, method)
    engine = choose_engine(name, dense.architecture, Cohort(members[:1]), threads=1)
    train(whole, dense, members, digits, engine=engine)
    for at in (1, 3):
        with pytest.raises(KeyboardInterrupt):
            train(parts, dense, members, digits, engine=Interrupted(engine, at), snapshot_seconds=0.0)
    assert train(parts, dense, members, digits, engine=engine).statuses == {"finished": 4}
    assert artifact_bytes(parts) == artifact_bytes(whole)
    files = {name for _, name in artifact_bytes(whole)}
    assert "masks/epochs_0001-0003.safetensors" in files
    assert ("log_variances/epochs_0001-0003.safetensors" in files) == (method == "variational")
    packed = [
        Registry(f"sqlite:///{folder}/mlflow.db").query("zoo == 'z'").assemble(folder / "twins", data=digits).path
        for folder in (whole, parts)
    ]
    for file in packed[0].iterdir():
        if file.name != "provenance.parquet":
            assert file.read_bytes() == (packed[1] / file.name).read_bytes(), file.name


def test_large_models_are_stored_in_several_parts(new_store, dense, digits, monkeypatch):
    monkeypatch.setattr("weightzoo.checkpoints.PART_BYTES", 4 * 2464 * 2)  # two epochs
    folder = new_store("store")
    members = twins_of(dense, "variational", start={"zoo": "dense", "where": "seed_init == 1"})
    engine = SparseEngine(threads=1)
    with pytest.raises(KeyboardInterrupt):
        train(folder, dense, members, digits, engine=Interrupted(engine, 2), snapshot_seconds=0.0)
    train(folder, dense, members, digits, engine=engine)
    (run, *_), *_ = store(folder).zoo("z").known().values()
    assert len(members) == 2
    for kind in ("weights", "mask", "log_variance"):
        found = read_checkpoints(run.artifacts, dense.layout, kind=kind)
        assert (found.epochs, found.kind) == ((1, 2, 3), kind)
        assert len(list((run.artifacts / "masks").iterdir())) == 2
        assert len(np.unique(found.weights[2])) > 1


def test_divergence_is_recorded(new_store, dense, digits):
    folder = new_store("store")
    members = list(twins_of(dense, "variational"))
    wild = dataclasses.replace(members[1].hyperparameters, learning_rate=1e30)
    members[1] = dataclasses.replace(members[1], hyperparameters=wild)
    assert train(folder, dense, tuple(members), digits).statuses == {"finished": 3, "diverged": 1}
    zoo = Registry(f"sqlite:///{folder}/mlflow.db").query("zoo == 'z'").assemble(folder / "twins", data=digits)
    (row,) = zoo.models[zoo.models["status"] == "diverged"].itertuples()
    assert row.diverged_epoch == 1
    assert not np.isfinite(zoo.weights(row.Index, 3)).all()  # masks hide no NaN
    assert {finding.severity for finding in verify_zoo(zoo.path, data=digits)} == {"ok"}


def test_dense_and_sparse_models_make_no_common_zoo(twins, tmp_path):
    folder, _ = twins
    runs = Registry(f"sqlite:///{folder}/mlflow.db").query("dataset == 'digits'")
    with pytest.raises(QueryError, match=r"of several kinds, .*dense \(4\)"):
        runs.assemble(tmp_path / "mixed")


def test_verify_finds_nothing_wrong(twins, digits):
    _, zoo = twins
    assert {(one.check, one.severity) for one in verify_zoo(zoo.path, data=digits)} == {
        (check, "ok") for check in ("files", "tables", "weights", "duplicates", "splits", "accuracy")
    }


def reseal(path: Path) -> None:
    record = json.loads((path / "zoo.json").read_text())
    record["files"] = [dataclasses.asdict(StoredFile.of(path / each["name"])) for each in record["files"]]
    record.pop("checksum", None)
    (path / "zoo.json").write_text(json.dumps(record))


def alter_tensor(path: Path, name: str, values: np.ndarray) -> None:
    file = path / f"{name}-00000.safetensors"
    content = file.read_bytes()
    file.write_bytes(content[: len(content) - values.nbytes] + values.tobytes())
    reseal(path)


def test_verify_finds_damage(twins, digits, tmp_path):
    _, zoo = twins

    def errors(name: str, change) -> dict[str, str]:
        path = shutil.copytree(zoo.path, tmp_path / name)
        change(path)
        found: dict[str, str] = {}
        for one in verify_zoo(path, data=digits):
            if one.severity == "error":
                found[one.check] = "\n".join(filter(None, [found.get(one.check), one.message]))
        return found

    def masks(change):
        def apply(path: Path) -> None:
            values = zoo.masks()
            change(values)
            alter_tensor(path, "mask", values)

        return apply

    def flip(path: Path) -> None:
        content = bytearray((path / "mask-00000.safetensors").read_bytes())
        content[-5] ^= 1
        (path / "mask-00000.safetensors").write_bytes(content)

    def dense_says_the_table(path: Path) -> None:
        rows = pq.read_table(path / "models.parquet")
        values = rows.to_pylist()
        values[1]["sparsity"] = 0.0
        pq.write_table(pa.Table.from_pylist(values, schema=rows.schema), path / "models.parquet")
        reseal(path)

    bias = zoo.layout.span("conv1.bias").start
    assert "mask-00000.safetensors is damaged" in errors("flipped", flip)["files"]
    assert "masks are 0 or 1: not so for model 2" in errors("two", masks(lambda m: m[2, 1].fill(2)))["weights"]
    assert "prunable weights only" in errors("bias", masks(lambda m: m[0, 0, bias : bias + 1].fill(0)))["weights"]
    found = errors("more", masks(lambda m: m[1, 2, zoo.layout.span("fc1.weight")].fill(1)))
    assert "the recorded sparsity is that of the masks: not so for model 1" in found["weights"]
    assert "final sparsity is that of the last epoch" in errors("table", dense_says_the_table)["tables"]
    if "log_variance" in zoo.header.sparse.tensors:
        values = zoo.log_variances()
        values[3, 0, 0] = np.inf
        damage = errors("infinite", lambda path: alter_tensor(path, "log-variance", values))
        assert damage["weights"] == "log variances are finite up to divergence: not so for model 3"


def test_twins_have_25_states_by_default_and_no_common_id(dense):
    members = sparse_members(SparsifySpec(start={"zoo": "dense"}), dense)
    assert {member.protocol.checkpoint_epochs for member in members} == {tuple(range(1, 26))}
    assert {member.protocol.batch_size for member in members} == {10}
    others = [
        *sparse_members(SparsifySpec(start={"zoo": "dense"}, method={"kind": "variational", "threshold": 2}), dense),
        *sparse_members(SparsifySpec(start={"zoo": "dense"}, method={"kind": "magnitude", "sparsities": 0.5}), dense),
        *sparse_members(SparsifySpec(start={"zoo": "dense", "epoch": 1}), dense),
    ]
    assert len({member.id for member in (*members, *others)}) == 16
    for member in others:
        again = Member.from_definition(json.loads(json.dumps(member.definition())), member.config_kind, member.group)
        assert again == member
    assert len({Cohort((member,)).sparsification for member in others}) == 3
    header = dataclasses.replace(dense.header, spec={"protocol": None})
    mixed = Zoo.open(dense.path)
    mixed._header = header
    with pytest.raises(FormatError, match="does not have one training protocol"):
        sparse_members(SparsifySpec(start={"zoo": "dense"}), mixed)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"method": "variatonal"}, r"sparsify.twins.method: .* 'variational', 'magnitude'; did you mean 'variational'"),
        ({"method": {"kind": "magnitude"}}, r"sparsify.twins.method.sparsities: missing; add `sparsities`, shares"),
        (
            {"method": {"kind": "magnitude", "sparsities": [0.9, 0.5]}},
            r"method.sparsities\[1\]: got 0.5 behind 0.9; pruned",
        ),
        ({"method": {"kind": "magnitude", "sparsities": [1]}}, r"sparsities\[0\]: got 1, expected a number below 1"),
        (
            {"method": {"kind": "magnitude", "sparsities": [0.1, 0.2]}, "epochs": 1},
            r"twins.epochs: got 1 for 2 sparsities",
        ),
        ({"method": {"kind": "variational", "treshold": 3}}, r"method.treshold: unknown key; did you mean 'threshold'"),
        ({"method": {"kind": "variational", "threshold": 8}}, r"method.threshold: got 8, expected a number below 8"),
        ({"start": {}}, r"sparsify.twins.start.zoo: missing"),
    ],
)
def test_mistakes_in_a_section_are_named(change, message):
    section = {"start": {"zoo": "dense"}} | change
    with pytest.raises(SpecError, match=message) as caught:
        parse_params({"build": [], "datasets": {}, "zoos": {}, "sparsify": {"twins": section}})
    assert "\n" not in str(caught.value)


def test_names_of_twins():
    section = {"start": {"zoo": "a"}, "epochs": 7}
    params = parse_params(
        {"build": [], "datasets": {}, "zoos": {}, "sparsify": {"a-sparse": section, "twins": section}}
    )
    assert params.sparsified("twins") == ("twins", params.sparsify["twins"])
    assert params.sparsified("a") == ("a-sparse", params.sparsify["a-sparse"])
    assert params.sparsified("b") == ("b-sparse", SparsifySpec(start={"zoo": "b"}))
    tuned = {"a": {"start": {"zoo": "b"}, "dataset": "d"}}
    content = {"build": [], "datasets": {"d": {}}, "zoos": {}, "finetune": tuned, "sparsify": {"a": section}}
    with pytest.raises(SpecError, match=r"sparsify.a: there is a zoo of that name below `finetune`"):
        parse_params(content)
