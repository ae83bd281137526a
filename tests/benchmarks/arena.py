"""Contestants in processes of their own, taking turns, so that whatever else the machine does meets them all alike."""

from __future__ import annotations

import multiprocessing
from dataclasses import dataclass
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any

from tests.benchmarks.cases import Case
from tests.benchmarks.contestants import CONTESTANTS


def _serve(channel: Connection, name: str, case: Case, threads: int) -> None:
    contestant = CONTESTANTS[name][0](case, threads)
    contestant.train(0.3)  # warm up
    channel.send("ready")
    while (seconds := channel.recv()) is not None:
        channel.send(contestant.train(seconds))


@dataclass
class Corner:
    """One contestant: a process, or one on each core."""

    processes: list[Any]
    channels: list[Connection]

    def train(self, seconds: float) -> float:
        """Model-samples a second, over all its processes at once."""
        for channel in self.channels:
            channel.send(seconds)
        return sum(done / passed for done, passed in (channel.recv() for channel in self.channels))


class Arena:
    """The contestants of a case, ready to start. They idle in a system call while another one's turn is on."""

    def __init__(self, case: Case, names: list[str], cores: int) -> None:
        context = multiprocessing.get_context("spawn")
        self.corners: dict[str, Corner] = {}
        for name in names:
            copies = cores if CONTESTANTS[name][1] else 1
            corner = self.corners[name] = Corner([], [])
            for _ in range(copies):
                ours, theirs = context.Pipe()
                arguments = (theirs, name, case, cores // copies)
                process = context.Process(target=_serve, args=arguments, daemon=True)
                process.start()
                theirs.close()
                corner.processes.append(process)
                corner.channels.append(ours)
            for channel in corner.channels:
                channel.recv()

    def rounds(self, count: int, seconds: float) -> dict[str, list[float]]:
        """Model-samples a second of each contestant in each round."""
        found: dict[str, list[float]] = {name: [] for name in self.corners}
        for _ in range(count):
            for name, corner in self.corners.items():
                found[name].append(corner.train(seconds))
        return found

    def __enter__(self) -> Arena:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for corner in self.corners.values():
            for channel in corner.channels:
                channel.send(None)
                channel.close()
            for process in corner.processes:
                process.join()
