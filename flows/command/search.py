"""What ``vecferry search`` does: it looks for a text by the models that tables serve, or by the vectors that a run has made, as
the application will or does."""

from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from flows.command import completion
from flows.command.arguments import pairs
from flows.command.show import terminal
from flows.command.show.searched import Answer, Hit, Searched, show_searched
from flows.forms.form import parse
from flows.forms.shared import OfRun, located
from tasks.base.errors import UsageError
from tasks.runs.plan import Target
from tasks.runs.run import Run, open_run


def command(
    text: Annotated[str, typer.Argument(help="the text to search for", metavar="TEXT", show_default=False)] = "",
    run: Annotated[
        str,
        typer.Option(
            "--run",
            help="search the new vectors of this run, rather than tables that serve several models",
            autocompletion=completion.runs,
            metavar="RUN",
            show_default=False,
        ),
    ] = "",
    model: Annotated[
        list[str] | None,
        typer.Option(
            "--model",
            help="a registered model; may be repeated (default: the active one)",
            metavar="NAME",
            show_default=False,
        ),
    ] = None,
    aggregation: Annotated[
        str,
        typer.Option(
            "--aggregation",
            help="of several models: union (default) or intersection",
            metavar="union|intersection",
            show_default=False,
        ),
    ] = "",
    queries: Annotated[
        Path | None,
        typer.Option("--queries", help="compare models by the labelled queries of this file instead", metavar="FILE"),
    ] = None,
    limit: Annotated[
        int, typer.Option("--limit", help="rows to show, of each table or collection", min=1, max=1000, metavar="K")
    ] = 5,
    p: Annotated[
        list[str] | None,
        typer.Option("-p", help="database=NAME; without a run also roles.chunks=TABLE", metavar="KEY=VALUE"),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print one JSON object and nothing else")] = False,
) -> None:
    """``vecferry search``. Raises UsageError."""
    from flows.command import search_models

    if run and (model or aggregation or queries):
        raise UsageError("--run searches by the run's own model: leave out --model, --aggregation and --queries")
    if bool(text) == bool(queries):
        raise UsageError("give a TEXT to search for, or a file of labelled queries with --queries")
    if queries:
        search_models.compare(queries, model or [], p, as_json)
    elif not run:
        search_models.search(text, model or [], aggregation, limit, p, as_json)
    else:
        parameters = located(parse(OfRun, {**pairs(p), "run_id": run}))
        with terminal.passing_by(f"searching what run {run} has made…"):
            searched = search(open_run(run, parameters.database), text, limit)
        show_searched(searched, as_json)


def search(run: Run, text: str, limit: int) -> Answer:
    """The nearest rows to a text by the new vectors of a run, before the cutover and after. Raises UsageError where the run has no
    model that takes texts, or another one than it was planned with, or has made nothing, or nothing is left of it."""
    from flows.command.embed import vectors_of
    from tasks.begin import refuse_dropped
    from tasks.runs import ledger
    from tasks.runs.same_model import refuse_another
    from tasks.serving.purchasing import Allowance, Purchasing

    with run.connection() as connection:
        refuse_dropped(ledger.get(connection, run.run_id))
    model = run.plan.request.embedder
    if model is None:
        raise UsageError(
            f"run {run.run_id} carries its source's vectors, and their model is not known: no text can be embedded for them"
        )
    embedder = Purchasing(run.connection, Allowance("search")).open(model)
    if "text" not in embedder.takes:
        raise UsageError(
            f"{model}, the model of run {run.run_id}, cannot embed texts: its vectors are found by images only"
        )
    refuse_another(run.plan, model, embedder)
    probe = vectors_of(embedder, model, [text], [text])
    with run.refusable(f"search what run {run.run_id} has made"):
        return Answer(run.run_id, text, model, [_searched(run, target, probe, limit) for target in run.plan.targets])


def _searched(run: Run, target: Target, probe: np.ndarray, limit: int) -> Searched:
    from tasks.shadows.registry import shadow_of
    from tasks.stores.exact_search import similarity

    with shadow_of(run, target).made() as made:
        [nearest] = made.search(probe, limit, max(40, target.collection.ef_search, limit))
        batch = made.fetch(nearest.ids)
        documents = dict(zip(batch.column("id").to_pylist(), batch.column("document").to_pylist(), strict=True))
        hits = []
        for i, distance in zip(nearest.ids, map(float, nearest.distances), strict=True):
            document = documents.get(i)
            name = None if document is None else target.content.name_of(document)
            hits.append(Hit(i, name, similarity(made.metric, distance), distance))
    return Searched(target.name, target.content.gives, hits)
