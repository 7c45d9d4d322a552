"""Models that are retired, renamed or put back while runs need them."""

from collections.abc import Callable
from typing import Any

import pytest

from tasks import load as loading
from tasks.base import settings
from tasks.base.errors import FatalError, UsageError
from tasks.begin import ready_to_cut_over
from tasks.catch_up import catch_up
from tasks.cutover import contract, rollback
from tasks.embedders.registry import open_embedder
from tasks.runs import ledger, registry
from tasks.runs.database import database_url
from tasks.runs.holding import sole_runner
from tasks.runs.run import open_run
from tasks.shadows.postgres.models import rename, retire, rollback as model_rollback, setup, switch
from tasks.shadows.postgres.models.setup import Wanted
from tasks.stores.postgres.connection import Connection
from tests.helpers.pipeline import finish
from tests.helpers.served_tables import Served
from tests.shadows.test_model_column import NEW, followed, migrated

OLD = "hashing/384"


@pytest.fixture
def served(connection: Connection) -> Served:
    served = Served(connection, documents=6)
    served.init(NEW)
    return served


def dropped(served: Served, name: str, force: bool = False) -> list[str]:
    """Both steps of it."""
    done = retire.retire(served.connection, served.tables, name, force=force)
    return done + retire.retire(served.connection, served.tables, name, 0, force)


def midway(monkeypatch: pytest.MonkeyPatch, do: Callable[[], object]) -> None:
    """Done once, while the first batch of a run is embedded."""
    embedded, left = loading.embedded, [1]

    def slow(*args: Any, **more: Any) -> Any:
        made = embedded(*args, **more)
        if left and left.pop():
            do()
        return made

    monkeypatch.setattr(loading, "embedded", slow)


def noted(served: Served) -> int:
    """Triggers and tables by which runs follow."""
    row = served.connection.execute(
        "SELECT (SELECT count(*) FROM pg_trigger WHERE tgname ~ '^vecferry_.*__.*_(write|update|truncate|room)$') + "
        "(SELECT count(*) FROM pg_class WHERE relnamespace = 'vecferry'::regnamespace AND relkind = 'r' AND relname ~ '__[0-9a-f]{8}')"
    ).fetchone()
    assert row
    return int(row[0])


def test_a_model_that_a_run_needs_is_not_retired(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the new one nor that before it, while the run is under way; the run and the ways on are named."""
    served.init("hashing/16")
    switch.activate(served.connection, served.tables, "hashing/16", force=True)
    told = list[str]()

    def retired() -> None:
        for name in (NEW, OLD):
            with pytest.raises(UsageError) as refused:
                retire.retire(served.connection, served.tables, name)
            told.append(str(refused.value))

    midway(monkeypatch, retired)
    run = migrated("under-way", source_model=OLD)
    assert len(told) == 2
    for line in told:
        assert "run under-way moves documents from hashing/384 to hashing/768" in line
        assert "`vecferry rollback under-way`" in line
        assert "--force" in line
    rollback(run)
    assert dropped(served, NEW)


@pytest.mark.parametrize("shared", [False, True])
def test_a_run_whose_model_goes_by_force_says_so(served: Served, monkeypatch: pytest.MonkeyPatch, shared: bool) -> None:
    """While it loads: in plain words, at once, and no vector of it is left over; nor is what it followed documents by."""
    if shared:
        setup.set_up(served.connection, served.tables, [Wanted("hashing/other", open_embedder(NEW).space)])
    midway(monkeypatch, lambda: dropped(served, NEW, force=True))
    with pytest.raises(FatalError, match="the vectors of hashing/768 were dropped"):
        migrated("gone")
    assert served.connection.execute("SELECT count(*) FROM chunk_embeddings WHERE model_id <> 1").fetchone() == (0,)
    assert noted(served) == 0
    served.insert()
    with pytest.raises(UsageError, match="the vectors of hashing/768 were dropped"):
        migrated("gone")
    assert noted(served) == 0
    rollback(open_run("gone", settings.DEFAULT_DATABASE))


def test_a_run_whose_source_goes_by_force(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """Needs it no more once it reads the documents, and goes on."""
    served.init("hashing/16")
    switch.activate(served.connection, served.tables, "hashing/16", force=True)
    midway(monkeypatch, lambda: dropped(served, OLD, force=True))
    run = migrated("gone", source_model=OLD)
    followed(run)
    assert served.vectors(NEW) == served.expected(NEW)


def test_the_way_back_of_a_run_is_kept(served: Served) -> None:
    """The vectors that a rollback needs are dropped once it is contracted, and catching up goes on without them."""
    run = migrated("over")
    finish(run, min_recall=0.3)
    retire.retire(served.connection, served.tables, OLD)
    with pytest.raises(
        UsageError, match=r"run over can still be rolled back.*`vecferry contract over -p rollback_days=0`.*--force"
    ):
        retire.retire(served.connection, served.tables, OLD, 0)
    contract(run, 0)
    retire.retire(served.connection, served.tables, OLD, 0)
    served.connection.execute("UPDATE document_chunks SET content = 'other words' WHERE id = 1")
    served.connection.execute(
        "INSERT INTO document_chunks (document_id, chunk_index, content) VALUES (1, 9, 'a new chunk')"
    )
    followed(run)
    assert served.vectors(NEW) == served.expected(NEW)


def test_what_a_run_follows_goes_with_its_model(served: Served) -> None:
    """Else its queue would grow for ever, once it is contracted and another model is searched."""
    run = migrated("over")
    finish(run, min_recall=0.3)
    contract(run, 0)
    assert noted(served) > 0
    served.init("hashing/16")
    switch.activate(served.connection, served.tables, "hashing/16", force=True)
    dropped(served, NEW)
    assert noted(served) == 0
    with pytest.raises(UsageError, match="the vectors of hashing/768 were dropped"):
        catch_up(run, 0, max_deleted=1.0)


def test_tables_are_not_put_back_under_a_run(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run is named; once it has been taken back, nothing of it is left, and it can be contracted."""
    told = list[str]()

    def back() -> None:
        with pytest.raises(UsageError) as refused:
            model_rollback.roll_back(served.connection, served.tables)
        told.append(str(refused.value))

    midway(monkeypatch, back)
    run = migrated("under-way")
    assert ["`vecferry rollback under-way`" in line for line in told] == [True]
    rollback(run)
    assert model_rollback.roll_back(served.connection, served.tables)
    assert noted(served) == 0
    contract(run, 0)


def test_tables_are_put_back_after_a_run(served: Served) -> None:
    """Of one that was rolled back nothing is left, and its verbs say why."""
    run = migrated("over")
    finish(run, min_recall=0.3)
    rollback(run)
    switch.activate(served.connection, served.tables, OLD, force=True)
    dropped(served, NEW)
    assert model_rollback.roll_back(served.connection, served.tables)
    assert noted(served) == 0
    rollback(run)
    contract(run, 0)
    with pytest.raises(UsageError, match="was put back by `vecferry models init -p rollback=true`"):
        catch_up(run, 0, max_deleted=1.0)


def test_a_column_is_renamed_under_a_run(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """It goes on with the column as it is called then; while a process works on it, that is waited for, unless forced."""
    midway(monkeypatch, lambda: rename.rename(served.connection, served.tables, True, force=True))
    run = migrated("renamed")
    served.source = "nobody"
    followed(run)
    finish(run, min_recall=0.3)
    with (
        sole_runner(database_url(settings.DEFAULT_DATABASE), "renamed"),
        pytest.raises(UsageError, match=r"run renamed .* at work"),
    ):
        rename.rename(served.connection, served.tables, False)
    rename.rename(served.connection, served.tables, False)
    rollback(run)
    assert served.vectors(OLD) == served.expected(OLD)


def test_setup_brings_a_retired_model_back(served: Served) -> None:
    """Into searches, and not as the default."""
    wanted = [Wanted(NEW, open_embedder(NEW).space)]
    retire.retire(served.connection, served.tables, NEW)
    assert setup.set_up(served.connection, served.tables, wanted) == ["hashing/768 is searched again"]
    model = registry.named(served.connection, served.tables, NEW)
    assert (model.searched, model.active) == (True, False)
    assert setup.set_up(served.connection, served.tables, wanted) == []


def test_a_rollback_leaves_the_default_its_vectors(served: Served) -> None:
    """Before the cutover, of a model that somebody has made the default by hand: else searches would find nothing."""
    run = migrated("by-hand")
    switch.activate(served.connection, served.tables, NEW)
    with pytest.raises(UsageError, match="hashing/768 is the default of new searches, and its vectors would go"):
        rollback(run)
    assert served.vectors(NEW) == served.expected(NEW)
    switch.activate(served.connection, served.tables, OLD)
    rollback(run)
    assert served.vectors(NEW) == {}


def test_a_contract_names_the_default_that_there_is(served: Served) -> None:
    """Which may be another one than the run has made that."""
    run = migrated("over")
    finish(run, min_recall=0.3)
    switch.activate(served.connection, served.tables, OLD)
    assert contract(run, 0) == ["hashing/384 stays the default of public.document_chunks; no vectors were dropped"]


def test_a_cutover_that_somebody_has_passed_over_is_no_success(served: Served) -> None:
    """Where another model was made the default by hand since, the command says so."""
    run = migrated("over")
    finish(run, min_recall=0.3)
    ready_to_cut_over(run, ledger.get(served.connection, "over"))
    switch.activate(served.connection, served.tables, OLD)
    with pytest.raises(UsageError, match=r"people do not use what run over has made.*or somebody has switched since"):
        ready_to_cut_over(run, ledger.get(served.connection, "over"))
