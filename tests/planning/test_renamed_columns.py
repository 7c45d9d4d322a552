"""What a plan says of a column that takes another one's name: what would stay behind, what is in the way, and the SQL."""

import pytest

from flows.forms.form import parse
from tasks.base.errors import UsageError, VerificationRefused
from tasks.cutover import contract, cutover
from tasks.planning.renamed_columns import kept_name
from tasks.shadows.registry import shadow_of
from tasks.stores.postgres.connection import Connection
from tests.helpers.pipeline import build, finish
from tests.helpers.renamed_table import NEW, SEARCH, RenamedForm, Reports, parameters, plan, ready, renaming, verified
from tests.helpers.sent import recorded
from tests.planning.test_planned_sql import logged, planned, unplanned, unsent

__all__ = ["renaming"]
pytestmark = pytest.mark.usefixtures("renaming")


@pytest.mark.parametrize(
    ("model", "dimensions", "name"),
    [
        ("sentence-transformers/clip-ViT-B-32", 512, "embedding_clip_512"),
        ("timm/MegaDescriptor-L-384?normalize=false", 1536, "embedding_megadescriptor_1536"),
        ("timm/./models/tiny", 24, "embedding_tiny_24"),
        ("hashing/16", 16, "embedding_hashing_16"),
        (None, 512, "embedding_old_512"),
        (None, None, "embedding_old"),
    ],
)
def test_what_the_old_column_will_be_called(model: str | None, dimensions: int | None, name: str) -> None:
    """Its name, the first word of its model's and its dimensions."""
    assert kept_name("embedding", model, dimensions) == name


def test_a_plan_of_a_healthy_table_has_no_problems(connection: Connection) -> None:
    """The guide's table, with its IVFFlat index and its two functions; the place says what will be called what."""
    Reports(connection)
    planned = plan(connection)
    assert planned.problems == []
    assert not [w for w in planned.warnings if "LIMIT" in w]
    (target,) = planned.plan.targets
    assert target.name == "public.reports.embedding"
    assert target.place.functions == ("match_reports", "update_report_embedding")
    assert vars(target.place.renaming) == {
        "column": "embedding", "kept": "embedding_hashing_16", "working": "embedding_24"
    }  # fmt: skip


DEPENDENTS = {
    "view of_reports": "CREATE VIEW of_reports AS SELECT id, embedding FROM reports",
    "materialized view kept_reports": "CREATE MATERIALIZED VIEW kept_reports AS SELECT * FROM reports",
    "policy with_vector on table reports": "CREATE POLICY with_vector ON reports USING (embedding IS NOT NULL)",
    "generated column has_vector": "ALTER TABLE reports ADD has_vector boolean GENERATED ALWAYS AS (embedding IS NOT NULL) STORED",
    "index without_vector": "CREATE INDEX without_vector ON reports (id) WHERE embedding IS NULL",
    "constraint of_16 on table reports": "ALTER TABLE reports ADD CONSTRAINT of_16 CHECK (vector_dims(embedding) = 16)",
    "rule noted on table reports": (
        "CREATE TABLE notes (v vector); CREATE RULE noted AS ON DELETE TO reports DO ALSO INSERT INTO notes VALUES (OLD.embedding)"
    ),
    "trigger of_vector on table reports": (
        "CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$; "
        "CREATE TRIGGER of_vector BEFORE DELETE ON reports FOR EACH ROW WHEN (OLD.embedding IS NULL) EXECUTE FUNCTION nothing()"
    ),
    "function parsed(bigint)": (
        "CREATE FUNCTION parsed(bigint) RETURNS vector LANGUAGE sql BEGIN ATOMIC SELECT embedding FROM reports WHERE id = $1; END"
    ),
    "function as_text(bigint)": (
        "CREATE FUNCTION as_text(bigint) RETURNS vector LANGUAGE sql AS $$ SELECT embedding FROM reports WHERE id = $1 $$"
    ),
    "function of_trigger()": (
        "CREATE FUNCTION of_trigger() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.embedding := NULL; RETURN NEW; END $$; "
        "CREATE TRIGGER sets BEFORE INSERT ON reports FOR EACH ROW EXECUTE FUNCTION of_trigger()"
    ),
    "function at_run_time()": (
        "CREATE FUNCTION at_run_time() RETURNS void LANGUAGE plpgsql AS $$ BEGIN EXECUTE 'UPDATE reports SET embedding = NULL'; END $$"
    ),
    "at_run_time_too()": (
        "CREATE PROCEDURE at_run_time_too() LANGUAGE sql AS $$ UPDATE reports SET embedding = NULL $$"
    ),
}


def test_every_dependent_is_named(connection: Connection) -> None:
    """What would stay with the old vectors, what would get the new ones and what nobody can read; with allow_dependents it is told, and
    no longer refused. What another column has is none."""
    Reports(connection)
    for create in DEPENDENTS.values():
        connection.execute(create.encode())
    connection.execute(
        "CREATE VIEW of_others AS SELECT id, content FROM reports; CREATE TABLE others (id int, embedding vector(16)); "
        "CREATE FUNCTION of_others() RETURNS bigint LANGUAGE sql AS $$ SELECT count(embedding) FROM others $$; "
        "CREATE INDEX ON reports USING hnsw (embedding vector_cosine_ops) WHERE embedding IS NOT NULL"
    )
    problems = plan(connection).problems
    staying, going, unread = problems
    assert [name for name in DEPENDENTS if not any(name in line for line in problems)] == []
    assert "of_others" not in "".join(problems)
    assert "would silently stay with the old vectors, which become embedding_hashing_16" in staying
    assert all(kind in staying for kind in ("view of_reports", "policy", "constraint", "index", "parsed(bigint)"))
    assert all(name in going for name in ("as_text(bigint)", "of_trigger()", "at_run_time_too()"))
    assert "at_run_time()" in unread
    assert all("allow_dependents=true" in line for line in problems)
    allowed = plan(connection, allow_dependents=True)
    assert allowed.problems == []
    assert len([line for line in allowed.warnings if line in "".join(problems)]) == 3


def test_a_view_that_comes_after_the_plan_stops_the_cutover(connection: Connection) -> None:
    """It is named, nothing is switched, and the cutover goes through once it is gone."""
    reports = Reports(connection)
    run = verified(connection)
    connection.execute(DEPENDENTS["view of_reports"].encode())
    with pytest.raises(VerificationRefused, match="view of_reports"):
        cutover(run)
    assert reports.columns()["embedding"] == "vector(16)"
    connection.execute("DROP VIEW of_reports")
    cutover(ready(connection, run))
    assert reports.columns()["embedding"] == "vector(24)"


def test_what_may_depend_stays_with_the_old_vectors(connection: Connection) -> None:
    """With allow_dependents a view goes on giving the old ones."""
    reports = Reports(connection)
    connection.execute(DEPENDENTS["view of_reports"].encode())
    cutover(verified(connection, allow_dependents=True))
    assert connection.execute("SELECT vector_dims(embedding) FROM of_reports WHERE id = 1").fetchone() == (16,)
    assert reports.stored().keys() == reports.expected(NEW).keys()


IN_THE_WAY = {
    "has a column embedding_hashing_16 already": "ALTER TABLE reports ADD embedding_hashing_16 int",
    "is NOT NULL, so from the cutover on": "ALTER TABLE reports ALTER embedding SET NOT NULL",
    "no function that writes the new vectors can be derived from public.update_report_embedding: it builds SQL": (
        "CREATE OR REPLACE FUNCTION update_report_embedding(report_id bigint, new_embedding vector(16)) RETURNS void LANGUAGE plpgsql AS "
        "$$ BEGIN EXECUTE 'UPDATE reports SET embedding = $1' USING new_embedding; END $$"
    ),
    "update_report_embedding: it names the number 16": (
        "CREATE OR REPLACE FUNCTION update_report_embedding(report_id bigint, new_embedding vector(16)) RETURNS void LANGUAGE plpgsql AS "
        "$$ BEGIN ASSERT vector_dims(new_embedding) = 16; UPDATE reports SET embedding = new_embedding; END $$"
    ),
    "update_report_embedding: it writes nothing to embedding": (
        "CREATE OR REPLACE FUNCTION update_report_embedding(report_id bigint, new_embedding vector(16)) RETURNS void LANGUAGE plpgsql AS "
        "$$ BEGIN UPDATE reports SET seen = 1 WHERE id = report_id; END $$"
    ),
}


@pytest.mark.parametrize("words", IN_THE_WAY)
def test_what_is_in_the_way_is_named(connection: Connection, words: str) -> None:
    """With the way on."""
    Reports(connection)
    connection.execute(IN_THE_WAY[words].encode())
    (problem,) = [p for p in plan(connection).problems if words in p]
    assert any(way in problem for way in ("RENAME COLUMN", "DROP NOT NULL", "`write_function`"))


def test_names_that_nobody_has(connection: Connection) -> None:
    """A function that is named and not there is refused; one that nobody named is not switched."""
    Reports(connection, write=None)
    with pytest.raises(UsageError, match=r"there is no function public\.write_it"):
        plan(connection, write_function="write_it")
    (target,) = plan(connection).plan.targets
    assert target.place.write_function is None


def test_a_kept_column_names_the_contract_that_drops_it(connection: Connection) -> None:
    """Where the vectors of an earlier migration have the name, their run and its command are told; a column that is not the one that
    is searched is not migrated."""
    reports = Reports(connection)
    first = verified(connection, "first")
    cutover(first)
    with pytest.raises(UsageError, match="is searched by embedding, and not by embedding_hashing_16"):
        plan(connection, target={"old_column": "embedding_hashing_16", "new_column": "another"})
    connection.execute(
        "ALTER TABLE reports RENAME embedding_hashing_16 TO embedding_hashing_24; "
        "UPDATE vecferry.model SET column_name = 'embedding_hashing_24' WHERE column_name = 'embedding_hashing_16'"
    )  # as where a model comes back
    later = {"old_embedder": "hashing/24", "embedder": "hashing/32", "target": {"new_column": "another"}}
    (problem,) = plan(connection, **later).problems
    assert problem.endswith("run first keeps it for its way back, contract that first, vecferry contract first")
    assert "holds vectors of hashing/24/" in plan(connection, **{**later, "old_embedder": "mirrored/24"}).problems[0]
    contract(first, 0)
    assert reports.columns() == {"embedding": "vector(24)"}
    assert plan(connection, **later).problems == []


@pytest.mark.parametrize("layout", ["column", "side_table"])
def test_the_plan_shows_what_is_sent(connection: Connection, layout: str) -> None:
    """Columns, triggers, functions, renames and rights, and no more; beside the table no renames, and what takes the vectors that are
    written by the function."""
    reports = Reports(connection, rows=10)
    given = parameters(layout=layout)
    shown = planned(connection, parse(RenamedForm, given), "r")
    with logged(connection) as sent, recorded() as statements:
        run = build("r", RenamedForm, **given)
        reports.say(7, "other words")
        finish(run, sample=20, min_row_cosine=-1)
        connection.execute("UPDATE vecferry.run SET state = 'cut_over' WHERE run_id = 'r'")
        reports.say(8, "other words")
        reports.say(9, "")
        shadow_of(run, run.plan.targets[0]).follow(1.0)
    assert any("RENAME COLUMN" in line for line in shown) == (layout == "column")
    assert any("vecferry.write_beside(" in line for line in shown) == (layout == "side_table")
    left = unsent(shown, sent[0])
    assert [line for line in left if "RENAME" in line or "TRIGGER" in line] == []
    assert "\n".join(unplanned(shown, statements)) == ""


def test_a_limit_that_only_callers_have_is_told(connection: Connection) -> None:
    """Where PostgreSQL puts a function into its caller's query, the caller's LIMIT ends the search by index; what waits for a renaming is
    PL/pgSQL, which computes all rows, and the plan says so."""
    Reports(connection, 51, search=SEARCH.replace("LIMIT match_count", ""))
    (line,) = [w for w in plan(connection).warnings if "LIMIT" in w]
    assert line.startswith("public.match_reports has no LIMIT")
    assert "computes all of them, here 51 rows" in line
