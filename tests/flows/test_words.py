"""Counts read as English: the noun and the verb agree with the number."""

import json
import re
from collections.abc import Callable
from dataclasses import replace

import pytest

from flows.chroma_to_pgvector import chroma_to_pgvector
from flows.command.show.plan import show_plan
from flows.command.show.run import show_outcome, show_restored
from flows.contract import contract
from flows.rollback import rollback
from tasks.base import files
from tasks.base.errors import VerificationRefused
from tasks.base.words import agreeing, counted
from tasks.embedders.interface import Allowed
from tasks.planning.planned import Cost
from tasks.planning.registry import make_plan
from tasks.runs.spending import Spending
from tasks.stores.chroma import store as chroma
from tasks.stores.postgres.connection import Connection
from tests.flows.test_show import outcome
from tests.helpers.data import records_of
from tests.helpers.sampling import sampled

NOUNS = [
    "rows?",
    "batch(?:es)?",
    "records?",
    "texts?",
    "tokens?",
    "requests?",
    "days?",
    "vectors?",
    "queries",
    "query",
    "attempts?",
]
COUNTED = re.compile(rf"(?<![\d.,@])(\d[\d,]*) (?:different |zero |labelled )?({'|'.join(NOUNS)})\b")


def check(shown: str, *expected: str) -> None:
    """Every count in the text goes with its noun, and the expected ones are there."""
    for number, noun in COUNTED.findall(shown):
        assert (number == "1") == (not noun.endswith(("s", "queries"))), f"{number} {noun} in: {shown}"
    for text in expected:
        assert text in shown


def test_nouns_and_verbs() -> None:
    """None, one, two, a half; -es and -ies; the verb in either number."""
    assert [counted(n, "row") for n in (0, 1, 2, 1_000)] == ["0 rows", "1 row", "2 rows", "1,000 rows"]
    assert [counted(n, "labelled query") for n in (1, 2)] == ["1 labelled query", "2 labelled queries"]
    assert [counted(n, "batch", "were") for n in (0, 1, 2)] == ["0 batches were", "1 batch was", "2 batches were"]
    assert [counted(n, "day") for n in (0.5, 1.0, 7.0)] == ["0.5 days", "1 day", "7 days"]
    assert [agreeing(n, "have") for n in (0, 1, 2)] == ["have", "has", "have"]


@pytest.mark.parametrize("count", [0, 1, 2])
def test_what_a_plan_and_an_outcome_count(
    count: int, connection: Connection, chroma_dir: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Rows, batches, texts, tokens, requests and records in what the command prints."""
    from flows.forms.chroma_to_pgvector import ChromaToPgvector

    form = ChromaToPgvector.model_validate({"chroma": {"path": chroma_dir(count=count)}})
    planned = make_plan(connection, form.request(), "r")
    cost = Cost(texts=count, kept=count, tokens=count, exact=True, most_tokens=count, price=1.0)
    show_plan(replace(planned, cost=cost, allowed=Allowed(count, count), least_seconds=0.0), None, as_json=False)
    spent = Spending(requests=count, tokens=count, dollars=0.1, bought=count, reused=count)
    show_outcome(replace(outcome("r"), spent=spent), as_json=False)
    show_restored({"restored": {"docs": count}, "into": "r", "remarks": []}, as_json=False)
    shown = capsys.readouterr().out
    rows = {0: "0 rows in 0 batches", 1: "1 row in 1 batch;", 2: "2 rows in 1 batch;"}
    check(shown, rows[count], f"docs: {counted(count, 'record')} restored")
    assert ("1 were" in shown, "1 more are" in shown) == (False, False)


@pytest.mark.usefixtures("prefect")
@pytest.mark.parametrize("count", sampled([1, 2], 1))
def test_what_a_sync_and_its_end_count(count: int, connection: Connection, chroma_dir: Callable[..., str]) -> None:
    """The notes of a verification, what a rollback puts back, what contract forgets, and the window before it."""
    path = chroma_dir(count=20)
    chroma_to_pgvector(chroma={"path": path}, run_id="first", cutover="auto")
    chroma.connect(path=path).delete("docs", [f"row-{n:07}" for n in range(count)])
    connection.execute("UPDATE docs SET document = 'edited' WHERE id >= %s", (f"row-{20 - count:07}",))
    synced = chroma_to_pgvector(chroma={"path": path}, run_id="second", cutover="auto", rollback_days=count)
    report = json.loads(files.read(synced["report"].removesuffix("html") + "json"))
    notes = "; ".join(report["targets"][0]["notes"])
    check(notes, f"{counted(count, 'row', 'were')} written or changed by somebody else and left alone")
    with pytest.raises(VerificationRefused) as refused:
        contract(run_id="second")
    check(str(refused.value), f"rollback window of {counted(count, 'day')} ends")
    check(rollback(run_id="second")["done"][0], f"{counted(count, 'row')} put back")
    chroma.connect(path=path).write("docs", records_of(20 + count, 8).slice(20))
    chroma_to_pgvector(chroma={"path": path}, run_id="third", cutover="auto")
    check("; ".join(contract(run_id="third", rollback_days=0)["done"]), "dropped what would undo")
