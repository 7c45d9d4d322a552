"""The demo: a real Chroma collection of real text becomes a PostgreSQL table, before your eyes."""

from pathlib import Path

import pyarrow as pa
from rich.table import Table

from flows.command import console, watching
from flows.command.demos import docstrings
from flows.command.demos.ground import RUN, head
from flows.command.show.run import show_outcome
from flows.command.show.terminal import out
from tasks.base import settings
from tasks.base.words import counted
from tasks.embedders.hashing import HashingEmbedder
from tasks.runs.database import database_url
from tasks.runs.outcome import Outcome
from tasks.stores import canonical
from tasks.stores.chroma import store as chroma
from tasks.stores.interface import Collection, records, vector_column
from tasks.stores.postgres.connection import connect
from tasks.stores.postgres.pgvector import Layout
from tasks.stores.postgres.table import Table as PostgresTable, search

COLLECTION = "python_docs"
EMBEDDER = HashingEmbedder(384)
QUESTIONS = ("read a file line by line", "parse command line arguments", "wait for a thread to finish")


def play(directory: Path) -> None:
    """Builds the collection, migrates, verifies, cuts over, and asks both stores three questions."""
    source = str(directory / "chroma")
    head("1. A Chroma collection", " of the docstrings of Python's standard library")
    rows = _build(source)
    out.print(
        f"   {counted(rows, 'record')} in {source}; vectors by {EMBEDDER.space.provider}/{EMBEDDER.dimensions}: hashed words, no model\n"
    )
    head("2. The migration", f": vecferry run chroma-to-pgvector -p chroma.path=… --run-id {RUN} -p cutover=auto")
    outcome = _migrate(source)
    show_outcome(outcome, as_json=False)
    head("\n3. The same questions", " to both stores")
    _ask(source)


def _migrate(source: str) -> Outcome:
    from flows.chroma_to_pgvector import chroma_to_pgvector
    from flows.outcome import outcome

    with console.quiet_prefect(), watching.watching(RUN, settings.DEFAULT_DATABASE, quiet=False):
        chroma_to_pgvector(chroma={"path": source}, run_id=RUN, cutover="auto")
    return outcome(RUN, settings.DEFAULT_DATABASE)


def _build(path: str) -> int:
    store = chroma.create_directory(path)
    store.create(Collection(COLLECTION, "", 0, EMBEDDER.dimensions, "cosine", ef_construction=100, ef_search=100))
    texts = list(docstrings.everywhere())
    for at in range(0, len(texts), 2_000):
        part = texts[at : at + 2_000]
        store.write(
            COLLECTION,
            pa.RecordBatch.from_arrays(
                [
                    pa.array([f"{m['module']}:{m['name']}:{m['line']}" for m, _ in part]),
                    pa.array([text for _, text in part]),
                    pa.array([canonical.dumps(m) for m, _ in part]),
                    pa.nulls(len(part), pa.string()),
                    vector_column(EMBEDDER.embed([text for _, text in part]).vectors),
                ],
                schema=records(EMBEDDER.dimensions),
            ),
        )
    return len(texts)


def _ask(source: str) -> None:
    records = chroma.read(path=source, home=settings.home()).records(COLLECTION)
    table = PostgresTable("public", COLLECTION, Layout("vector", EMBEDDER.dimensions, "cosine"))
    with connect(database_url(settings.DEFAULT_DATABASE)) as connection:
        for question in QUESTIONS:
            vector = EMBEDDER.embed([question]).vectors
            shown = Table(box=None, pad_edge=False, title=f"“{question}”", title_justify="left", title_style="italic")
            for column in ("pgvector", "", "Chroma", ""):
                shown.add_column(column, justify="left" if column else "right", overflow="fold")
            copied, original = (
                search(connection, table, vector, 3, ef_search=100)[0],
                records.search(vector, 3)[0],
            )
            rows = zip(copied.ids, copied.distances, original.ids, original.distances, strict=True)
            for name, distance, there, its in rows:
                shown.add_row(name, f"{distance:.4f}", there, f"{its:.4f}")
            out.print(shown)
