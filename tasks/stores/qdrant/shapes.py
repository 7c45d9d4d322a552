"""The vectors of a collection: which it has, and of what kind."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from tasks.base.errors import UsageError
from tasks.base.words import listed
from tasks.stores.interface import Metric

Kind = Literal["dense", "sparse", "multi"]
METRICS: Mapping[str, Metric] = {"Cosine": "cosine", "Dot": "ip", "Euclid": "l2"}
DISTANCES: Mapping[Metric, str] = {metric: distance for distance, metric in METRICS.items()}
UNNAMED = ""
"""The name of a vector that has none: in Qdrant's own answers too."""


@dataclass(frozen=True)
class Shape:
    """One vector of a collection's points."""

    name: str
    kind: Kind
    size: int | None = None
    """Of each vector; None of a sparse one."""
    distance: str | None = None
    """Cosine, Dot, Euclid or Manhattan; None of a sparse one."""
    datatype: str = "float32"

    @property
    def metric(self) -> Metric:
        """Raises UsageError for a distance that only Qdrant knows."""
        if self.distance is None or self.distance not in METRICS:
            raise UsageError(
                f"{called(self.name)} is compared by {self.distance}; use one that is compared by Cosine, Dot or Euclid"
            )
        return METRICS[self.distance]


def shapes(configuration: Mapping[str, Any]) -> dict[str, Shape]:
    """The vectors by name, "" the one that has none, of a collection's ``configuration`` (tasks.stores.qdrant.configuration)."""
    params = configuration["params"]
    vectors = params.get("vectors") or {}
    dense = {UNNAMED: vectors} if "size" in vectors else vectors
    every = {name: _dense(name, one) for name, one in dense.items()}
    return every | {name: Shape(name, "sparse") for name in params.get("sparse_vectors") or {}}


def chosen(collection: str, every: Mapping[str, Shape], name: str | None) -> Shape:
    """The dense vector called ``name``; None: the only one there is. Raises UsageError where there is none, or several are."""
    dense = [one for one, shape in every.items() if shape.kind == "dense"]
    if name is None:
        if len(dense) != 1:
            several = f"several dense vectors, {listed([called(one) for one in dense])}: name the one that is meant"
            raise UsageError(f"collection {collection} has {several if dense else 'no dense vector'}")
        name = dense[0]
    if name not in every:
        has = listed([called(other) for other in every]) or "no vector"
        raise UsageError(f"collection {collection} has no {called(name)}: it has {has}")
    if every[name].kind != "dense":
        raise UsageError(
            f"{called(name)} of collection {collection} is {every[name].kind}; only a dense one can be read"
        )
    return every[name]


def called(name: str) -> str:
    """What people call the vector."""
    return f"vector {name}" if name else "unnamed vector"


def _dense(name: str, params: Mapping[str, Any]) -> Shape:
    kind: Kind = "multi" if params.get("multivector_config") else "dense"
    return Shape(name, kind, params["size"], params["distance"], params.get("datatype") or "float32")
