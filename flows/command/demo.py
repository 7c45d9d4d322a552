"""The demo: a real Chroma collection of real text becomes a PostgreSQL table, before your eyes."""

import ast
import os
import shutil
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
from rich.table import Table
from rich.text import Text

from flows.command import console, watching
from flows.command.show.run import show_outcome
from flows.command.show.terminal import bold, out
from tasks.base import settings
from tasks.base.errors import UsageError
from tasks.base.words import counted
from tasks.embedders.hashing import HashingEmbedder
from tasks.runs.database import database_url
from tasks.runs.outcome import Outcome
from tasks.stores import canonical
from tasks.stores.chroma import store as chroma
from tasks.stores.interface import Collection, records, vector_column
from tasks.stores.postgres import embedded
from tasks.stores.postgres.connection import connect
from tasks.stores.postgres.pgvector import Layout
from tasks.stores.postgres.table import Table as PostgresTable
from tasks.stores.postgres.table import search

COLLECTION = "python_docs"
EMBEDDER = HashingEmbedder(384)
QUESTIONS = ("read a file line by line", "parse command line arguments", "wait for a thread to finish")
MARK = ".vecferry-demo"
SHORTEST = 40
"""Characters: shorter docstrings say too little to search for."""


def demo(directory: Path) -> None:
    """Builds the collection, migrates, verifies, cuts over, and asks both stores three questions."""
    directory = _emptied(directory.absolute())
    os.environ["VECFERRY_HOME"] = str(directory / "home")
    source = str(directory / "chroma")
    _head("1. A Chroma collection", " of the docstrings of Python's standard library")
    rows = _build(source)
    out.print(
        f"   {counted(rows, 'record')} in {source}; vectors by {EMBEDDER.space.provider}/{EMBEDDER.dimensions}: hashed words, no model\n"
    )
    _head("2. The migration", ": vecferry run chroma-to-pgvector -p chroma.path=… --run-id demo -p cutover=auto")
    # Whatever names a database of the user's, a variable or a Secret block: the demo keeps out of it.
    hidden = "".join(f"{name}= " for name in (settings.DEFAULT_DATABASE, settings.OTHER_DATABASE) if name in os.environ)
    os.environ[settings.DEFAULT_DATABASE] = embedded.url(settings.home())
    outcome = _migrate(source)
    show_outcome(outcome, as_json=False)
    _head("\n3. The same questions", " to both stores")
    _ask(source)
    out.print(f"\nLook around: {hidden}VECFERRY_HOME={directory / 'home'} vecferry status demo")


def _head(name: str, rest: str) -> None:
    out.print(Text.assemble(bold(name), rest))


def _emptied(directory: Path) -> Path:
    """The directory, without what an earlier demo left. Raises UsageError when it holds anything else."""
    if directory.exists() and any(directory.iterdir()):
        if not (directory / MARK).exists():
            raise UsageError(f"{directory} is neither empty nor from an earlier demo: choose another --dir")
        shutil.rmtree(directory)
    directory.mkdir(parents=True, exist_ok=True)
    (directory / MARK).touch()
    return directory


def _migrate(source: str) -> Outcome:
    from flows.chroma_to_pgvector import chroma_to_pgvector
    from flows.outcome import outcome

    with console.quiet_prefect(), watching.watching("demo", settings.DEFAULT_DATABASE, quiet=False):
        chroma_to_pgvector(chroma={"path": source}, run_id="demo", cutover="auto")
    return outcome("demo", settings.DEFAULT_DATABASE)


def _build(path: str) -> int:
    store = chroma.create_directory(path)
    store.create(Collection(COLLECTION, "", 0, EMBEDDER.dimensions, "cosine", ef_construction=100, ef_search=100))
    texts = list(_docstrings())
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


def _docstrings() -> Iterator[tuple[dict[str, Any], str]]:
    """Metadata and text of every docstring in the standard library's own modules."""
    root = Path(sysconfig.get_paths()["stdlib"])
    for path in sorted(root.rglob("*.py")):
        relative = path.relative_to(root)
        if {"site-packages", "test", "tests", "idlelib", "lib2to3"} & set(relative.parts):
            continue
        try:
            tree = ast.parse(path.read_bytes())
        except (SyntaxError, ValueError):  # some modules are templates
            continue
        module = ".".join(relative.with_suffix("").parts)
        for node in ast.walk(tree):
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Module):
                continue
            text = ast.get_docstring(node)
            if text and len(text) >= SHORTEST:
                name, line = getattr(node, "name", "module"), getattr(node, "lineno", 0)
                yield (
                    {
                        "module": module,
                        "name": name,
                        "kind": type(node).__name__,
                        "line": line,
                        "public": name[0] != "_",
                    },
                    text,
                )


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
