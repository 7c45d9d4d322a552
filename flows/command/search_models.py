"""What ``vecferry search`` does without a run: it asks the models that tables serve."""

import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from flows.client import Allowance, Answer, Client
from flows.command.arguments import pairs
from flows.command.show import terminal
from flows.command.show.compared import show_compared
from flows.command.show.hits import show_answer
from flows.forms.form import parse
from flows.forms.models import OfTables
from tasks.base.errors import UsageError
from tasks.checks.models_compared import Timed, compared
from tasks.checks.query_file import read_queries
from tasks.runs.database import connect, database_url
from tasks.stores.postgres import model_tables


def search(text: str, models: Sequence[str], aggregation: str, limit: int, p: list[str] | None, as_json: bool) -> None:
    """Prints the chunks nearest to a text, by the models of these names, or the active one. Raises UsageError."""
    with _client(p) as client:
        with terminal.passing_by("searching…"):
            answer = _asked(client, text, models, aggregation, limit)
        show_answer(text, answer, as_json)


def compare(queries: Path, models: Sequence[str], p: list[str] | None, as_json: bool) -> None:
    """Prints how well each model answers labelled queries, how fast, and what its vectors take. Raises UsageError."""
    with _client(p) as client:
        known = client.models()
        names = [client.model_named(name) for name in models] or [m.model for m in known if m.searched]
        with terminal.passing_by("searching…"):
            active = next((m.model for m in known if m.active), None)
            result = compared(read_queries(str(queries)), names, partial(_timed, client), client.storage, active)
        show_compared(result, as_json)


def _client(p: list[str] | None) -> Client:
    asked = parse(OfTables, pairs(p))
    with connect(database_url(asked.database), "vecferry search") as connection:
        if not model_tables.standing(connection):
            raise UsageError(
                "name a run with --run; `vecferry status` lists them. No tables of this database serve several models: "
                f"`{model_tables.INIT}` prepares them"
            )
    return Client(asked.database, roles=asked.roles.resolved(), allowance=Allowance("search"))


def _timed(client: Client, model: str, texts: Sequence[str], top_k: int) -> list[Timed]:
    """One search after the other, whatever the threshold. The first is made twice, so that connecting is not counted."""
    searches = list[Timed]()
    for text in [texts[0], *texts]:
        vector = client.probe(text, model)
        started = time.perf_counter()
        answer = client.search(None, model, top_k, vector=vector, min_similarity=float("-inf"))
        seconds = time.perf_counter() - started
        searches.append(Timed([{str(hit.chunk_id), hit.title or ""} for hit in answer], seconds))
    return searches[1:]


def _asked(client: Client, text: str, models: Sequence[str], aggregation: str, limit: int) -> Answer:
    if len(models) < 2:
        if aggregation:
            raise UsageError("--aggregation is for several models: name each with --model")
        return client.search(text, models[0] if models else None, limit)
    return client.search_multi_model(text, models, aggregation or "union", limit)  # type: ignore[arg-type]
