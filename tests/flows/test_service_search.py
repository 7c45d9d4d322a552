"""The HTTP service over tables that serve several models: search, documents, and what is wrong with a request."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings

from flows.client import Client, as_json
from flows.service import long_work
from flows.service.options import Options
from flows.service.problems import Refused
from tasks.embedders import registry as providers
from tasks.embedders.registry import open_embedder
from tasks.runs import registry
from tasks.stores.postgres.connection import connect
from tests.flows.test_service import problem
from tests.helpers.service import Running, running
from tests.helpers.several_models import Several, served_by, several, template
from tests.kill.processes import new_database, postgres_server

pytestmark = pytest.mark.timeout(120)
MODELS, ROWS = ("hashing/64", "flipped/64", "hashing/128"), 20
SEARCH = "/api/v1/search"


@pytest.fixture(scope="module")
def service(postgres: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """Documents of two chunks each, with vectors of three models."""
    with pytest.MonkeyPatch.context() as patch, template(postgres, MODELS, ROWS) as name:
        patch.setitem(providers.PROVIDERS, "flipped", "tests.helpers.flipped:open_flipped")
        patch.setenv("DATABASE_URL", postgres(name))
        patch.setenv("VECFERRY_HOME", str(tmp_path_factory.mktemp("home")))
        patch.delenv("VECFERRY_TOKEN", raising=False)
        with running(Options(body_mb=4)) as started:
            yield started


@pytest.fixture
def served(service: Running) -> Iterator[Several]:
    with connect(service.service.connections.url, "vecferry test") as connection:
        yield served_by(connection)


@pytest.fixture
def client(service: Running) -> Client:
    return service.service.client


def vector(text: str, model: str = "hashing/64") -> list[float]:
    made: list[float] = open_embedder(model).embed([text]).whole[0].tolist()
    return made


def asked(service: Running, **body: Any) -> dict[str, Any]:
    """The answer to a search."""
    answer = service.client.post(SEARCH, json=body)
    assert answer.status_code == 200, answer.text
    result: dict[str, Any] = answer.json()
    return result


def test_it_answers_as_the_client_does(service: Running, client: Client) -> None:
    """By the active model or a named one, by a text or a vector, by several models in union and intersection."""
    for body, expected in (
        ({"query": "ship"}, client.search("ship")),
        ({"query": "ship", "model": "128", "top_k": 3}, client.search("ship", "128", 3)),
        ({"vector": vector("ship")}, client.search("ship")),
        ({"query": "ship", "filter": {"part": 3}}, client.search("ship", filter={"part": 3})),
        ({"query": "ship", "min_similarity": 0.99}, client.search("ship", min_similarity=0.99)),
        ({"query": "ship", "models": MODELS[:2]}, client.search_multi_model("ship", MODELS[:2])),
        (
            {"query": "ship", "models": MODELS, "aggregation": "intersection", "top_k": 20},
            client.search_multi_model("ship", MODELS, "intersection", 20),
        ),
        (
            {"vectors": {name: vector("ship", name) for name in MODELS}, "top_k": 7},
            client.search_multi_model("ship", MODELS, top_k=7),
        ),
    ):
        answer = asked(service, **body)
        assert answer["hits"] == as_json(expected)["hits"]
        assert answer["notes"] == expected.notes
    assert asked(service, query="ship")["hits"], "nothing was compared"


def test_models(service: Running) -> None:
    """Those that can be searched, with what each covers; and each embeds by its name, the active one without."""
    models = service.client.get("/api/v1/models/search").json()["models"]
    assert [(m["model"], m["dimensions"], m["active"], m["coverage"]) for m in models] == [
        ("hashing/64", 64, True, 1.0),
        ("flipped/64", 64, False, 1.0),
        ("hashing/128", 128, False, 1.0),
    ]
    for named, name in ((None, "hashing/64"), ("hashing/128", "hashing/128")):
        given = {"text": "a"} | ({"model": named} if named else {})
        assert service.client.post("/embeddings/generate", json=given).json()["name"] == name


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        ({}, 422, "give one of query, vector or vectors"),
        ({"query": "a", "vector": [1]}, 422, "give either query or vector"),
        ({"query": "a", "model": "x", "models": ["y"]}, 422, "give either model or models"),
        ({"query": "a\0"}, 422, "query: Value error, must not hold the character NUL"),
        ({"query": ""}, 422, "query: String should have at least 1 character"),
        ({"query": "a", "top_k": 10**30}, 422, "top_k: Input should be less than or equal to 1000"),
        ({"query": "a", "top_k": 0}, 422, "top_k: Input should be greater than or equal to 1"),
        ({"query": "a", "model": "'; DROP TABLE documents; --"}, 404, 'no model "\'; DROP TABLE documents; --" is'),
        (
            {"query": "a", "models": ["hashing/64", "nobody"]},
            404,
            "no model 'nobody' is registered; there are hashing/64, flipped/64 and hashing/128. `vecferry models setup PROVIDER/MODEL`",
        ),
        ({"query": "a", "models": ["hashing/64", "hashing/64"]}, 400, "name each model once"),
        ({"vector": [1.0, 2.0]}, 400, "the vector has 2 dimensions, and model hashing/64 has 64"),
        ({"vector": [1e39] * 64}, 422, "vector.0: Input should be less than or equal to"),
        ({"vector": [0.0] * 64}, 400, "the query vector is all zeros"),
        ({"query": "a", "model": "hashing/x?a=1&b=2"}, 404, "`vecferry models setup 'hashing/x?a=1&b=2'` adds it"),
        ({"query": "a", "model": "nobody/x"}, 404, "`vecferry models setup PROVIDER/MODEL` adds one"),
        ({"vector": []}, 422, "vector: List should have at least 1 item"),
        ({"vector": ["a"]}, 422, "vector.0: Input should be a valid number"),
        ({"vectors": {"nobody": [1.0]}}, 404, "no model 'nobody' is registered"),
        ({"query": "a", "filter": {"a": "\0"}}, 422, "filter: Value error, must not hold the character NUL"),
        ({"query": "a", "filter": {"a": 1 << 70}}, 422, "filter: Value error, must not hold a whole number"),
        ({"query": "a", "filter": json.loads('{"a":' * 40 + "1" + "}" * 40)}, 422, "must not be more than 32 levels"),
        ({"query": "a", "aggregation": "both"}, 422, "aggregation: Input should be 'union' or 'intersection'"),
        ({"query": "a", "colour": "red"}, 422, "colour: Extra inputs are not permitted"),
    ],
)
def test_a_search_that_cannot_be_done(service: Running, body: dict[str, Any], status: int, message: str) -> None:
    """It is refused with what is wrong."""
    assert message in problem(service.client.post(SEARCH, json=body), status)


@pytest.mark.parametrize(
    "text",
    ['{"vector": [NaN]}', '{"vector": [1e999]}', '{"query": "\\ud800"}', '{"query": "a", "filter": {"a": Infinity}}',
     '{"query": "a", "filter": {"\\ud800": 1}}', "[" * 100_000, '{"query": ' + "1" * 5000 + "}", '"a"', "\xff"],
)  # fmt: skip
def test_a_search_that_is_no_proper_json(service: Running, text: str) -> None:
    """Numbers that are not finite, half surrogates, endless nesting: refused, and the service goes on."""
    answer = service.client.post(SEARCH, content=text.encode("latin-1"), headers={"content-type": "application/json"})
    assert answer.status_code in (400, 422), answer.text
    problem(answer, answer.status_code)
    assert asked(service, query="ship")["hits"]


def test_a_document(service: Running) -> None:
    """Written with its vectors by the active model, covered by that alone, then by another one; and it is searched."""
    text = "a zeppelin over the lighthouse"
    created = service.client.post("/api/v1/documents", json={"title": "New", "content": text, "metadata": {"part": 77}})
    assert created.status_code == 201, created.text
    key = created.json()["document_id"]
    assert created.json()["model"] == "hashing/64"
    path = f"/api/v1/documents/{key}/embeddings"

    def covered() -> dict[str, int]:
        answer = service.client.get(path).json()
        assert (answer["document_id"], answer["title"], answer["chunks"]) == (key, "New", 1)
        return {model["model"]: model["chunks"] for model in answer["models"]}

    assert covered() == {"hashing/64": 1, "flipped/64": 0, "hashing/128": 0}
    updated = service.client.put(path, params={"model": "128"})
    assert updated.json() == {"document_id": key, "model": "hashing/128", "chunks": 1}
    assert covered() == {"hashing/64": 1, "flipped/64": 0, "hashing/128": 1}
    for model in ("hashing/64", "hashing/128"):
        [hit] = asked(service, query=text, model=model, top_k=1)["hits"]
        assert (hit["document_id"], hit["content"], round(hit["models"][0]["similarity"], 4)) == (key, text, 1.0)


@pytest.mark.parametrize(
    ("method", "path", "status", "message"),
    [
        ("GET", "/api/v1/documents/999999/embeddings", 404, "has no document 999999"),
        ("GET", "/api/v1/documents/1%20OR%201=1/embeddings", 404, "has no document 1 OR 1=1"),
        ("GET", "/api/v1/documents/%00/embeddings", 422, "must not hold the character NUL"),
        ("GET", f"/api/v1/documents/{'9' * 50}/embeddings", 404, "has no document 999"),
        ("GET", f"/api/v1/documents/{'9' * 300}/embeddings", 422, "should have at most 200 characters"),
        ("PUT", "/api/v1/documents/999999/embeddings", 404, "has no document 999999"),
        ("PUT", "/api/v1/documents/1/embeddings?model=nobody", 404, "no model 'nobody' is registered"),
        ("PUT", "/api/v1/documents/1/embeddings?model=", 422, "model: String should have at least 1 character"),
    ],
)
def test_a_document_that_is_not_there(service: Running, method: str, path: str, status: int, message: str) -> None:
    """Whatever is written in the place of its key."""
    assert message in problem(service.client.request(method, path), status)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"content": ""}, "content: String should have at least 1 character"),
        ({"content": "a\0"}, "content: Value error, must not hold the character NUL"),
        ({"content": "a" * 1_000_001}, "content: String should have at most 1000000 characters"),
        ({"content": "a", "metadata": {"a": "\0"}}, "metadata: Value error, must not hold the character NUL"),
        ({"content": "a", "title": "\0"}, "title: Value error, must not hold the character NUL"),
    ],
)
def test_a_document_that_cannot_be_written(service: Running, body: dict[str, Any], message: str) -> None:
    assert message in problem(service.client.post("/api/v1/documents", json=body), 422)


def test_a_migration_without_a_server_of_prefects(service: Running) -> None:
    """Work that takes long is a flow run: without a server it is refused with the way on; models are looked up before."""
    answer = service.client.post("/api/v1/migrations", json={"target_model": "nobody"})
    assert "no model 'nobody' is registered" in problem(answer, 404)
    asked = {"target_model": "hashing/128", "documents": {"ids": ["1", "2"]}, "database": "DATABASE_URL"}
    many = {**asked, "documents": {"ids": [str(key) for key in range(1000)]}}
    given = """-p target_model=hashing/128 -p 'documents={"ids": ["1", "2"]}' -p database=DATABASE_URL"""
    for parameters, told in ((asked, f", or run `vecferry run multi-model {given}`"), (many, "")):
        with temporary_settings(restore_defaults={PREFECT_API_URL}), pytest.raises(Refused) as refused:
            long_work.start(parameters)
        assert refused.value.status_code == 409
        assert str(refused.value.detail).endswith(f"e.g. that of `make ui`{told}")


def test_a_switch_while_it_serves(service: Running, served: Several) -> None:
    """The next search without a model goes by the new one."""
    try:
        with served.connection.transaction():
            registry.set_active(served.connection, served.tables, served.model("hashing/128"))
        assert asked(service, query="ship")["searched"][0]["model"] == "hashing/128"
        assert "and model hashing/128 has 128" in problem(
            service.client.post(SEARCH, json={"vector": vector("ship")}), 400
        )
        assert service.client.post("/embeddings/generate", json={"text": "a"}).json()["dimensions"] == 128
    finally:
        with served.connection.transaction():
            registry.set_active(served.connection, served.tables, served.model("hashing/64"))
    assert np.array(service.client.post("/embeddings/generate", json={"text": "a"}).json()["embedding"]).shape == (64,)


def test_a_model_that_cannot_be_loaded(service: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """That is no mistake of the client's: 503 with the reason; searches by its vectors go on."""
    monkeypatch.setenv("DATABASE_URL", service.service.connections.url)
    body = {"vector": vector("ship", "flipped/64"), "model": "flipped/64"}
    monkeypatch.delitem(providers.PROVIDERS, "flipped")
    with running(Options()) as another:
        for path, given in (
            (SEARCH, {"query": "ship", "model": "flipped/64"}),
            (SEARCH, {"query": "ship", "models": ["hashing/64", "flipped/64"]}),
            ("/api/v1/documents", {"content": "a", "model": "flipped/64"}),
            ("/embeddings/generate", {"text": "a", "model": "flipped/64"}),
        ):
            message = problem(another.client.post(path, json=given), 503)
            assert message.startswith(
                "flipped/64 cannot be loaded: embedder 'flipped/64': no provider is called 'flipped'"
            )
        assert asked(another, **body)["hits"]


@pytest.mark.whole
def test_searches_while_the_database_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is answered, or refused with 503 and when to ask again; and all are answered once it is back."""
    with postgres_server(tmp_path / "postgres") as server:
        new_database(server.get_uri(), "searched")
        url = server.get_uri(database="searched")
        monkeypatch.setenv("DATABASE_URL", url)
        monkeypatch.setenv("VECFERRY_HOME", str(tmp_path / "home"))
        with connect(url, "vecferry test") as connection:
            several(connection, MODELS[:1], 10)
        body, statuses, over = {"vector": vector("ship")}, list[int](), threading.Event()
        with running(Options()) as service, ThreadPoolExecutor(4) as pool:

            def search_on() -> None:
                while not over.is_set():
                    answer = service.client.post(SEARCH, json=body)
                    statuses.append(answer.status_code)
                    if answer.status_code == 503:
                        assert answer.headers["retry-after"] == "2"
                        assert problem(answer, 503)

            searching = [pool.submit(search_on) for _ in range(4)]
            wait_until(lambda: statuses.count(200) >= 20)
            server.stop()
            wait_until(lambda: statuses.count(503) >= 4)
            server.ensure_postgres_running()
            seen = len(statuses)
            wait_until(lambda: statuses[seen:].count(200) >= 20)
            over.set()
            for future in searching:
                future.result()
            assert set(statuses) == {200, 503}
            assert {service.client.post(SEARCH, json=body).status_code for _ in range(20)} == {200}


def wait_until(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.02)
