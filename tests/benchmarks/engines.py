"""`make bench`: the engines against each other, into `reports/bench/engines.json` and `engines.md`.

    python -m tests.benchmarks.engines [--quick] [--output reports/bench]

All contestants of a case take turns in short rounds; a number is the median of its rounds, with the range beside it.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.metadata
import importlib.util
import json
import os
import platform
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from tests.benchmarks import whole
from tests.benchmarks.arena import Arena
from tests.benchmarks.cases import ARCHITECTURES, Case, multiply_adds, spread
from tests.benchmarks.contestants import CONTESTANTS, Lanes
from tests.benchmarks.peak import Peak
from weightzoo.training.lanes.compile import host_target

MEMBERS, IMAGES = 64, 640
SMALL, MEDIUM = "CNN(s) 1x28x28", "CNN(m) 3x32x32"


@dataclasses.dataclass(frozen=True)
class Effort:
    """How long to measure."""

    cases: tuple[tuple[str, int], ...]  # architecture, batch
    rounds: int
    seconds: float
    populations: tuple[int, ...]
    images: tuple[int, ...]
    whole_members: int
    whole_epochs: int


FULL = Effort(
    cases=tuple((name, batch) for name in ARCHITECTURES for batch in (10, 32, 128)),
    rounds=7,
    seconds=2.0,
    populations=(16, 64, 256, 1000),
    images=(1000, 5000, 20_000, 50_000),
    whole_members=256,
    whole_epochs=50,  # as long as the published zoos were trained
)
QUICK = Effort(
    cases=((SMALL, 10), (SMALL, 128), (MEDIUM, 10)),
    rounds=3,
    seconds=1.0,
    populations=(16, 64),
    images=(1000, 5000),
    whole_members=64,
    whole_epochs=2,
)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.engines", description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer cases and shorter rounds, about three minutes")
    parser.add_argument("--output", type=Path, default=Path("reports/bench"), help="where the two files go")
    arguments = parser.parse_args()
    effort = QUICK if arguments.quick else FULL
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    started = time.perf_counter()

    peak = Peak()
    contests = [
        record
        for name, batch in effort.cases
        for record in contest(Case(name, batch, MEMBERS, IMAGES), effort, cores, peak)
    ]
    scaling = scale(effort, cores)
    everything = whole.measure(effort.whole_members, effort.whole_epochs, cores)
    entire = {
        "contestant": "lanes, whole train",
        "architecture": whole.ARCHITECTURE,
        "batch": 10,
        "threads": cores,
        "members": effort.whole_members,
        "images": sum(whole.SPLITS.values()),
        "epochs": effort.whole_epochs,
        "model_samples_per_second": everything.everything,
        "training_only": everything.training,
        "share_of_training_only": everything.share,
    }
    arguments.output.mkdir(parents=True, exist_ok=True)
    write(arguments.output / "engines.json", json.dumps([*contests, *scaling, entire], indent=1) + "\n")
    report = markdown(contests, scaling, entire, effort, cores, time.perf_counter() - started)
    write(arguments.output / "engines.md", report)
    print(report)


def contest(case: Case, effort: Effort, cores: int, peak: Peak) -> list[dict[str, Any]]:
    """A record for each contestant of a case."""
    names = [name for name in CONTESTANTS if name != "jax vmap" or importlib.util.find_spec("jax")]
    say(f"{case.architecture}, batch {case.batch}: {', '.join(names)}")
    rates: dict[str, list[float]] = {name: [] for name in names}
    peaks: list[float] = []
    with Arena(case, names, cores) as arena:
        for _ in range(effort.rounds):
            for name, found in arena.rounds(1, effort.seconds).items():
                rates[name] += found
            peaks.append(peak.measure(cores))
    base = float(np.median(rates["reference loop"]))
    ceiling = float(np.median(peaks))
    records: list[dict[str, Any]] = []
    for name in names:
        median, low, high = spread(rates[name])
        records.append(
            {
                "contestant": name,
                "architecture": case.architecture,
                "batch": case.batch,
                "threads": cores,
                "members": cores if name == "reference loop" else case.members,
                "images": case.images,
                "rounds": effort.rounds,
                "model_samples_per_second": median,
                "minimum": low,
                "maximum": high,
                "ratio_to_reference": median / base,
                "share_of_peak": median * multiply_adds(case.graph) / ceiling if name == "lanes" else None,
                "peak_multiply_adds_per_second": ceiling,
                "ratio_at_peak": ceiling / multiply_adds(case.graph) / base if name == "lanes" else None,
            }
        )
        say(f"  {name}: {median:,.0f} ({low:,.0f} - {high:,.0f}), {median / base:.1f} x")
    return records


def scale(effort: Effort, cores: int) -> list[dict[str, Any]]:
    """The lanes kernels as the population grows, then as the data set does; sizes take turns."""
    grown = {("population", size): Case(SMALL, 10, size, 500) for size in effort.populations}
    grown |= {("images", size): Case(SMALL, 10, 32, size) for size in effort.images}
    contestants = {key: Lanes(case, cores) for key, case in grown.items()}
    rates: dict[tuple[str, int], list[float]] = {key: [] for key in contestants}
    for lanes in contestants.values():
        lanes.train(0.1)
    for _ in range(effort.rounds):
        for key, lanes in contestants.items():
            done, passed = lanes.train(effort.seconds)
            rates[key].append(done / passed)
    records: list[dict[str, Any]] = []
    for (kind, size), found in rates.items():
        median, low, high = spread(found)
        case = grown[kind, size]
        records.append(
            {
                "contestant": f"lanes, growing {kind}",
                "architecture": case.architecture,
                "batch": case.batch,
                "threads": cores,
                "members": case.members,
                "images": case.images,
                "rounds": effort.rounds,
                "model_samples_per_second": median,
                "minimum": low,
                "maximum": high,
            }
        )
        say(f"  {kind} {size:,}: {median:,.0f} ({low:,.0f} - {high:,.0f})")
    return records


def markdown(
    contests: list[dict[str, Any]],
    scaling: list[dict[str, Any]],
    entire: dict[str, Any],
    effort: Effort,
    cores: int,
    seconds: float,
) -> str:
    """The report."""
    target = host_target()
    ceilings = [record["peak_multiply_adds_per_second"] * 2e-9 for record in contests]
    lines = [
        "# Engines on the CPU",
        "",
        f"{processor()}, {cores} cores, vectors of {target.width} float32; Python {platform.python_version()}, "
        + ", ".join(f"{name} {version(name)}" for name in ("torch", "numpy", "llvmlite", "mlflow", "jax"))
        + ".",
        "",
        f"Thousand model-samples a second, forward + backward + update: tanh, Adam, {MEMBERS} members, {IMAGES} images, "
        f"all {cores} cores. Median of n = {effort.rounds} interleaved rounds of {effort.seconds:g} s, range in brackets. "
        "The reference loop runs in a process on each core; ratios are to it.",
        "",
        f"Multiply-add peak, measured in the same rounds: {np.median(ceilings):.0f} GFLOP/s "
        f"({min(ceilings):.0f} - {max(ceilings):.0f}). The share of it counts the multiply-adds that the kernels execute "
        "in convolutions and linear layers, two operations each: forward and input gradients dense, or by one of "
        "Winograd's methods 9 to 18 instead of 36 for a window and pair of channels, without conv outputs that no pooling "
        "window has and without "
        "a gradient of the image; one term a window in the weight gradient of a pooled layer. Selecting that term, "
        "Winograd's transforms, activations, pooling, loss, updates and loading are not counted.",
        "",
        "`ratio at peak` is the ratio that these multiply-adds alone would give at the full peak.",
        "",
        "| architecture | batch | contestant | thousand a second | ratio | share of peak | ratio at peak |",
        "|---|---|---|---|---|---|---|",
    ]
    for record in contests:
        share, limit = record["share_of_peak"], record["ratio_at_peak"]
        lines.append(
            f"| {record['architecture']} | {record['batch']} | {record['contestant']} | {thousands(record)} "
            f"| {record['ratio_to_reference']:.1f} | {'' if share is None else f'{share:.0%}'} "
            f"| {'' if limit is None else f'{limit:.1f}'} |"
        )
    lines += [
        "",
        f"Growing population (500 images) and data set (32 members), lanes, {SMALL}, batch 10:",
        "",
        "| members | images | thousand a second | n |",
        "|---|---|---|---|",
    ]
    lines += [f"| {r['members']:,} | {r['images']:,} | {thousands(r)} | {r['rounds']} |" for r in scaling]
    splits = ", ".join(f"{count:,} {split}" for split, count in whole.SPLITS.items())
    lines += [
        "",
        f"The whole of `weightzoo train` with evaluation, a checkpoint of every epoch and MLflow runs: "
        f"{entire['members']} members of {entire['architecture']}, {splits} images, {entire['epochs']} epochs, n = 1: "
        f"{entire['model_samples_per_second'] / 1e3:,.0f} thousand training samples a second, "
        f"{entire['share_of_training_only']:.0%} of {entire['training_only'] / 1e3:,.0f} thousand for training alone, "
        "measured before and after it.",
        "",
        f"Took {seconds / 60:.1f} minutes on {time.strftime('%Y-%m-%d')}.",
        "",
    ]
    return "\n".join(lines)


def thousands(record: dict[str, Any]) -> str:
    """Median and range."""
    median, low, high = (record[key] / 1e3 for key in ("model_samples_per_second", "minimum", "maximum"))
    return f"{median:,.1f} ({low:,.1f} - {high:,.1f})"


def processor() -> str:
    """What the system calls it."""
    information = Path("/proc/cpuinfo")
    if information.exists():
        for line in information.read_text().splitlines():
            if line.startswith("model name"):
                return f"{line.partition(':')[2].strip()} (LLVM: {host_target().cpu})"
    return platform.processor() or platform.machine()


def version(package: str) -> str:
    """Of an installed package."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def write(path: Path, text: str) -> None:
    """Atomically."""
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(text)
    partial.replace(path)


def say(text: str) -> None:
    """Progress."""
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
