"""An application of a Qdrant collection, what it has written there by its own account, and a look at both sides that uses none of the
code that migrates."""

import json
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from qdrant_client import QdrantClient, models

from tasks.embedders.interface import RowError
from tasks.embedders.pictures import decode
from tests.helpers.captioned import NAME, NEW, Near, Points, Rows
from tests.helpers.counting import colours

BESIDE, COPY, ADDED = f"{NAME}_{NEW.dimensions}", f"{NAME}_before_{NEW.dimensions}", "clip"
"""The new collection, the rollback copy of the old one, and a vector that is added to it."""
SIDE = 4
"""Of the pictures that ``counting`` makes, for vectors as long as those of texts."""
KEPT = 20
"""Points from number 0 on that nobody changes."""
Payload = dict[str, Any]


@dataclass(frozen=True)
class Life:
    """A kind of collection, and what becomes of it."""

    strategy: str
    old: str = ""
    """Name of the old vectors, where they have one."""
    uuids: bool = False
    content: str = "text"
    alias: str = ""
    """What the application opens, where that is an alias of the collection."""
    version: str = "1.19.0"
    """Of the server."""

    def __str__(self) -> str:
        ids = "UUIDs" if self.uuids else "integers"
        return " ".join(part for part in (self.strategy, self.old, self.alias, ids, self.content) if part)


LIVES = (
    Life("named_vector"),
    Life("alias", "siglip", uuids=True, content="image"),
    Life("replace"),
    Life("named_vector", "siglip", uuids=True, content="image"),
    Life("alias", alias="gallery", version="1.17.1"),
    Life("replace", "siglip", uuids=True),
)


@dataclass
class Record:
    """What the application has written by its own account: id → payload."""

    old: dict[str, Payload] = field(default_factory=dict)
    """Into the old collection."""
    new: dict[str, Payload | None] = field(default_factory=dict)
    """Into the new one, where that lies beside it; None: deleted."""
    old_text: dict[str, str] = field(default_factory=dict)
    """What the point's old vector is of."""
    texts: dict[tuple[str, str], tuple[str, ...]] = field(default_factory=dict)
    """(``old`` or ``new``, id) → all that a vector of the point may ever have been of."""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def will_say(self, kind: str, id: str, text: str) -> None:
        """Before it can be read."""
        with self.lock:
            self.texts[kind, id] = (*self.texts.get((kind, id), ()), text)

    def expected(self, beside: bool) -> dict[str, Payload]:
        """What the new collection must say, or the points with the added vector."""
        merged = {**self.old, **self.new} if beside else dict(self.old)
        return {id: payload for id, payload in merged.items() if payload is not None}


@dataclass
class Application:
    """The collection in one of LIVES, with pictures in ``folder``."""

    url: str
    life: Life
    folder: Path
    record: Record = field(default_factory=Record)
    contracted: bool = False

    @cached_property
    def client(self) -> QdrantClient:
        return QdrantClient(self.url, timeout=60)

    @cached_property
    def points(self) -> Points:
        if self.life.content == "text":
            return Points(self.client, self.life.old, self.life.uuids)
        self.folder.mkdir(parents=True)
        return Points(self.client, self.life.old, self.life.uuids, key="image_path", folder=self.folder)

    @property
    def beside(self) -> bool:
        """Whether the new vectors lie in a collection of their own."""
        return self.life.strategy != "named_vector"

    @property
    def pauses(self) -> bool:
        """Whether writers have to pause while it is switched."""
        return self.life.strategy == "replace"

    @property
    def new_name(self) -> str:
        """Of the new vectors."""
        return self.life.old if self.beside else ADDED

    @property
    def alias(self) -> str:
        """What means the new collection once it is switched."""
        return NAME if self.pauses else self.life.alias or f"{BESIDE}_current"

    def make(self, rows: int) -> None:
        self.points.make(rows)
        for number in range(rows):
            id, payload = str(self.points.id(number)), self.points.payload(number)
            self.record.old[id], self.record.old_text[id] = payload, payload.get(self.points.key, "nothing")
            self.record.will_say("old", id, self.record.old_text[id])
            if says := payload.get(self.points.key):
                self.record.will_say("new", id, says)
        if self.life.alias:
            self.point(self.life.alias, NAME)

    def point(self, alias: str, collection: str | None) -> None:
        """Has the alias mean the collection, None: removes it."""
        change = models.CreateAliasOperation(
            create_alias=models.CreateAlias(alias_name=alias, collection_name=collection or "")
        )
        away = models.DeleteAliasOperation(delete_alias=models.DeleteAlias(alias_name=alias))
        self.client.update_collection_aliases([change if collection else away])

    def asked(self) -> tuple[str, ...]:
        """The command, without what all lives have."""
        life, given = self.life, {"qdrant.url": self.url, "strategy": self.life.strategy, "content": self.life.content}
        given |= {"collection": life.alias} if life.alias else {}
        given |= {} if self.beside else {"vector_name": ADDED}
        if life.content == "text":
            given |= {"text": self.points.key, "embedder": f"hashing/{NEW.dimensions}"}
        else:
            given |= {"images.root": str(self.folder), "embedder": f"counting/{SIDE}"}
        return ("siglip-to-clip", *(part for name, value in given.items() for part in ("-p", f"{name}={value}")))

    def collections(self) -> set[str]:
        return {one.name for one in self.client.get_collections().collections}

    def aliases(self) -> dict[str, str]:
        return {one.alias_name: one.collection_name for one in self.client.get_aliases().aliases}

    def switched(self) -> bool:
        """By what Qdrant says."""
        if self.beside:
            return self.aliases().get(self.alias) == BESIDE
        marks = self.client.get_collection(NAME).config.metadata or {}
        return bool((marks.get(f"vecferry:{ADDED}") or {}).get("active"))

    def dropped(self) -> bool:
        """Whether what a contract drops is gone."""
        if self.beside:
            return (COPY if self.pauses else NAME) not in self.collections()
        vectors = self.client.get_collection(NAME).config.params.vectors
        return bool(self.life.old) and self.life.old not in (vectors or {})

    def in_gap(self) -> bool:
        """Whether the name that changes hands means nothing."""
        return NAME not in self.collections() and NAME not in self.aliases()

    def old_vector(self, text: str) -> list[float]:
        vector: list[float] = self.points.embed([text])[0].tolist()
        return vector

    def new_vector(self, text: str) -> list[float]:
        """The new model's, of a text or of the picture of that name."""
        if self.life.content == "text":
            vector: list[float] = NEW.embed([text]).whole[0].tolist()
            return vector
        image = decode((self.folder / text).read_bytes())
        assert not isinstance(image, RowError)
        made: list[float] = colours(image, SIDE).tolist()
        return made

    def faults(self, new: bool = True) -> list[str]:
        """Every point of either side that is not what the application said, or whose vector is missing, stale or of none; ``new``:
        of the new side too."""
        old = COPY if self.pauses and NAME not in self.collections() else NAME
        lines = list[str]()
        if not (self.contracted and (self.beside or self.life.old)):
            vectors = {id: Near(self.old_vector(text)) for id, text in self.record.old_text.items()}
            wanted: Rows = {id: (_json(payload), vectors[id]) for id, payload in self.record.old.items()}
            lines += [f"old side: {line}" for line in _differences(wanted, self.points.rows(old, self.life.old))]
        if new:
            wanted = {id: (_json(p), self._vector(p)) for id, p in self.record.expected(self.beside).items()}
            lines += _differences(wanted, self.points.rows(BESIDE if self.beside else NAME, self.new_name))
        return sorted(lines)

    def _vector(self, payload: Mapping[str, Any]) -> Near | None:
        text = payload.get(self.points.key)
        return Near(np.asarray(self.new_vector(text))) if text else None


def _json(payload: Mapping[str, Any]) -> str:
    return json.dumps(payload, sort_keys=True)


def _differences(expected: Rows, there: Rows) -> Iterator[str]:
    yield from (f"{name} is missing: {expected[name][0]}" for name in expected.keys() - there.keys())
    yield from (f"{name} is orphaned: {there[name][0]}" for name in there.keys() - expected.keys())
    for name in expected.keys() & there.keys():
        (payload, vector), (other, made) = expected[name], there[name]
        if payload != other:
            yield f"{name} has the payload {other}, not {payload}"
        if vector is None and made is not None:
            yield f"{name} says nothing and has a vector"
        elif vector is not None and made is None:
            yield f"{name} has no vector"
        elif vector is not None and vector != made:
            yield f"{name} is stale"
