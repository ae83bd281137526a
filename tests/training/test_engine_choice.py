from __future__ import annotations

import logging

import pytest
import torch

from tests.training.helpers import VARIED, make_cohort
from weightzoo.architectures import architecture
from weightzoo.errors import EngineError
from weightzoo.training import choose_engine
from weightzoo.training.lanes import LanesEngine
from weightzoo.training.reference import ReferenceEngine
from weightzoo.training.stacked import StackedEngine

CNN = architecture("cnn-s", (1, 28, 28), 10)
COHORT = make_cohort(VARIED)


def test_forced_engines_are_taken() -> None:
    assert isinstance(choose_engine("reference", CNN, COHORT, "cpu"), ReferenceEngine)
    stacked = choose_engine("torch", CNN, COHORT, "cpu", threads=3)
    assert isinstance(stacked, StackedEngine)
    assert stacked.threads == 3
    assert isinstance(choose_engine("lanes", CNN, COHORT, "cpu", threads=1), LanesEngine)


def test_auto_is_lanes_for_a_cnn_on_a_cpu(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "weightzoo"):
        assert isinstance(choose_engine("auto", CNN, COHORT, "cpu"), LanesEngine)
    assert not caplog.records


def test_auto_falls_back_with_the_reason(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LanesEngine, "supports", lambda *_: "no kernel for this layer")
    with caplog.at_level(logging.INFO, "weightzoo"):
        assert isinstance(choose_engine("auto", CNN, COHORT, "cpu"), StackedEngine)
    assert "no kernel for this layer" in caplog.text


def test_a_forced_engine_that_cannot_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LanesEngine, "supports", lambda *_: "no kernel for this layer")
    with pytest.raises(EngineError, match="lanes can't train tiny on cpu: no kernel for this layer; use engine: auto"):
        choose_engine("lanes", CNN, COHORT, "cpu")


def test_an_engine_that_cannot_be_loaded_here(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unloadable(*_: object, **__: object) -> None:
        raise ImportError("no LLVM for this platform")

    monkeypatch.setattr(LanesEngine, "__init__", unloadable)
    assert isinstance(choose_engine("auto", CNN, COHORT, "cpu"), StackedEngine)
    assert "no LLVM for this platform" in caplog.text
    with pytest.raises(EngineError, match="can't be loaded here"):
        choose_engine("lanes", CNN, COHORT, "cpu")


@pytest.mark.parametrize("device", ["gpu", "cuda:x", "cuda:-1", "cpu:0", "", "mps"])
def test_unknown_devices_are_refused(device: str) -> None:
    with pytest.raises(EngineError, match="is unknown; expected cpu, cuda or cuda:<number>"):
        choose_engine("auto", CNN, COHORT, device)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
@pytest.mark.parametrize("choice", ["auto", "reference", "torch", "lanes"])
def test_cuda_that_is_not_there_is_refused(choice: str) -> None:
    with pytest.raises(EngineError, match="finds no CUDA here; set device: cpu"):
        choose_engine(choice, CNN, COHORT, "cuda")


def test_an_unknown_engine_is_refused() -> None:
    with pytest.raises(EngineError, match="no engine 'jax'; there are auto, reference, torch, lanes"):
        choose_engine("jax", CNN, COHORT, "cpu")
