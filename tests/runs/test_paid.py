"""A migration that buys its vectors, against a real HTTP server: nothing is bought twice, whatever happens."""

from collections import Counter
from collections.abc import Callable

import pytest

from flows.chroma_to_pgvector import chroma_to_pgvector
from tasks.base.errors import FatalError, VerificationRefused
from tasks.embedders.registry import open_embedder
from tasks.stores.chroma import store as chroma
from tasks.stores.postgres.connection import Connection
from tests.helpers.openai_server import OpenAIServer

pytestmark = [pytest.mark.usefixtures("prefect"), pytest.mark.timeout(300)]

MODEL = "openai/text-embedding-3-small"


def _directory(chroma_dir: Callable[..., str], count: int) -> dict[str, str]:
    """A collection whose every record has a text of its own."""
    path = chroma_dir(count=0)
    result = chroma.connect(path=path).client.get_collection("docs")
    texts = [f"text {i}." for i in range(count)]
    result.add(ids=[str(i) for i in range(count)], documents=texts, embeddings=[[1.0, *[0.0] * 7]] * count)  # type: ignore[arg-type]
    return {"path": path}


def test_a_key_that_is_revoked_midway(
    provider: OpenAIServer, connection: Connection, chroma_dir: Callable[..., str]
) -> None:
    """After a 401 at most 10 calls follow and nothing is quarantined; the rerun buys only what was not bought."""
    options = {"chroma": _directory(chroma_dir, 400), "embedder": MODEL, "batch_rows": 50, "gates": {"sample": 1}}
    provider.plant(status=401, after=8)
    with pytest.raises(FatalError, match="401"):
        chroma_to_pgvector(**options, run_id="paid")
    assert 0 < len(provider.answered(401)) <= 11
    assert connection.execute("SELECT sum(quarantined) FROM vecferry.batch").fetchone() == (0,)

    provider.heal()
    open_embedder(MODEL).account.server.mend()  # type: ignore  # as another process would find it
    assert chroma_to_pgvector(**options, run_id="paid")["state"] == "verified"
    bought = Counter(text for call in provider.answered() for text in call.inputs if text.startswith("text "))
    sampled = 1
    assert len(bought) == 400
    assert bought.total() == 400 + sampled


def test_a_text_that_the_model_refuses_is_quarantined(
    provider: OpenAIServer, connection: Connection, chroma_dir: Callable[..., str]
) -> None:
    """A 400 for one input sets that row aside with its reason; the others are loaded, and the run is not green."""
    source = _directory(chroma_dir, 60)
    provider.plant(status=400, message="bad input", text="text 7.")
    with pytest.raises(VerificationRefused, match="quarantined"):
        chroma_to_pgvector(chroma=source, embedder=MODEL, run_id="paid", gates={"sample": 5})
    assert connection.execute("SELECT sum(quarantined) FROM vecferry.batch WHERE stage = 'load'").fetchone() == (1,)
