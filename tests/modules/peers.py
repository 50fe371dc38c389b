"""TorchRec, where it is installed: `pip install --no-deps torchrec==1.8.0 fbgemm-gpu-cpu==1.8.0 tensordict torchmetrics==1.0.3
lightning-utilities pyre-extensions typing-inspect mypy-extensions iopath portalocker pyvers orjson cloudpickle tqdm`.
"""

from __future__ import annotations

import importlib
import warnings
from typing import Any

import pytest


def torchrec() -> Any:
    """Skips the test, and says why, where it cannot be imported."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return importlib.import_module("torchrec")
    except ImportError as error:
        pytest.skip(f"TorchRec is not installed ({error}); tests/modules/peers.py says how")
