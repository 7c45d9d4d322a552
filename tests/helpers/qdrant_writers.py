"""People who write to a Qdrant collection all the while, through an application that follows the switch and one that does not."""

import random
import threading
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from qdrant_client import QdrantClient, models

from tests.helpers.captioned import NAME
from tests.helpers.crowd import Crowd
from tests.helpers.qdrant_application import ADDED, BESIDE, KEPT, Application, Payload

KINDS = ("insert", "upsert", "document", "payload", "overwrite", "silence", "vector", "delete", "reuse")
COUNT = 2


@dataclass
class Writers:
    """Clients that make changes of all kinds in turn, all at once."""

    application: Application
    pause: float = 0.08
    wrote: Counter[str] = field(default_factory=Counter)
    crowd: Crowd = field(default_factory=Crowd)

    def writing(self) -> AbstractContextManager[None]:
        return self.crowd.acting(*(partial(self._until, number) for number in range(COUNT)))

    def some(self, more: int = 30) -> None:
        """Waits until so many more changes were made."""
        until = self.wrote.total() + more
        while self.wrote.total() < until and not self.crowd.errors:
            time.sleep(0.01)

    def _until(self, number: int, stop: threading.Event) -> None:
        writer, step = Writer(self.application, number), 0
        while not stop.wait(self.pause):
            with self.crowd.step(number):
                kind = KINDS[step % len(KINDS)]
                if writer.write(kind, step):
                    self.wrote[kind] += 1
                step += 1


class Writer:
    """One of them, with points of its own: no two write the same one at once. The first never hears of a switch, save where the name
    that it uses comes to mean something else; the second follows it, there and back.

    What lies in both collections is written in one of them until the way back: which of two writes to different collections was
    the later one, nobody can tell.
    """

    def __init__(self, application: Application, number: int) -> None:
        self.application, self.record = application, application.record
        self.number, self.chance = number, random.Random(number)
        self.client = QdrantClient(application.url, timeout=60)
        self.names = {
            str(application.points.id(n)): n for n in range(KEPT, len(self.record.old)) if n % COUNT == number
        }
        self.next, self.era, self.was = 1_000_000 * (number + 1), 0, False

    def write(self, kind: str, step: int) -> bool:
        """One change of the kind; whether there was one to make."""
        self.new = self._follows() and self.application.switched()
        if self.new != self.was:
            self.was, self.era = self.new, self.era + 1
            if self.era == 2:  # what was deleted from the new collection is in the one that is gone back to
                for id in [id for id in self.names if id in self.record.new and self.record.new[id] is None]:
                    del self.record.new[id]
        self.collection = BESIDE if self.new and self.application.life.strategy == "alias" else NAME
        if kind == "insert":
            return self._insert(step)
        names = [id for id in self.names if self._has(id) and self._is_of_era(self.names[id])]
        if not names:
            return False
        id = self.chance.choice(names)
        if self._beside and not self._settled(id):
            return False
        self._change(kind, id, step)
        return True

    def _change(self, kind: str, id: str, step: int) -> None:
        at, seed = self.application.points, 100_000 * (self.number + 1) + step
        payload, key = dict(self._says(id)), at.key
        if kind == "upsert":
            self._upsert(id, self._made(id, seed))
        elif kind == "document":
            self._set(id, {key: at.document(self.names[id], seed)}, payload)
        elif kind == "payload":
            self._set(id, {"seen": step}, payload)
        elif kind == "overwrite":
            self.client.overwrite_payload(self.collection, {**payload, "over": step}, [_id(id)], wait=True)
            self._note(id, {**payload, "over": step})
        elif kind == "silence":
            self.client.delete_payload(self.collection, [key], [_id(id)], wait=True)
            self._note(id, {name: value for name, value in payload.items() if name != key})
            if self.new:  # who makes vectors takes them back
                self.client.delete_vectors(self.collection, [self.application.new_name], [_id(id)], wait=True)
        elif kind == "vector":
            self._write_vector(id, payload, f"another of {id} in {step}")
        else:
            self.client.delete(self.collection, [_id(id)], wait=True)
            self._note(id, None)
            if kind == "reuse":
                self._upsert(id, self._made(id, seed))

    def _insert(self, step: int) -> bool:
        self.next += 1
        while self.next % COUNT != self.number or not self._is_of_era(self.next):
            self.next += 1
        id = str(self.application.points.id(self.next))
        self.names[id] = self.next
        self._upsert(id, self._made(id, step))
        return True

    def _set(self, id: str, more: Payload, payload: Payload) -> None:
        """Some of the payload, and the new vector of it, where the application makes those."""
        key = self.application.points.key
        if key in more:
            self.record.will_say("new", id, more[key])
        self.client.set_payload(self.collection, more, [_id(id)], wait=True)
        self._note(id, {**payload, **more})
        if self.new and key in more:
            self._update(id, self.application.new_name, self.application.new_vector(more[key]))

    def _write_vector(self, id: str, payload: Payload, text: str) -> None:
        """An old vector of whatever; a new one of what the point says, as whoever uses it makes it."""
        says = payload.get(self.application.points.key)
        if self.new and says:
            self._update(id, self.application.new_name, self.application.new_vector(says))
        elif not self.new:
            self.record.will_say("old", id, text)
            self._update(id, self.application.life.old, self.application.old_vector(text))
            self.record.old_text[id] = text

    def _upsert(self, id: str, payload: Payload) -> None:
        application, text = self.application, payload.get(self.application.points.key, "nothing")
        vectors: dict[str, Any] = {}
        if not self._beside:
            vectors[application.life.old] = application.old_vector(text)
            self.record.will_say("old", id, text)
        if says := payload.get(application.points.key):
            self.record.will_say("new", id, says)
        if self.new and says:
            vectors[ADDED if not application.beside else application.new_name] = application.new_vector(text)
        point = models.PointStruct(id=_id(id), vector=_laid(vectors), payload=payload)
        self.client.upsert(self.collection, [point], wait=True)
        self._note(id, payload)
        if not self._beside:
            self.record.old_text[id] = text

    def _update(self, id: str, name: str, vector: list[float]) -> None:
        point = models.PointVectors(id=_id(id), vector=_laid({name: vector}))
        self.client.update_vectors(self.collection, [point], wait=True)

    def _made(self, id: str, seed: int) -> Payload:
        return {**self.application.points.payload(self.names[id], seed), "step": seed}

    def _note(self, id: str, payload: Payload | None) -> None:
        """What the point says from now on."""
        if self._beside:
            self.record.new[id] = payload
            return
        if payload != self.record.old.get(id):
            self.record.new.pop(id, None)
        if payload is None:
            self.record.old.pop(id, None)
            self.record.old_text.pop(id, None)
        else:
            self.record.old[id] = payload

    def _says(self, id: str) -> Mapping[str, Any]:
        says = self.record.new.get(id, self.record.old.get(id)) if self._beside else self.record.old[id]
        assert says is not None
        return says

    def _has(self, id: str) -> bool:
        there = self.record.new.get(id, self.record.old.get(id)) if self._beside else self.record.old.get(id)
        return there is not None

    def _settled(self, id: str) -> bool:
        """Whether what was written to the old collection before the switch is here by now."""
        points = self.client.retrieve(self.collection, [_id(id)], with_payload=True)
        return bool(points) and points[0].payload == self._says(id)

    def _is_of_era(self, number: int) -> bool:
        free = self.application.life.strategy != "alias" or self.number == 0 or self.era > 1
        return free or number // COUNT % 2 == self.era

    def _follows(self) -> bool:
        return self.number == 1 or self.application.pauses

    @property
    def _beside(self) -> bool:
        """Whether it writes to the new collection."""
        return self.new and self.application.beside


def _id(id: str) -> int | str:
    return int(id) if id.isdigit() else id


def _laid(vectors: Mapping[str, Any]) -> Any:
    return vectors.get("", []) if list(vectors) == [""] else dict(vectors)
