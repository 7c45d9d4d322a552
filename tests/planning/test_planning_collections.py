"""The plan of collections: what a model that is paid for will cost, before anything is written."""

from collections.abc import Callable
from typing import Any

from flows.forms.chroma_to_pgvector import ChromaToPgvector
from flows.forms.form import parse
from tasks.planning.planned import Planned
from tasks.planning.registry import make_plan
from tasks.stores.chroma import store as chroma
from tasks.stores.postgres.connection import Connection
from tests.helpers.openai_server import OpenAIServer


def plan(connection: Connection, path: str, **parameters: Any) -> Planned:
    form = parse(
        ChromaToPgvector, {"chroma": {"path": path}, "embedder": "openai/text-embedding-3-small", **parameters}
    )
    return make_plan(connection, form.request(), "planned")


def test_documents_are_counted_and_priced(
    connection: Connection, provider: OpenAIServer, chroma_dir: Callable[..., str]
) -> None:
    """Each different document of all collections once; a smoke run pays for its own; a budget that will not last is told,
    and no request is sent for any of it. Where the vectors are carried nothing is paid."""
    path = chroma_dir(count=40)
    chroma_dir(name="copy", count=40)
    store = chroma.connect(path=path)
    documents = {
        text
        for text in store.records("docs").fetch(store.records("docs").ids().to_pylist())["document"].to_pylist()
        if text
    }
    assert len(documents) > 20
    planned = plan(connection, path)
    assert planned.cost
    assert (planned.cost.texts, planned.cost.kept) == (len(documents), 0)
    assert planned.cost.most_tokens >= planned.cost.tokens > 0
    smoke = plan(connection, path, limit=5)
    assert smoke.cost
    assert 0 < smoke.cost.texts <= 10
    assert any("the run will stop there" in line for line in plan(connection, path, budget_usd=0).warnings)
    assert plan(connection, path, embedder=None).cost is None
    assert provider.answered() == []
