"""Builds in which something is killed at random moments, again and again: what comes out is as if nothing had happened.

    python -m tests.chaos.kills [--kills 200] [--seed 0] [--on local servers ray]

`weightzoo train` and `assemble` run in processes of their own. On a schedule that is drawn from the seed, one of them is
killed (SIGKILL, no chance to clean up) and begun again, or what it needs is: a worker of the Ray cluster, the tracking
server, PostgreSQL, the S3 server. Each zoo must have the bytes of the one that was built undisturbed in one process, one
finished run a member, and every point of every metric once.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests.chaos.sites import POINTS, RUNS, SITES, Local, Site

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
STEPS = ("prepare", "train", "assemble")
SHARES = {"local": 0.6, "servers": 0.25, "ray": 0.15}  # of the kills
TRAINER = "trainer"
AT_MOST = 12  # kills a build
PATIENCE = 20  # times the undisturbed time, and five minutes: then a build hangs


class Builder:
    """Builds at a site, and kills meanwhile."""

    def __init__(self, site: Site, draw: random.Random) -> None:
        self.site, self.draw = site, draw
        self.killed = Counter[str]()
        self.zoos, self.seconds = 0, 0.0

    def undisturbed(self, parent: Path) -> Path:
        """A first build, timed."""
        start = time.monotonic()
        folder = self._build(parent, 0)
        self.seconds = time.monotonic() - start
        return folder

    def disturbed(self, parent: Path, left: int) -> Path:
        """A build with at least one kill, and at most `left`."""
        return self._build(parent, self.draw.randint(1, min(AT_MOST, left)))

    def _build(self, parent: Path, kills: int) -> Path:
        folder = parent / f"{self.site.name}-{self.zoos}"
        self.zoos += 1
        folder.mkdir()
        (folder / "params.yaml").write_text(json.dumps(PARAMS))
        self.site.begin(folder)
        end = time.monotonic() + PATIENCE * self.seconds + 300
        due = self._next_kill()
        for step in STEPS:
            process, struck = self._start(step, folder), False
            try:
                while (code := process.poll()) is None or (code and struck and _found_no_server(folder)):
                    if code:  # what is not there when a command begins is not waited for: a person begins again
                        process, struck = self._start(step, folder), False
                    if time.monotonic() > end:
                        raise RuntimeError(f"weightzoo {step} hangs in {folder}: {_log(folder)}")
                    if kills and time.monotonic() >= due:
                        if victim := self._kill(process):
                            self.killed[victim] += 1
                            kills -= 1
                            struck = struck or victim != TRAINER
                        if process.poll() == -signal.SIGKILL:
                            process = self._start(step, folder)
                        due = self._next_kill()
                    time.sleep(0.01)
            finally:
                if process.poll() is None:
                    _kill_group(process)
            if code:
                raise RuntimeError(f"weightzoo {step} ended with {code} in {folder}: {_log(folder)}")
        return folder

    def _next_kill(self) -> float:
        return time.monotonic() + self.draw.uniform(0, 0.4) * self.seconds

    def _kill(self, process: subprocess.Popen[bytes]) -> str | None:
        """Kill something; None if that is not there at the moment."""
        victims = self.site.victims()
        chosen = self.draw.choice([TRAINER, *sorted(victims) * 2])  # the trainer has a site of its own
        if chosen != TRAINER:
            return chosen if victims[chosen](self.draw) else None
        _kill_group(process)
        return chosen

    def _start(self, step: str, folder: Path) -> subprocess.Popen[bytes]:
        options = self.site.options if step == "train" else ()
        environment = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
        with (folder / "log").open("ab") as log:
            return subprocess.Popen(
                ["weightzoo", step, "a", *options],
                cwd=folder,
                stdout=log,
                stderr=log,
                env=environment | dict(self.site.environment()),
                start_new_session=True,
            )


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _found_no_server(folder: Path) -> bool:
    return "no tracking server answers" in _log(folder).strip().rpartition("\n")[2]


def _log(folder: Path) -> str:
    return (folder / "log").read_text(errors="replace")[-2000:]


def fingerprint(folder: Path) -> dict[str, str]:
    """Hashes of the zoo and the list of its members."""
    files = [*(folder / "zoos" / "a").iterdir(), folder / "zoos" / "a.members.json"]
    return {
        file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files if file.name != "provenance.parquet"
    }


def faults(site: Site, folder: Path, expected: dict[str, str], points: object) -> list[str]:
    """What differs from an undisturbed build."""
    found, listed = fingerprint(folder), site.ask(RUNS)
    wrong = [
        f"{name} differs" for name in sorted(expected.keys() | found.keys()) if expected.get(name) != found.get(name)
    ]
    statuses, members = {status for status, _ in listed}, {member for _, member in listed}
    if statuses != {"FINISHED"}:
        wrong.append(f"runs are {sorted(map(str, statuses))}")
    if len(listed) != MEMBERS or len(members) != MEMBERS:
        wrong.append(f"{len(listed)} runs of {len(members)} members, expected {MEMBERS}")
    if (counted := site.ask(POINTS)) != points:
        wrong.append(f"{counted} points of metrics, expected {points}")
    if "Traceback" in (log := (folder / "log").read_text(errors="replace")):
        wrong.append(f"a traceback: {log[log.index('Traceback') :][:1000]}")
    return wrong


def main(arguments: list[str] | None = None) -> int:
    """Kill, print what was wrong; 1 if anything was."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.kills", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    names = [site.name for site in SITES]
    parser.add_argument("--on", nargs="+", choices=names, default=names, help="default: all that can run here")
    given = parser.parse_args(arguments)
    chosen: list[type[Site]] = []
    for site in SITES:
        if site.name in given.on:
            if (missing := site.missing()) is None:
                chosen.append(site)
            else:
                print(f"{site.name}: left out: {missing}")
    total, wrong, began = Counter[str](), list[str](), time.monotonic()
    with tempfile.TemporaryDirectory(prefix="kills-") as temporary:
        parent = Path(temporary)
        (parent / "whole").mkdir()
        whole = Builder(Local(parent), random.Random(0))
        expected = fingerprint(whole.undisturbed(parent / "whole"))
        points = whole.site.ask(POINTS)
        left = given.kills
        for number, kind in enumerate(chosen):
            share = SHARES[kind.name] / sum(SHARES[site.name] for site in chosen[number:])
            wanted = round(left * share)
            killed, faulty = _at(kind, parent, wanted, given.seed, expected, points)
            total += killed
            wrong += faulty
            left -= sum(killed.values())
    by_victim = ", ".join(f"{name} {count}" for name, count in sorted(total.items()))
    print(
        f"{sum(total.values())} kills ({by_victim}) in builds of {MEMBERS} models: {len(wrong)} faults, "
        f"{time.monotonic() - began:.0f} s"
    )
    return int(bool(wrong))


def _at(
    kind: type[Site], parent: Path, kills: int, seed: int, expected: dict[str, str], points: object
) -> tuple[Counter[str], list[str]]:
    """So many kills at a site, and what was wrong with the zoos that came out."""
    wrong: list[str] = []
    place = parent / f"{kind.name}-site"
    place.mkdir()
    with kind(place) as site:
        builder = Builder(site, random.Random(f"{seed} {kind.name}"))

        def check(folder: Path) -> None:
            for fault in faults(site, folder, expected, points):
                wrong.append(f"{folder.name}: {fault}")
                print(wrong[-1], file=sys.stderr, flush=True)

        check(builder.undisturbed(parent))
        while (done := sum(builder.killed.values())) < kills:
            try:
                check(builder.disturbed(parent, kills - done))
            except RuntimeError as error:
                wrong.append(str(error))
                print(wrong[-1], file=sys.stderr, flush=True)
                if len(wrong) > 10:
                    break
    print(
        f"{kind.name}: {sum(builder.killed.values())} kills in {builder.zoos - 1} builds, {builder.seconds:.1f} s each "
        f"undisturbed, {len(wrong)} faults",
        flush=True,
    )
    return builder.killed, wrong


if __name__ == "__main__":
    sys.exit(main())
