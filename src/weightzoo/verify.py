"""Whether a packed zoo is what it says: its files, its tables, its weights, and the accuracies recorded with them."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from weightzoo import seeds
from weightzoo.checkpoints import SPARSE_METRICS
from weightzoo.datasets.images import ImageData, SplitName
from weightzoo.errors import FormatError, LayoutError, MissingError
from weightzoo.members import ENDED
from weightzoo.s3 import Location
from weightzoo.zoo import METRICS, Sparse, Zoo
from weightzoo.zoo import format as fmt
from weightzoo.zoo.place import place_of

Severity = Literal["ok", "note", "warning", "error"]
_CHECKS = ("files", "tables", "weights", "duplicates", "splits", "accuracy")
_BYTES_AT_ONCE = 100_000_000
_SHOWN = 5  # examples in a message

# How far a measurement made again may be from the recorded one. Engines add up in different orders, so logits agree to
# about 1e-6 of the largest; an image may be judged otherwise only if its two largest logits are closer than this.
_LOGIT_TOLERANCE = 1e-4  # of the image's largest logit
_LOSS_TOLERANCE = 1e-3
_HALF_TOLERANCE = 2e-3  # probe outputs are float16, which has 11 bits


@dataclass(frozen=True)
class Finding:
    """What one check found: `ok` if all is well, `note` if it could not be made, `warning` or `error` if not."""

    severity: Severity
    check: str
    message: str

    def __str__(self) -> str:
        return f"{self.severity:<8}{self.check:<12}{self.message}"


def verify_zoo(
    path: Path | Location | str,
    *,
    data: ImageData | None = None,
    sample: int = 10,
    on_progress: Callable[[int, int, str], None] | None = None,
) -> list[Finding]:
    """Check a packed zoo; with its image data set, two epochs of each of `sample` models are evaluated again.

    - files: each has its recorded size and hash
    - tables: rows, epochs, statuses and final metrics agree with each other and with the header
    - weights: finite, but for diverged models from that epoch on; absent where a model did not get; of sparse models
      also masks and log variances, and that the recorded sparsity is that of the masks
    - duplicates: no two models with the same final weights (a warning, since it can be meant)
    - splits: no member twice, no configuration group in two splits
    - accuracy: losses, accuracies and probe outputs come out again, in PyTorch

    Every check gives at least one finding. If files are damaged or tables contradict each other, the checks behind are
    not made: nothing could be concluded from them. `on_progress` is told how many checks of how many are done, and
    which comes next.

    Raises:
        MissingError: there is no zoo at `path`.
        StorageError: it is on S3, which can't be reached or refuses.
    """
    place = place_of(path)
    if place.size(fmt.HEADER) is None:
        raise MissingError(f"{path}: no zoo here, {fmt.HEADER} is missing; give the place of a packed zoo")
    try:
        zoo = Zoo(place)
    except (FormatError, MissingError) as error:
        return [Finding("error", "files", str(error))]

    def tell(check: str) -> None:
        if on_progress is not None:
            on_progress(_CHECKS.index(check), len(_CHECKS), check)

    tell("files")
    findings = _made("files", lambda: _files(zoo), f"{len(zoo.files)} files have their recorded hashes")
    if findings[0].severity == "error":
        return findings
    tell("tables")
    findings += _made(
        "tables", lambda: _tables(zoo), f"{len(zoo):,} models and all their epochs, without contradiction"
    )
    if findings[-1].severity == "error":
        return findings
    tell("weights")
    findings += _made("weights", lambda: _weights(zoo), f"{zoo.counts['states']:,} states, finite up to divergence")
    tell("duplicates")
    findings += _made("duplicates", lambda: _duplicates(zoo), "no two models have the same final weights")
    tell("splits")
    findings += _made("splits", lambda: _splits(zoo), "no configuration group is in two splits")
    if data is None:
        return [*findings, Finding("note", "accuracy", "not measured again, since the data set is not at hand")]
    if zoo.dataset_info.hash is None:
        return [
            *findings,
            Finding("note", "accuracy", "not measured again, since the source does not say on what data"),
        ]
    if data.content_hash != zoo.dataset_info.hash:
        message = f"the data set at hand has hash {data.content_hash}, the zoo was trained on {zoo.dataset_info.hash}"
        return [*findings, Finding("error", "accuracy", message)]
    tell("accuracy")
    chosen = seeds.permutation(0, "verify", size=len(zoo))[:sample].tolist()
    summary = f"measured again on {len(chosen)} models, as recorded"
    return findings + _made("accuracy", lambda: _accuracy(zoo, data, chosen), summary)


def _made(check: str, look: Callable[[], Iterable[str | Finding]], summary: str) -> list[Finding]:
    """The findings of a check: errors with these messages, or else that all is well."""
    try:
        found = [one if isinstance(one, Finding) else Finding("error", check, one) for one in look()]
    except (FormatError, MissingError, LayoutError) as error:
        found = [Finding("error", check, str(error))]
    return found or [Finding("ok", check, summary)]


def _files(zoo: Zoo) -> Iterator[str]:
    _ = zoo.provenance  # read, it is compared with its checksum
    for recorded in zoo.files:
        if zoo.place.hash(recorded.name) != recorded.blake2b:
            yield f"{recorded.name} is damaged: its hash is not the recorded one; assemble or pull the zoo again"


def _tables(zoo: Zoo) -> Iterator[str]:
    models, epochs = zoo.models, zoo.epochs
    if len(models) != len(zoo):
        yield f"{fmt.MODELS} has {len(models)} rows, {fmt.HEADER} says {len(zoo)}"
        return
    last = models["last_epoch"].to_numpy()
    expected = np.repeat(np.arange(len(models)), last + 1)
    if not np.array_equal(epochs["model"], expected):
        yield f"{fmt.EPOCHS} has {len(epochs)} rows, expected {len(expected)}: each model's epochs up to its last one"
        return
    starts = np.cumsum(last + 1) - (last + 1)
    if not np.array_equal(epochs["epoch"], np.arange(len(expected)) - np.repeat(starts, last + 1)):
        yield f"the epochs of a model in {fmt.EPOCHS} do not count from 0"
        return
    status = models["status"].to_numpy()
    counts = {name: int((status == name).sum()) for name in ENDED}
    if any(counts[name] != zoo.counts.get(name, 0) for name in counts) or sum(counts.values()) != len(models):
        yield f"{fmt.MODELS} has {counts} among {len(models)} models, {fmt.HEADER} has {zoo.counts}"
    yield from _differing(
        "diverged_epoch is there if and only if the status is diverged",
        ((status == "diverged") != models["diverged_epoch"].notna().to_numpy()),
    )
    for name in (*METRICS, *(SPARSE_METRICS if zoo.header.sparse is not None else ())):
        final = epochs[name].to_numpy()[starts + last]
        same = (models[name].to_numpy() == final) | (np.isnan(models[name].to_numpy()) & np.isnan(final))
        yield from _differing(f"final {name} is that of the last epoch", ~same)
    validated = models["best_epoch"].notna().to_numpy()
    best_epoch = models["best_epoch"].fillna(0).to_numpy(np.int64)
    if np.any((best_epoch > last) | (best_epoch < 0)):
        yield "best_epoch is behind the last epoch of some models"
        return
    for name in ("val_accuracy", "test_accuracy"):
        best = np.where(validated, epochs[name].to_numpy()[starts + best_epoch], np.nan)
        recorded = models[f"best_{name}"].to_numpy()
        same = (recorded == best) | (np.isnan(recorded) & np.isnan(best))
        yield from _differing(f"best_{name} is that of best_epoch", ~same)


def _differing(rule: str, broken: np.ndarray) -> Iterator[str]:
    if broken.any():
        yield f"{rule}: not so for {_some(np.flatnonzero(broken).tolist())}"


def _weights(zoo: Zoo) -> Iterator[str]:
    kept, present = np.asarray(zoo.checkpoint_epochs), zoo.present
    diverged = zoo.models["diverged_epoch"].fillna(np.iinfo(np.int32).max).to_numpy(np.int64)[:, None]
    finite, absent = np.empty((len(zoo), len(kept)), bool), np.empty((len(zoo), len(kept)), bool)
    states = max(1, _BYTES_AT_ONCE // (4 * zoo.layout.size))
    models = max(1, states // len(kept))
    for first, start in itertools.product(range(0, len(zoo), models), range(0, len(kept), states)):
        block, some = slice(first, first + models), slice(start, start + states)
        weights_MEP = zoo.weights(block, kept[some], raw=True)
        finite[block, some] = np.isfinite(weights_MEP).all(-1)
        absent[block, some] = np.isnan(weights_MEP).all(-1)
    unsound = np.asarray(~finite & present & (kept < diverged)).any(-1)
    surplus = np.asarray(~absent & ~present).any(-1)
    yield from _differing("weights are finite up to divergence", np.atleast_1d(unsound))
    yield from _differing("weights behind the last epoch are absent", np.atleast_1d(surplus))
    if zoo.header.sparse is not None:
        yield from _sparse(zoo, zoo.header.sparse)
    if zoo.header.probe_images:
        zoo.probe([], None)  # opens all shards, and compares their shapes with the header


def _sparse(zoo: Zoo, sparse: Sparse) -> Iterator[str]:
    kept = np.asarray(zoo.checkpoint_epochs)
    ends = zoo.models["diverged_epoch"].fillna(kept[-1] + 1).to_numpy()
    spans = [zoo.layout.span(name) for name in sparse.prunable]
    sizes = np.array([span.stop - span.start for span in spans])
    others = np.ones(zoo.layout.size, bool)
    for span in spans:
        others[span] = False
    recorded = zoo.epochs.set_index(["model", "epoch"])[["sparsity", "layer_sparsity"]]
    states = max(1, _BYTES_AT_ONCE // (4 * zoo.layout.size))
    broken = {rule: np.zeros(len(zoo), bool) for rule in (_BITS, _ONLY, _OF_MASK, _FINITE)}
    for number, diverged in enumerate(ends):
        own = kept[zoo.present[number]]
        for epochs in (own[start : start + states] for start in range(0, len(own), states)):
            masks_EP = zoo.masks([number], epochs)[0]
            by_layer = np.stack([1 - masks_EP[:, span].mean(1, dtype=np.float64) for span in spans], 1)
            rows = recorded.loc[[(number, epoch) for epoch in epochs]]
            same = np.allclose(np.stack(rows["layer_sparsity"].to_list()), by_layer, atol=1e-6)
            same &= np.allclose(rows["sparsity"], by_layer @ sizes / sizes.sum(), atol=1e-6)
            broken[_BITS][number] |= bool((masks_EP > 1).any())
            broken[_ONLY][number] |= bool((masks_EP[:, others] == 0).any())
            broken[_OF_MASK][number] |= not same
            if "log_variance" in sparse.tensors:
                sound = epochs[epochs < diverged]
                broken[_FINITE][number] |= not np.isfinite(zoo.log_variances([number], sound)).all()
    for rule, numbers in broken.items():
        yield from _differing(rule, numbers)


_BITS = "masks are 0 or 1"
_ONLY = "masks drop prunable weights only"
_OF_MASK = "the recorded sparsity is that of the masks"
_FINITE = "log variances are finite up to divergence"


def _duplicates(zoo: Zoo) -> Iterator[Finding]:
    for group in zoo.duplicates():
        yield Finding("warning", "duplicates", f"{_some(list(group))} have the same final weights")


def _splits(zoo: Zoo) -> Iterator[str]:
    models = zoo.models
    unknown = ~models["split"].isin(["train", "val", "test"]).to_numpy()
    yield from _differing("the split is train, val or test", unknown)
    yield from _differing("a member is there once", models["member"].duplicated().to_numpy())
    found: dict[str, set[str]] = defaultdict(set)
    for group, split in zip(models["group"], models["split"], strict=True):
        found[group].add(split)
    for group in [group for group, splits in found.items() if len(splits) > 1][:_SHOWN]:
        yield f"configuration group {group} is in the splits {', '.join(sorted(found[group]))}"


def _accuracy(zoo: Zoo, data: ImageData, chosen: list[int]) -> Iterator[str]:
    """Of each model its last finite state and one other, by turns along training."""
    for turn, number in enumerate(chosen):
        kept = [epoch for epoch, there in zip(zoo.checkpoint_epochs, zoo.present[number], strict=True) if there]
        finite = [epoch for epoch in kept if np.isfinite(zoo.weights([number], [epoch])).all()]
        for epoch in sorted({finite[turn % len(finite)], finite[-1]}) if finite else ():
            for message in _measured_again(zoo, data, number, epoch):
                yield f"model {number} at epoch {epoch}: {message}"


def _measured_again(zoo: Zoo, data: ImageData, number: int, epoch: int) -> Iterator[str]:
    from weightzoo.training.devices import Images, resolve_device
    from weightzoo.training.evaluation import evaluate

    weights = zoo.weights([number], [epoch])[0]
    activation = str(zoo.models["activation"].iloc[number])
    recorded = zoo.epochs[(zoo.epochs["model"] == number) & (zoo.epochs["epoch"] == epoch)].iloc[0]
    splits: tuple[SplitName, ...] = ("val", "test")
    for split in splits:
        images = Images(data.images[split], data.mean, data.std, resolve_device("cpu"))
        found = evaluate(zoo.architecture, activation, weights, images, data.labels[split], keep_logits=True)
        assert found.logits is not None
        logits = found.logits[0].astype(np.float64)
        loss, accuracy = float(found.loss[0]), float(found.accuracy[0])
        largest_two = np.sort(logits, -1)[:, -2:]
        undecided = np.diff(largest_two)[:, 0] <= _LOGIT_TOLERANCE * np.abs(logits).max(-1)
        if not abs(accuracy - recorded[f"{split}_accuracy"]) <= undecided.mean() + 1e-6:
            yield f"{split} accuracy is {accuracy:.4f}, recorded is {recorded[f'{split}_accuracy']:.4f}"
        if not np.isclose(loss, recorded[f"{split}_loss"], rtol=_LOSS_TOLERANCE, atol=1e-5, equal_nan=True):
            yield f"{split} loss is {loss:.6g}, recorded is {recorded[f'{split}_loss']:.6g}"
        if split == "test" and zoo.header.probe_images:
            probe = zoo.probe([number], [epoch])[0, 0].astype(np.float64)
            expected = logits[: len(probe)]
            fits = np.abs(expected) <= np.finfo(np.float16).max
            scale = np.abs(expected).max(-1, keepdims=True)
            if not (np.abs(probe - expected)[fits] <= (_HALF_TOLERANCE * (1 + scale) + 0 * expected)[fits]).all():
                yield "the probe outputs are not those of the first test images"


def _some(numbers: list[int]) -> str:
    """`models 1, 2, 3` or `models 1, 2, 3, 4, 5 and 7 more`."""
    shown = ", ".join(map(str, numbers[:_SHOWN]))
    more = len(numbers) - _SHOWN
    return f"{'models' if len(numbers) > 1 else 'model'} {shown}" + (f" and {more} more" if more > 0 else "")
