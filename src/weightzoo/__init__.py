"""Make, track, version and study populations of neural networks.

The public names are imported when first used: `import weightzoo` alone is quick, and loads neither PyTorch nor MLflow.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from weightzoo.datasets import ImageData, prepare
    from weightzoo.errors import WeightzooError
    from weightzoo.execution import train_zoo
    from weightzoo.registry import Registry
    from weightzoo.spec import load_params
    from weightzoo.tracking import RunStore
    from weightzoo.verify import verify_zoo
    from weightzoo.zoo import Permute, Zoo

__all__ = [
    "ImageData",
    "Permute",
    "Registry",
    "RunStore",
    "WeightzooError",
    "Zoo",
    "load_params",
    "prepare",
    "train_zoo",
    "verify_zoo",
]

_HOMES = {
    "ImageData": "datasets",
    "Permute": "zoo",
    "Registry": "registry",
    "RunStore": "tracking",
    "WeightzooError": "errors",
    "Zoo": "zoo",
    "load_params": "spec",
    "prepare": "datasets",
    "train_zoo": "execution",
    "verify_zoo": "verify",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'weightzoo' has no attribute {name!r}")
    value = getattr(import_module(f"weightzoo.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
