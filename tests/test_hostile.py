"""Every file that the project reads, replaced by one that would run code or fill the memory: refused, by one line.

The published files of image data sets have tests of their own, in `tests/datasets/test_hostile.py`, as have imports.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import pickle
import resource
import shutil
import struct
import subprocess
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from tests.execution.support import DriftEngine, image_data, store, train, zoo_spec
from tests.published import experiments
from tests.published.test_unterthiner import write_zoo as write_unterthiner
from tests.zoo.synthetic_zoo import header, records
from weightzoo import checkpoints, published
from weightzoo.analysis.output import read_analysis, write_analysis
from weightzoo.analysis.results import Analysed, Context
from weightzoo.datasets.images import ImageData
from weightzoo.errors import WeightzooError
from weightzoo.execution.manifest import read_manifest, write_manifest
from weightzoo.execution.snapshot import Snapshot
from weightzoo.published.packing import remarks_on
from weightzoo.spec import load_params
from weightzoo.stages.verify import verify
from weightzoo.training.lanes import compile as lanes
from weightzoo.workspace import Workspace
from weightzoo.zoo import Zoo, write_zoo

MOST = 60_000_000  # bytes that a refusal may take


class Runs:
    """Pickled, it becomes a call of a function, which leaves a mark."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.write_text, (self.mark, "harm"))


@dataclass(frozen=True)
class Reader:
    """A file by its path below the folder of `good`, and what reads it."""

    file: str
    read: Callable[[Path], object]


def read_zoo(folder: Path) -> None:
    """All of it: the tables, every tensor, and what is checked when it is verified."""
    zoo = Zoo.open(folder / "zoo")
    zoo.models, zoo.epochs, zoo.weights(0, 0), zoo.probe(0, 0)
    findings = verify(str(folder / "zoo"), Workspace(folder), sample=0)
    errors = [str(finding) for finding in findings if finding.severity == "error"]
    if errors:
        raise WeightzooError(errors[0])


def read_published(name: str) -> Callable[[Path], object]:
    """An import reads what it can, and says of each other model why it was refused."""

    def read(folder: Path) -> None:
        source = published.open_source(folder / name)
        if source.refused:
            raise WeightzooError(str(source.refused[0]))
        for model in source.models:
            read = model.read()
            gaps = [str(remark) for remark in remarks_on(read) if remark.kind != "note"]
            if gaps:
                raise WeightzooError(gaps[0])

    return read


TRIAL = "NN_tune_trainable_a1b2c_00000_0_seed=0_2022-05-17_09-17-12"
READERS = {
    "description": Reader("params.yaml", lambda folder: load_params(folder / "params.yaml")),
    "images": Reader("data/images.safetensors", lambda folder: ImageData.load(folder / "data")),
    "manifest": Reader("z.members.json", lambda folder: read_manifest(folder / "z.members.json")),
    "snapshot": Reader("snapshot/state.safetensors", lambda folder: Snapshot.load(folder / "snapshot").state()),
    "snapshot's epochs": Reader(
        "snapshot/epochs_0000-0001.safetensors", lambda folder: list(Snapshot.load(folder / "snapshot").epochs())
    ),
    "checkpoints": Reader(
        "run/checkpoints/epochs_0000-0001.safetensors", lambda folder: checkpoints.read_state(folder / "run", 1)
    ),
    "metrics": Reader("run/metrics.safetensors", lambda folder: checkpoints.read_metrics(folder / "run")),
    "zoo": Reader("zoo/zoo.json", read_zoo),
    "models": Reader("zoo/models.parquet", read_zoo),
    "epochs": Reader("zoo/epochs.parquet", read_zoo),
    "provenance": Reader("zoo/provenance.parquet", read_zoo),
    "weights": Reader("zoo/weights-00000.safetensors", read_zoo),
    "probe": Reader("zoo/probe-00000.safetensors", read_zoo),
    "analysis": Reader("report/methods.json", lambda folder: read_analysis(folder / "report")),
    "scores": Reader("report/analysis.json", lambda folder: read_analysis(folder / "report")),
    "published checkpoint": Reader(f"mnist_ray/{TRIAL}/checkpoint_000001/checkpoints", read_published("mnist_ray")),
    "published parameters": Reader(f"mnist_ray/{TRIAL}/params.json", read_published("mnist_ray")),
    "published results": Reader(f"mnist_ray/{TRIAL}/result.json", read_published("mnist_ray")),
    "published weights": Reader("small/weights.npy", read_published("small")),
    "published table": Reader("small/metrics.csv.gz", read_published("small")),
    "published layout": Reader("small/layout.csv", read_published("small")),
}
# What lies beside the weights of a published model is never opened, so that nothing can be planted in it.
UNREAD = (f"mnist_ray/{TRIAL}/checkpoint_000001/optimizer", f"mnist_ray/{TRIAL}/checkpoint_000001/.tune_metadata")


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory, empty_database: Path) -> Path:
    """A folder with one of each file."""
    folder = tmp_path_factory.mktemp("good")
    shutil.copy(empty_database, folder / "mlflow.db")
    shutil.copy(Path(__file__).parent.parent / "params.yaml", folder)
    image_data().save(folder / "data")
    write_manifest(folder / "z.members.json", "z", ["a", "b"])
    with pytest.raises(RuntimeError):  # what is trained by then is in a snapshot
        train(folder, zoo_spec("seed", epochs=3), DriftEngine(fail_at=2), shard_size=4)
    next((folder / ".resume" / "z").iterdir()).rename(folder / "snapshot")
    train(folder, zoo_spec("seed", epochs=1))
    run = next(own[0] for own in store(folder).zoo("z").known().values() if own[0].ended)
    assert run.artifacts is not None
    run.artifacts.rename(folder / "run")
    head = header(3)
    write_zoo(folder / "zoo", head, records(head))
    write_analysis(folder / "report", Zoo.open(folder / "zoo"), Context(quick=True), Analysed((), ()))
    experiments.write_experiment(folder / "mnist_ray", 1)
    trial = next(path for path in (folder / "mnist_ray").iterdir() if path.is_dir())
    trial.rename(trial.with_name(TRIAL))
    write_unterthiner(folder / "small", models=1)
    return folder


@pytest.fixture
def folder(good: Path, tmp_path: Path) -> Path:
    return shutil.copytree(good, tmp_path / "good")


def refused(reader: Reader, folder: Path) -> str:
    """The line that a file is refused with."""
    with pytest.raises(WeightzooError) as caught:
        reader.read(folder)
    assert str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("name", READERS)
def test_what_is_whole_is_read(name: str, good: Path) -> None:
    assert (good / READERS[name].file).is_file()
    READERS[name].read(good)


def pickles(mark: Path) -> Iterator[bytes]:
    """Pickles that leave a mark, plain and as the files that PyTorch and NumPy make of them."""
    harm = Runs(mark)
    yield pickle.dumps(harm, protocol=0)
    yield pickle.dumps({"weights": harm}, protocol=pickle.HIGHEST_PROTOCOL)
    for zipped in (True, False):
        made = io.BytesIO()
        torch.save({"conv1.weight": harm}, made, _use_new_zipfile_serialization=zipped)
        yield made.getvalue()
    made = io.BytesIO()
    np.save(made, np.array([harm], dtype=object), allow_pickle=True)
    yield made.getvalue()


@pytest.mark.parametrize("name", READERS)
def test_no_pickle_is_run(name: str, folder: Path, tmp_path: Path) -> None:
    reader, mark = READERS[name], tmp_path / "mark"
    for content in pickles(mark):
        (folder / reader.file).write_bytes(content)
        refused(reader, folder)
        assert not mark.exists()
    pickle.loads(pickle.dumps(Runs(mark)))
    assert mark.exists()  # it does harm where nobody refuses it


@pytest.mark.parametrize("name", UNREAD)
def test_what_is_not_needed_is_not_opened(name: str, folder: Path, tmp_path: Path) -> None:
    for content in pickles(tmp_path / "mark"):
        (folder / name).write_bytes(content)
        read_published("mnist_ray")(folder)
    assert not (tmp_path / "mark").exists()


TAGS = ("!!python/object/apply:os.system", "!!python/object/new:os.system", "!!python/name:os.system")


@pytest.mark.parametrize("tag", TAGS)
def test_yaml_makes_no_objects(tag: str, folder: Path) -> None:
    mark = folder / "mark"
    (folder / "params.yaml").write_text(f"build: {tag} ['touch {mark}']\n")
    assert "params.yaml" in refused(READERS["description"], folder)
    assert not mark.exists()


def test_dvc_makes_no_objects(folder: Path) -> None:
    """Its files come with a clone."""
    subprocess.run(["dvc", "init", "-q", "--no-scm"], cwd=folder, check=True)
    mark = folder / "mark"
    for file, tag in zip(("dvc.yaml", "data.dvc"), TAGS, strict=False):
        (folder / file).write_text(f"stages: {tag} ['touch {mark}']\nouts: {tag} ['touch {mark}']\n")
        done = subprocess.run(["dvc", "status"], cwd=folder, capture_output=True, check=False)
        assert done.returncode != 0
        (folder / file).unlink()
    assert not mark.exists()


def tensors(header: object, *, length: int | None = None, data: bytes = b"") -> bytes:
    """A safetensors file with any header, that may be longer than it says or shorter."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def huge_tensors() -> Iterator[tuple[str, bytes]]:
    side = 2**40
    yield "a header of 2^63 bytes", tensors({}, length=2**63)
    yield "a header of 90 MB that is not there", tensors({}, length=90_000_000)
    yield (
        "a shape of 2^80",
        tensors({"weights": {"dtype": "F32", "shape": [side, side], "data_offsets": [0, 4]}}, data=b"1234"),
    )
    yield "data of 2^62 bytes", tensors({"weights": {"dtype": "F32", "shape": [2**60], "data_offsets": [0, 2**62]}})
    yield (
        "a negative shape",
        tensors({"weights": {"dtype": "F32", "shape": [-1, -1], "data_offsets": [0, 4]}}, data=b"1234"),
    )
    yield "no end", tensors(b"[" * 1_000_000)
    yield "metadata without end", tensors({"__metadata__": {"weightzoo": "[" * 1_000_000}})
    yield "metadata that is a list", tensors({"__metadata__": {"weightzoo": "[1, 2]"}})
    metadata = {"weightzoo": json.dumps({"format": "weightzoo checkpoints 2", "epochs": [2**62]})}
    yield "epochs of 2^62", tensors({"__metadata__": metadata})


def huge_json() -> Iterator[tuple[str, bytes]]:
    yield "no end", b"[" * 1_000_000
    yield "a number of a million digits", b'{"models": ' + b"9" * 1_000_000 + b"}"
    yield "no list", json.dumps({"format": "weightzoo zoo 1", "models": 2**62, "methods": 2**62}).encode()


def huge_parquet() -> Iterator[tuple[str, bytes]]:
    made = io.BytesIO()
    pq.write_table(pa.table({"member": pa.array(["a"] * 1000).dictionary_encode()}), made)
    whole = bytearray(made.getvalue())
    yield "a footer of 2^32 bytes", bytes(whole[:-8]) + struct.pack("<I", 2**32 - 1) + b"PAR1"
    yield "a footer of nothing", b"PAR1" + bytes(64) + struct.pack("<I", 64) + b"PAR1"
    zeros = io.BytesIO()
    pq.write_table(pa.table({"x": np.zeros(40_000_000, np.int64)}), zeros, compression="zstd", use_dictionary=True)
    yield "320 MB of zeros", zeros.getvalue()


def huge_yaml() -> Iterator[tuple[str, bytes]]:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
    yield "an alias of itself", b"build: &a [*a]\n"
    yield "laughter", "\n".join(lines).encode()
    nested = "\n".join(lines[:8]).encode()
    yield "laughter in a section", nested + b"\nbuild: []\ndatasets: {}\nzoos: {z: {factors: {dropout: *a7}}}\n"
    yield "no end", b"[" * 5_000
    yield "keys without end", b"{" * 5_000


def huge_npy() -> Iterator[tuple[str, bytes]]:
    magic = b"\x93NUMPY\x02\x00"
    text = b"{'descr': '<f4', 'fortran_order': False, 'shape': (1099511627776, 1099511627776), }\n"
    yield "a shape of 2^80", magic + struct.pack("<I", len(text)) + text
    yield "a header of 2^32 bytes", magic + struct.pack("<I", 2**32 - 1) + text
    yield "a header that is no literal", magic + struct.pack("<I", 15) + b"().__class__()\n"


def huge_zip() -> Iterator[tuple[str, bytes]]:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(200_000_000))
    yield "200 MB of zeros", made.getvalue()
    yield "a list of entries that is not there", b"PK\x05\x06" + bytes(4) + b"\xff" * 12 + bytes(2)


HUGE: dict[str, Callable[[], Iterator[tuple[str, bytes]]]] = {
    "safetensors": huge_tensors,
    "json": huge_json,
    "parquet": huge_parquet,
    "yaml": huge_yaml,
    "npy": huge_npy,
    "checkpoints": huge_zip,
}
BY_SUFFIX = [name for name in READERS if READERS[name].file.rpartition(".")[2] in HUGE or "checkpoint" in name]


MAY_SAY_ANYTHING = ("published parameters", "published results")  # of other programs: what is unknown is passed over


@pytest.mark.parametrize("name", BY_SUFFIX)
def test_absurd_headers_take_no_memory(name: str, folder: Path) -> None:
    reader = READERS[name]
    kind = "checkpoints" if name == "published checkpoint" else reader.file.rpartition(".")[2]
    reader.read(folder)  # what is imported and kept for good is not the file's doing
    for what, content in HUGE[kind]():
        (folder / reader.file).write_bytes(content)
        with Limited(1_500_000_000):
            before = peak_memory(reset=True)
            if name in MAY_SAY_ANYTHING:
                with contextlib.suppress(WeightzooError):
                    reader.read(folder)
            else:
                refused(reader, folder)
        assert peak_memory() - before < MOST, what


@dataclass
class Limited:
    """At most so many bytes more of address space, so that what is not refused is an error and not the end."""

    more: int
    before: tuple[int, int] = (0, 0)

    def __enter__(self) -> None:
        self.before = resource.getrlimit(resource.RLIMIT_AS)
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + self.more, self.before[1]))

    def __exit__(self, *_: object) -> None:
        resource.setrlimit(resource.RLIMIT_AS, self.before)


def peak_memory(*, reset: bool = False) -> int:
    """The most that this process had in memory since the last reset, in bytes."""
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def test_machine_code_of_others_is_not_run(tmp_path: Path) -> None:
    """Only files that nobody else could write are taken: what they hold would run."""
    path = tmp_path / "code.o"
    lanes._write(path, b"code")
    assert lanes._read(path) == b"code"
    path.chmod(0o666)
    assert lanes._read(path) is None
    path.chmod(0o600)
    if os.geteuid() == 0:
        os.chown(path, 12345, -1)
        assert lanes._read(path) is None
    path.unlink()
    path.write_bytes(pickle.dumps(Runs(tmp_path / "mark")))
    assert lanes._read(path) is None
    assert not (tmp_path / "mark").exists()
