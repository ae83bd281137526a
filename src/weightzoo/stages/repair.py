"""What is broken of a zoo, made again: images, runs with damaged artifacts, packed files, and DVC's copies of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from weightzoo.console import progress
from weightzoo.datasets import ImageData
from weightzoo.errors import FormatError, MissingError, NotFoundError
from weightzoo.execution.damage import damaged_runs, delete_runs
from weightzoo.execution.manifest import read_manifest
from weightzoo.kept import DamagedObject, KeptFiles, kept_files
from weightzoo.rehearsal import SUFFIX
from weightzoo.spec import Params, load_params
from weightzoo.tracking import RunStore
from weightzoo.verify import verify_zoo
from weightzoo.workspace import Workspace


@dataclass(frozen=True)
class Repair:
    """Something that is broken, and how it is made again."""

    what: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.what}; {self.remedy}"


@dataclass(frozen=True)
class _Steps:
    """How a zoo is made: each step makes what is missing, and nothing else."""

    prepare: Callable[[], None]
    train: Callable[[], None]
    assemble: Callable[[], None]


def repair(zoo: str, workspace: Workspace, *, dry_run: bool = False, threads: int | None = None) -> list[Repair]:
    """Look at all that belongs to a zoo of `params.yaml`, and make again what is broken; what is whole stays.

    Broken are images that do not match their hash, artifacts of runs that are missing, truncated or altered, a list of
    members that can't be read, a packed zoo that `verify` finds damaged, and copies of these in DVC's cache and on its
    remote that do not match their hash. A member that is trained again from its record has the same weights, bit for
    bit, so the zoo does not change. Single files that DVC has a good copy of are taken from it rather than made. With
    `dry_run` nothing is done.

    Raises:
        NotFoundError: the zoo is not described in `params.yaml`, so that there is nothing to make it from.
        TrackingError: the tracking store can't be used, or the zoo is in training.
        FormatError: DVC can't read the project.
        WeightzooError: a step can't be done; what the steps before it made stays.
    """
    params = load_params(workspace.params)
    steps = _steps(zoo, params, workspace, threads)
    done: list[Repair] = []

    def mend(broken: list[str], remedy: str, *how: Callable[[], None]) -> None:
        done.extend(Repair(what, remedy) for what in broken)
        if broken and not dry_run:
            for step in how:
                step()

    images, members, packed = workspace.data(zoo), workspace.manifest(zoo), workspace.zoo(zoo)
    with kept_files(workspace.root, images, members, packed) as kept:

        def mend_folder(folder: Path, look: Callable[[], list[str]], remedy: str, step: Callable[[], None]) -> None:
            broken = look()
            if broken and kept is not None and kept.restorable(folder):
                mend(broken, "taken from what DVC keeps", partial(kept.restore, folder))
                broken = [] if dry_run else look()
            mend(broken, remedy, step)

        mend_folder(images, lambda: _images(images), "prepared again", steps.prepare)
        store = RunStore()
        with progress(f"repair {zoo}", unit="runs") as report:
            damaged = damaged_runs(store, zoo, report)
        remedy = "deleted, and its member trained again"
        mend([str(damage) for damage in damaged], remedy, lambda: delete_runs(store, zoo, damaged), steps.train)
        if _is_trained(zoo, params):
            mend(_members(members), "listed again", steps.train)
        mend_folder(packed, lambda: _packed(packed), "packed again", steps.assemble)
        done += _kept(kept, dry_run=dry_run)
    return done


def _steps(zoo: str, params: Params, workspace: Workspace, threads: int | None) -> _Steps:
    if _is_trained(zoo, params):
        from weightzoo.stages.assemble import assemble
        from weightzoo.stages.prepare import prepare
        from weightzoo.stages.train import train

        return _Steps(
            lambda: prepare(zoo, workspace),
            lambda: train(zoo, workspace, threads=threads),
            lambda: assemble(zoo, workspace),
        )
    if zoo in params.finetune:
        from weightzoo.stages.finetune import finetune

        return _Steps(*[lambda: finetune(zoo, workspace, threads=threads)] * 3)
    if zoo in params.sparsify or zoo.endswith("-sparse"):
        from weightzoo.stages.sparsify import sparsify

        source = zoo if zoo in params.sparsify else zoo.removesuffix("-sparse")
        return _Steps(*[lambda: sparsify(source, workspace, threads=threads)] * 3)
    raise NotFoundError(
        f"params.yaml does not describe a zoo {zoo!r}, so it can't be made again from its description; "
        "import or pull it again"
    )


def _is_trained(zoo: str, params: Params) -> bool:
    """Whether the zoo has a section below `zoos`, or is the rehearsal of one."""
    return zoo in params.zoos or (zoo.endswith(SUFFIX) and zoo.removesuffix(SUFFIX) in params.zoos)


def _images(folder: Path) -> list[str]:
    try:
        ImageData.load(folder)
    except (FormatError, MissingError) as error:
        return [str(error)]
    return []


def _members(manifest: Path) -> list[str]:
    try:
        read_manifest(manifest)
    except (FormatError, MissingError) as error:
        return [str(error)]
    return []


def _packed(folder: Path) -> list[str]:
    try:
        findings = verify_zoo(folder, sample=0)
    except MissingError as error:
        return [str(error)]
    return [finding.message for finding in findings if finding.severity == "error"]


def _kept(kept: KeptFiles | None, *, dry_run: bool) -> list[Repair]:
    """DVC's copies, mended last: from files that are whole by now."""
    if kept is None:
        return []

    def repaired(damaged: DamagedObject) -> Repair:
        if dry_run or kept.mend(damaged):
            return Repair(str(damaged), "replaced by a good copy")
        return Repair(str(damaged), "no good copy is left: build the zoo again and `dvc commit` it, or delete the file")

    return [repaired(damaged) for damaged in kept.damaged()]
