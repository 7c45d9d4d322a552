"""The models of a registry, opened once in a process, and what they make of a query."""

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from tasks.base.errors import UsageError
from tasks.base.words import counted
from tasks.embedders.interface import Embedded, Embedder, Item, OnMade, RowsRejected, Space
from tasks.embedders.registry import open_embedder
from tasks.embedders.texts import shortened
from tasks.runs import registry
from tasks.runs.registry import RegisteredModel

Embed = Callable[[str, Sequence[Item], OnMade | None], Embedded]
"""As ``Embedder.embed``, by the model of that name."""
Vector = Sequence[float] | np.ndarray
"""Of a query, float32[d]."""


class OpenedModels:
    """Threads share it."""

    def __init__(self, opened: Callable[[str], Embedder] = open_embedder, embed: Embed | None = None) -> None:
        """``opened`` opens a model by its name; ``embed`` stands in for the models' own."""
        self.embed: Embed = embed or self._embedded
        self._open = opened
        self._opened: dict[str, Embedder] = {}
        self._opening = threading.Lock()

    def embedder(self, model: RegisteredModel) -> Embedder:
        """Raises UsageError where the model is not to be had, or its vectors would not be comparable with those that are stored."""
        if model.provider == registry.UNKNOWN:
            raise UsageError(
                f"it is not known which model made the vectors of {model.name}: it can be searched by vectors only"
            )
        with self._opening:
            if model.name not in self._opened:
                self._opened[model.name] = self._open(model.name)
            embedder = self._opened[model.name]
        if embedder.space.dimensions != model.dimensions:
            raise UsageError(
                f"model {model.name} exists with {counted(model.dimensions, 'dimension')}, and what opens by that name here has "
                f"{counted(embedder.space.dimensions, 'dimension')}"
            )
        if model.space and embedder.space.fingerprint != model.space:
            raise UsageError(
                f"{model.name} makes vectors of space {embedder.space.fingerprint} here, and those that are stored are of "
                f"{model.space}: they are not comparable"
            )
        return embedder

    def probes(
        self, asked: Sequence[RegisteredModel], query: str | None, given: Mapping[str, Vector] | None
    ) -> list[np.ndarray]:
        """A vector of the query for each model, or those that are given, by name; one text is embedded once in a space, and cut where a
        model has the same vectors shorter. Raises UsageError."""
        if (query is None) == (given is None):
            raise UsageError("give either a text to search for, or its vectors")
        if given is not None:
            if lacking := [model.name for model in asked if model.name not in given]:
                raise UsageError(f"there is no vector for {lacking[0]}")
            return [np.asarray(given[model.name], np.float32) for model in asked]
        spaces = [self.embedder(model).space for model in asked]
        models = dict(zip(spaces, asked, strict=True))
        made = {space: self._probe(model, str(query)) for space, model in models.items() if _whole(space) not in models}
        made |= {
            space: shortened(made[whole][None], space.dimensions)[0]
            for space in models
            if (whole := _whole(space)) and whole in models
        }
        return [made[space] for space in spaces]

    def _probe(self, model: RegisteredModel, query: str) -> np.ndarray:
        try:
            vector: np.ndarray = self.embed(model.name, [query], None).whole[0]
        except RowsRejected as error:
            why = next(iter(error.rejected.values()))
            raise UsageError(f"{model.name} cannot embed the query: {why.message}") from error
        return vector

    def _embedded(self, name: str, items: Sequence[Item], on_made: OnMade | None) -> Embedded:
        return self._opened[name].embed(items, on_made)


def _whole(space: Space) -> Space | None:
    """The space whose vectors are cut to those of this one; None where it is no shorter one."""
    return replace(space, dimensions=space.longer, longer=None) if space.longer else None
