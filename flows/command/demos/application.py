"""The application of the live table's demo: it writes to the table and searches it, all the while.

    python -m flows.command.demos.application URL FOLDER

A process of its own, as yours is, so that a search takes no longer for what vecferry does in Python. It knows every text
and what either model makes of it (``Texts``), and so what an answer has to be. Each line of standard input is an ``Order``,
and is answered by a ``Meanwhile``; at the end of the input, which comes when vecferry ends or is killed, it ends.
"""

import itertools
import json
import os
import random
import sys
import threading
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
from psycopg import sql

from sql import statement
from tasks.base.words import counted

WRITE_PAUSE, SEARCH_PAUSE = 0.05, 0.03
"""Seconds after a write, and after a search."""
COUNT = 5
"""Rows that a search asks for."""
CLOSE = 1e-4
"""By how much a similarity may be off: the database reckons in single precision."""
FAULTS = 5
"""That are kept in words."""
SEARCH = f"SELECT id, module || '.' || name, content, similarity FROM match_docstrings(%s::vector, 0, {COUNT})"
KINDS = {"update": "updated", "insert": "inserted", "delete": "deleted"}
"""What is written in turn, and what counts it."""
COLUMNS = ("id", "module", "name", "public", "content", "embedding")


@dataclass(frozen=True)
class Texts:
    """All texts that are ever in the table, no two of them equal. Row ``id`` begins with text ``id``, for as many rows as
    the table begins with."""

    fields: tuple[dict[str, Any], ...]
    """Module, name and whether it is public, and the content."""
    old: np.ndarray
    """float32[n, 384], of length 1."""
    new: np.ndarray
    """float32[n, 1536], of length 1."""
    rows: int

    def save(self, folder: Path) -> None:
        (folder / "texts.json").write_text(json.dumps({"fields": self.fields, "rows": self.rows}))
        np.save(folder / "old.npy", self.old)
        np.save(folder / "new.npy", self.new)

    @classmethod
    def load(cls, folder: Path) -> "Texts":
        data = json.loads((folder / "texts.json").read_text())
        return cls(tuple(data["fields"]), np.load(folder / "old.npy"), np.load(folder / "new.npy"), data["rows"])

    def row(self, id: int, text: int) -> dict[str, Any]:
        """What the application writes: the text, with its old vector."""
        return {"id": id, **self.fields[text], "embedding": literal(self.old[text])}


@dataclass(frozen=True)
class Order:
    """What the application is told."""

    new: bool = False
    """Whether it searches by the new model too, from now on."""
    writes: bool = True
    caught_up: float = 0.0
    """By time.time(), when that began which has brought all new vectors up to date."""


@dataclass
class Meanwhile:
    """What was done since the last order."""

    inserted: int = 0
    updated: int = 0
    deleted: int = 0
    old: int = 0
    """Searches by the old model."""
    new: int = 0
    behind: int = 0
    """Rows of answers whose new vector is still of their text before."""
    longest: float = 0.0
    """Seconds that a search took."""
    rows: int = 0
    """Rows that were compared with what was written."""
    wrong: int = 0
    """Answers that are not what they have to be, and errors."""
    faults: list[str] = field(default_factory=list)
    """What was wrong with the first of them."""

    @property
    def written(self) -> int:
        return self.inserted + self.updated + self.deleted

    @property
    def searches(self) -> int:
        return self.old + self.new

    def add(self, other: "Meanwhile") -> None:
        for name, value in vars(other).items():
            known = getattr(self, name)
            setattr(self, name, max(known, value) if name == "longest" else known + value)
        del self.faults[FAULTS:]


def literal(vector: np.ndarray) -> str:
    """As pgvector reads it."""
    return f"[{','.join(map(str, vector.tolist()))}]"


def written(kind: str) -> sql.Composed:
    """The statement of a kind of write, its values to be bound by name."""
    return statement(f"demo_{kind}", **{name: sql.Placeholder(name) for name in COLUMNS})


class Application:
    """A writer and a reader, each a thread with a connection of its own."""

    def __init__(self, url: str, texts: Texts) -> None:
        self.url, self.texts, self.order = url, texts, Order()
        self.meanwhile, self._counting, self._searching = Meanwhile(), threading.Lock(), threading.Lock()
        self._text_of = {text["content"]: number for number, text in enumerate(texts.fields)}
        # Each text that a row has had, and until when: noted before it is written, since a search may see it at once.
        self.versions: dict[int, list[tuple[int, float]]] = {i: [(i, float("inf"))] for i in range(texts.rows)}
        self._there = list(range(texts.rows))
        self._unused = list(range(texts.rows, len(texts.fields)))

    def begin(self) -> None:
        self._writer, reader = [
            threading.Thread(target=self._until_it_fails, args=(work,), daemon=True)
            for work in (self._write, self._search)
        ]
        self._writer.start()
        reader.start()

    def tell(self, order: Order) -> Meanwhile:
        """Obeys from the next search and write on, and says what was done until now. When it ceases to write, it first
        compares the table with what it wrote."""
        with self._searching:
            self.order = order
        if not order.writes:
            self._writer.join()
            self._until_it_fails(self._compare_table)
        with self._counting:
            meanwhile, self.meanwhile = self.meanwhile, Meanwhile()
        return meanwhile

    def _until_it_fails(self, work: Any) -> None:
        try:
            with psycopg.connect(self.url, autocommit=True, application_name="application") as connection:
                work(connection)
        except Exception as error:  # noqa: BLE001  counted, and told where the demo is played
            self._count(wrong=1, faults=[f"{type(error).__name__}: {error}".strip()])

    def _write(self, connection: psycopg.Connection[Any]) -> None:
        chance, new_ids, kinds = random.Random(7), itertools.count(self.texts.rows), itertools.cycle(KINDS)
        while self.order.writes:
            kind = next(kinds)
            text = self._unused.pop(chance.randrange(len(self._unused)))
            id = next(new_ids) if kind == "insert" else chance.choice(self._there)
            versions = self.versions.setdefault(id, [])
            before = versions[-1][0] if versions else text
            if kind != "delete":
                versions.append((text, float("inf")))
            connection.execute(written(kind), self.texts.row(id, text))
            if kind == "insert":
                self._there.append(id)
            elif kind == "delete":
                self._there.remove(id)
                self._unused += [text, before]
            else:
                versions[-2] = (before, time.time())
                self._unused.append(before)
            self._count(**{KINDS[kind]: 1})
            time.sleep(WRITE_PAUSE)

    def _search(self, connection: psycopg.Connection[Any]) -> None:
        chance = random.Random(8)
        connection.execute("SET ROLE docstrings_reader")
        while True:
            text = chance.randrange(len(self.texts.fields))
            with self._searching:
                for model in ("old", "new") if self.order.new else ("old",):
                    vectors = getattr(self.texts, model)
                    asked = time.perf_counter()
                    rows = connection.execute(SEARCH, [literal(vectors[text])]).fetchall()
                    took = time.perf_counter() - asked
                    behind, fault = self.compare(rows, vectors[text], vectors)
                    faults = [f"a search by the {model} model: {fault}"] if fault else []
                    self._count(**{model: 1}, longest=took, behind=behind, wrong=len(faults), faults=faults)
            time.sleep(SEARCH_PAUSE)

    def compare(self, rows: list[Any], query: np.ndarray, vectors: np.ndarray) -> tuple[int, str]:
        """How many rows of an answer are behind, and what is wrong with it."""
        behind = 0
        if len(rows) != COUNT:
            return 0, f"{len(rows)} instead of {counted(COUNT, 'row')}"
        if any(later > earlier + CLOSE for (*_, earlier), (*_, later) in itertools.pairwise(rows)):
            return 0, "not the nearest first"
        for id, _, content, similarity in rows:
            text = self._text_of.get(content)
            versions = list(self.versions.get(id, []))
            if text not in [version for version, _ in versions]:
                return behind, f"row {id} says what it never said"
            if not self.texts.fields[text]["public"]:
                return behind, f"row {id} is not public"
            if abs(similarity - float(query @ vectors[text])) < CLOSE:
                continue
            late = [
                version for version, until in versions if vectors is self.texts.new and until >= self.order.caught_up
            ]
            if not any(abs(similarity - float(query @ vectors[version])) < CLOSE for version in late):
                return behind, f"row {id} has similarity {similarity:.6f}, not {float(query @ vectors[text]):.6f}"
            behind += 1
        return behind, ""

    def _compare_table(self, connection: psycopg.Connection[Any]) -> None:
        """Each row that differs from what was written last, in its text or its old vector, is wrong."""
        rows = connection.execute("SELECT id, content, embedding::real[] FROM docstrings", binary=True).fetchall()
        there = {id: (self._text_of.get(content), vector) for id, content, vector in rows}
        for id in sorted({*there, *self._there}):
            text, vector = there.get(id, (None, None))
            expected = self.versions[id][-1][0] if id in self._there else None
            same = text == expected and (text is None or np.allclose(vector, self.texts.old[text], atol=CLOSE))
            if not same:
                self._count(wrong=1, faults=[f"row {id} is not as it was written last"])
        self._count(rows=len(there))

    def _count(self, **more: Any) -> None:
        with self._counting:
            self.meanwhile.add(Meanwhile(**more))


def main(url: str, folder: Path) -> None:
    """Works until the input ends; what is under way then is of no interest to anyone."""
    application = Application(url, Texts.load(folder))
    application.begin()
    for line in sys.stdin:
        print(json.dumps(asdict(application.tell(Order(**json.loads(line))))), flush=True)
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
