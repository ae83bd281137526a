"""`make bench-scale`: what is promised of large stores, clusters and remote storage, into `reports/bench/scale.json`.

    python -m tests.benchmarks.scale [PART ...] [--quick] [--output reports/bench]

A part is a module `scale_<part>.py` beside this one with `measure(quick: bool) -> list[Figure]`. Figures of a quick
round go to `scale-quick.json`; those of parts that were not asked for stay in the file as they are.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import importlib
import json
import operator
import os
import sys
import time
import traceback
from collections.abc import Callable, Generator, Iterable
from pathlib import Path

PREFIX = "scale_"


@dataclasses.dataclass(frozen=True)
class Figure:
    """One figure: what it is of, what is wanted and what was reached, in words, and whether that is enough."""

    name: str
    wanted: str
    reached: str
    holds: bool

    @classmethod
    def at_least(cls, name: str, wanted: float, reached: float, unit: str) -> Figure:
        """A figure of which more is better, such as runs a second."""
        return cls._compared(name, "at least", wanted, reached, unit, operator.ge)

    @classmethod
    def under(cls, name: str, wanted: float, reached: float, unit: str) -> Figure:
        """A figure of which less is better, such as seconds."""
        return cls._compared(name, "under", wanted, reached, unit, operator.lt)

    @classmethod
    def _compared(
        cls, name: str, how: str, wanted: float, reached: float, unit: str, holds: Callable[[float, float], bool]
    ) -> Figure:
        return cls(name, f"{how} {wanted:g} {unit}", f"{reached:.3g} {unit}", holds(reached, wanted))


def parts() -> list[str]:
    """The names of all parts."""
    return sorted(path.stem.removeprefix(PREFIX) for path in Path(__file__).parent.glob(f"{PREFIX}*.py"))


def main(arguments: list[str] | None = None) -> int:
    """Measure, print and write; 1 if a figure does not hold."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.scale", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"by default all: {', '.join(parts())}")
    parser.add_argument("--quick", action="store_true", help="small stores, about a minute: shows that it works")
    parser.add_argument("--output", type=Path, default=Path("reports/bench"), help="where the file goes")
    given = parser.parse_args(arguments)
    unknown = sorted(set(given.parts) - set(parts()))
    if unknown:
        parser.error(f"no part {', '.join(unknown)}; there are {', '.join(parts())}")
    chosen = given.parts or parts()
    path = given.output / ("scale-quick.json" if given.quick else "scale.json")
    figures = [figure for part in chosen for figure in _measured(part, quick=given.quick)]
    write(path, [*([] if chosen == parts() else _others(path, figures)), *figures])
    print(table(figures))
    return int(not all(figure.holds for figure in figures))


def _measured(part: str, *, quick: bool) -> list[Figure]:
    """The figures of a part; one that breaks is a figure that does not hold, and stops no other."""
    say(f"{part}:")
    start = time.perf_counter()
    try:
        figures = importlib.import_module(f"tests.benchmarks.{PREFIX}{part}").measure(quick)
    except Exception as error:
        traceback.print_exc()
        figures = [Figure(part, "to be measured", f"broke off: {type(error).__name__}: {error}", False)]
    for figure in figures:
        say(f"  {figure.name}: {figure.reached} (wanted: {figure.wanted})")
    say(f"  took {time.perf_counter() - start:.0f} s, load average {os.getloadavg()[0]:.1f}")
    return figures


def _others(path: Path, figures: Iterable[Figure]) -> list[Figure]:
    """What the file has of other figures."""
    if not path.exists():
        return []
    names = {figure.name for figure in figures}
    return [Figure(**each) for each in json.loads(path.read_text()) if each["name"] not in names]


def write(path: Path, figures: Iterable[Figure]) -> None:
    """Atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(json.dumps([dataclasses.asdict(figure) for figure in figures], indent=1) + "\n")
    partial.replace(path)


def table(figures: Iterable[Figure]) -> str:
    """All figures in Markdown."""
    rows = [(figure.name, figure.wanted, figure.reached, "yes" if figure.holds else "NO") for figure in figures]
    header = ("figure", "wanted", "reached", "holds")
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(4)]
    lines = [header, tuple("-" * width for width in widths), *rows]
    return "\n".join(
        f"| {' | '.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))} |" for row in lines
    )


@contextlib.contextmanager
def timed() -> Generator[Callable[[], float]]:
    """A clock of the block: the seconds since it began, and after it those that it took."""
    start, end = time.perf_counter(), None
    try:
        yield lambda: (end or time.perf_counter()) - start
    finally:
        end = time.perf_counter()


def say(text: str) -> None:
    """Progress."""
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
