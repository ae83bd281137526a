"""Running methods of analysis: one after the other, or several at a time in processes of their own.

A method has one thread of BLAS and PyTorch wherever it runs, so that what it finds is the same to the last bit.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import TYPE_CHECKING

from weightzoo.analysis.methods import Method
from weightzoo.analysis.results import Analysed, Context, LeftOut, Result
from weightzoo.errors import NotFoundError, WeightzooError
from weightzoo.workers import begin

if TYPE_CHECKING:
    from weightzoo.zoo import Zoo

_Progress = Callable[[int, int, str], None]


def run_methods(
    zoo: Zoo, methods: Sequence[Method], context: Context, *, on_progress: _Progress | None = None
) -> Analysed:
    """Run `methods` on `zoo`, up to `context.threads` at a time.

    What a method finds depends on the zoo, the seed and `quick`, not on which others run nor on the number of threads.
    `on_progress` is told how many methods of how many are done, and how far the one is that was heard of last.
    """
    tell = on_progress or (lambda done, total, what: None)
    processes = min(context.threads, len(methods))
    if processes > 1:
        found = _in_processes(zoo, methods, context, processes, tell)
    else:
        found = _in_turn(zoo, methods, context, tell)
    return Analysed(
        tuple(one for one in found if isinstance(one, Result)),
        tuple(one for one in found if isinstance(one, LeftOut)),
    )


def _in_turn(zoo: Zoo, methods: Sequence[Method], context: Context, tell: _Progress) -> list[Result | LeftOut]:
    found: list[Result | LeftOut] = []
    with _one_thread():
        for method in methods:
            tell(len(found), len(methods), method.name)

            def progress(done: int, total: int, name: str = method.name) -> None:
                tell(len(found), len(methods), _share(name, done, total))

            found.append(_one(zoo, method, replace(context, on_progress=progress)))
    return found


def _in_processes(
    zoo: Zoo, methods: Sequence[Method], context: Context, processes: int, tell: _Progress
) -> list[Result | LeftOut]:
    spawn = multiprocessing.get_context("spawn")  # a fork of a process with threads may hang
    alone = Context(context.seed, context.quick, 1, context.images, other=context.other)
    left = iter(sorted(methods, key=lambda method: method.quick))  # the longest first, lest one runs alone at the end
    found: dict[str, Result | LeftOut] = {}
    busy: dict[Connection, Method] = {}
    started: list[BaseProcess] = []
    try:
        for method in (next(left) for _ in range(processes)):
            ours, theirs = spawn.Pipe()
            started.append(spawn.Process(target=_serve, args=(theirs, zoo, alone), daemon=True))
            started[-1].start()
            theirs.close()  # so that the end of the process is heard
            ours.send(method)
            busy[ours] = method
        while busy:
            for connection in wait([*busy]):
                assert isinstance(connection, Connection)
                method = busy[connection]
                try:
                    message = connection.recv()
                except EOFError:
                    raise WeightzooError(f"{method.name}: its process ended before it was done") from None
                if isinstance(message, WeightzooError):
                    raise message
                if isinstance(message, tuple):
                    tell(len(found), len(methods), _share(method.name, *message))
                    continue
                found[method.name] = message
                tell(len(found), len(methods), method.name)
                del busy[connection]
                if (following := next(left, None)) is None:
                    connection.close()
                else:
                    connection.send(following)
                    busy[connection] = following
    finally:
        for process in started:
            process.terminate()
            process.join()
    return [found[method.name] for method in methods]


def _serve(connection: Connection, zoo: Zoo, context: Context) -> None:
    """The life of a process: a method comes, how far it is and then what it found goes, until nobody listens."""
    begin()
    context = replace(context, on_progress=lambda done, total: connection.send((done, total)))
    with _one_thread():
        while True:
            try:
                method = connection.recv()
            except EOFError:
                return
            try:
                connection.send(_one(zoo, method, context))
            except WeightzooError as error:
                connection.send(error)


def _one(zoo: Zoo, method: Method, context: Context) -> Result | LeftOut:
    try:
        return method.load()(zoo, context)
    except NotFoundError as error:
        return LeftOut(method.name, str(error))


@contextmanager
def _one_thread() -> Generator[None]:
    import torch
    from threadpoolctl import threadpool_limits

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1):
            yield
    finally:
        torch.set_num_threads(before)


def _share(name: str, done: int, total: int) -> str:
    return f"{name} {done / max(total, 1):.0%}"
