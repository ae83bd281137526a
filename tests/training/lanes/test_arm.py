"""The NEON code of the kernels gives the bits that this machine gives: run by QEMU, linked by a cross-compiler."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import llvmlite.binding as llvm
import numpy as np
import pytest

from tests.training.helpers import image_data, make_cohort
from tests.training.lanes.helpers import random_weights
from weightzoo.architectures.cnn import cnn_m, cnn_s
from weightzoo.architectures.graph import Architecture
from weightzoo.training.initial import starting_state
from weightzoo.training.lanes import groups
from weightzoo.training.lanes.compile import Compiled, Target, compile_network, host_target, machine_code
from weightzoo.training.lanes.groups import Group, Plan, Workspace
from weightzoo.training.lanes.network import Recipe
from weightzoo.training.lanes.program import emit

EMULATOR = shutil.which("qemu-aarch64") or shutil.which("qemu-aarch64-static")
LINKER = shutil.which("aarch64-linux-gnu-gcc")
NEON = Target(4, 32, "aarch64-unknown-linux-gnu", "cortex-a72", "")
needs_emulator = pytest.mark.skipif(
    not (EMULATOR and LINKER), reason="no qemu-aarch64 and aarch64-linux-gnu-gcc (Debian: qemu-user, gcc-aarch64-linux-gnu)"
)  # fmt: skip


def emulated(recipe: Recipe, folder: Path) -> Compiled:
    """The functions of a recipe as ARM machine code. They take arrays where the real ones take addresses."""
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    emitted = emit(recipe, NEON.width, NEON.registers, NEON.triple)
    (folder / "kernels.o").write_bytes(machine_code(emitted, NEON))
    program = folder / "driver"
    source = Path(__file__).with_name("driver.c")
    subprocess.run([str(LINKER), "-static", "-O1", "-o", program, source, folder / "kernels.o"], check=True)

    def function(name: str) -> Callable[..., None]:
        def call(*arguments: np.ndarray | int) -> None:
            arrays = [one for one in arguments if isinstance(one, np.ndarray)]
            integers = [one for one in arguments if not isinstance(one, np.ndarray)]
            head = [len(arrays), len(integers), *(array.nbytes for array in arrays), *integers]
            path = folder / "arrays"
            path.write_bytes(np.array(head, np.int64).tobytes() + b"".join(array.tobytes() for array in arrays))
            subprocess.run([str(EMULATOR), program, name, path], check=True)
            content = path.read_bytes()
            position = 8 * len(head)
            seen: set[int] = set()  # SGD's one slot is passed twice, its second copy is not used
            for array in arrays:
                returned = np.frombuffer(content, array.dtype, array.size, position).reshape(array.shape)
                if array.flags.writeable and array.ctypes.data not in seen:
                    array[:] = returned
                seen.add(array.ctypes.data)
                position += array.nbytes

        return call

    return Compiled(
        function("train"), function("evaluate"), emitted.train_workspace, emitted.evaluate_workspace, owner=None
    )


@needs_emulator
@pytest.mark.parametrize(
    ("architecture", "activation", "optimizer"),
    [(cnn_s(1, 10), "gelu", "adam"), (cnn_s(1, 10), "tanh", "sgd"), (cnn_m(3, 10), "sigmoid", "adamw")],
    ids=lambda value: value if isinstance(value, str) else value.name,
)
def test_same_bits(
    architecture: Architecture,
    activation: str,
    optimizer: str,
    tmp_path: Path,
    cache: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data = image_data(architecture, train=7, val=3, test=5)
    settings = [
        {"dropout": 0.3},
        {"dropout": 0.0, "weight_decay": 0.1},
        {"learning_rate": 1e3},
    ]  # the last one diverges
    cohort = make_cohort(settings, batch_size=3, epochs=1, activation=activation, optimizer=optimizer)
    recipe = Recipe(architecture, activation, optimizer, dropout=True)
    weights = random_weights(architecture, cohort)

    def outcome(compiled: Compiled, width: int) -> list[bytes]:
        slots = starting_state(architecture, cohort, None).slots
        rows = slice(0, len(cohort))
        plan = Plan(cohort.protocol, optimizer, data)
        group = Group(plan, compiled, cohort.members, rows, width, weights, slots)
        workspace = Workspace(compiled, width, architecture.layout.size, plan.samples)
        trained = group.train_epoch(1, workspace, lambda: False)
        tested = group.evaluate("test", workspace, lambda: False)
        found = [group.weights, *group.slots.values(), trained.loss, trained.hits, tested.loss, tested.hits]
        found.append(tested.logits[: plan.counts["test"].sum()])
        return [np.nan_to_num(array[..., rows], nan=1.5).tobytes() for array in found]  # NaN's own bits may differ

    native = outcome(compile_network(recipe, host_target(), cache), host_target().width)
    monkeypatch.setattr(groups, "addresses", list)
    assert outcome(emulated(recipe, tmp_path), NEON.width) == native
