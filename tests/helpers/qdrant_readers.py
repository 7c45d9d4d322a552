"""People who search a Qdrant collection all the while, by old vectors and by new ones where those are meant, and count wrong answers."""

import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Literal, NamedTuple

import numpy as np
from qdrant_client import QdrantClient
from qdrant_client.http.exceptions import UnexpectedResponse

from tests.helpers.captioned import NAME
from tests.helpers.crowd import Crowd
from tests.helpers.qdrant_application import ADDED, BESIDE, COPY, Application

Kind = Literal["old", "new"]
ASKED_FOR = 3
"""A point that nobody changes: it has to come first."""
LIMIT = 5


class Question(NamedTuple):
    """Which collection is asked, by which name and vector; ``kind`` None: the name means nothing just now."""

    kind: Kind | None
    name: str
    means: str
    using: str


@dataclass
class Readers:
    """Somebody who asks all the while."""

    application: Application
    asked: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    def reading(self) -> AbstractContextManager[None]:
        return Crowd().acting(self._until)

    def _until(self, stop: threading.Event) -> None:
        client, vectors = QdrantClient(self.application.url, timeout=60), _Vectors(self.application)
        while not stop.wait(0.08):
            for question in self._questions():
                self._ask(client, question, vectors)

    def _questions(self) -> list[Question]:
        """What can be asked just now."""
        application, life = self.application, self.application.life
        collections, aliases = application.collections(), application.aliases()
        if not application.beside:
            old = [] if application.dropped() else [Question("old", NAME, NAME, life.old)]
            return [*old, *([Question("new", NAME, NAME, ADDED)] if application.switched() else [])]
        meant = {name: aliases.get(name) for name in (NAME, application.alias)}
        names = {name: means for name, means in meant.items() if means in (NAME, COPY, BESIDE)}
        names |= {NAME: NAME} if NAME in collections else {}
        asked = [Question("new" if m == BESIDE else "old", n, m, life.old) for n, m in names.items()]
        return asked or [Question(None, NAME, "", life.old)]

    def _ask(self, client: QdrantClient, question: Question, vectors: "_Vectors") -> None:
        kind, name, _, using = question
        query = vectors.of(kind or "old", vectors.text).tolist()
        started = time.monotonic()
        try:
            points = client.query_points(name, query, using=using or None, limit=LIMIT).points
            wrong = self._wrong(kind, points, vectors) if kind else []
        except UnexpectedResponse as error:
            if kind is None and error.status_code == 404:
                self.asked["nothing"] += 1
                return
            wrong = [f"{kind}: {error}"]
        if question in self._questions():  # else what the name means has changed meanwhile
            self.asked[kind or "nothing"] += 1
            self.wrong += [f"{line}, asked for {time.monotonic() - started:.2f} s" for line in wrong]

    def _wrong(self, kind: Kind, points: list[Any], vectors: "_Vectors") -> list[str]:
        """A line for each fault: what is sought comes first, and every score is that of something that the point has said, by the model
        of the vectors that are meant."""
        names = [str(point.id) for point in points]
        result = [] if len(points) == LIMIT else [f"{kind}: {len(points)} answers"]
        if names[:1] != [vectors.sought]:
            result.append(f"{kind}: {names[:1]} first, not {vectors.sought}")
        query = vectors.of(kind, vectors.text)
        for point in points:
            texts = self.application.record.texts.get((kind, str(point.id)), ())
            if not any(abs(float(query @ vectors.of(kind, text)) - point.score) < 1e-3 for text in texts):
                result.append(f"{kind}: {point.id} at {point.score:.4f}, which nothing it has said is")
        return result


class _Vectors:
    """Those of texts, of length 1."""

    def __init__(self, application: Application) -> None:
        points, model = application.points, {"old": application.old_vector, "new": application.new_vector}
        self.sought, self.text = str(points.id(ASKED_FOR)), points.document(ASKED_FOR)
        self.of: Callable[[str, str], np.ndarray] = cache(lambda kind, text: _unit(model[kind](text)))


def _unit(vector: list[float]) -> np.ndarray:
    values = np.asarray(vector, np.float64)
    return np.asarray(values / (np.linalg.norm(values) or 1.0))
