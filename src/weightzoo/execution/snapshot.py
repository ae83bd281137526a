"""Training that is under way, on disk: what makes it possible to kill it at any moment and lose half a minute at most.

A snapshot is a folder that belongs to one shard:

    epochs_0000-0012.safetensors   what was trained since the last save: weights, metrics, time stamps, epoch by epoch
    epochs_0013-0024.safetensors   ...
    state.safetensors              weights and optimiser state to go on from, and the list of the files above

The state is replaced last and atomically, and names its epoch files with their checksums: at every moment the folder
either is the snapshot before a save or the one after it. Nothing is logged to MLflow that is not here first, so that
training that is taken up again logs the same points with the same time stamps, which MLflow recognises.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import zlib
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from weightzoo.checkpoints import write_atomically
from weightzoo.errors import FormatError
from weightzoo.sealed import save_large
from weightzoo.training.protocol import Metrics, SparseMetrics, TrainState

FORMAT = "weightzoo snapshot 1"
STATE = "state.safetensors"
_METRICS = tuple(field.name for field in fields(Metrics))
_SPARSE = tuple(field.name for field in fields(SparseMetrics))


@dataclass(frozen=True)
class Epoch:
    """One epoch of a shard, as it was trained: m of the shard's members are still in training."""

    epoch: int
    time_ms: int  # when it was over, in milliseconds since 1970
    seconds: float  # compute time of all m members together
    rows: np.ndarray  # int32 [m], which members of the shard
    finite: np.ndarray  # bool [m], whether all weights and the training loss are
    metrics: Metrics
    # `weights` float32 [m, P], and those of the state's slots that are recorded with them (see `checkpoints.FOLDERS`);
    # empty if they are not kept, or are in the artifact store already
    kept: Mapping[str, np.ndarray]
    sparse: SparseMetrics | None = None

    @property
    def nbytes(self) -> int:
        """The memory that this takes, but for small change."""
        return sum(array.nbytes for array in self.kept.values()) + self.metrics.probe_logits.nbytes


@dataclass(frozen=True)
class Identity:
    """What must agree for a snapshot to be of use: continuing on another engine would give other weights."""

    engine: str
    members: tuple[str, ...]


class Snapshot:
    """The saved part of a shard's training: grows by `append`, is read back by `epochs` and `trajectories`."""

    def __init__(self, folder: Path, identity: Identity):
        self.folder, self.identity = folder, identity
        self._files: list[dict[str, Any]] = []
        self._last = -1

    @property
    def last_epoch(self) -> int:
        """The last saved epoch; -1 if there is none."""
        return self._last

    def append(self, epochs: Sequence[Epoch], state: TrainState, rows: np.ndarray) -> None:
        """Save further epochs, and the state behind the last of them (of the members `rows`, int32 `[m]`)."""
        if not epochs:
            return
        name = f"epochs_{epochs[0].epoch:04d}-{epochs[-1].epoch:04d}.safetensors"
        content = _encode_epochs(epochs)
        self.folder.mkdir(parents=True, exist_ok=True)
        write_atomically(self.folder / name, content)
        files = [*self._files, {"name": name, "bytes": len(content), "crc32": zlib.crc32(content)}]
        tensors = {"weights": state.weights, "rows": np.asarray(rows, np.int32)}
        tensors |= {f"slot.{slot}": values for slot, values in state.slots.items()}
        tensors = {key: np.ascontiguousarray(value) for key, value in tensors.items()}
        header = {
            "format": FORMAT,
            "engine": self.identity.engine,
            "members": self.identity.members,
            "epoch": state.epoch,
            "files": files,
            "crc32": _checksum(tensors),
        }
        partial = self.folder / f".{STATE}.partial"
        save_large(partial, tensors, {"weightzoo": json.dumps(header, sort_keys=True)})
        partial.replace(self.folder / STATE)
        self._files, self._last = files, epochs[-1].epoch

    def epochs(self) -> Iterator[Epoch]:
        """The saved epochs in order, without their weights.

        Raises:
            FormatError: a file is gone, since another attempt at the same training took the snapshot over.
        """
        for entry in self._files:
            try:
                yield from _read_epochs(self.folder / entry["name"])
            except FileNotFoundError:
                raise FormatError(f"{self.folder}: another process has taken this snapshot over") from None

    @contextlib.contextmanager
    def trajectories(self) -> Generator[Callable[[int, Sequence[int], str], np.ndarray]]:
        """What reads the saved weights of one member at some epochs, ascending: float32 `[len(epochs), P]`.

        It is told the row, the epochs, and what is kept of them that is wanted, such as `weights`. The files are opened
        once for all that is read of them.
        """
        with contextlib.ExitStack() as opened:
            saved: dict[int, tuple[Any, dict[int, int]]] = {}  # epoch -> its file, and the position of each row
            for entry in self._files:
                file: Any = opened.enter_context(safe_open(self.folder / entry["name"], framework="numpy"))
                for epoch, _, _ in json.loads(file.metadata()["weightzoo"]):
                    rows = file.get_tensor(f"{epoch}.rows").tolist()
                    saved[epoch] = file, {row: position for position, row in enumerate(rows)}

            def read(row: int, epochs: Sequence[int], kind: str) -> np.ndarray:
                found: list[np.ndarray] = []
                for epoch in epochs:
                    file, positions = saved[epoch]
                    found.append(file.get_slice(f"{epoch}.{kind}")[positions[row] : positions[row] + 1])
                return np.concatenate(found)

            yield read

    def state(self) -> tuple[TrainState, np.ndarray]:
        """The state to go on from, and the rows (int32 `[m]`) of the members that it is of."""
        header, tensors = _read_state(self.folder)
        slots = {name.removeprefix("slot."): value for name, value in tensors.items() if name.startswith("slot.")}
        return TrainState(header["epoch"], tensors["weights"], slots), tensors["rows"]

    def discard(self) -> None:
        """Delete it; the state goes first, so that no half snapshot is ever taken for a whole one."""
        (self.folder / STATE).unlink(missing_ok=True)
        shutil.rmtree(self.folder, ignore_errors=True)

    @classmethod
    def load(cls, folder: Path) -> Snapshot:
        """Read back and check what `append` saved.

        Raises:
            FormatError: it is incomplete, corrupt or of another format.
        """
        header, _ = _read_state(folder)
        snapshot = cls(folder, Identity(header["engine"], tuple(header["members"])))
        for entry in header["files"]:
            path = folder / entry["name"]
            try:
                content = path.read_bytes()
            except OSError as error:
                raise FormatError(f"{path}: {error.strerror}") from None
            if len(content) != entry["bytes"] or zlib.crc32(content) != entry["crc32"]:
                raise FormatError(f"{path}: does not match its checksum")
        snapshot._files, snapshot._last = header["files"], header["epoch"]
        return snapshot


def _read_state(folder: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    path = folder / STATE
    try:
        with safe_open(path, framework="numpy") as file:
            header: Any = json.loads((file.metadata() or {}).get("weightzoo", "{}"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (no mapping)
    except (SafetensorError, OSError, ValueError, RecursionError) as error:
        raise FormatError(f"{path}: {' '.join(str(error).split())}") from None
    found = header.get("format") if isinstance(header, dict) else None
    if found != FORMAT:
        raise FormatError(f"{path}: format {found!r}, expected {FORMAT!r}")
    if header.get("crc32") != _checksum(tensors):
        raise FormatError(f"{path}: does not match its checksum")
    return header, tensors


def _encode_epochs(epochs: Sequence[Epoch]) -> bytes:
    tensors: dict[str, np.ndarray] = {}
    for one in epochs:
        tensors[f"{one.epoch}.rows"] = np.asarray(one.rows, np.int32)
        tensors[f"{one.epoch}.finite"] = np.asarray(one.finite, np.bool_)
        tensors |= {f"{one.epoch}.{kind}": values for kind, values in one.kept.items()}
        if one.sparse is not None:
            tensors |= {f"{one.epoch}.{name}": getattr(one.sparse, name) for name in _SPARSE}
        for name in _METRICS:
            tensors[f"{one.epoch}.{name}"] = getattr(one.metrics, name)
    header = [[one.epoch, one.time_ms, one.seconds] for one in epochs]
    contiguous = {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}
    return save(contiguous, {"weightzoo": json.dumps(header)})


def _read_epochs(path: Path) -> Iterator[Epoch]:
    with safe_open(path, framework="numpy") as file:
        names = set(file.keys())
        for epoch, time_ms, seconds in json.loads(file.metadata()["weightzoo"]):
            is_sparse = f"{epoch}.{_SPARSE[0]}" in names
            yield Epoch(
                epoch=epoch,
                time_ms=time_ms,
                seconds=seconds,
                rows=file.get_tensor(f"{epoch}.rows"),
                finite=file.get_tensor(f"{epoch}.finite"),
                metrics=Metrics(**{name: file.get_tensor(f"{epoch}.{name}") for name in _METRICS}),
                kept={},
                sparse=SparseMetrics(*(file.get_tensor(f"{epoch}.{name}") for name in _SPARSE)) if is_sparse else None,
            )


def _checksum(tensors: dict[str, np.ndarray]) -> int:
    total = 0
    for name in sorted(tensors):
        total = zlib.crc32(np.ascontiguousarray(tensors[name]).data.cast("B") if tensors[name].size else b"", total)
    return total
