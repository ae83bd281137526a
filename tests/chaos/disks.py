"""Disks that are full and files that can't be written: an error of one line that says so, and nothing lost.

    python -m tests.chaos.disks [--trials 12] [--seed 0]

A zoo is built on a disk of its own that is too small by a random share of what a build needs (a tmpfs; where none can be
mounted, a limit to the size of any file stands in for it), or with a part of the project read-only (by `chattr`, which
holds for root too). The command must end with one line; with room, or permission, the same commands then end in the
same bytes.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator
from pathlib import Path

from tests.chaos.kills import fingerprint

PARAMS = {
    "build": ["a"],
    "datasets": {"digits": {"train": 100, "val": 20, "test": 60}},
    "zoos": {
        "a": {
            "dataset": "digits",
            "architecture": "cnn-s",
            "configuration": {"kind": "seed", "seeds": {"first": 1, "count": 16}},
            "training": {"epochs": 10},
        }
    },
}
STEPS = ("prepare", "train", "assemble")
LARGE = 200_000_000  # bytes of a disk with room
READ_ONLY = (".", "data", "data/a", "zoos", "zoos/a", "mlruns", "mlruns/artifacts", "mlruns/mlflow.db")


def build(folder: Path, *, limit: int | None = None) -> tuple[str, int, str] | None:
    """All steps, each in a process of its own: of one that fails the name, exit code and what it said; else None."""

    def confine() -> None:
        if limit is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    environment = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    environment |= {"XDG_CACHE_HOME": str(folder / "cache"), "HOME": str(folder), "COLUMNS": "1000"}
    for step in STEPS:
        done = subprocess.run(
            ["weightzoo", step, "a"],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            preexec_fn=confine,
            timeout=300,
        )
        if done.returncode:
            return step, done.returncode, done.stderr
    return None


def new_project(folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    (folder / "params.yaml").write_text(json.dumps(PARAMS))


@contextlib.contextmanager
def small_disk(folder: Path) -> Generator[Callable[[int], None]]:
    """A tmpfs at the folder, and what sets its size in bytes."""
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={LARGE}", "none", str(folder)], check=True)
    try:
        yield lambda size: void(["mount", "-o", f"remount,size={size}", str(folder)])
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def void(command: list[str]) -> None:
    subprocess.run(command, check=True)


def can_mount() -> bool:
    with tempfile.TemporaryDirectory(prefix="disk-") as parent:
        try:
            with small_disk(Path(parent, "disk")):
                return True
        except (OSError, subprocess.CalledProcessError):
            return False


def is_one_line(told: tuple[str, int, str], words: tuple[str, ...]) -> list[str]:
    """What is wrong with how a command said that it could not write."""
    step, code, said = told
    lines = said.strip().splitlines()
    errors = [line for line in lines if line.startswith("error:")]
    if code != 1 or len(errors) != 1 or lines[-1] != errors[0]:
        return [f"{step} ended with {code} and said: {said[-1500:]!r}"]
    if not any(word in errors[0].lower() for word in words):
        return [f"{step} does not say why: {errors[0]!r}"]
    return []


FULL = ("no space", "full", "too large", "disk i/o", "quota")
REFUSED = ("permi", "can't be written", "readonly", "read-only")


def full_disk(parent: Path, share: float, expected: dict[str, str], used: int, *, mount: bool) -> list[str]:
    """A build with a share of the room that it needs, then with enough."""
    folder = parent / "disk"
    if not mount:
        new_project(folder)
        told = build(folder, limit=max(4096, int(share * largest(parent / "whole"))))
        return _gone_on(folder, told, FULL, expected)
    with small_disk(folder) as resize:
        new_project(folder)
        resize(max(200_000, int(share * used)))
        told = build(folder)
        resize(LARGE)
        return _gone_on(folder, told, FULL, expected)


def read_only(parent: Path, name: str, expected: dict[str, str], step: int) -> list[str]:
    """A build where a part of a project that was built before can't be written, then one where it can."""
    folder = shutil.copytree(parent / "whole", parent / "disk")
    if step and name != "zoos/a":
        shutil.rmtree(folder / "zoos" / "a")  # something is left to do
    place = folder / name
    frozen = [place, *(place.iterdir() if place.is_dir() and place != folder else ())]
    freeze(frozen)
    try:
        told = build(folder)
    finally:
        freeze(frozen, "-i")
    return _gone_on(folder, told, REFUSED, expected)


def freeze(paths: list[Path], how: str = "+i") -> None:
    """Make files and folders such that not even root can write them, or as before."""
    subprocess.run(["chattr", how, *map(str, paths)], check=True, capture_output=True)


def can_freeze() -> bool:
    with tempfile.TemporaryDirectory(prefix="disk-") as folder:
        try:
            freeze([Path(folder)])
            freeze([Path(folder)], "-i")
            return True
        except (OSError, subprocess.CalledProcessError):
            return False


def _gone_on(
    folder: Path, told: tuple[str, int, str] | None, words: tuple[str, ...], expected: dict[str, str]
) -> list[str]:
    wrong = [] if told is None else is_one_line(told, words)
    again = build(folder)
    if again is not None:
        return [*wrong, f"did not go on: {again}"]
    if fingerprint(folder) != expected:
        wrong.append("the zoo is another one")
    return wrong


def largest(folder: Path) -> int:
    return max(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def main(arguments: list[str] | None = None) -> int:
    """Run trials, print what was wrong; 1 if anything was."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.disks", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--trials", type=int, default=12)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    draw, began = random.Random(given.seed), time.monotonic()
    wrong: list[str] = []
    mount, frozen = can_mount(), can_freeze()
    if not mount:
        print("no tmpfs can be mounted here: the size of files is limited instead")
    if not frozen:
        print("read-only files are left out: chattr does not work here")
    with tempfile.TemporaryDirectory(prefix="disks-") as temporary:
        parent = Path(temporary)
        new_project(parent / "whole")
        if (told := build(parent / "whole")) is not None:
            raise RuntimeError(told[2])
        expected = fingerprint(parent / "whole")
        used = sum(path.stat().st_blocks * 512 for path in (parent / "whole").rglob("*") if path.is_file())
        for number in range(given.trials):
            if frozen and number % 2:
                name = READ_ONLY[number // 2 % len(READ_ONLY)]
                what, faults = f"read-only {name}", read_only(parent, name, expected, draw.randrange(2))
            else:
                share = draw.uniform(0, 1)
                what, faults = f"{share:.0%} of the room", full_disk(parent, share, expected, used, mount=mount)
            for fault in faults:
                wrong.append(f"{what}: {fault}")
                print(wrong[-1], file=sys.stderr, flush=True)
            shutil.rmtree(parent / "disk", ignore_errors=True)
    print(f"{given.trials} disks that were full or read-only: {len(wrong)} faults, {time.monotonic() - began:.0f} s")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
