"""What a person at a terminal sees: progress with rate and time left, one line a finished step, errors of one line.

Everything but results goes to stderr, so that the output of a verb can be piped. Without a terminal there are no bars.
"""

from __future__ import annotations

import errno
import logging
import os
import re
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.logging import RichHandler
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Column
from rich.text import Text

from weightzoo.errors import SpecError, WeightzooError
from weightzoo.redaction import redact

EXIT_FAILED, EXIT_USAGE, EXIT_INTERRUPTED = 1, 2, 130
WIDTH_OF_FILES = 200  # columns of a table that goes to a file or a pipe, where nothing needs to be squeezed

stderr = Console(stderr=True, highlight=False, soft_wrap=True)
stdout = Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else WIDTH_OF_FILES)


class Report(Protocol):
    """Receives how far a step is."""

    def __call__(self, done: int, total: int, what: str = "") -> None:
        """`done` of `total` units; `what` describes what is being worked on."""
        ...


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:,.0f} {task.fields['unit']}/s", style="dim")


@contextmanager
def progress(step: str, unit: str) -> Generator[Report]:
    """A bar for one step while the block runs; nothing where stderr is no terminal."""
    fixed, rest = Column(no_wrap=True), Column(no_wrap=True, overflow="ellipsis", ratio=1)
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", table_column=fixed),
        BarColumn(bar_width=14),
        TaskProgressColumn(table_column=fixed),
        _Rate(table_column=fixed),
        TimeRemainingColumn(table_column=fixed),
        TextColumn("left  {task.fields[what]}", style="dim", table_column=rest),
    )
    with Progress(*columns, console=stderr, transient=True, disable=not stderr.is_terminal) as bar:
        task = bar.add_task(step, total=None, unit=unit, what="")

        def report(done: int, total: int, what: str = "") -> None:
            bar.update(task, completed=done, total=total, what=what)

        yield report


def say(line: str) -> None:
    """One line about a finished step."""
    stderr.print(line, markup=False)


def readable_size(count: int) -> str:
    """Bytes, in the unit that leaves three digits.

    >>> readable_size(2_234_792_400_000)
    '2.23 TB'
    """
    value, units = float(count), ["B", "kB", "MB", "GB", "TB"]
    while value >= 1000 and len(units) > 1:
        value, units = value / 1000, units[1:]
    return f"{value:.3g} {units[0]}"


def readable_time(seconds: float) -> str:
    """Seconds, minutes or hours.

    >>> [readable_time(seconds) for seconds in (0.01, 61.4, 300, 29_800, 3.4e9)]
    ['0.1 s', '61 s', '5 min', '8.28 h', '944,444 h']
    """
    if seconds < 100:
        return f"{max(seconds, 0.1):.2g} s"
    if seconds < 100 * 60:
        return f"{seconds / 60:.0f} min"
    hours = seconds / 3600
    return f"{hours:.3g} h" if hours < 1000 else f"{hours:,.0f} h"


def show_log() -> None:
    """Print the warnings of weightzoo's own log as lines."""
    logger = logging.getLogger("weightzoo")
    if not logger.handlers:
        handler = RichHandler(console=stderr, show_time=False, show_path=False, show_level=False)
        handler.addFilter(_redacted)
        logger.addHandler(handler)
        logger.propagate = False


def _redacted(record: logging.LogRecord) -> bool:
    record.msg, record.args = redact(record.getMessage()), None
    return True


def guarded(run: Callable[[], None]) -> int:
    """Run a command and turn its errors into one line and an exit code, never into a traceback."""
    show_log()
    try:
        run()
    except WeightzooError as error:
        stderr.print(f"[bold red]error:[/] {_one_line(error)}", markup=True)
        return EXIT_FAILED
    except KeyboardInterrupt:
        stderr.print("interrupted; run the same command again to go on from here")
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        sys.stderr.close()  # the reader of our output has gone; nothing is left to say
    except OSError as error:
        said = _of_the_disk(error)
        if said is None:
            raise
        stderr.print(f"[bold red]error:[/] {_one_line(WeightzooError(said))}", markup=True)
        return EXIT_FAILED
    return 0


_ROOM, _RIGHTS = "make room and run the same command again", "change its permissions and run the same command again"
_REMEDIES = {
    errno.ENOSPC: _ROOM, errno.EDQUOT: _ROOM, errno.EFBIG: _ROOM,
    errno.EACCES: _RIGHTS, errno.EPERM: _RIGHTS, errno.EROFS: _RIGHTS,
}  # fmt: skip


def _of_the_disk(error: OSError) -> str | None:
    """What to say of a full disk or a file that can't be written, wherever that was met; None of another error."""
    told = re.search(r"errno (\d+)", str(error))  # Arrow gives it as text alone
    number = error.errno or (int(told[1]) if told else 0)
    if number not in _REMEDIES:
        return None
    return f"{f'{error.filename}: ' if error.filename else ''}{os.strerror(number)}; {_REMEDIES[number]}"


def _one_line(error: Exception) -> str:
    """One line an error; a `SpecError` has one a mistake."""
    from rich.markup import escape

    text = redact(str(error))
    lines = text.splitlines() if isinstance(error, SpecError) else [text]
    return escape("\n".join(" ".join(line.split()) for line in lines))
