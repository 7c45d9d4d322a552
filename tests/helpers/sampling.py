"""What `make test` takes of many alike; `make chaos` runs the others, see ``--whole`` in tests/conftest.py."""

from collections.abc import Iterable
from typing import Any

import pytest


def sampled(every: Iterable[Any], *kept: Any) -> list[Any]:
    """The values for ``parametrize``: those of ``kept`` always run, the others are marked ``whole``. A tuple is the values of
    several parameters."""
    return [
        pytest.param(
            *(value if isinstance(value, tuple) else (value,)), marks=[] if value in kept else pytest.mark.whole
        )
        for value in every
    ]
