"""Vectors of a few texts without a run: those that are kept are taken, the others are made and kept, so that nothing is bought
twice, by whomever."""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

import numpy as np

from tasks.embedders.interface import Embedded, Embedder, Item, OnMade, RowError
from tasks.runs import spending, vectors as kept_vectors
from tasks.runs.keeper import Recovered
from tasks.stores.interface import AT_ONCE, Turn
from tasks.stores.postgres.connection import Connection

Make = Callable[[Sequence[Item], OnMade | None], Embedded]
"""Makes the vectors of items as ``Embedder.embed`` does."""


@dataclass(frozen=True)
class Kept:
    """Keeps vectors in a home, with the index in the database of its connections. One is used for as long as a model is asked, and is
    in no transaction meanwhile."""

    home: str
    connect: Callable[[], AbstractContextManager[Connection]]
    recovered: Recovered = field(default_factory=Recovered)

    def turn(self, connection: Connection) -> AbstractContextManager[Turn]:
        return nullcontext(AT_ONCE)

    def embedded(self, embedder: Embedder, texts: Sequence[str], make: Make) -> Embedded:
        """The vectors of the texts, and which the model refuses. ``make`` makes those that are not kept. Raises TransientError
        and FatalError."""
        keys, whole = kept_vectors.keyed(embedder, texts)
        items = dict(zip(keys, texts, strict=True))
        with self.connect() as connection:
            made, refused = self._filled(connection, embedder, items, whole, make)
        result = np.zeros((len(texts), embedder.space.dimensions), np.float32)
        rejected = {}
        for at, key in enumerate(keys):
            if key in refused:
                rejected[at] = refused[key]
            else:
                result[at] = made[key]
        return Embedded(result, rejected)

    def _filled(
        self,
        connection: Connection,
        embedder: Embedder,
        items: Mapping[bytes, str],
        whole: Mapping[bytes, bytes],
        make: Make,
    ) -> tuple[dict[bytes, np.ndarray], dict[bytes, RowError]]:
        made, refused = dict[bytes, np.ndarray](), dict[bytes, RowError]()
        while missing := self._find(connection, embedder, items, whole, made, refused):
            if embedder.account is None:
                self._make(connection, embedder, {key: items[key] for key in missing}, make, refused)
                continue
            with spending.claimed(connection, embedder.space, missing, self.recovered) as claimed:
                self._make(connection, embedder, {key: items[key] for key in claimed}, make, refused)
            if not claimed:
                time.sleep(spending.POLL)
        return made, refused

    def _find(
        self,
        connection: Connection,
        embedder: Embedder,
        items: Mapping[bytes, str],
        whole: Mapping[bytes, bytes],
        made: dict[bytes, np.ndarray],
        refused: Mapping[bytes, RowError],
    ) -> list[bytes]:
        """Takes over what is kept, under its own key or that of the whole text; returns the keys that are not."""
        for kept_as in ({key: key for key in items}, {whole[key]: key for key in items if key in whole}):
            asked = [name for name, key in kept_as.items() if key not in made and key not in refused]
            plain = {name for name in asked if name not in whole}
            for names, rows in kept_vectors.kept(self, connection, embedder.space, asked, plain):
                made.update({kept_as[name]: row for name, row in zip(names, rows, strict=True)})
        return [key for key in items if key not in made and key not in refused]

    def _make(
        self,
        connection: Connection,
        embedder: Embedder,
        items: dict[bytes, str],
        make: Make,
        refused: dict[bytes, RowError],
    ) -> None:
        """Makes vectors and keeps each as soon as it is made; notes which texts are refused."""
        keys = list(items)

        def keep(positions: Sequence[int], made: np.ndarray) -> None:
            kept_vectors.keep(self, connection, embedder.space, [keys[at] for at in positions], made)

        if keys:
            refused.update({keys[at]: why for at, why in make(list(items.values()), keep).rejected.items()})
