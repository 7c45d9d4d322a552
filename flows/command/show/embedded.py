"""Vectors, as the command prints them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from flows.command.show.terminal import bold, out, print_json
from tasks.base.words import counted
from tasks.embedders.interface import Embedder

SHOWN = 4
"""Components of a vector that a person is shown."""


@dataclass(frozen=True)
class Made:
    """The vectors of what was given, in its order."""

    model: str
    """As it was written."""
    embedder: Embedder
    inputs: Sequence[str]
    vectors: np.ndarray
    """float32[len(inputs), d]"""


def show_embedded(made: Made, as_json: bool) -> None:
    """For a person the space, and of each vector its length, its cosine to the first and where it begins."""
    if as_json:
        print_json(_as_json(made))
        return
    out.print(bold(made.model))
    for line in _facts(made):
        out.print(line)
    out.print()
    for line in _listing(made):
        out.print(line)


def _as_json(made: Made) -> dict[str, Any]:
    space = made.embedder.space
    # The shortest number that is read back as the same float32.
    embeddings = [
        {"input": name, "embedding": [float(str(component)) for component in vector]}
        for name, vector in zip(made.inputs, made.vectors, strict=True)
    ]
    return {"model": made.model, "dimensions": space.dimensions, "space": space.fingerprint, "embeddings": embeddings}


def _facts(made: Made) -> Iterator[str]:
    space = made.embedder.space
    yield f"{counted(space.dimensions, 'dimension')}, {'normalized' if space.normalized else 'not normalized'}"
    if space.preprocessing:
        yield f"preprocessing  {space.preprocessing}"
    if made.embedder.licence:
        yield f"licence        {made.embedder.licence}"
    yield f"space          {space.fingerprint}"


def _listing(made: Made) -> Iterator[str]:
    lengths = np.linalg.norm(made.vectors, axis=1)
    cosines = made.vectors @ made.vectors[0] / np.maximum(lengths * lengths[0], 1e-12)
    room = max(len(name) for name in ("input", *made.inputs))
    yield _row("input".ljust(room), "length", "cosine", "begins")
    for name, vector, length, cosine in zip(made.inputs, made.vectors, lengths, cosines, strict=True):
        begins = [f"{component:.4f}" for component in vector[:SHOWN]] + (["…"] if len(vector) > SHOWN else [])
        yield _row(name.ljust(room), f"{length:.4f}", f"{cosine:.4f}", " ".join(begins))


def _row(name: str, length: str, cosine: str, begins: str) -> str:
    return "  ".join([name, length.rjust(9), cosine.rjust(7), begins])
