"""The chooser gives what works here and says plainly what does not."""

from __future__ import annotations

from typing import Any

import pytest

from cuda.choose import choose_backend
from cuda.errors import BackendUnavailable


@pytest.mark.parametrize("device", ["host", "auto"])
def test_without_a_gpu_the_host_backend_is_chosen(device: Any) -> None:
    assert choose_backend(device, 2).name == "host"


def test_cuda_is_refused_by_name_with_what_would_work() -> None:
    with pytest.raises(BackendUnavailable, match=r"'cuda' cannot be used: .* no CUDA backend yet; use device=host"):
        choose_backend("cuda", 1)


def test_an_unknown_device_is_refused_with_the_choices() -> None:
    unknown: Any = "gpu"
    with pytest.raises(ValueError, match="'gpu' is unknown; choose auto, host or cuda"):
        choose_backend(unknown, 1)
