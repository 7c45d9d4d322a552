"""A run whose model is another one by now goes on with nothing."""

from dataclasses import replace

import pytest

from flows.command.search import search
from flows.forms.form import parse
from flows.forms.text_384_to_1536 import Text384To1536
from tasks.base.errors import UsageError
from tasks.base.settings import DEFAULT_DATABASE
from tasks.begin import begin
from tasks.runs import spending
from tasks.runs.run import Run, open_run
from tasks.stores.postgres.connection import Connection
from tests.helpers.live_table import Table


@pytest.fixture
def run(connection: Connection) -> Run:
    Table(connection, rows=1)
    asked = {"targets": [{"table": "docs", "text": "content"}], "embedder": "hashing/8", "old_embedder": "hashing/384"}
    form = parse(Text384To1536, asked)
    begin(form.request(), "r", form.given())
    return open_run("r", DEFAULT_DATABASE)


def test_a_model_that_changed_since_the_plan_is_refused(run: Run) -> None:
    """As its fingerprint tells: the new model's and the old one's, for embedding and for the query of a search; the one that was planned
    is taken."""
    assert spending.embedder_of(run).space.fingerprint == run.plan.targets[0].space
    (target,) = run.plan.targets
    moved = replace(target, space="hashing/8/000000000000", old_space="hashing/384/000000000000")
    changed = replace(run, plan=replace(run.plan, targets=(moved,)))
    for model in ("hashing/8", "hashing/384"):
        with pytest.raises(
            UsageError, match=f"^embedder '{model}' is not the model that run r was planned with: its weights"
        ):
            spending.Purse(changed).model(model)
    with pytest.raises(UsageError, match="embedder 'hashing/8' is not the model that run r was planned with"):
        search(changed, "a text", 3)
