"""Files that the project reads, damaged at random: every command says so in one line that names the file, or is right.

    python -m tests.chaos.corruption [--trials 1000] [--seed 0]

A trial damages one file of a small zoo that was built, runs the commands that read it, and puts the file back. A command
must either end well and give exactly what it gives on the undamaged zoo, or end with exit code 1 and one line that names
the file (`verify` with one a finding). A traceback, a warning in place of an error, or any other output is a failure.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import io
import json
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tests.conftest import run

PARAMS = {
    "build": ["a"],
    "datasets": {"digits": {"train": 60, "val": 20, "test": 60}},
    "zoos": {
        "a": {
            "dataset": "digits",
            "architecture": "cnn-s",
            "configuration": {"kind": "seed", "seeds": {"first": 1, "count": 4}},
            "training": {"epochs": 2},
        }
    },
}
VERIFY, ASSEMBLE, REPORT = ("verify", "a"), ("assemble", "a"), ("report", "a")


@dataclass(frozen=True)
class Victim:
    """A kind of file, and the commands that read it."""

    pattern: str
    commands: tuple[tuple[str, ...], ...]
    may_change: bool = False  # a text that people write: altered, it may say something else


VICTIMS = (
    Victim("data/a/images.safetensors", (ASSEMBLE, VERIFY)),
    Victim(
        "mlruns/artifacts/*/*/artifacts/checkpoints/*.safetensors", (ASSEMBLE, ("checkpoint", "RUN", "--epoch", "2"))
    ),
    Victim("mlruns/artifacts/*/*/artifacts/metrics.safetensors", (ASSEMBLE,)),
    Victim("zoos/a/weights-00000.safetensors", (VERIFY, REPORT)),
    Victim("zoos/a/probe-00000.safetensors", (VERIFY, REPORT)),
    Victim("zoos/a/*.parquet", (VERIFY, REPORT, ("inspect", "zoos/a", "--json"))),
    Victim("zoos/a/zoo.json", (VERIFY, REPORT, ("inspect", "zoos/a", "--json"))),
    Victim("zoos/a.members.json", (ASSEMBLE,)),
    Victim("params.yaml", (("plan", "a", "--no-calibrate"),), may_change=True),
)


def flip_a_bit(content: bytes, random: np.random.Generator) -> bytes:
    altered = bytearray(content)
    altered[random.integers(len(content))] ^= 1 << int(random.integers(8))
    return bytes(altered)


def truncate(content: bytes, random: np.random.Generator) -> bytes:
    return content[: random.integers(len(content))]


def append(content: bytes, random: np.random.Generator) -> bytes:
    return content + random.bytes(int(random.integers(1, 100)))


def blank_a_block(content: bytes, random: np.random.Generator) -> bytes:
    """As a disk does that loses a sector."""
    start = int(random.integers(len(content)))
    stop = min(start + 512, len(content))
    return content[:start] + bytes(stop - start) + content[stop:]


def scramble(content: bytes, random: np.random.Generator) -> bytes:
    start = int(random.integers(len(content)))
    return content[:start] + random.bytes(min(64, len(content) - start)) + content[start + 64 :]


DAMAGES: tuple[Callable[[bytes, np.random.Generator], bytes], ...] = (
    flip_a_bit, flip_a_bit, flip_a_bit, truncate, append, blank_a_block, scramble,
)  # fmt: skip


@dataclass(frozen=True)
class Outcome:
    """What a command did: exit code, what it said and printed, and the zoo and report that lie there then."""

    code: int
    said: str
    printed: str
    made: dict[Path, str]  # hashes of their files


class Project:
    """A small project that was built, in the current folder."""

    def __init__(self) -> None:
        Path("params.yaml").write_text(json.dumps(PARAMS, indent=1))
        for verb in ("prepare", "train", "assemble", "report"):
            code, said = run(verb, "a")
            if code:
                raise RuntimeError(said)
        self._whole = {path: path.read_bytes() for path in self._files()}
        self._expected: dict[tuple[str, ...], Outcome] = {}

    def trial(self, victim: Victim, random: np.random.Generator) -> tuple[str, list[str]]:
        """One file, damaged in one way: what was done, and what is wrong with how the commands took it."""
        files = sorted(Path().glob(victim.pattern))
        file = files[random.integers(len(files))]
        damage = DAMAGES[random.integers(len(DAMAGES))]
        content = file.read_bytes()
        altered = damage(content, random)
        if altered == content:
            return "nothing", []
        wrong: list[str] = []
        for command in victim.commands:
            called = tuple(_run_of(file) if word == "RUN" else word for word in command)
            expected = self._undamaged(called)
            file.unlink()
            file.write_bytes(altered)
            wrong += [
                f"{damage.__name__} of {file}: {' '.join(called)}: {fault}"
                for fault in faults(self._run(called), expected, file, may_change=victim.may_change)
            ]
            self._restore()
        return damage.__name__, wrong

    def _undamaged(self, command: tuple[str, ...]) -> Outcome:
        if command not in self._expected:
            self._expected[command] = self._run(command)
            self._restore()
        return self._expected[command]

    def _run(self, command: tuple[str, ...]) -> Outcome:
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            try:
                code, said = run(*command)
            except BaseException as error:
                code, said = -1, f"{type(error).__name__}: {error}"
        files = [*Path("zoos/a").glob("*"), *Path("reports/a").rglob("*")]
        made = {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in files if path.is_file()}
        made.pop(Path("zoos/a/provenance.parquet"), None)
        return Outcome(code, said, printed.getvalue(), made)

    def _restore(self) -> None:
        for path in self._files() - self._whole.keys():
            path.unlink()
        for path, content in self._whole.items():
            if not path.is_file() or path.read_bytes() != content:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.unlink(missing_ok=True)
                path.write_bytes(content)

    @staticmethod
    def _files() -> set[Path]:
        """All but the database, which MLflow keeps open."""
        return {path for path in Path().rglob("*") if path.is_file() and not path.name.startswith("mlflow.db")}


def faults(found: Outcome, expected: Outcome, file: Path, *, may_change: bool) -> list[str]:
    """What is wrong with how a command took a damaged file."""
    if found.code == 0:
        found.made.pop(file, None)
        made = {path: content for path, content in expected.made.items() if path != file}
        if may_change or (found.printed, found.made) == (expected.printed, made):
            return []
        return [f"ended well with another result: {found.said!r} {found.printed[-200:]!r}"]
    lines = (found.said or found.printed).strip().splitlines()
    if found.code != 1:
        return [f"exit code {found.code}: {found.said!r}"]
    if not may_change and not any(
        file.name in line or str(file) in line for line in [*lines, *found.printed.splitlines()]
    ):
        return [f"does not name the file: {lines}"]
    errors = [line for line in lines if line.startswith("error:")]
    if found.said and (len(errors) != 1 or (len(lines) > 1 and not may_change)):
        return [f"not one line: {lines}"]
    return []


def _run_of(file: Path) -> str:
    """The id of the run that an artifact belongs to."""
    return file.parts[3]


def trials(count: int, seed: int) -> Generator[tuple[str, list[str]]]:
    """That many damaged files, by turns of each kind, drawn from a seed; in the current folder, which is empty."""
    random = np.random.default_rng(seed)
    project = Project()
    for number in range(count):
        victim = VICTIMS[number % len(VICTIMS)]
        damage, wrong = project.trial(victim, random)
        yield f"{victim.pattern} {damage}", wrong


@contextlib.contextmanager
def own_folder() -> Generator[None]:
    """An empty folder as the current one, with a tracking store and a cache of its own."""
    before, environment = Path.cwd(), dict(os.environ)
    with tempfile.TemporaryDirectory(prefix="chaos-") as folder:
        os.chdir(folder)
        os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{folder}/mlruns/mlflow.db"
        try:
            yield
        finally:
            os.chdir(before)
            os.environ.clear()
            os.environ.update(environment)


def main() -> int:
    """Run trials, print what was wrong; 1 if anything was."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.chaos.corruption", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    done, wrong = Counter[str](), list[str]()
    with own_folder():
        for what, faulty in trials(given.trials, given.seed):
            done[what] += 1
            wrong += faulty
            for one in faulty:
                print(one, file=sys.stderr, flush=True)
    for what, times in sorted(done.items()):
        print(f"{times:>5}  {what}")
    print(f"{sum(done.values())} damaged files, {len(wrong)} taken wrongly")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
