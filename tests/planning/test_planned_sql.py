"""The SQL that a plan shows is what the server is sent, and nothing else is sent that changes more than the ledger."""

import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from psycopg import RawCursor, sql

from flows.command.show.plan import show_plan
from flows.forms.chroma_to_pgvector import ChromaToPgvector
from flows.forms.form import parse
from flows.forms.models import ModelsInit, ModelsSetup
from flows.forms.multi_model import MultiModel
from flows.forms.shared import Migration
from flows.forms.text_384_to_1536 import Text384To1536
from flows.served import asked_of, planned_init, planned_setup, wanted_of
from sql import statement
from tasks.base import settings
from tasks.begin import begin
from tasks.catch_up import catch_up
from tasks.cutover import contract, cutover, rollback
from tasks.index import index
from tasks.load import load
from tasks.planning.registry import make_plan
from tasks.planning.shown_sql import group, lines
from tasks.runs import checkpoints, ledger, ledger_versions
from tasks.runs.run import open_run
from tasks.shadows.postgres.models import init, setup
from tasks.shadows.registry import shadow_of
from tasks.stores import canonical
from tasks.stores.chroma import store as chroma
from tasks.stores.postgres import model_tables
from tasks.stores.postgres.connection import Connection, connect
from tests.helpers.data import records_of
from tests.helpers.live import make_table, text_of
from tests.helpers.live_table import LAYOUTS
from tests.helpers.openai_server import OpenAIServer
from tests.helpers.pipeline import build, finish
from tests.helpers.sent import Sent, recorded
from tests.helpers.served_tables import MADE, Served
from tests.shadows.test_live_sync import begun_over, drained, loaded, meanwhile

LEDGER = re.compile(r"ledger_\d+_.*|expand_(schema|version|functions|note_change)")
"""Files that make the ledger and what lies beside it, all of them ours."""
NAMED = re.compile(r'CREATE OR REPLACE FUNCTION ("[^"]+"\."[^"]+")')
"""A function. Of one whose body the registry of models decides the plan shows the name."""
PARAMETER, BODY = re.compile(r"\$\d+|%[bs]"), re.compile(r"\$vecferry\$.*?\$vecferry\$", re.DOTALL)
NOTED = re.compile(r"cutover_function_(copy|comment|owner)|grant_function(_no_more)?|contract_function")
"""Files of what comes with such functions: the plan has a note of it."""


@contextmanager
def logged(connection: Connection) -> Iterator[list[str]]:
    """What the sessions that begin in the body are sent and that changes something, in one text, its white space as plans have
    it."""
    name = connection.info.dbname
    size = connection.execute("SELECT (pg_stat_file('log')).size").fetchone()
    assert size
    connection.execute(f"ALTER DATABASE {name} SET log_statement = 'all'")  # a SELECT may change something
    sent: list[str] = []
    yield sent
    connection.execute(f"ALTER DATABASE {name} RESET log_statement")
    row = connection.execute("SELECT pg_read_file('log', %s, 100000000)", (size[0],)).fetchone()
    assert row
    sent.append(squeezed(row[0]))


def planned(connection: Connection, form: Migration, run_id: str) -> list[str]:
    """The statements of a plan, without its notes."""
    shown = make_plan(connection, form.request(), run_id).sql
    return [line for line in shown if not line.startswith("--")]


def unsent(lines: list[str], sent: str) -> list[str]:
    """Those that the server was not sent, by its log; of a function that is only named, its name. What is there already is not
    sent, and of a COPY the log has its beginning."""
    return [
        line
        for line in map(squeezed, lines)
        if line.removesuffix("(…)") not in sent and not line.startswith("CREATE EXTENSION")
    ]


def squeezed(text: str) -> str:
    """With single blanks, as it is compared."""
    return " ".join(text.split())


def unplanned(lines: list[str], statements: list[Sent]) -> list[str]:
    """What was sent and changes more than the ledger, and stands in no line."""
    shown = {PARAMETER.sub("%b", squeezed(line)) for line in lines}
    named = {name[1] for line in lines if (name := NAMED.match(line)) and line.endswith("(…)")}
    sent = [
        (one.where, PARAMETER.sub("%b", squeezed(text).rstrip(";")))
        for one in statements
        if one.changes and not LEDGER.fullmatch(one.file or "") and not NOTED.fullmatch(one.file or "")
        for text in BODY.sub(lambda body: body[0].replace("\n", " "), one.text).split(";\n")
    ]
    return [
        f"{where}: {line}"
        for where, line in sent
        if line and line not in shown and not line.startswith(("COMMENT ON FUNCTION", "--"))
        if not ((name := NAMED.match(line)) and name[1] in named)
    ]


def functions(lines: Iterable[str]) -> set[str]:
    """Those that are made."""
    return {name for line in lines for name in NAMED.findall(line)}


def test_tables_are_made_by_what_the_plan_shows(connection: Connection, chroma_dir: Callable[..., str]) -> None:
    """Table, dimensions, key, indexes, rows that are loaded once more, changed and removed, and the move to the final schema;
    and there is no more to it."""
    source = {"chroma": {"path": chroma_dir(count=30)}}
    shown = planned(connection, parse(ChromaToPgvector, source), "r")
    with logged(connection) as sent, recorded() as statements:
        run = build("r", **source)
        checkpoints.reopen(connection, "r", "load")
        assert not load(run, [0]).failed
        _change(source["chroma"]["path"])
        catch_up(run, 0, max_deleted=0.5)
        finish(run)
    assert unsent(shown, sent[0]) == []
    assert "\n".join(unplanned(shown, statements)) == ""


@pytest.mark.parametrize(("kind", "changed"), [("sync", {}), ("replace", {"halfvec": True})])
def test_tables_that_are_there_get_what_the_plan_shows(
    connection: Connection, chroma_dir: Callable[..., str], kind: str, changed: dict[str, Any]
) -> None:
    """What differs, in place; or a table that takes over the name and the grants of the one before it."""
    source = {"chroma": {"path": chroma_dir(count=30)}}
    finish(build("before", **source))
    connection.execute(
        "GRANT SELECT ON docs TO pg_monitor; GRANT SELECT ON docs TO pg_read_all_stats WITH GRANT OPTION"
    )
    _change(source["chroma"]["path"])
    form = parse(ChromaToPgvector, {**source, **changed})
    assert [t.place.kind for t in make_plan(connection, form.request(), "r").plan.targets] == [kind]
    shown = planned(connection, form, "r")
    with logged(connection) as sent, recorded() as statements:
        run = build("r", **source, **changed)
        if kind == "replace":
            checkpoints.reopen(connection, "r", "load")
            assert not load(run, [0]).failed
            _change(source["chroma"]["path"], 2)
            catch_up(run, 0, max_deleted=0.5)
        finish(run)
    assert unsent(shown, sent[0]) == []
    assert "\n".join(unplanned(shown, statements)) == ""


def _change(path: str, step: int = 1) -> None:
    """Inserts, changes and removes records."""
    store = chroma.connect(path=path)
    store.delete("docs", [f"row-{step:07d}"])
    store.write("docs", records_of(3, start=10_000 * step))
    store.write("docs", records_of(2, start=20, seed=step))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_live_tables_get_what_the_plan_shows(
    connection: Connection, provider: OpenAIServer, monkeypatch: pytest.MonkeyPatch, layout: str
) -> None:
    """The table of what is known, the column or the view, the queue with its triggers, the rows, the index, the functions and
    the rights; what is sent for rows that are refused, inserted, changed, overtaken, removed and truncated, and for old
    vectors after the cutover; and there is no more to it."""
    make_table(connection, 30)
    models = {"embedder": "openai/text-embedding-3-small", "old_embedder": "hashing/384"}
    provider.plant(status=400, message="bad input", text=text_of(7))
    form = parse(Text384To1536, {"targets": [{"table": "docs", "text": "content"}], "layout": layout, **models})
    shown = planned(connection, form, "live")
    with logged(connection) as sent, recorded() as statements:
        run = begun_over(layout, **models)
        with run.kept_open():
            loaded(run)
            checkpoints.reopen(connection, "live", "load")
            shadow = loaded(run)
            index(run, 0)
            connection.execute("INSERT INTO docs (id, content) VALUES (100, 'a new row')")
            connection.execute("UPDATE docs SET content = 'other words' WHERE id = 8")
            connection.execute("DELETE FROM docs WHERE id = 9")
            meanwhile(monkeypatch, lambda: connection.execute("UPDATE docs SET content = 'newer words' WHERE id = 8"))
            drained(shadow)
            finish(run, sample=20, max_quarantined=1, min_row_cosine=-1)
            connection.execute("UPDATE docs SET content = 'words after the cutover' WHERE id = 10")
            drained(shadow)
            connection.execute("TRUNCATE docs")
            drained(shadow)
    assert unsent(shown, sent[0]) == []
    assert "\n".join(unplanned(shown, statements)) == ""


def test_one_model_of_several_gets_what_the_plan_shows(
    connection: Connection, database: str, provider: OpenAIServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is known of each chunk, the queue with its triggers, the vectors of its model, the index, and after the cutover those of the
    model before; what is sent for texts that are refused, changed, overtaken, locked, removed and truncated; of the functions that search
    the names. A rollback and a contract send nothing else that changes vectors or tables."""
    target = "openai/text-embedding-3-small?dimensions=384"
    served = Served(connection)
    served.init(target)
    asked = {"target_model": target, "batch_rows": 20}
    form = parse(MultiModel, asked)
    provider.plant(status=400, message="bad input", text=served.chunks()["2"])
    shown = planned(connection, form, "models")
    with logged(connection) as sent, recorded() as statements:
        begin(form.request(), "models", form.given())
        with (run := open_run("models", settings.DEFAULT_DATABASE)).kept_open():
            build("models", MultiModel, **asked)
            checkpoints.reopen(connection, "models", "load")
            assert not load(run, [0]).failed
            change, shadow = served.change(), shadow_of(run, run.plan.targets[0])
            change()
            served.say(8, "other words")
            meanwhile(monkeypatch, lambda: served.say(8, "newer words"))
            drained(shadow)
            served.say(10, "words that somebody has at hand")
            with connect(database, "vecferry test") as other, other.transaction():
                other.execute("SELECT FROM document_chunks WHERE id = 10 FOR UPDATE")
                shadow.follow(1.0)
            finish(run, sample=20, max_quarantined=1, min_row_cosine=-1)
            change()
            drained(shadow)
            connection.execute("TRUNCATE documents CASCADE")
            served.insert()
            drained(shadow)
            rollback(run)
            with run.connection() as of_ledger:
                ledger.set_state(of_ledger, "models", "verified")
            cutover(run)
            contract(run, 0)
    assert "\n".join(unplanned(shown, statements)) == ""
    assert functions(map(str, shown)) == functions(squeezed(one.text) for one in statements) != set()
    assert unsent(shown, sent[0]) == []


@pytest.mark.parametrize("there", [True, False], ids=["taken over", "made"])
def test_tables_are_prepared_for_models_by_what_the_plan_shows(
    connection: Connection, database: str, there: bool
) -> None:
    """`models init --plan` and `models setup --plan`, of tables with a column of vectors and of an empty database."""
    if there:
        connection.execute(MADE.format(dims=384))
    prepare = parse(ModelsInit, {"source_model": "hashing/384"} if there else {})
    add = parse(ModelsSetup, {"models": ["hashing/384", "hashing/768", "hashing/3072"]})
    for verb in (
        lambda: (planned_init(prepare), lambda c: init.initialise(c, asked_of(prepare))),
        lambda: (planned_setup(add), lambda c: setup.set_up(c, model_tables.find(c), wanted_of(add))),
    ):
        plan, carry_out = verb()
        shown = [line for line in plan.sql if not line.startswith("--")]
        with logged(connection) as sent, recorded() as statements, connect(database, "vecferry test") as opened:
            carry_out(opened)
        assert "\n".join(unplanned(shown, statements)) == ""
        assert functions(shown) == functions(squeezed(one.text) for one in statements) != set()
        assert unsent(shown, sent[0]) == []


@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_a_plan_prints_can_be_run_by_hand(
    connection: Connection, layout: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A template with line ends, tabs, semicolons and several blanks gives, statement by statement, the triggers and functions
    that a run makes, and hashes that match the rows."""
    text = "{title};\n\n{content}\t100 % -- of  it;\r\n"
    form = parse(
        Text384To1536, {"targets": [{"table": "docs", "text": text}], "embedder": "hashing/1536", "layout": layout}
    )
    _make_titled(connection)
    planned = make_plan(connection, form.request(), "live")
    show_plan(planned, None, as_json=False)
    printed = capsys.readouterr().out
    ledger_versions.ensure(connection)
    connection.execute(statement("expand_note_change"))
    for line in (line for line in planned.sql if not line.startswith("--")):
        assert f"  {line};\n" in printed
        if not re.match(r"COPY|INSERT|UPDATE|DELETE|WITH|.*\(…\)", line):
            connection.execute(line.encode())
    by_hand = _made(connection)
    assert len(by_hand) > 3
    if layout == "column":  # a row beside the table is written without a look at its text
        _fill(connection, text, next(line for line in planned.sql if line.startswith("WITH")))

    connection.execute("DROP SCHEMA vecferry CASCADE; DROP TABLE docs CASCADE")
    for name in by_hand:
        connection.execute(sql.SQL("DROP FUNCTION IF EXISTS {}").format(sql.Identifier(name)))
    _make_titled(connection)
    index(begun_over(layout, text), 0)
    assert by_hand.items() <= _made(connection).items()


def test_literals_names_and_bodies_are_shown_as_they_are() -> None:
    """Statements end, and white space is one blank, only outside of them."""
    kept = """'a;\n  ''b' "c;\n  \"\"d" $$ e;\n  f $$ $x$ ;\n $$ ; $x$ U&'  \\000a;\n'"""
    text = f"-- no; comment\nSELECT  %b,\n  {kept};\nSELECT\t%s/* ; */, %b::text[]; ;\n"
    assert [*lines(sql.SQL(text).format())] == [f"SELECT $1, {kept}", "SELECT $1 , $2::text[]"]


def test_a_note_is_no_statement() -> None:
    """Not even under the name of a table that would make it one."""
    assert [*group("docs\n; DROP TABLE docs", "first", ["SELECT 1"])] == [
        "-- docs ; DROP TABLE docs, first:",
        "SELECT 1",
    ]
    assert [*group("docs", "first", [])] == []


def test_a_smoke_run_shows_no_cutover(connection: Connection, chroma_dir: Callable[..., str]) -> None:
    """It never switches."""
    make_table(connection, 5)
    live = {"targets": [{"table": "docs", "text": "content", "limit": 2}], "embedder": "hashing/1536"}
    chosen = {"chroma": {"path": chroma_dir(name="notes", count=5)}}
    for form in (parse(Text384To1536, live), parse(ChromaToPgvector, {**chosen, "limit": 2})):
        assert not [line for line in make_plan(connection, form.request(), "r").sql if "cutover" in line]
    whole = parse(ChromaToPgvector, chosen)
    assert [line for line in make_plan(connection, whole.request(), "r").sql if "cutover" in line]


def _make_titled(connection: Connection) -> None:
    make_table(connection, 5)
    connection.execute("ALTER TABLE docs ADD COLUMN title text")
    connection.execute("UPDATE docs SET title = 'title; ' || id")


def _made(connection: Connection) -> dict[str, str]:
    """What the triggers of docs and the functions of public say, but for the extension's."""
    return dict(
        connection.execute(
            "SELECT tgname, pg_get_triggerdef(oid) FROM pg_trigger WHERE tgrelid = 'docs'::regclass "
            "UNION ALL SELECT proname, pg_get_functiondef(p.oid) FROM pg_proc p WHERE pronamespace = 'public'::regnamespace "
            "AND prokind = 'f' AND NOT EXISTS (SELECT 1 FROM pg_depend WHERE objid = p.oid AND deptype = 'e')"
        ).fetchall()
    )


def _fill(connection: Connection, text: str, line: str) -> None:
    """Runs what brings the vectors of all rows, and asserts that it took every one for the row that it is."""
    rows = connection.execute("SELECT id::text, title, content FROM docs ORDER BY id").fetchall()
    texts = [text.format(title=title, content=content) for _, title, content in rows]
    hashes = [canonical.content_hash(one, None, None) for one in texts]
    with RawCursor(connection) as cursor:
        cursor.execute(line.encode(), ([name for name, *_ in rows], hashes, [str([0.5] * 1536)] * len(rows)))
        assert cursor.rowcount == len(rows)


def test_what_is_sent_beside_the_plan_is_seen(connection: Connection) -> None:
    """A statement of ours that no plan shows, and one that a plan shows and nobody sends."""
    planned_line = 'ALTER TABLE "public"."docs" ADD COLUMN "new" vector(3)'
    sent = Sent("tasks/x.py:1", 'ALTER TABLE "public"."docs" ADD COLUMN "other" vector(3);')
    assert unplanned([planned_line], [sent]) == [f"tasks/x.py:1: {sent.text.rstrip(';')}"]
    assert unsent([planned_line], sent.text) == [planned_line]
    assert unplanned([planned_line], [Sent("tasks/x.py:1", "UPDATE docs SET new = NULL")]) != []
