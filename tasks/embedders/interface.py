"""What an embedder is: one method and the space its vectors lie in."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Protocol

import numpy as np


@dataclass(frozen=True)
class Space:
    """What makes two vectors comparable. Two vectors of different spaces must never share a column."""

    provider: str
    model: str
    dimensions: int
    revision: str = ""
    preprocessing: str = ""
    prefix: str = ""
    normalized: bool = True

    @property
    def fingerprint(self) -> str:
        """provider/model/ and twelve hex digits of all of it."""
        digest = hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()
        return f"{self.provider}/{self.model}/{digest[:12]}"


class Embedder(Protocol):
    """A model, ready to be called."""

    @property
    def space(self) -> Space: ...

    def embed_batch(self, texts: Sequence[str]) -> np.ndarray:
        """float32[len(texts), dimensions]. Raises the classes of tasks.errors."""
        ...
