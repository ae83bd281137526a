"""Reading published experiments: what is in them, in spite of all their irregularities, and what is said of the rest."""

from __future__ import annotations

import io
import json
import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.published import experiments
from tests.published.test_states import Malicious
from weightzoo.analysis import status_counts
from weightzoo.errors import FormatError, MissingError, SpecError
from weightzoo.members import Hyperparameters, Member, Protocol, Seeds
from weightzoo.published import Remark, open_source, pack
from weightzoo.published.source import dataset_of
from weightzoo.report import write_report
from weightzoo.spec import Constant
from weightzoo.verify import verify_zoo
from weightzoo.zoo import Zoo


def one_trial(tmp_path: Path, **options) -> Path:
    """An experiment of one trial, whose folder is returned."""
    return experiments.write_trial(tmp_path / "tune_zoo_mnist_uniform", 1, **options)


def packed_of(trial: Path, **options) -> tuple[Zoo, list[str]]:
    """The zoo of a trial's experiment, and what was said."""
    experiment = trial.parent
    remarks = pack(open_source(experiment, **options), experiment.with_name("packed"))
    return Zoo.open(experiment.with_name("packed")), [f"{remark.kind}: {remark.reason}" for remark in remarks]


def test_every_weight_is_the_published_vector(packed) -> None:
    assert packed.checkpoint_epochs == (0, 1, 2, 3)
    for number in range(len(packed)):
        for epoch in packed.checkpoint_epochs:
            expected = experiments.vector(100 * number + epoch).numpy()
            np.testing.assert_array_equal(packed.weights([number], [epoch])[0, 0], expected)


def test_results_are_matched_by_training_iteration_and_minus_999_is_missing(packed) -> None:
    for number in range(len(packed)):
        own = packed.epochs[packed.epochs["model"] == number].set_index("epoch")
        for epoch in range(4):
            line = experiments.result(epoch, number, {})
            if epoch == 0:
                assert np.isnan(own.loc[0, "train_loss"])
                assert np.isnan(own.loc[0, "train_accuracy"])
                assert np.isnan(own.loc[0, "generalization_gap"])
            else:
                assert own.loc[epoch, "train_loss"] == np.float32(line["train_loss"])
                assert own.loc[epoch, "train_accuracy"] == np.float32(line["train_acc"])
            assert own.loc[epoch, "test_loss"] == np.float32(line["test_loss"])
            assert own.loc[epoch, "test_accuracy"] == np.float32(line["test_acc"])


def test_what_the_source_does_not_say_is_missing(packed) -> None:
    models = packed.models
    assert models["seed_init"].tolist() == [1, 2, 3, 4, 5]
    assert models["seed_order"].isna().all()
    assert models["seed_dropout"].isna().all()
    assert models["best_epoch"].isna().all()
    assert packed.epochs["val_accuracy"].isna().all()
    assert all(np.isnan(own).all() for own in packed.epochs["test_class_accuracy"])
    assert packed.dataset_info.hash is None
    assert packed.header.probe_images == 0
    assert "missing_epochs" not in models
    assert set(models["status"]) == {"finished"}
    assert json.loads(models["source_config"].iloc[2]) == experiments.params(3)
    assert packed.provenance["seconds"].tolist() == [40.0] * 5
    assert str(packed.provenance["started"].iloc[0]) == "2022-04-15 05:19:50+00:00"


def test_a_zoo_of_published_models_can_be_used_as_any_other(packed, tmp_path) -> None:
    module = packed.module(1, epoch=2)
    reference = experiments.network()
    reference.load_state_dict(experiments.state(102))
    images = torch.randn(3, 1, 28, 28)
    expected = images
    for layer in reference.module_list:
        expected = layer(expected)
    torch.testing.assert_close(module(images), expected)
    items = packed.dataset(target=["test_accuracy", "seed_init"])
    assert len(items) == 20
    vector, (accuracy, seed) = items[6]
    np.testing.assert_array_equal(vector, experiments.vector(102))
    assert accuracy == np.float32(experiments.result(2, 1, {})["test_acc"])
    assert seed == 2
    assert all(finding.severity != "error" for finding in verify_zoo(packed.path, data=None, sample=2))
    assert "mnist" in write_report(packed, tmp_path / "report").read_text()


@pytest.mark.parametrize(
    "kind",
    [
        {"kind": "CNN", "dropout_modules": False},
        {"kind": "CNN", "dropout_modules": True},
        {"kind": "CNN", "channels": 3, "dropout_modules": True},
        {"kind": "CNN3", "channels": 3},
        {"kind": "CNN", "classes": 4},
    ],
    ids=str,
)
def test_layers_are_told_by_order_and_shape(kind, tmp_path) -> None:
    config = experiments.params(
        1, **{"model::channels_in": kind.get("channels", 1), "model::o_dim": kind.get("classes", 10)}
    )
    zoo, remarks = packed_zoo(tmp_path, config=config, **kind)
    assert not remarks
    assert zoo.architecture.name == ("cnn-m" if kind["kind"] == "CNN3" else "cnn-s")
    np.testing.assert_array_equal(zoo.weights([0], [3])[0, 0], experiments.vector(103, **kind))
    numbers = [int(name.split(".")[1]) for name in experiments.state(1, **kind)][::2]
    assert (
        numbers
        == {
            "CNN3": [0, 4, 8, 13, 16],
            "CNN": [0, 4, 8, 11, 14] if kind.get("dropout_modules") else [0, 3, 6, 9, 11],
        }[kind["kind"]]
    )


def packed_zoo(tmp_path: Path, **options) -> tuple[Zoo, list[str]]:
    return packed_of(one_trial(tmp_path, **options))


def test_unpadded_folders_and_results_without_epoch_0(tmp_path) -> None:
    zoo, remarks = packed_zoo(tmp_path, padded=False, first_line=1)
    assert not remarks
    np.testing.assert_array_equal(zoo.weights([0], [2])[0, 0], experiments.vector(102))
    assert zoo.epochs["test_accuracy"].isna().tolist() == [True, False, False, False]
    assert zoo.epochs["test_accuracy"].iloc[3] == np.float32(experiments.result(3, 1, {})["test_acc"])


def test_shapes_are_believed_where_the_configuration_contradicts_them(tmp_path) -> None:
    zoo, remarks = packed_zoo(tmp_path, config=experiments.params(1, **{"model::o_dim": 4, "model::channels_in": 3}))
    assert remarks == [
        "note: params.json says model::o_dim 4, the weights have 10 classes; the weights are believed",
        "note: params.json says model::channels_in 3, the weights have 1 channels; the weights are believed",
    ]
    assert zoo.architecture.classes == 10


def test_a_missing_and_a_broken_checkpoint_are_missing_epochs(tmp_path) -> None:
    trial = one_trial(tmp_path)
    experiments.write_trial(trial.parent, 2)
    shutil.rmtree(trial / "checkpoint_000001")
    broken = trial / "checkpoint_000002" / "checkpoints"
    broken.write_bytes(broken.read_bytes()[:5000])
    zoo, remarks = packed_of(trial)
    assert len(remarks) == 1
    assert remarks[0].startswith("partial: checkpoint_000002/checkpoints: truncated or corrupt")
    assert "no checkpoint of epoch 1" in remarks[0]
    assert [None if own is None else own.tolist() for own in zoo.models["missing_epochs"]] == [[1, 2], None]
    assert np.isnan(zoo.weights([0], [1, 2])).all()
    assert np.isfinite(zoo.weights([1])).all()
    assert zoo.counts["states"] == 6 == int(zoo.present.sum())
    assert len(zoo.dataset()) == 6
    assert zoo.dataset().states["epoch"].tolist() == [0, 3, 0, 1, 2, 3]
    with pytest.raises(Exception, match="model 0 has no epoch 2: its record lacks the weights"):
        zoo.module(0, epoch=2)
    assert set(zoo.models["status"]) == {"finished"}
    assert {finding.severity for finding in verify_zoo(zoo.path, data=None)} == {"ok", "note"}


def test_a_trial_that_ends_early_is_partial(tmp_path) -> None:
    trial = one_trial(tmp_path, config=experiments.params(1, **{"training::epochs_train": 5}))
    zoo, remarks = packed_of(trial)
    assert remarks == ["partial: ends behind epoch 3 of 5"]
    assert zoo.models["status"].tolist() == ["partial"]
    assert status_counts(zoo.models)["partial"] == 1
    assert verify_zoo(zoo.path, data=None)[1].severity == "ok"


def test_a_diverged_trial_is_data(tmp_path) -> None:
    trial = one_trial(tmp_path)
    state = experiments.state(102)
    state["module_list.3.bias"][1] = float("nan")
    torch.save(state, trial / "checkpoint_000002" / "checkpoints")
    lines = [json.loads(line) for line in (trial / "result.json").read_text().splitlines()]
    lines[3]["train_loss"] = float("nan")
    (trial / "result.json").write_text("".join(json.dumps(line) + "\n" for line in lines))
    zoo, remarks = packed_of(trial)
    assert not remarks
    assert zoo.models["status"].tolist() == ["diverged"]
    assert zoo.models["diverged_epoch"].tolist() == [2]
    assert len(zoo.dataset()) == 2


def test_a_cut_result_file_is_completed_from_the_csv(tmp_path) -> None:
    trial = one_trial(tmp_path)
    whole = (trial / "result.json").read_text()
    (trial / "result.json").write_text(whole[: whole.rindex("train_acc") + 12])
    zoo, remarks = packed_of(trial)
    assert remarks == ["partial: result.json: 1 unreadable line"]
    assert zoo.epochs["test_loss"].iloc[3] == np.float32(experiments.result(3, 1, {})["test_loss"])
    (trial / "result.json").unlink()
    assert packed_of(trial)[0].epochs.equals(zoo.epochs)
    (trial / "progress.csv").unlink()
    zoo, remarks = packed_of(trial)
    assert remarks == ["partial: no results of epoch 1-3"]
    assert zoo.epochs["test_loss"].isna().all()


REFUSALS = {
    "no configuration": (lambda trial: (trial / "params.json").unlink(), "params.json: no such file"),
    "unreadable configuration": (lambda trial: (trial / "params.json").write_text("{"), "params.json: not readable"),
    "nested configuration": (lambda trial: (trial / "params.json").write_text("[" * 100_000), "not readable as JSON"),
    "deep configuration": (
        lambda trial: (trial / "params.json").write_text(json.dumps({"a": json.loads("[" * 300 + "]" * 300)})),
        "params.json: is no JSON object, or nested too deeply",
    ),
    "huge configuration": (lambda trial: (trial / "params.json").write_bytes(bytes(2**20 + 1)), "expected at most"),
    "no checkpoints": (lambda trial: [shutil.rmtree(each) for each in trial.glob("checkpoint_*")], "no checkpoints"),
    "code in a checkpoint": (
        lambda trial: torch.save({"a": Malicious()}, trial / "checkpoint_000001" / "checkpoints"),
        "checkpoint_000001/checkpoints: its pickle calls",
    ),
    "other shapes": (
        lambda trial: [
            torch.save(experiments.state(1, kind="CNN2"), each / "checkpoints") for each in checkpoints(trial)
        ],
        "tensors of shapes 6x1x5x5, 6, 9x6x5x5, 9, ... are no cnn-s",
    ),
    "a pipe": (lambda trial: make_pipe(trial / "checkpoint_000002" / "checkpoints"), "is no plain file; refused"),
    "a link out": (
        lambda trial: link_out(trial / "checkpoint_000002" / "checkpoints"),
        "checkpoint_000002/checkpoints: is a link out of the folder, to ",
    ),
    "a folder that is a link out": (lambda trial: link_out(trial / "checkpoint_000002"), "is a link out of the folder"),
    "a trial that is a link out": (lambda trial: link_out(trial), "is a link out of the folder"),
    "results that link out": (
        lambda trial: link_out(trial / "result.json"),
        "result.json: is a link out of the folder",
    ),
}


def checkpoints(trial: Path) -> list[Path]:
    return sorted(trial.glob("checkpoint_*"))


def make_pipe(place: Path) -> None:
    place.unlink()
    os.mkfifo(place)


def link_out(place: Path) -> None:
    elsewhere = place.parents[3 if place.name == "checkpoints" else 2] / f"elsewhere-{place.name}"
    shutil.move(place, elsewhere)
    place.symlink_to(elsewhere)


@pytest.mark.parametrize(("spoil", "reason"), REFUSALS.values(), ids=REFUSALS)
def test_a_trial_that_can_not_be_trusted_or_read_is_refused_and_listed(spoil, reason, tmp_path) -> None:
    experiment = experiments.write_experiment(tmp_path / "deep" / "tune_zoo_mnist_uniform", 3)
    spoilt = sorted(path for path in experiment.iterdir() if path.is_dir())[1]
    spoil(spoilt)
    remarks = pack(open_source(experiment), tmp_path / "packed")
    refused = [remark for remark in remarks if remark.kind == "refused"]
    assert [remark.source for remark in refused] == [spoilt.name]
    assert reason in refused[0].reason
    assert "\n" not in str(refused[0])
    zoo = Zoo.open(tmp_path / "packed")
    assert len(zoo) == 2
    np.testing.assert_array_equal(zoo.weights([1], [3])[0, 0], experiments.vector(203))


def test_links_within_the_folder_are_followed(tmp_path) -> None:
    trial = one_trial(tmp_path)
    moved = trial.parent / ".shared"
    shutil.move(trial / "checkpoint_000002", moved)
    (trial / "checkpoint_000002").symlink_to("../.shared")
    zoo, remarks = packed_of(trial)
    assert not remarks
    assert len(zoo.dataset()) == 4


def test_an_experiment_of_which_nothing_can_be_read_is_an_error(tmp_path) -> None:
    trial = one_trial(tmp_path)
    for each in checkpoints(trial):
        (each / "checkpoints").write_bytes(b"")
    with pytest.raises(FormatError, match="none of the 1 models can be imported, the first is NN_tune"):
        packed_of(trial)
    assert not (tmp_path / "packed").exists()


def test_what_is_no_experiment_is_an_error(tmp_path) -> None:
    for folder in (tmp_path, tmp_path / "nothing"):
        with pytest.raises(MissingError):
            open_source(folder)
    (tmp_path / "no_trial").mkdir()
    with pytest.raises(MissingError, match="no zoo of a layout that is known"):
        open_source(tmp_path)
    with pytest.raises(SpecError, match="no layout 'keras'"):
        open_source(tmp_path, "keras")


def test_the_data_set_is_told_by_the_names_or_by_the_user(tmp_path) -> None:
    trial = experiments.write_trial(tmp_path / "my_zoo", 1)
    assert packed_of(trial)[0].dataset_info.name == "mnist"  # by dataset::dump
    assert packed_of(trial, dataset="emnist")[0].dataset_info.name == "emnist"
    (trial / "params.json").write_text(json.dumps(experiments.params(1, **{"dataset::dump": "x.pt"})))
    with pytest.raises(SpecError, match="'my_zoo' does not say which data set"):
        open_source(trial.parent)
    published = {
        "tune_zoo_f_mnist_hyperparameter_10_fixed_seeds": "fashion-mnist",
        "tune_zoo_mnist_uniform": "mnist",
        "tune_zoo_svhn_uniform": "svhn",
        "tune_zoo_usps_hyperparameter_10_random_seeds": "usps",
        "tune_zoo_cifar10_large_uniform": "cifar10",
        "tune_zoo_cifar100_resnet18_kaiming_uniform": "cifar100",
        "tune_zoo_stl_large_hyperparameter_10_random_seeds": "stl10",
        "tune_zoo_tiny-imagenet_resnet18_kaiming_uniform": "tiny-imagenet",
    }
    assert {name: dataset_of(name) for name in published} == published


def test_models_of_two_architectures_do_not_mix(tmp_path) -> None:
    trial = one_trial(tmp_path)
    experiments.write_trial(trial.parent, 2, kind="CNN3")
    zoo, remarks = packed_of(trial)
    assert len(zoo) == 1
    assert remarks == [
        "refused: is a cnn-m of 10,565 parameters, the models before it are a cnn-s of 2,464 parameters; import it by itself"
    ]


def test_groups_and_splits_are_those_of_models_trained_here(tmp_path) -> None:
    experiment = tmp_path / "tune_zoo_mnist_hyp"
    for number, rate in enumerate([1e-3, 1e-4]):
        experiments.write_trial(experiment, number, config=experiments.params(7, **{"optim::lr": rate}))
    zoo, _ = packed_of(experiment / "any")
    assert zoo.header.spec["configuration"] == "grid"
    for number, rate in enumerate([1e-3, 1e-4]):
        chosen = Hyperparameters("uniform", "tanh", "adam", rate, 0.0, 0.0)
        protocol = Protocol(3, 10, Constant(), 0.9, (0, 1, 2, 3))
        here = Member("mnist", "hash", "cnn-s", chosen, Seeds.all(7), protocol, "grid")
        assert (zoo.models["group"].iloc[number], zoo.models["split"].iloc[number]) == (here.group, here.split)
    assert zoo.models["group"].nunique() == 2


def test_numbers_and_names_that_fit_nowhere_are_missing(tmp_path) -> None:
    odd = {
        "seed": 10**30,
        "model::nlin": "x" * 10**5,
        "optim::lr": "fast",
        "optim::wd": True,
        "model::init_type": "a\nb",
    }
    zoo, _ = packed_zoo(tmp_path, config=experiments.params() | odd | {"training::epochs_train": 1e300})
    missing = ["seed_init", "activation", "learning_rate", "weight_decay", "init"]
    assert zoo.models[missing].isna().all(axis=None)
    assert "source_config" not in zoo.models  # it is more than a tag takes


def test_a_remark_is_one_line_whatever_files_are_called() -> None:
    assert str(Remark("refused", "a\nb\x1b[31m", "c")) == "refused  a?b?[31m: c"


def test_a_report_tells_what_is_known(tmp_path) -> None:
    trial = one_trial(tmp_path)
    bare = {key: value for key, value in experiments.params(2).items() if not key.startswith("optim") and key != "seed"}
    early = experiments.write_trial(trial.parent, 2, config=bare | {"training::epochs_train": 9})
    experiments.write_trial(trial.parent, 3)
    shutil.rmtree(early / "checkpoint_000003")
    (early / "result.json").unlink()
    (early / "progress.csv").unlink()
    zoo, remarks = packed_of(trial)
    assert (
        remarks == ["partial: no checkpoint of epoch 3; no results of epoch 1-2; ends behind epoch 2 of 9"] or remarks
    )
    assert zoo.models[["optimizer", "learning_rate", "weight_decay", "seed_init"]].iloc[1].isna().all()
    assert zoo.models["init"].tolist() == ["uniform"] * 3
    page = write_report(zoo, tmp_path / "report").read_text()
    assert "unknown" in page
    assert "1 partial" in page


def test_models_that_take_long_are_read_by_several_processes(experiment, packed, tmp_path, monkeypatch) -> None:
    used: list[int] = []

    def in_order(function, tasks, *, workers):
        used.append(workers)
        return map(function, tasks)

    monkeypatch.setattr("weightzoo.published.packing.in_order", in_order)
    for limit, expected in ((1e9, 1), (0.0, 3)):
        monkeypatch.setattr("weightzoo.published.packing._SENDING_SECONDS", limit)
        monkeypatch.setattr("weightzoo.published.packing.worth_it", lambda workers, *_: workers)
        pack(open_source(experiment), tmp_path / "mnist", workers=3)
        assert used.pop() == expected
        for file in packed.path.iterdir():
            assert (tmp_path / "mnist" / file.name).read_bytes() == file.read_bytes(), file.name


def test_a_model_can_be_read_in_another_process(experiment) -> None:
    model = open_source(experiment).models[2]
    here, there = model.read(), pickle.loads(pickle.dumps(model)).read()
    np.testing.assert_array_equal(here.weights, there.weights)
    assert here.identity.member == there.identity.member


def test_large_models_are_gathered_in_a_file(tmp_path, monkeypatch) -> None:
    trial = one_trial(tmp_path)
    expected = packed_of(trial)[0].weights()
    monkeypatch.setattr("weightzoo.published.ray_tune.IN_MEMORY", 1000)
    model = open_source(trial.parent).models[0].read()
    assert isinstance(model.weights, np.memmap)
    np.testing.assert_array_equal(packed_of(trial)[0].weights(), expected)


def test_the_image_data_and_optimisers_are_never_opened(tmp_path) -> None:
    trial = one_trial(tmp_path)
    for place in (trial.parent / "dataset.pt", *(each / "optimizer" for each in checkpoints(trial))):
        buffer = io.BytesIO()
        torch.save({"trainset": Malicious()}, buffer)
        place.write_bytes(buffer.getvalue())
    assert packed_of(trial)[1] == []
