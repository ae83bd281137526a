"""The multiply-add peak of this machine, by a kernel in the same language that does nothing else."""

from __future__ import annotations

import ctypes
import threading
import time
from typing import Any

from weightzoo.training.lanes.compile import host_target, link_code, machine_code
from weightzoo.training.lanes.groups import aligned
from weightzoo.training.lanes.language import ArrayType, Code, Program, fma
from weightzoo.training.lanes.program import Emitted

CHAINS = 12  # independent sums: more than the latency times the throughput of any present multiply-adder
ROUNDS = 1_000_000


class Peak:
    """The kernel, compiled."""

    def __init__(self) -> None:
        target = host_target()
        program = Program(target.width, target.registers, target.triple)

        def body(code: Code, a: Any) -> None:
            sums = [code.cell(a.x[n]) for n in range(CHAINS)]
            factor, addend = a.x[CHAINS], a.x[CHAINS + 1]
            for _ in code.range(a.rounds):
                for cell in sums:
                    cell.value = fma(cell.value, factor, addend)
            for n, cell in enumerate(sums):
                a.x[n] = cell.value

        program.function("run", {"x": ArrayType((CHAINS + 2,)), "rounds": "index"}, body, exported=True)
        self.engine = link_code(machine_code(Emitted(str(program.module), 0, 0), target), target)
        prototype = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p)
        self.run = prototype(self.engine.get_function_address("run"))
        self.width = target.width

    def measure(self, threads: int) -> float:
        """Multiply-adds a second, all threads together."""
        memory = [aligned(CHAINS + 2, self.width) for _ in range(threads)]
        for array in memory:
            array[:] = 0.5
        workers = [threading.Thread(target=self.run, args=(array.ctypes.data, ROUNDS)) for array in memory]
        started = time.perf_counter()
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        return threads * CHAINS * self.width * ROUNDS / (time.perf_counter() - started)
