"""The files that hold one member's training in the artifact store: its weights of every kept epoch, and its metrics.

    checkpoints/epochs_0000-0050.safetensors   each parameter stacked over its epochs: `conv1.weight [51, 8, ...]`
    metrics.safetensors                        the metrics of every epoch, the probe's logits of every kept one

and of a member that is made sparse, in files like those of its checkpoints:

    masks/                                     uint8, 0 where a weight is dropped
    log_variances/                             of variational dropout; 0 where a parameter has none

A checkpoint file spans its first to its last epoch and takes as many epochs as fit in `PART_BYTES`, at least one: a
small CNN has a single file, a ResNet-18 one an epoch. All are sealed (`weightzoo.sealed`): a changed bit is an error.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from weightzoo.errors import FormatError, LayoutError, MissingError, NotFoundError
from weightzoo.layout import Layout
from weightzoo.sealed import opened, sealed

CHECKPOINTS_FORMAT = "weightzoo checkpoints 2"
METRICS_FORMAT = "weightzoo metrics 2"
CHECKPOINTS_FOLDER = "checkpoints"
FOLDERS = {"weights": CHECKPOINTS_FOLDER, "mask": "masks", "log_variance": "log_variances"}
DTYPES: dict[str, type[np.generic]] = {"weights": np.float32, "mask": np.uint8, "log_variance": np.float32}
METRICS_FILE = "metrics.safetensors"
PART_BYTES = 8_000_000
METRICS = (
    "train_loss",
    "train_accuracy",
    "val_loss",
    "val_accuracy",
    "test_loss",
    "test_accuracy",
    "generalization_gap",
)
SPARSE_METRICS = ("train_objective", "sparsity")  # beside METRICS, of members that are made sparse
_REMEDY = "train the member again"
_NAME = re.compile(r"epochs_(\d{4,})-(\d{4,})\.safetensors")


@dataclass(frozen=True)
class Checkpoints:
    """The weights of one member at some epochs, ascending; or its masks or log variances, as `kind` says."""

    member: str
    epochs: tuple[int, ...]
    weights: np.ndarray  # float32, or uint8 of masks, [E, P]
    kind: str = "weights"


@dataclass(frozen=True)
class RecordedMetrics:
    """What was measured on one member: E epochs from 0 to its last, of which K were kept with their weights."""

    member: str
    epochs: np.ndarray  # int32 [E]
    values: dict[str, np.ndarray]  # each of METRICS, and of SPARSE_METRICS if it is made sparse, float32 [E]
    val_class_accuracy: np.ndarray  # float32 [E, classes]
    test_class_accuracy: np.ndarray  # float32 [E, classes]
    checkpoint_epochs: np.ndarray  # int32 [K]
    probe_logits: np.ndarray  # float16 [K, probe images, classes]
    layer_sparsity: np.ndarray | None = None  # float32 [E, L], of each of `Architecture.prunable`

    @property
    def last_epoch(self) -> int:
        """The epoch that training ended behind."""
        return int(self.epochs[-1])

    @property
    def best_epoch(self) -> int:
        """The epoch of the highest validation accuracy, the earliest of equals."""
        accuracy = np.nan_to_num(self.values["val_accuracy"], nan=-1.0)
        return int(self.epochs[int(np.argmax(accuracy))])


def epochs_per_part(parameters: int) -> int:
    """How many epochs of a model of P parameters a checkpoint file takes."""
    return max(1, PART_BYTES // (4 * parameters))


def part_name(epochs: Sequence[int]) -> str:
    """The name of the checkpoint file of these epochs.

    >>> part_name([0, 1, 50])
    'epochs_0000-0050.safetensors'
    """
    return f"epochs_{epochs[0]:04d}-{epochs[-1]:04d}.safetensors"


def encode_checkpoints(checkpoints: Checkpoints, layout: Layout) -> bytes:
    """The bytes of one checkpoint file.

    Raises:
        LayoutError: the weights do not fit the layout, or the number of epochs.
    """
    if len(checkpoints.epochs) != len(checkpoints.weights):
        raise LayoutError(f"{len(checkpoints.epochs)} epochs for {len(checkpoints.weights)} weight vectors")
    tensors = layout.unflatten(np.asarray(checkpoints.weights, DTYPES[checkpoints.kind]))
    header = {"format": CHECKPOINTS_FORMAT, "member": checkpoints.member, "epochs": list(checkpoints.epochs)}
    return sealed(tensors, header)


def encode_metrics(metrics: RecordedMetrics) -> bytes:
    """The bytes of `metrics.safetensors`."""
    tensors: dict[str, np.ndarray] = {name: np.asarray(own, np.float32) for name, own in metrics.values.items()}
    if metrics.layer_sparsity is not None:
        tensors["layer_sparsity"] = np.asarray(metrics.layer_sparsity, np.float32)
    tensors["val_class_accuracy"] = np.asarray(metrics.val_class_accuracy, np.float32)
    tensors["test_class_accuracy"] = np.asarray(metrics.test_class_accuracy, np.float32)
    tensors["probe_logits"] = np.asarray(metrics.probe_logits, np.float16)
    tensors["epochs"] = np.asarray(metrics.epochs, np.int32)
    tensors["checkpoint_epochs"] = np.asarray(metrics.checkpoint_epochs, np.int32)
    return sealed(tensors, {"format": METRICS_FORMAT, "member": metrics.member})


def read_metrics(folder: Path | str) -> RecordedMetrics:
    """Read `metrics.safetensors` of a run's artifact folder.

    Raises:
        MissingError: it is not there.
        FormatError: it is truncated, corrupt or of another format.
    """
    path = Path(folder) / METRICS_FILE
    with opened(path, METRICS_FORMAT, remedy=_REMEDY) as (file, header):
        names = {*METRICS, "val_class_accuracy", "test_class_accuracy", "probe_logits", "epochs", "checkpoint_epochs"}
        missing = sorted(names - set(file.keys()))
        if missing:
            raise FormatError(f"{path}: lacks {', '.join(missing)}; delete the run and train the member again")
        sparse = set(file.keys()) & {*SPARSE_METRICS, "layer_sparsity"}
        tensors = {name: file.get_tensor(name) for name in names | sparse}
    return RecordedMetrics(
        member=str(header.get("member")),
        epochs=tensors["epochs"],
        values={name: tensors[name] for name in (*METRICS, *SPARSE_METRICS) if name in tensors},
        val_class_accuracy=tensors["val_class_accuracy"],
        test_class_accuracy=tensors["test_class_accuracy"],
        checkpoint_epochs=tensors["checkpoint_epochs"],
        probe_logits=tensors["probe_logits"],
        layer_sparsity=tensors.get("layer_sparsity"),
    )


def read_checkpoints(
    folder: Path | str, layout: Layout, epochs: Iterable[int] | None = None, kind: str = "weights"
) -> Checkpoints:
    """Read the weights of some epochs (all kept ones by default) from a run's artifact folder; float32, exact.

    Only the files and rows that are asked for are read. `kind` may ask for masks or log variances instead.

    Raises:
        MissingError: the folder has no checkpoints, or nothing of that kind.
        NotFoundError: an epoch was not kept.
        FormatError: a file is truncated, corrupt or of another format.
        LayoutError: the tensors do not fit the architecture.
    """
    parts = list(checkpoint_parts(folder, layout, epochs, kind))
    if not parts:
        return Checkpoints("", (), np.empty((0, layout.size), DTYPES[kind]), kind)
    found = tuple(epoch for part in parts for epoch in part.epochs)
    return Checkpoints(parts[-1].member, found, np.concatenate([part.weights for part in parts]), kind)


def checkpoint_parts(
    folder: Path | str, layout: Layout, epochs: Iterable[int] | None = None, kind: str = "weights"
) -> Iterator[Checkpoints]:
    """What `read_checkpoints` reads, file by file: of a large model, epoch by epoch.

    Raises:
        MissingError, NotFoundError, FormatError, LayoutError: as `read_checkpoints`; an epoch that was not kept is
            found out at the end.
    """
    wanted = None if epochs is None else sorted(set(epochs))
    found: list[int] = []
    for path in checkpoint_files(folder, kind):
        first, last = _span(path)
        if wanted is not None and not any(first <= epoch <= last for epoch in wanted):
            continue
        part = _read_part(path, layout, wanted, kind)
        found += part.epochs
        yield part
    if wanted is not None and found != wanted:
        absent = [epoch for epoch in wanted if epoch not in found]
        raise NotFoundError(f"{folder}: no checkpoint of epoch {', '.join(map(str, absent))}")


def read_network(folder: Path | str, epoch: int) -> dict[str, np.ndarray]:
    """One epoch's weights as a state dict, those that are dropped at zero; see `read_state`."""
    state = read_state(folder, epoch)
    if not (Path(folder) / FOLDERS["mask"]).is_dir():
        return state
    masks = read_state(folder, epoch, "mask")
    return {name: np.where(masks[name], weights, np.float32(0)) for name, weights in state.items()}


def read_state(folder: Path | str, epoch: int, kind: str = "weights") -> dict[str, np.ndarray]:
    """One epoch's weights as a state dict, parameter by parameter, without knowing the architecture.

    `kind` may ask for masks or log variances instead.

    Raises:
        MissingError: the folder has no checkpoints.
        NotFoundError: the epoch was not kept; the message names the epochs that were.
        FormatError: a file is truncated, corrupt or of another format.
    """
    kept: list[int] = []
    for path in checkpoint_files(folder, kind):
        with opened(path, CHECKPOINTS_FORMAT, remedy=_REMEDY) as (file, header):
            own: list[int] = header["epochs"]
            kept += own
            if epoch in own:
                row = own.index(epoch)
                return {name: file.get_slice(name)[row : row + 1][0] for name in file.keys()}  # noqa: SIM118
    raise NotFoundError(f"no checkpoint of epoch {epoch}; the run has {ranges(kept)}")


def checkpoint_files(folder: Path | str, kind: str = "weights") -> list[Path]:
    """The checkpoint files of a run's artifact folder, or those of another kind, in the order of their epochs.

    Raises:
        MissingError: there is none.
    """
    below = Path(folder) / FOLDERS[kind]
    files = [path for path in below.glob("*.safetensors") if _NAME.fullmatch(path.name)] if below.is_dir() else []
    if not files:
        what = FOLDERS[kind].replace("_", " ")
        raise MissingError(f"{below}: no {what}; the run is not finished, or its artifacts were deleted")
    return sorted(files, key=_span)


def check_artifacts(folder: Path | str, member: str) -> None:
    """Read every file of a run's artifact folder whole.

    Raises:
        MissingError: the checkpoints or the metrics are not there.
        FormatError: a file is truncated, altered or of another format, or not this member's.
    """
    folder = Path(folder)
    found = [(folder / METRICS_FILE, METRICS_FORMAT)]
    for kind, below in FOLDERS.items():
        if kind == "weights" or (folder / below).is_dir():
            found += [(path, CHECKPOINTS_FORMAT) for path in checkpoint_files(folder, kind)]
    for path, expected in found:
        with opened(path, expected, remedy=_REMEDY) as (_, header):
            if header.get("member") != member:
                raise FormatError(f"{path}: is that of member {header.get('member')}; {_REMEDY}")


def files_of_epoch(names: Iterable[str], epoch: int) -> list[str]:
    """Those of a run's artifacts that hold the weights of an epoch, its masks and log variances; all, if none does.

    >>> files_of_epoch(["checkpoints/epochs_0000-0004.safetensors", "checkpoints/epochs_0005-0009.safetensors"], 7)
    ['checkpoints/epochs_0005-0009.safetensors']
    """
    spans = {name: match for name in names if (match := _NAME.fullmatch(name.rpartition("/")[2]))}
    return [name for name, match in spans.items() if int(match[1]) <= epoch <= int(match[2])] or list(spans)


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that it is there whole or not at all, also if the process is killed or the machine fails."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    try:
        partial.write_bytes(content)
    except OSError as error:
        error.filename = error.filename or str(path)  # a full disk is told without
        raise
    partial.replace(path)


def ranges(epochs: Iterable[int]) -> str:
    """Ascending numbers, runs of them shortened.

    >>> ranges([0, 1, 2, 5, 7, 8])
    '0-2, 5, 7-8'
    """
    runs: list[list[int]] = []
    for epoch in epochs:
        if runs and epoch == runs[-1][1] + 1:
            runs[-1][1] = epoch
        else:
            runs.append([epoch, epoch])
    return ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in runs) or "none"


def _read_part(path: Path, layout: Layout, wanted: list[int] | None, kind: str) -> Checkpoints:
    with opened(path, CHECKPOINTS_FORMAT, remedy=_REMEDY) as (file, header):
        kept: list[int] = header["epochs"]
        rows = [row for row, epoch in enumerate(kept) if wanted is None or epoch in wanted]
        names = list(file.keys())
        if len(rows) == len(kept):
            tensors = {name: file.get_tensor(name) for name in names}
        else:
            slices = {name: file.get_slice(name) for name in names}
            empty = {name: np.empty((0, *part.get_shape()[1:]), np.float32) for name, part in slices.items()}
            tensors = {
                name: np.concatenate([empty[name], *(part[row : row + 1] for row in rows)])
                for name, part in slices.items()
            }
    try:
        weights = layout.flatten(tensors).astype(DTYPES[kind], copy=False)
    except LayoutError as error:
        raise LayoutError(f"{path}: {error}") from None
    return Checkpoints(str(header.get("member")), tuple(kept[row] for row in rows), weights, kind)


def _span(path: Path) -> tuple[int, int]:
    match = _NAME.fullmatch(path.name)
    assert match is not None
    return int(match[1]), int(match[2])
