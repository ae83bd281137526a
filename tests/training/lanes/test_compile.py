"""The cache of machine code: found again, damaged, contested, unwritable; and code for other processors."""

from __future__ import annotations

import logging
import multiprocessing
from pathlib import Path

import llvmlite.binding as llvm
import pytest

from tests.training.helpers import TINY, image_data, make_cohort
from weightzoo.architectures.cnn import cnn_s
from weightzoo.training.lanes import LanesEngine
from weightzoo.training.lanes import compile as compile_module
from weightzoo.training.lanes.compile import Target, cache_folder, compile_network, host_target, machine_code
from weightzoo.training.lanes.network import Recipe
from weightzoo.training.lanes.program import emit

RECIPE = Recipe(TINY, "tanh", "adam", False)


def final_weights(cache: Path) -> bytes:
    cohort = make_cohort([{}], epochs=1)
    *_, last = LanesEngine(1, cache=cache).train(TINY, cohort, image_data())
    return last.state.weights.tobytes()


def test_machine_code_is_found_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = final_weights(tmp_path)
    (stored,) = tmp_path.iterdir()
    before = stored.stat()

    def refuse(*_: object) -> bytes:
        raise AssertionError("compiled again")

    monkeypatch.setattr(compile_module, "machine_code", refuse)
    assert final_weights(tmp_path) == first
    assert stored.stat().st_mtime_ns == before.st_mtime_ns


def test_each_recipe_and_target_has_its_own(tmp_path: Path) -> None:
    compile_network(RECIPE, host_target(), tmp_path)
    compile_network(RECIPE, host_target(4), tmp_path)
    compile_network(Recipe(TINY, "tanh", "adam", True), host_target(4), tmp_path)
    compile_network(Recipe(TINY, "relu", "adam", True), host_target(4), tmp_path)
    assert len(list(tmp_path.iterdir())) == 4


@pytest.mark.parametrize("damage", ["truncated", "altered", "empty"])
def test_damaged_code_is_compiled_anew(damage: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    first = final_weights(tmp_path)
    (stored,) = tmp_path.iterdir()
    whole = stored.read_bytes()
    middle = len(whole) // 2
    damaged = {"truncated": whole[:middle], "empty": b"", "altered": whole[:middle] + b"\0" * 64 + whole[middle + 64 :]}
    stored.write_bytes(damaged[damage])
    with caplog.at_level(logging.WARNING, "weightzoo"):
        assert final_weights(tmp_path) == first
    assert "is damaged" in caplog.text
    assert stored.read_bytes() == whole
    assert [path.name for path in tmp_path.iterdir()] == [stored.name]


def test_processes_may_compile_at_the_same_time(tmp_path: Path) -> None:
    spawn = multiprocessing.get_context("spawn")
    with spawn.Pool(2) as pool:
        found = pool.map(final_weights, [tmp_path] * 4, chunksize=1)
    assert len(set(found)) == 1
    assert len(list(tmp_path.iterdir())) == 1


def test_without_a_writable_folder_nothing_is_cached(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    assert final_weights(blocked / "lanes") == final_weights(tmp_path / "lanes")
    assert blocked.read_text() == "not a folder"


def test_place_of_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "weightzoo" / "lanes"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "weightzoo" / "lanes"


def assembly(target: Target, recipe: Recipe) -> str:
    emitted = emit(recipe, target.width, target.registers, target.triple)
    machine = llvm.Target.from_triple(target.triple).create_target_machine(
        cpu=target.cpu, features=target.features, opt=3
    )
    return machine.emit_assembly(llvm.parse_assembly(emitted.text))


@pytest.mark.parametrize(
    ("target", "fused", "register"),
    [
        (Target(16, 32, "x86_64-unknown-linux-gnu", "skylake-avx512", "-prefer-256-bit"), "vfmadd231ps", "%zmm"),
        (Target(8, 16, "x86_64-unknown-linux-gnu", "x86-64-v3", ""), "vfmadd231ps", "%ymm"),
        (Target(4, 32, "aarch64-unknown-linux-gnu", "generic", ""), "fmla", ".4s"),
        (Target(4, 32, "arm64-apple-darwin", "apple-m1", ""), "fmla.4s", "v0"),
    ],
    ids=["AVX-512", "AVX2", "NEON", "Apple"],
)
def test_processors_get_their_vector_instructions(target: Target, fused: str, register: str) -> None:
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    text = assembly(target, Recipe(TINY, "gelu", "adamw", True))
    assert text.count(fused) > 100
    assert register in text
    for library in ("fmaf", "expf", "tanhf", "sqrtf", "logf"):
        assert f"{library}\n" not in text


def test_kernels_use_the_widest_registers_of_this_processor() -> None:
    target = host_target()
    if target.width != 16:
        pytest.skip("the processor has no AVX-512")
    text = assembly(target, Recipe(cnn_s(1, 10), "tanh", "adam", False))
    lines = [line for line in text.splitlines() if "vfmadd" in line]
    assert sum("%zmm" in line for line in lines) > 0.99 * len(lines)
    assert len(machine_code(emit(RECIPE, 16, 32, target.triple), target)) > 10_000
