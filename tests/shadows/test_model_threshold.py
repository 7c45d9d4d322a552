"""The threshold of similarity goes with the switch between models."""

import pytest

from flows.forms.multi_model import MultiModel
from tasks.base.errors import UsageError
from tasks.begin import ready_to_catch_up
from tasks.cutover import cutover, rollback
from tasks.runs import checkpoints, ledger, registry
from tasks.runs.run import Run
from tasks.shadows.postgres.models import switch
from tests.helpers.pipeline import build, finish
from tests.helpers.served_tables import Served
from tests.shadows.test_model_column import served as served

OLD, NEW = "hashing/384", "hashing/768"


def threshold(served: Served, model: str = NEW) -> float | None:
    return registry.named(served.connection, served.tables, model).similarity_threshold


def in_function(served: Served) -> bool:
    """Whether the function that searches by the new model is made with its threshold."""
    number = registry.named(served.connection, served.tables, NEW).number
    row = served.connection.execute(
        "SELECT prosrc FROM pg_proc WHERE proname = %s", (f"search_chunks_{number}",)
    ).fetchone()
    assert row
    return str(threshold(served)) in row[0]


def migrated(**parameters: object) -> Run:
    return build("one", MultiModel, target_model=NEW, **parameters)


def test_a_model_gets_what_the_threshold_before_it_becomes(served: Served) -> None:
    """With the cutover, in its transaction, and told with the interval; the rollback takes it away, and a second cutover gives it
    again."""
    switch.set_threshold(served.connection, served.tables, [OLD], 0.5)
    run = migrated()
    [report] = finish(run, min_recall=0.95)
    translated = checkpoints.verified(served.connection, "one", 0).threshold
    assert translated
    assert translated == report.threshold
    assert translated.old == 0.5
    assert translated.low <= translated.new <= translated.high
    assert threshold(served) == translated.new
    assert in_function(served)
    assert (
        "the cutover gives hashing/768, which has no similarity threshold, what 0.5 is translated into" in report.notes
    )

    lines = rollback(run)
    assert lines[0].endswith("the vectors of hashing/768 are kept, without the threshold that the cutover gave it")
    assert threshold(served) is None
    assert threshold(served, OLD) == 0.5
    with run.connection() as connection:
        connection.execute("UPDATE vecferry.run SET state = 'verified'")
    lines = cutover(run)
    assert threshold(served) == translated.new
    assert lines == [
        f"public.document_chunks by hashing/768: the similarity threshold 0.5 of the old vectors is {translated} of the new ones",
        "searches by hashing/768 have that threshold now; to set it yourself: vecferry models setup hashing/768 "
        f"-p similarity_threshold={translated.new:g}",
    ]


@pytest.mark.parametrize("before", [True, False])
def test_what_a_person_has_set_stays(served: Served, before: bool) -> None:
    """Before the cutover or after it, to whatever value: neither the cutover nor a rollback touches it."""
    run = migrated(similarity_threshold=0.5)
    if before:
        switch.set_threshold(served.connection, served.tables, [NEW], 0.9)
        finish(run, min_recall=0.95)
        assert threshold(served) == 0.9
    else:
        finish(run, min_recall=0.95)
        given = threshold(served)
        assert given
        switch.set_threshold(served.connection, served.tables, [NEW], given)
    kept = threshold(served)
    rollback(run)
    assert threshold(served) == kept is not None


def test_activate_tells_where_a_threshold_is_missing(served: Served) -> None:
    """One line with the command, and none where neither has one or both have."""
    activate = lambda name: switch.activate(served.connection, served.tables, name, force=True)  # noqa: E731
    assert len(activate(NEW)) == 1
    switch.set_threshold(served.connection, served.tables, [OLD], 0.5)
    assert len(activate(OLD)) == 1
    _, line = activate(NEW)
    assert line.startswith(f"{NEW} has no similarity threshold, and {OLD} has 0.5")
    assert line.endswith(f"vecferry models setup {NEW} -p similarity_threshold=0.5")
    activate(OLD)
    switch.set_threshold(served.connection, served.tables, [NEW], 0.4)
    assert len(activate(NEW)) == 1


def test_catching_up_after_a_rollback_names_what_status_names(served: Served) -> None:
    """The run is built, so another cutover is the way on."""
    run = migrated()
    finish(run, min_recall=0.95)
    rollback(run)
    record = ledger.get(served.connection, "one")
    with pytest.raises(UsageError, match=r"^run one is rolled back: go on with it first, vecferry cutover one$"):
        ready_to_catch_up(run, record)
