"""Files that the project reads, damaged at random: every command says so in one line that names the file, or is right.

    python -m tests.chaos.corruption [--trials 1000] [--seed 0]

A trial damages one file of a copy of a small project, and runs the commands that read it. A command must either end well
and give exactly what it gives in the whole project, or end with exit code 1 and one line that names the file (`verify`
with one a finding). A traceback, a warning in place of an error, or any other output is a failure. `verify` must notice
whatever was altered of a packed zoo. `repair` must name and mend what it looks at: behind it every file of the project
is what it was, and every member has one finished run.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tests.chaos.projects import (
    ASSEMBLE,
    QUERY,
    REPORT,
    TRAIN,
    Command,
    Outcome,
    Projects,
    artifacts,
    hashes,
    outcome,
    succeed,
)  # fmt: skip

RUNS = "mlruns/artifacts/*/*/artifacts"

ROWS_ALONE = "provenance.parquet"  # its checksum is of its rows: bits that change none may go unnoticed

VERIFY, INSPECT = ("verify", "a"), ("inspect", "zoos/a", "--json")
REPAIR, LOOK = ("repair", "a"), ("repair", "a", "--dry-run")


@dataclass(frozen=True)
class Victim:
    """A kind of file, and the commands that read it."""

    pattern: str
    commands: tuple[Command, ...]
    project: str = "built"  # the state of the project: see `Projects`
    may_change: bool = False  # a text that people write: altered, it may say something else
    found_by: Command | None = None  # the command that must end with 1 whatever was altered
    mended_by: Command | None = None  # the command behind which all is as before


VICTIMS = (
    Victim("data/a/images.safetensors", (ASSEMBLE, VERIFY), mended_by=REPAIR),
    Victim(f"{RUNS}/checkpoints/*.safetensors", (ASSEMBLE, ("checkpoint", "RUN", "--epoch", "2")), mended_by=REPAIR),
    Victim(f"{RUNS}/metrics.safetensors", (ASSEMBLE,), mended_by=REPAIR),
    Victim("zoos/a/weights-00000.safetensors", (VERIFY, REPORT), found_by=VERIFY, mended_by=REPAIR),
    Victim("zoos/a/probe-00000.safetensors", (VERIFY, REPORT), found_by=VERIFY, mended_by=REPAIR),
    Victim("zoos/a/*.parquet", (VERIFY, REPORT, INSPECT), found_by=VERIFY, mended_by=REPAIR),
    Victim("zoos/a/zoo.json", (VERIFY, REPORT, INSPECT), found_by=VERIFY, mended_by=REPAIR),
    Victim("zoos/a.members.json", (ASSEMBLE,), mended_by=REPAIR),
    Victim("params.yaml", (("plan", "a", "--no-calibrate"),), may_change=True),
    Victim("reports/a/methods.json", (REPORT,)),
    Victim("reports/a/analysis.json", (REPORT,)),
    Victim("reports/a/analysis/*.csv", (REPORT,)),
    Victim("mlruns/mlflow.db", (ASSEMBLE, QUERY)),
    Victim("mlruns/.cache/*.mirror", (QUERY,)),
    Victim("cache/weightzoo/lanes/*.o", (("retrain", "RUN"),)),
    Victim("mlruns/.resume/a/*/*.safetensors", (), project="interrupted", mended_by=TRAIN),
    Victim("dvc.lock", (LOOK,), project="kept", may_change=True),
    Victim(".dvc/cache/files/md5/*/*", (), project="kept", mended_by=REPAIR),
    Victim("remote/files/md5/*/*", (), project="kept", mended_by=REPAIR),
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


def trial(projects: Projects, victim: Victim, random: np.random.Generator) -> tuple[str, list[str]]:
    """One file, damaged in one way: what was done, and what is wrong with how the commands took it."""
    whole = getattr(projects, victim.project)
    files = sorted(file.relative_to(whole) for file in whole.glob(victim.pattern) if file.is_file())
    if not files:
        raise RuntimeError(f"the project has no {victim.pattern}")
    file = files[random.integers(len(files))]
    damage = DAMAGES[random.integers(len(DAMAGES))]
    content = (whole / file).read_bytes()
    altered = damage(content, random)
    if altered == content:
        return "nothing", []
    wrong: list[str] = []
    for command in dict.fromkeys((*victim.commands, *filter(None, (victim.found_by, victim.mended_by)))):
        called = tuple(_run_of(whole, file) if word == "RUN" else word for word in command)
        expected = projects.expected(victim.project, called)
        with projects.copy(victim.project) as folder:
            replace(folder / file, altered)
            found = outcome(called)
            if command == victim.mended_by:
                goal = projects.built if victim.project == "interrupted" else whole
                told = left_over(found, file, goal, names=command == REPAIR and file.name != ROWS_ALONE)
            else:
                told = faults(found, expected, file, may_change=victim.may_change)
            if command == victim.found_by and found.code != 1 and file.name != ROWS_ALONE:
                told.append("did not notice")
        wrong += [f"{damage.__name__} of {file}: {' '.join(called)}: {fault}" for fault in told]
    return damage.__name__, wrong


def replace(file: Path, content: bytes) -> None:
    """Alter a file, and no other that it is linked to; its permissions stay, which DVC goes by."""
    mode = file.stat().st_mode
    file.unlink()
    file.write_bytes(content)
    file.chmod(mode)


def faults(found: Outcome, expected: Outcome, file: Path, *, may_change: bool) -> list[str]:
    """What is wrong with how a command took a damaged file."""
    if found.code == 0:
        same = {name: content for name, content in found.made.items() if name != str(file)} == {
            name: content for name, content in expected.made.items() if name != str(file)
        }
        if may_change or (same and found.printed == expected.printed):
            return []
        return [f"ended well with another result: {found.said!r} {found.printed[-200:]!r} {sorted(found.made)}"]
    if found.code != 1:
        return [f"exit code {found.code}: {found.said!r}"]
    lines = found.lines() or found.printed.strip().splitlines()
    if not may_change and file.name not in found.said + found.printed:
        return [f"does not name the file: {lines}"]
    errors = [line for line in lines if line.startswith("error:")]
    if found.said and (len(errors) != 1 or (lines[-1] != errors[0] and not may_change)):
        return [f"not one line: {lines}"]
    return []


def left_over(found: Outcome, file: Path, goal: Path, *, names: bool) -> list[str]:
    """What a command that mends has left broken, in comparison with a whole project."""
    if found.code:
        return [f"did not mend it: {found.said!r} {found.printed!r}"]
    wrong = [] if not names or file.name in found.printed else [f"does not name the file: {found.said!r}"]
    if not Path("zoos/a").exists():
        succeed(ASSEMBLE)
    now, before = hashes(Path()), hashes(goal)
    wrong += [f"{name} is not what it was" for name in sorted(before) if now.get(name) != before[name]]
    if artifacts(Path()) != artifacts(goal):
        wrong.append("runs are not what they were")
    return wrong


def _run_of(project: Path, file: Path) -> str:
    """The id of the run that an artifact belongs to; of another file, of the first run."""
    if file.parts[:2] == ("mlruns", "artifacts"):
        return file.parts[3]
    return min(path.name for path in project.glob("mlruns/artifacts/*/*"))


def trials(count: int, seed: int, database: Path | None = None) -> Generator[tuple[str, list[str]]]:
    """That many damaged files, by turns of each kind, drawn from a seed."""
    random = np.random.default_rng(seed)
    with tempfile.TemporaryDirectory(prefix="chaos-") as folder:
        projects = Projects(Path(folder).resolve(), database)
        for number in range(count):
            victim = VICTIMS[number % len(VICTIMS)]
            damage, wrong = trial(projects, victim, random)
            yield f"{victim.pattern} {damage}", wrong


def main(arguments: list[str] | None = None) -> int:
    """Run trials, print what was wrong; 1 if anything was."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.chaos.corruption", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    done, wrong, began = Counter[str](), list[str](), time.monotonic()
    for what, faulty in trials(given.trials, given.seed):
        done[what] += 1
        wrong += faulty
        for one in faulty:
            print(one, file=sys.stderr, flush=True)
    for what, times in sorted(done.items()):
        print(f"{times:>5}  {what}")
    print(f"{sum(done.values())} damaged files, {len(wrong)} taken wrongly, {time.monotonic() - began:.0f} s")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
