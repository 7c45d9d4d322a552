"""Vectors of one model of several, in a table of the application's: which documents get them, and whose vectors stay."""

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from flows.forms.form import parse
from flows.forms.multi_model import MultiModel
from tasks import load as loading
from tasks.base import settings
from tasks.base.errors import UsageError, VerificationRefused
from tasks.begin import begin
from tasks.catch_up import catch_up
from tasks.checks.searches import probe_vectors
from tasks.cutover import contract, rollback
from tasks.embedders.registry import open_embedder
from tasks.planning.planned import Planned
from tasks.planning.registry import make_plan
from tasks.runs import coverage, registry, status
from tasks.runs.run import Run, open_run
from tasks.shadows.postgres.models import switch
from tasks.shadows.registry import shadow_of
from tasks.stores.postgres.connection import Connection
from tests.helpers.lifecycle import Rows
from tests.helpers.live_table import rounded, text_vector
from tests.helpers.openai_server import OpenAIServer
from tests.helpers.pipeline import build, finish
from tests.helpers.served_tables import Served

NEW = "hashing/768"


def migrated(run_id: str, **parameters: Any) -> Run:
    return build(run_id, MultiModel, **{"target_model": NEW, "batch_rows": 20, **parameters})


def paid_for(run_id: str, **parameters: Any) -> Run:
    """The same with a model that is paid for: nothing is bought unless somebody works on the run."""
    form = parse(MultiModel, {"batch_rows": 20, **parameters})
    begin(form.request(), run_id, form.given())
    with open_run(run_id, settings.DEFAULT_DATABASE).kept_open():
        return migrated(run_id, **parameters)


def followed(run: Run) -> None:
    assert catch_up(run, 0, max_deleted=1.0).last.touched == 0
    assert shadow_of(run, run.plan.targets[0]).compare().touched == 0


def planned(served: Served, **parameters: Any) -> Planned:
    form = parse(MultiModel, {"target_model": NEW, **parameters})
    return make_plan(served.connection, form.request(), "planned")


@pytest.fixture
def served(connection: Connection) -> Served:
    served = Served(connection)
    served.init(NEW)
    return served


def where(served: Served, condition: str) -> Rows:
    return served.expected(NEW, condition)


def test_a_filter_decides_which_documents_are_migrated_then_and_later(served: Served) -> None:
    """Those that come under it get vectors by the next pass, whatever changed in which table; those that leave it lose theirs, and
    vectors that others wrote for other documents stay."""
    run = migrated("some", documents={"filter": "source = 'wiki'"})
    assert served.vectors(NEW) == where(served, "d.source = 'wiki'")

    others = served.chunks("d.source = 'mail'")
    chunk, text = next(iter(others.items()))
    model = registry.named(served.connection, served.tables, NEW)
    written = (model.id, chunk, text_vector(open_embedder(NEW).embed([text]).whole[0]))
    served.connection.execute(
        "INSERT INTO chunk_embeddings (model_id, chunk_id, embedding_768) VALUES (%s, %s, %s)", written
    )
    served.connection.execute("UPDATE document_chunks SET content = content || '' WHERE id = %s", (chunk,))
    served.connection.execute("UPDATE documents SET source = 'mail' WHERE id = %s", (served.documents[0],))
    served.connection.execute("UPDATE documents SET source = 'wiki' WHERE id = %s", (served.documents[3],))
    served.insert()
    followed(run)
    expected = where(served, "d.source = 'wiki'")
    assert served.vectors(NEW) == expected | {chunk: served.expected(NEW)[chunk]}


def test_the_newest_documents_first_and_all_of_them_later(served: Served) -> None:
    """The first five are the newest, and those that come later are newer; a later run over all embeds nothing again, and the end of
    the first run takes none of its vectors."""
    first = migrated("first", documents={"first": 5}, order_by="created_at DESC")
    newest = (
        "d.created_at >= (SELECT min(created_at) FROM (SELECT created_at FROM documents ORDER BY 1 DESC LIMIT 5) AS n)"
    )
    assert served.vectors(NEW) == where(served, newest)
    served.insert()
    followed(first)
    followed_before = served.vectors(NEW)
    assert followed_before == where(served, newest.replace("LIMIT 5", "LIMIT 6"))
    with pytest.raises(
        VerificationRefused, match=r"not among the documents of this run.*models activate hashing/768 --force"
    ):
        finish(first, min_recall=0.95)
    assert status.outcome(served.connection, "first").next == "vecferry catch-up first", (
        "not a cutover, which is refused"
    )

    every = migrated("every")
    assert served.vectors(NEW) == served.expected(NEW)
    reused = served.connection.execute("SELECT reused, bought FROM vecferry.run WHERE run_id = 'every'").fetchone()
    assert reused
    assert reused[0] == len(followed_before)
    rollback(first)
    assert served.vectors(NEW) == served.expected(NEW)
    finish(every, min_recall=0.95)
    assert served.active() == NEW
    served.insert()
    followed(every)


def test_one_document_alone(served: Served) -> None:
    """By its key; keys that are not there are named."""
    migrated("one", documents={"ids": str(served.documents[4])})
    assert served.vectors(NEW) == where(served, f"d.id = {served.documents[4]}")
    with pytest.raises(UsageError, match=r"names 1 document that public.documents does not have: 999"):
        planned(served, documents={"ids": ["999"]})


def test_what_was_there_before_a_run_stays_when_it_is_taken_back(served: Served) -> None:
    """A run that is taken back before its switch takes the vectors that it has brought in, and those that were there stay."""
    first = migrated("first", documents={"filter": "source = 'wiki'"})
    wiki = served.vectors(NEW)
    every = migrated("every")
    assert served.vectors(NEW) == served.expected(NEW)
    rollback(every)
    assert served.vectors(NEW) == wiki
    rollback(first)
    assert served.vectors(NEW) == {}
    assert served.vectors("hashing/384") == served.expected("hashing/384")


def test_a_text_that_changes_while_it_is_embedded(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """Gets no vector of what it said; nor does a chunk that is deleted meanwhile, and none is left of it."""
    embedded, left = loading.embedded, [1]

    def slow(*args: Any, **more: Any) -> Any:
        made = embedded(*args, **more)
        if left and left.pop():
            first, second, *_ = sorted(map(int, served.chunks()))
            served.say(first, "something else by now")
            served.connection.execute("DELETE FROM document_chunks WHERE id = %s", (second,))
        return made

    monkeypatch.setattr(loading, "embedded", slow)
    run = migrated("raced")
    assert not left
    assert served.vectors(NEW) == served.expected(NEW)
    followed(run)


def test_a_truncate_is_followed(served: Served) -> None:
    """Nothing is left of what is gone, in the table of vectors and in what is known."""
    run = migrated("gone")
    served.connection.execute("TRUNCATE documents CASCADE")
    served.insert()
    followed(run)
    assert served.vectors(NEW) == served.expected(NEW) != {}


@pytest.mark.parametrize("target", ["hashing/768", "hashing/3072"])
def test_a_search_goes_through_the_index_of_its_dimensions(connection: Connection, target: str) -> None:
    """Though the vectors are joined to their chunks, and of 3072 dimensions the index is one of halves."""
    served = Served(connection)
    served.init(target)
    run = migrated("indexed", target_model=target)
    with shadow_of(run, run.plan.targets[0]).made() as made:
        probes = probe_vectors(made)
        hits = made.search(probes[:3], 10, 100)
        assert all(len(hit.ids) == 10 for hit in hits)
        place = made.table  # type: ignore[attr-defined]
        dims = target.partition("/")[2]
        operand = place.layout.operand(place.column)
        with connection.transaction():
            connection.execute("SET LOCAL enable_seqscan = off; SET LOCAL enable_sort = off")
            told = connection.execute(
                f"EXPLAIN SELECT {place.key} FROM {place.rows} ORDER BY ({operand}) <=> "
                f"(SELECT embedding_{dims} FROM chunk_embeddings WHERE embedding_{dims} IS NOT NULL LIMIT 1)::{place.layout.probe} LIMIT 5"
            ).fetchall()
    assert any(f"idx_embeddings_hnsw_{dims}" in line for (line,) in told), told


def test_the_way_back_ends_where_another_model_was_made_the_default(served: Served) -> None:
    """A rollback makes the default again what was the default before its cutover, and no other; a contract drops nothing."""
    served.init("hashing/16")
    run = migrated("one")
    finish(run, min_recall=0.95)
    assert served.active() == NEW
    switch.activate(served.connection, served.tables, "hashing/16", force=True)
    with pytest.raises(UsageError, match=r"hashing/768 is not the default of public.document_chunks, hashing/16 is"):
        rollback(run)
    switch.activate(served.connection, served.tables, NEW)
    contract(run, 0)
    assert served.vectors(NEW) == served.expected(NEW)
    assert served.vectors("hashing/384") == served.expected("hashing/384")
    served.insert()
    followed(run)
    assert served.vectors("hashing/384") == served.expected("hashing/384")


def test_a_plan_names_what_would_see_a_row_a_chunk_and_model(served: Served) -> None:
    """Views and functions of the application's that read the vectors and name no model, and none that does."""
    for name, condition in (("all_vectors", "true"), ("of_one", "model_id = 1")):
        served.connection.execute(f"CREATE VIEW {name} AS SELECT chunk_id FROM chunk_embeddings WHERE {condition}")
        served.connection.execute(
            f"CREATE FUNCTION {name}_() RETURNS bigint LANGUAGE sql AS $$ SELECT count(*) FROM chunk_embeddings WHERE {condition} $$"
        )
    told = [line for line in planned(served).warnings if "model_id" in line]
    assert len(told) == 1
    assert told[0].startswith(
        "view all_vectors and function all_vectors_(): public.chunk_embeddings is read without model_id"
    )


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"target_model": None}, "no model is given: set target_model"),
    ({"target_model": "hashing/384"}, "hashing/384 is the source and the target"),
    ({"target_model": "hashing/5"}, "no model 'hashing/5' is registered.*vecferry models setup hashing/5"),
    ({"documents": {"filter": "sauce = 'wiki'"}}, "public.documents has no column 'sauce'"),
    (
        {"documents": {"filter": "length(title)"}},
        "documents.filter 'length.title.': argument of WHERE must be type boolean",
    ),
    ({"documents": {"filter": "id IN (SELECT 1)"}}, "cannot be part of an expression over one row"),
    ({"documents": {"first": 3}, "order_by": "made DESC"}, "public.documents has no column 'made'"),
    ({"documents": {"ids": []}}, "documents.ids is empty"),
]


@pytest.mark.parametrize(("parameters", "told"), REFUSED)
def test_what_a_plan_refuses(served: Served, parameters: dict[str, Any], told: str) -> None:
    """By its name, with the way on."""
    try:
        refusal = "; ".join(planned(served, **parameters).problems)
    except UsageError as error:
        refusal = str(error)
    assert re.search(told, refusal), refusal


def test_documents_without_a_date_come_last(served: Served) -> None:
    """However many are asked for, those with a value are counted before those without."""
    served.connection.execute("ALTER TABLE documents ALTER created_at DROP NOT NULL")
    served.connection.execute("UPDATE documents SET created_at = NULL WHERE id > 3")
    counts: Callable[[int], int] = lambda n: planned(served, documents={"first": n}).plan.targets[0].collection.count  # noqa: E731
    assert [counts(n) for n in (1, 3, 4, 20, 30)] == [3, 9, 12, 60, 60]


def test_what_a_model_refuses_is_counted(connection: Connection, provider: OpenAIServer) -> None:
    """Beside the chunks that it has no vector of yet: coverage is of those that it can embed, for as long as a run knows better."""
    target = "openai/text-embedding-3-small"
    served = Served(connection)
    served.init(target)
    served.say(1, "much too long " * 10_000)
    run = paid_for("refused", target_model=target)
    number = registry.named(connection, served.tables, target).number
    of_model = coverage.covered(connection, served.tables)[number]
    assert (of_model.refused, of_model.missing, of_model.with_vector) == (1, 0, len(served.chunks()) - 1)
    served.say(1, "short enough")
    with run.kept_open():
        followed(run)
    of_model = coverage.covered(connection, served.tables)[number]
    assert (of_model.refused, of_model.missing) == (0, 0)


def test_shorter_vectors_are_cut_from_those_that_are_paid_for(connection: Connection, provider: OpenAIServer) -> None:
    """Of a model that allows it: what was bought with all its dimensions serves a model of fewer, and a text that was not is bought
    as it is asked for."""
    long, short = "openai/text-embedding-3-small", "openai/text-embedding-3-small?dimensions=384"
    served = Served(connection)
    served.init(long, short)
    paid_for("long", target_model=long)
    bought = served.chunks()
    before = len(provider.answered())
    cost = planned(served, target_model=short, source_model=long).cost
    assert cost
    assert (cost.texts, cost.kept) == (0, len(bought))

    new = served.insert()
    paid_for("short", target_model=short, source_model=long)
    asked = [text for call in provider.answered()[before:] for text in call.inputs if text.startswith("chunk")]
    assert sorted(asked) == sorted(served.chunks(f"d.id = {new}").values())
    vectors, cut = served.vectors(short), provider.vectors(list(bought.values()))[:, :384]
    cut = cut / np.linalg.norm(cut, axis=1, keepdims=True)
    assert {name: vectors[name] for name in bought} == {n: rounded(v) for n, v in zip(bought, cut, strict=True)}
