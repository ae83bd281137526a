"""Runs into a packed zoo: their artifacts are read one after the other and appended; nothing is kept in memory."""

from __future__ import annotations

import json
import tempfile
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from weightzoo.architectures import ARCHITECTURES, Architecture, architecture
from weightzoo.artifacts import ArtifactStore, RunArtifacts
from weightzoo.checkpoints import RecordedMetrics, checkpoint_parts, ranges, read_metrics, read_state
from weightzoo.connection import connect
from weightzoo.datasets.images import ImageData
from weightzoo.errors import FormatError, LayoutError, MissingError, NotFoundError, QueryError
from weightzoo.layout import Layout
from weightzoo.members import TRAINING
from weightzoo.records import RunRecord
from weightzoo.zoo import DatasetInfo, ModelRecord, Sparse, Zoo, ZooHeader, write_zoo
from weightzoo.zoo.format import GIVEN, MAY_MISS
from weightzoo.zoo.write import refuse_foreign

_DOWNLOADS = 8  # at once, where artifacts are not in the file system
_DOWNLOADED_BYTES = 4_000_000_000  # that these may take; one model is fetched in any case


def assemble(
    runs: tuple[RunRecord, ...],
    path: Path,
    epochs: Iterable[int] | None,
    name: str | None,
    *,
    data: ImageData | None,
    rehearsal: Mapping[str, Any] | None,
    tracking_uri: str,
    on_progress: Callable[[int, int], None] | None,
) -> Zoo:
    """What `Selection.assemble` describes, of runs of different members."""
    refuse_foreign(path)
    _require_one_kind(runs)
    if data is not None and data.content_hash != runs[0].dataset_hash:
        raise FormatError(
            f"data set {data.name} has hash {data.content_hash}, the runs were trained on {runs[0].dataset_hash}; "
            "prepare it as it was then, or train again"
        )
    kept = _kept_epochs(runs, epochs)
    artifacts = _Artifacts(tracking_uri)
    every_epoch = max(len(_definition(run)["protocol"]["checkpoint_epochs"]) for run in runs)
    with artifacts.of(runs[0]) as folder, _naming(runs[0]):
        first = read_metrics(folder)
        built = _architecture(runs[0], first, folder, data)
    header = ZooHeader(
        name=name or path.absolute().name,
        architecture=built,
        dataset=_dataset(runs[0], built, data),
        checkpoint_epochs=kept,
        models=len(runs),
        probe_images=int(first.probe_logits.shape[1]),
        spec=_spec(runs) | ({} if rehearsal is None else {"rehearsal": dict(rehearsal)}),
        sparse=_sparse(runs[0], built),
    )
    bytes_a_model = 4 * every_epoch * built.layout.size
    at_once = max(1, min(_DOWNLOADS, _DOWNLOADED_BYTES // bytes_a_model))
    records = (_model(run, folder, header) for run, folder in artifacts.of_all(runs, at_once))
    write_zoo(path, header, records, on_progress=on_progress)
    return Zoo.open(path)


def _require_one_kind(runs: tuple[RunRecord, ...]) -> None:
    """One zoo has one architecture and one data set, and only models whose training has ended."""
    if not runs:
        raise NotFoundError("no runs to assemble; `weightzoo query` shows what a condition finds")
    architectures = [run.architecture for run in runs]
    if len(set(architectures)) > 1:
        raise QueryError(f"the runs are of several architectures, {_counted(architectures)}; name one in the query")
    methods = [run.sparsification or "dense" for run in runs]
    if len(set(methods)) > 1:
        raise QueryError(
            f"the runs are of several kinds, {_counted(methods)}; name one as in sparsification == 'variational'"
        )
    hashes = [f"{run.dataset} {run.dataset_hash}" for run in runs]
    if len(set(hashes)) > 1:
        raise QueryError(f"the runs are of several data sets, {_counted(hashes)}; name one by dataset or dataset_hash")
    training = [run for run in runs if run.status == TRAINING]
    if training:
        raise MissingError(
            f"{len(training)} of {len(runs)} runs are not finished, the first is {training[0].run_id}; "
            "train on, or leave them out with status != 'training'"
        )


def _counted(values: Iterable[str | None]) -> str:
    """How often each value occurs, for messages."""
    return ", ".join(f"{value} ({count})" for value, count in Counter(map(str, values)).most_common())


def _kept_epochs(runs: tuple[RunRecord, ...], epochs: Iterable[int] | None) -> tuple[int, ...]:
    """The epochs that go into the zoo: those asked for, or all that every run has that got so far.

    An imported run may lack some: it holds up no other run.
    """
    kept = [(run, frozenset(_definition(run)["protocol"]["checkpoint_epochs"])) for run in runs]
    every = sorted(frozenset().union(*(own for _, own in kept)))

    def lacks(run: RunRecord, own: frozenset[int], epoch: int) -> bool:
        return epoch not in own and epoch <= (run.last_epoch or 0) and run.source is None

    if epochs is None:
        shared = [epoch for epoch in every if not any(lacks(run, own, epoch) for run, own in kept)]
        if not shared:
            raise NotFoundError("the runs share no epoch whose weights they all kept; narrow the query")
        return tuple(shared)
    wanted = tuple(sorted(set(epochs)))
    if not wanted:
        raise NotFoundError(f"no epochs were given; the runs kept {ranges(every)}")
    for epoch in wanted:
        for run, own in kept:
            if epoch not in every or lacks(run, own, epoch):
                raise NotFoundError(f"run {run.run_id} did not keep epoch {epoch}; it kept {ranges(sorted(own))}")
    return wanted


def _architecture(run: RunRecord, metrics: RecordedMetrics, folder: Path, data: ImageData | None) -> Architecture:
    """The layer graph of the runs; without the data set, channels and classes are read off the first run's tensors."""
    name = str(run.architecture)
    if data is not None:
        return architecture(name, data.image_shape, data.classes)
    if name not in ARCHITECTURES:
        raise NotFoundError(f"no architecture {name!r}; there are {', '.join(ARCHITECTURES)}")
    classes = metrics.test_class_accuracy.shape[1]
    imported = _definition(run).get("input_shape")
    if imported is not None:
        return architecture(name, tuple(imported), classes)
    state = read_state(folder, int(metrics.checkpoint_epochs[0]))
    some, other = (ARCHITECTURES[name]((1, side, side), classes) for side in (32, 64))
    if some.input_shape != other.input_shape:
        raise MissingError(
            f"{name} takes images of any size, and the runs don't say of which; assemble the zoo by its name, or in "
            "Python with `data`"
        )
    first = some.layout.names[0]
    if first not in state:
        raise FormatError(f"{folder}: checkpoints have no {first}, the first weight of {name}; train the member again")
    return ARCHITECTURES[name]((int(state[first].shape[1]), 32, 32), classes)


def _dataset(run: RunRecord, built: Architecture, data: ImageData | None) -> DatasetInfo:
    if data is not None:
        return DatasetInfo.of(data)
    return DatasetInfo(str(run.dataset), run.dataset_hash, tuple(map(str, range(built.classes))))


def _spec(runs: tuple[RunRecord, ...]) -> dict[str, Any]:
    """What is common to the definitions of all members, in the words of `params.yaml`'s sections."""
    protocols = {json.dumps(_definition(run)["protocol"], sort_keys=True) for run in runs}
    kinds = {run.configuration for run in runs}
    methods = {json.dumps(_definition(run).get("sparsification"), sort_keys=True) for run in runs}
    method = json.loads(methods.pop()) if len(methods) == 1 else None
    return {
        "dataset": runs[0].dataset,
        "architecture": runs[0].architecture,
        "configuration": kinds.pop() if len(kinds) == 1 else None,
        "protocol": json.loads(protocols.pop()) if len(protocols) == 1 else None,
        **({} if method is None else {"sparsification": method}),
    }


def _sparse(run: RunRecord, built: Architecture) -> Sparse | None:
    if run.sparsification is None:
        return None
    tensors = ("mask", "log_variance") if run.sparsification == "variational" else ("mask",)
    return Sparse(tensors, built.prunable)


def _model(run: RunRecord, folder: Path, header: ZooHeader) -> ModelRecord:
    with _naming(run):
        metrics = read_metrics(folder)
        there = set(metrics.checkpoint_epochs.tolist()) if run.source is not None else range(metrics.last_epoch + 1)
        reached = [epoch for epoch in header.checkpoint_epochs if epoch <= metrics.last_epoch]
        epochs = [epoch for epoch in reached if epoch in there]
        _require_whole(run, metrics)
        positions = np.searchsorted(metrics.checkpoint_epochs, epochs)
        row = {column.name: getattr(run, column.name) for column in GIVEN}
        may_miss = {"diverged_epoch", *(MAY_MISS if run.source is not None else ())}
        empty = sorted(name for name, value in row.items() if value is None and name not in may_miss)
        if empty:
            raise FormatError(f"the tracking store has no {', '.join(empty)} of it")
        sparse = () if header.sparse is None else header.sparse.tensors
    return ModelRecord(
        row={
            **row,
            "parent": run.parent,
            "parent_epoch": run.parent_epoch,
            "source": run.source,
            "source_config": run.source_config,
            "missing_epochs": [epoch for epoch in reached if epoch not in there] or None,
        },
        weights=_states(run, folder, header.architecture.layout, epochs),
        metrics=metrics.values,
        val_class_accuracy=metrics.val_class_accuracy,
        test_class_accuracy=metrics.test_class_accuracy,
        probe=metrics.probe_logits[positions] if header.probe_images else None,
        sparse={kind: _states(run, folder, header.architecture.layout, epochs, kind) for kind in sparse},
        layer_sparsity=metrics.layer_sparsity,
        provenance={name: getattr(run, name) for name in _PROVENANCE},
    )


def _states(
    run: RunRecord, folder: Path, layout: Layout, epochs: list[int], kind: str = "weights"
) -> Iterator[np.ndarray]:
    """The weights of a run at some epochs, or its masks or log variances, file by file."""
    with _naming(run):
        for part in checkpoint_parts(folder, layout, epochs, kind) if epochs else ():
            if part.member != run.member:
                raise FormatError(f"its artifacts are those of member {part.member}")
            yield part.weights


_PROVENANCE = ("run_id", "seconds", "started", "ended", "machine", "version")


def _require_whole(run: RunRecord, metrics: RecordedMetrics) -> None:
    """The metrics are those of the run's member, and go exactly as far as the run says."""
    if metrics.member != run.member:
        raise FormatError(f"its artifacts are those of member {metrics.member}")
    if not np.array_equal(metrics.epochs, np.arange((run.last_epoch or 0) + 1)):
        raise FormatError(
            f"its metrics cover epochs {ranges(metrics.epochs.tolist())}, the run ended at {run.last_epoch}"
        )
    kept = [epoch for epoch in _definition(run)["protocol"]["checkpoint_epochs"] if epoch <= metrics.last_epoch]
    if metrics.checkpoint_epochs.tolist() != kept or len(metrics.probe_logits) != len(kept):
        raise FormatError(f"it kept epochs {ranges(metrics.checkpoint_epochs.tolist())}, expected {ranges(kept)}")


def _definition(run: RunRecord) -> dict[str, Any]:
    try:
        definition = json.loads(run.definition or "")
        definition["protocol"]["checkpoint_epochs"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise FormatError(
            f"run {run.run_id} has no readable definition; delete it and train the member again"
        ) from None
    return definition


@contextmanager
def _naming(run: RunRecord) -> Generator[None]:
    """Errors of the block name the run, the member and the remedy."""
    try:
        yield
    except (MissingError, FormatError, LayoutError, NotFoundError) as error:
        remedy = f"delete the run and run `weightzoo train {run.zoo}`"
        raise type(error)(f"run {run.run_id} of member {run.member}: {error}; {remedy}") from None


@dataclass(frozen=True)
class _Artifacts:
    """The artifact folders of runs: where they lie, or fetched to a folder of their own while they are read."""

    tracking_uri: str

    @contextmanager
    def of(self, run: RunRecord) -> Generator[Path]:
        for _, folder in self.of_all((run,)):
            yield folder

    def of_all(self, runs: tuple[RunRecord, ...], at_once: int = 1) -> Iterator[tuple[RunRecord, Path]]:
        """Each run with its folder, in order; while one is read the next ones are being fetched."""
        store = ArtifactStore(self.tracking_uri, lambda: connect(self.tracking_uri))
        artifacts = store.of_many([(run.run_id, run.artifact_uri) for run in runs])
        if all(own.path is not None for own in artifacts):
            yield from ((run, own.path) for run, own in zip(runs, artifacts, strict=True) if own.path is not None)
            return
        # the pool inside: what it fetches has come to an end before the folder goes
        with tempfile.TemporaryDirectory(prefix="weightzoo-") as place, ThreadPoolExecutor(at_once) as pool:
            waiting: deque[tuple[RunRecord, Future[tempfile.TemporaryDirectory[str]]]] = deque()
            left = zip(runs, artifacts, strict=True)
            try:
                while True:
                    while len(waiting) < at_once and (one := next(left, None)) is not None:
                        waiting.append((one[0], pool.submit(_fetch, one[1], place)))
                    if not waiting:
                        return
                    run, fetched = waiting.popleft()
                    with fetched.result() as folder:
                        yield run, Path(folder)
            finally:
                for _, fetched in waiting:
                    fetched.cancel()


def _fetch(artifacts: RunArtifacts, place: str) -> tempfile.TemporaryDirectory[str]:
    folder = tempfile.TemporaryDirectory(dir=place)
    artifacts.fetch(Path(folder.name))
    return folder
