"""TorchRec, where it is installed: `make .venv/.peers`."""

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
