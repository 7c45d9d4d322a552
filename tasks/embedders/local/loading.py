"""Models are loaded once a process, whoever asks first."""

import threading
from collections.abc import Callable
from typing import TypeVar

W = TypeVar("W")
M = TypeVar("M")

_loading = threading.Lock()


def loaded_once(loaded: dict[W, M], wanted: W, load: Callable[[], M]) -> M:
    """The model that is ``wanted``: of those ``loaded``, or loaded now and put there. Raises what ``load`` raises."""
    with _loading:
        if wanted not in loaded:
            loaded[wanted] = load()
        return loaded[wanted]
