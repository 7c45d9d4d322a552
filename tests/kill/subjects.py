"""What chaos_live.py kills: a flow over a live table, who writes and searches there, and what must have come of it."""

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import psycopg

from tests.helpers import live, live_documents, live_images
from tests.helpers.counting import CountingTexts, counted
from tests.helpers.readers import FUNCTIONS, USER, Questions, TextQuestions, searched_by


class Subject(Protocol):
    """One table of one flow."""

    layouts: tuple[str, str]
    """Where the new vectors may lie."""
    questions: Questions
    kinds: Sequence[str]
    """Of changes."""
    search: str
    """The function that the switch replaces."""
    catch_up: tuple[str, ...]
    """Options by which a catch-up finds every change."""
    lives_on: bool
    """Whether the run is contracted, and followed after that too."""

    def make(self, connection: "psycopg.Connection[Any]", rows: int) -> None:
        """The table, and its function."""
        ...

    def run(self, layout: str) -> tuple[str, ...]:
        """The command, without what all flows have."""
        ...

    def write(
        self, connection: "psycopg.Connection[Any]", chance: random.Random, number: int, step: int, kind: str
    ) -> None: ...

    def faults(self, connection: "psycopg.Connection[Any]", home: Path) -> list[str]:
        """Of the rows and their vectors, and of what was made for them in ``home``."""
        ...


class Texts:
    """text-384-to-1536 over ``docs``."""

    layouts = ("column", "side_table")
    kinds: Sequence[str] = live.KINDS
    search = "match_docs"
    catch_up: tuple[str, ...] = ()
    lives_on = False

    def __init__(self, folder: Path, number: int) -> None:
        self.function = [*FUNCTIONS][number % len(FUNCTIONS)]
        self.questions: Questions = TextQuestions(self.function)

    def make(self, connection: "psycopg.Connection[Any]", rows: int) -> None:
        live.make_table(connection, rows)
        searched_by(connection, self.function)

    def run(self, layout: str) -> tuple[str, ...]:
        target = '[{"table": "docs", "text": "content"}]'
        models = ("-p", "embedder=hashing/1536", "-p", "old_embedder=hashing/384")
        return (
            "text-384-to-1536", "-p", f"targets={target}", *models, "-p", f"probe_settings={{app.reader: {USER}}}",
            "-p", f"layout={layout}",
        )  # fmt: skip

    def write(
        self, connection: "psycopg.Connection[Any]", chance: random.Random, number: int, step: int, kind: str
    ) -> None:
        live.write_text(connection, chance, number, step, kind)

    def faults(self, connection: "psycopg.Connection[Any]", home: Path) -> list[str]:
        return live.faults(connection)


class Images:
    """clip-to-megadescriptor over ``reports``, with a model that counts what it is given."""

    layouts = ("column", "side_table")
    kinds: Sequence[str] = live_images.KINDS
    search = "match_reports"
    catch_up = ("-p", "reread=true")
    lives_on = False

    def __init__(self, folder: Path, number: int) -> None:
        self.reports = live_images.Reports(folder)
        self.questions: Questions = live_images.ImageQuestions(self.reports)

    def make(self, connection: "psycopg.Connection[Any]", rows: int) -> None:
        self.reports.make(connection, rows)

    def run(self, layout: str) -> tuple[str, ...]:
        given = live_images.parameters(self.reports).items()
        options = [part for name, value in given for part in ("-p", f"{name}={json.dumps(value)}")]
        # A file that is replaced changes no row: the sample has some of them, and what is compared here is all.
        return ("clip-to-megadescriptor", *options, "-p", "gates.min_row_cosine=-1", "-p", f"layout={layout}")

    def write(
        self, connection: "psycopg.Connection[Any]", chance: random.Random, number: int, step: int, kind: str
    ) -> None:
        self.reports.write(connection, chance, number, step, kind)

    def faults(self, connection: "psycopg.Connection[Any]", home: Path) -> list[str]:
        twice = counted(home).twice
        return self.reports.faults(connection) + [f"{item} was made twice, though it was kept" for item in twice]


class Models:
    """multi-model over ``document_chunks``, onto a model of other dimensions, or one that shares the column of the first."""

    layouts = ("own column", "shared column")
    kinds: Sequence[str] = live_documents.KINDS
    search = "search_chunks"
    catch_up: tuple[str, ...] = ()
    lives_on = True

    def __init__(self, folder: Path, number: int) -> None:
        new = (CountingTexts(768), CountingTexts(384, reverse=True))[number % 2]
        self.documents = live_documents.Documents(CountingTexts(384), new)
        self.questions: Questions = live_documents.DocumentQuestions(self.documents)

    def make(self, connection: "psycopg.Connection[Any]", rows: int) -> None:
        self.documents.make(connection, rows)

    def run(self, layout: str) -> tuple[str, ...]:
        return ("multi-model", "-p", f"target_model={self.documents.new.name}")

    def write(
        self, connection: "psycopg.Connection[Any]", chance: random.Random, number: int, step: int, kind: str
    ) -> None:
        self.documents.write(connection, chance, number, step, kind)

    def faults(self, connection: "psycopg.Connection[Any]", home: Path) -> list[str]:
        twice = counted(home).twice
        return self.documents.faults(connection) + [f"{item} was made twice, though it was kept" for item in twice]


SUBJECTS: dict[str, type[Texts] | type[Images] | type[Models]] = {
    "text-384-to-1536": Texts,
    "clip-to-megadescriptor": Images,
    "multi-model": Models,
}
"""By their flows."""
