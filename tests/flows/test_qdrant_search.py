"""A collection of Qdrant whose ledger lies in a database of its own: found, shown, asked and switched by the command."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tasks.stores.exact_search import similarity
from tests.helpers.command import command
from tests.helpers.qdrant import Qdrant
from tests.helpers.qdrant_target import ALIAS, BESIDE, NEW, Docs, migrate_qdrant, qdrant_target

__all__ = ["qdrant_target"]
Capture = pytest.CaptureFixture[str]
OWN = "VECFERRY_DATABASE_URL"


@pytest.fixture
def docs(qdrant: Qdrant) -> Iterator[Docs]:
    client = qdrant.client()
    made = Docs(client)
    made.create({n: f"what {n} says of topic {n % 7}" for n in range(1, 41)})
    yield made
    client.close()


@pytest.mark.usefixtures("prefect", "qdrant_target", "ledger_database")
def test_a_collection_is_searched_by_the_command(qdrant: Qdrant, docs: Docs, capsys: Capture) -> None:
    """Before the switch and after it, by the new model, with the scores that Qdrant gives; `status` shows its vectors, and the switch
    that is told as next is typed as it stands."""
    migrate_qdrant(url=qdrant.url, strategy="new_collection", run_id="r", database=OWN)
    text = "what 7 says of topic 0"
    shown = command(capsys, "status", "r").out
    assert f"{BESIDE}: vector size 64, distance Cosine, 40 points\n" in shown
    assert f"next    vecferry cutover r -p database={OWN}\n" in shown
    before = command(capsys, "search", text, "--run", "r", "--limit", "3", "--json")
    assert before.exit == 0, before.err
    [target] = before.json["targets"]
    own = docs.client.query_points(BESIDE, NEW.embed([text]).whole[0].tolist(), limit=3, with_payload=True).points
    assert [hit["id"] for hit in target["hits"]] == [str(point.id) for point in own]
    assert [hit["score"] for hit in target["hits"]] == pytest.approx([point.score for point in own], abs=1e-5)
    assert target["hits"][0]["score"] == pytest.approx(similarity("cosine", target["hits"][0]["distance"]))
    assert command(capsys, "cutover", "r", "-p", f"database={OWN}").exit == 0
    after = command(capsys, "search", text, "--run", "r", "--limit", "3").out.splitlines()
    assert after[1] == f"  - what 7 says of topic 0 (score: {own[0].score:.3f})"
    assert docs.client.get_collection(ALIAS).points_count == 40


@pytest.mark.usefixtures("prefect", "qdrant_target", "ledger_database")
def test_a_query_of_a_collection_is_answered(qdrant: Qdrant, docs: Docs, tmp_path: Path) -> None:
    """By the id of a point, an integer, in Qdrant's own index."""
    path = tmp_path / "queries.jsonl"
    path.write_text('{"query": "what 7 says of topic 0", "expected": 7}')
    outcome = migrate_qdrant(url=qdrant.url, strategy="new_collection", run_id="r", database=OWN, queries=str(path))
    told = json.loads(Path(outcome["report"]).with_suffix(".json").read_text())["targets"][0]
    checks = {check["name"]: check for check in told["checks"]}
    assert (checks["queries"]["passed"], checks["queries"]["found"]) == (True, "1 of 1 query is answered")
    assert told["benchmark"]["queries"][0]["rank"] == 1
