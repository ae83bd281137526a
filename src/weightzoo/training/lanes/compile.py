"""From LLVM IR to functions of this process, with the machine code kept on disk for the next one."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import hashlib
import logging
import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import llvmlite
import llvmlite.binding as llvm

from weightzoo.errors import EngineError
from weightzoo.training.lanes.network import Recipe
from weightzoo.training.lanes.program import Emitted, emit, evaluate_parameters
from weightzoo.training.lanes.train_program import train_parameters

WIDTHS = (4, 8, 16)
_DIGEST = hashlib.sha256().digest_size
_log = logging.getLogger("weightzoo")


@dataclass(frozen=True)
class Target:
    """A processor to compile for: lanes a group, vector registers to plan with, and LLVM's names of it."""

    width: int
    registers: int
    triple: str
    cpu: str
    features: str


def host_target(width: int | None = None) -> Target:
    """This machine, at its native vector width or at a forced one (a result does not depend on it).

    Raises:
        EngineError: the width is none of WIDTHS, or the processor has no fused multiply-add.
    """
    if width is not None and width not in WIDTHS:
        raise EngineError(f"vector width {width}: the lanes engine has {', '.join(map(str, WIDTHS))}")
    if (reason := unsupported_host()) is not None:
        raise EngineError(reason)
    triple, features = llvm.get_process_triple(), llvm.get_host_cpu_features()
    flags = features.flatten()
    if features.get("avx512f"):
        # LLVM avoids 512-bit registers on processors that used to slow down for them
        native, registers, flags = 16, 32, f"{flags},-prefer-256-bit"
    elif triple.startswith("x86_64"):
        native, registers = 8, 16
    else:
        native, registers = 4, 32
    return Target(width or native, registers, triple, llvm.get_host_cpu_name(), flags)


def unsupported_host() -> str | None:
    """Why no program can be compiled for this machine, or None."""
    _initialise()
    triple = llvm.get_process_triple()
    if triple.startswith("x86_64"):
        return None if llvm.get_host_cpu_features().get("fma") else "the processor has no fused multiply-add"
    if triple.startswith(("aarch64", "arm64")):
        return None
    return f"no kernels for processors of kind {triple.partition('-')[0]}"


@dataclass(frozen=True)
class Compiled:
    """The two functions of a network (see `program`), and the vectors of working memory that each wants."""

    train: Callable[..., None]
    evaluate: Callable[..., None]
    train_workspace: int
    evaluate_workspace: int
    owner: Any = field(repr=False)  # the machine code lives as long as this


def compile_network(recipe: Recipe, target: Target, cache: Path | None = None) -> Compiled:
    """Compile a network, or load it from the cache, whose place is `cache_folder()` unless given."""
    folder = cache_folder() if cache is None else cache
    path = folder / f"{_key(recipe, target)}.o"
    stored = _read(path)
    if stored is None:
        emitted = emit(recipe, target.width, target.registers, target.triple)
        header = f"{emitted.train_workspace} {emitted.evaluate_workspace}\n".encode()
        stored = header + machine_code(emitted, target)
        _write(path, stored)
    header, _, code = stored.partition(b"\n")
    train_workspace, evaluate_workspace = map(int, header.split())
    return _compiled(recipe, code, target, train_workspace, evaluate_workspace)


def machine_code(emitted: Emitted, target: Target) -> bytes:
    """An object file for a target of this machine's architecture.

    Loops are as the kernels wrote them: LLVM is not to vectorise or unroll any.
    """
    module = llvm.parse_assembly(emitted.text)
    module.verify()
    machine = _machine(target)
    options = llvm.create_pipeline_tuning_options(speed_level=3)
    options.slp_vectorization = options.loop_vectorization = options.loop_unrolling = False
    builder = llvm.create_pass_builder(machine, options)
    builder.getModulePassManager().run(module, builder)
    return machine.emit_object(module)


def cache_folder() -> Path:
    """`$XDG_CACHE_HOME/weightzoo/lanes`, by default under `~/.cache`."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "weightzoo" / "lanes"


def _machine(target: Target) -> Any:
    machine = llvm.Target.from_triple(target.triple)
    return machine.create_target_machine(cpu=target.cpu, features=target.features, opt=3, codemodel="jitdefault")


def link_code(code: bytes, target: Target) -> Any:
    """The object file's functions in this process, as LLVM's engine that owns them."""
    empty = llvm.parse_assembly(f'target triple = "{target.triple}"')
    engine = llvm.create_mcjit_compiler(empty, _machine(target))
    engine.add_object_file(llvm.ObjectFileRef.from_data(code))
    engine.finalize_object()
    return engine


def _compiled(recipe: Recipe, code: bytes, target: Target, train_workspace: int, evaluate_workspace: int) -> Compiled:
    engine = link_code(code, target)

    def function(name: str, parameters: Mapping[str, Any]) -> Callable[..., None]:
        prototype = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * len(parameters))
        return prototype(engine.get_function_address(name))

    train, evaluate = function("train", train_parameters(recipe)), function("evaluate", evaluate_parameters(recipe))
    return Compiled(train, evaluate, train_workspace, evaluate_workspace, engine)


@functools.cache
def _initialise() -> None:
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()


@functools.cache
def _source_digest() -> str:
    """Of all source that decides what is emitted."""
    digest = hashlib.sha256()
    folder = Path(__file__).parent
    for path in [*sorted(folder.glob("*.py")), folder.parent / "protocol.py", folder.parents[1] / "seeds.py"]:
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()


def _key(recipe: Recipe, target: Target) -> str:
    versions = (llvmlite.__version__, llvm.llvm_version_info)
    return hashlib.sha256(repr((_source_digest(), versions, recipe, target)).encode()).hexdigest()[:32]


def _read(path: Path) -> bytes | None:
    """What `_write` wrote, or None if there is nothing, it is damaged, or others may have written it: it will run."""
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            content = file.read()
    except OSError:
        return None
    if status.st_uid != os.geteuid() or status.st_mode & 0o022:
        _log.warning("%s can be written by others and is compiled anew", path)
        return None
    digest, stored = content[:_DIGEST], content[_DIGEST:]
    if hashlib.sha256(stored).digest() != digest:
        _log.warning("%s is damaged and is compiled anew", path)
        return None
    return stored


def _write(path: Path, stored: bytes) -> None:
    """Atomic, so that processes at the same work don't meet half a file. Without a writable cache there is none."""
    partial: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".", suffix=".partial", delete=False) as file:
            partial = Path(file.name)
            file.write(hashlib.sha256(stored).digest() + stored)
        partial.replace(path)
    except OSError as error:
        _log.debug("machine code is not cached: %s", error)
        if partial is not None:
            with contextlib.suppress(OSError):
                partial.unlink()
