"""Builds that are killed at random moments, again and again: what comes out is as if nothing had happened.

    python -m tests.chaos.kills [--kills 200] [--seed 0]

`weightzoo train` and `assemble` run in processes of their own that are killed (SIGKILL, no chance to clean up) after a
random share of the time that they take undisturbed, until the zoo is there; then the next zoo is begun. Each zoo must
have the bytes of the one that was built undisturbed, and exactly one finished run a member.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PARAMS = {
    "build": ["a"],
    "datasets": {"digits": {"train": 800, "val": 20, "test": 60}},
    "zoos": {
        "a": {
            "dataset": "digits",
            "architecture": "cnn-s",
            "configuration": {"kind": "grid", "seeds": {"first": 1, "count": 8}},
            "factors": {"activation": ["tanh", "relu"], "optimizer": ["adam", "sgd"], "dropout": [0, 0.5]},
            "training": {"epochs": 12},
        }
    },
}
MEMBERS = 64
STEPS = (("prepare", "a"), ("train", "a"), ("assemble", "a"))


def build(folder: Path, seconds: float | None) -> bool:
    """Run all steps; killed after that many seconds, unless they are through before. Whether they are."""
    end = None if seconds is None else time.monotonic() + seconds
    for step in STEPS:
        with (folder / "log").open("ab") as log:
            process = subprocess.Popen(["weightzoo", *step], cwd=folder, stdout=log, stderr=log, start_new_session=True)
        try:
            code = process.wait(None if end is None else max(0.0, end - time.monotonic()))
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            return False
        if code:
            raise RuntimeError(f"weightzoo {' '.join(step)} ended with {code}: {(folder / 'log').read_text()[-2000:]}")
    return True


def fingerprint(folder: Path) -> dict[str, str]:
    """Hashes of the zoo and the list of its members."""
    files = [*(folder / "zoos" / "a").iterdir(), folder / "zoos" / "a.members.json"]
    return {
        file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files if file.name != "provenance.parquet"
    }


def runs(folder: Path) -> list[tuple[str, str]]:
    """Status and member of each run that is not deleted, by plain SQL."""
    query = (
        "SELECT r.status, t.value FROM runs r JOIN tags t ON t.run_uuid = r.run_uuid AND t.key = 'weightzoo.member' "
        "WHERE r.lifecycle_stage = 'active'"
    )
    with contextlib.closing(sqlite3.connect(folder / "mlruns" / "mlflow.db")) as database:
        return database.execute(query).fetchall()


def made(parent: Path, name: str) -> Path:
    """A new project folder."""
    folder = parent / name
    folder.mkdir()
    (folder / "params.yaml").write_text(json.dumps(PARAMS))
    return folder


def faults(folder: Path, expected: dict[str, str]) -> list[str]:
    """What differs from an undisturbed build."""
    found, listed = fingerprint(folder), runs(folder)
    wrong = [
        f"{name} differs" for name in sorted(expected.keys() | found.keys()) if expected.get(name) != found.get(name)
    ]
    if {status for status, _ in listed} != {"FINISHED"}:
        wrong.append(f"runs are {sorted({status for status, _ in listed})}")
    if len(listed) != MEMBERS or len({member for _, member in listed}) != MEMBERS:
        wrong.append(f"{len(listed)} runs of {len({member for _, member in listed})} members, expected {MEMBERS}")
    return wrong


def main(arguments: list[str] | None = None) -> int:
    """Kill, print what was wrong; 1 if anything was."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.kills", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    draw = random.Random(given.seed)
    os.environ.pop("MLFLOW_TRACKING_URI", None)
    killed, zoos, wrong = 0, 0, list[str]()
    with tempfile.TemporaryDirectory(prefix="kills-") as temporary:
        whole = made(Path(temporary), "undisturbed")
        start = time.monotonic()
        build(whole, None)
        seconds = time.monotonic() - start
        expected = fingerprint(whole)
        while killed < given.kills:
            folder = made(Path(temporary), f"zoo-{zoos}")
            while killed < given.kills and not build(folder, draw.uniform(0, 1.1) * seconds):
                killed += 1
            build(folder, None)
            zoos += 1
            wrong += [f"{folder.name}: {fault}" for fault in faults(folder, expected)]
            for fault in wrong:
                print(fault, file=sys.stderr, flush=True)
    print(f"{killed} kills in {zoos} builds of {MEMBERS} models, {seconds:.1f} s each undisturbed; {len(wrong)} faults")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
