"""The HTTP service by itself: who may ask, how much, how long, and what is answered where nothing can be."""

import asyncio
import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pytest

from flows.forms.clip_to_megadescriptor import ClipToMegadescriptor
from flows.forms.form import parse
from flows.service import workers
from flows.service.options import Options
from flows.service.problems import Refused
from flows.service.service import Lane
from tasks.begin import begin
from tasks.embedders.interface import Embedder
from tasks.embedders.registry import open_embedder
from tasks.runs import models
from tasks.runs.run import open_run
from tasks.shadows.registry import shadow_of
from tasks.stores.postgres.connection import Connection
from tests.helpers import tiny_models
from tests.helpers.command import command
from tests.helpers.image_reports import ImageReports
from tests.helpers.local_models import needs_timm
from tests.helpers.openai_server import Fault, OpenAIServer
from tests.helpers.photographs import file_of, photograph
from tests.helpers.service import Running, read_all, running
from tests.kill.processes import new_database, postgres_server

pytestmark = pytest.mark.timeout(120)
HASHING = "hashing/16"
PAID = "openai/text-embedding-3-small?dimensions=8"


@pytest.fixture(scope="module")
def postgres_url(postgres: Callable[[str], str]) -> str:
    """A database without a ledger."""
    new_database(postgres("postgres"), "service")
    return postgres("service")


@pytest.fixture
def database_url(postgres_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DATABASE_URL", postgres_url)
    monkeypatch.setenv("VECFERRY_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("VECFERRY_TOKEN", raising=False)


@pytest.fixture(scope="module")
def plain(postgres_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A service without a token, for this module."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("DATABASE_URL", postgres_url)
        environment.setenv("VECFERRY_HOME", str(tmp_path_factory.mktemp("home")))
        environment.delenv("VECFERRY_TOKEN", raising=False)
        with running(Options(models=(HASHING,), timeout=1.0, body_mb=1)) as service:
            yield service


def problem(answer: httpx.Response, status: int) -> str:
    """The message of an answer, which must be a problem with that status."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    body = answer.json()
    assert sorted(body) == ["error", "message"]
    return str(body["message"])


def test_a_text_is_embedded(plain: Running) -> None:
    """By the model that the service was started with, to the last bit, as JSON and as a form."""
    for given in ({"json": {"text": "a tabby cat"}}, {"data": {"text": "a tabby cat"}}):
        answer = plain.client.post("/embeddings/generate", **given)  # type: ignore[arg-type]
        assert answer.status_code == 200, answer.text
        body = answer.json()
        space = open_embedder(HASHING).space
        assert {key: value for key, value in body.items() if key != "embedding"} == {
            "dimensions": 16,
            "model": "16",
            "name": HASHING,
            "space": space.fingerprint,
        }
        np.testing.assert_array_equal(
            np.array(body["embedding"], np.float32), open_embedder(HASHING).embed(["a tabby cat"]).whole[0]
        )


@pytest.mark.parametrize(
    ("given", "status", "message"),
    [
        ({"json": {"text": "a", "model": "nomic"}}, 404, "no model is called 'nomic' here; available: hashing/16"),
        ({"json": {"text": "a", "model": "'; DROP TABLE x --"}}, 404, "no model is called"),
        ({"json": {"text": ""}}, 422, "text: String should have at least 1 character"),
        ({"json": {"text": 5}}, 422, "text: Input should be a valid string"),
        ({"json": {"txt": "a"}}, 422, "text: Field required; txt: Extra inputs are not permitted"),
        ({"content": b'{"text": "\\ud800"}', "headers": {"content-type": "application/json"}}, 422, "Invalid JSON"),
        ({"content": b"{", "headers": {"content-type": "application/json"}}, 422, "Invalid JSON"),
        ({"content": b"a"}, 415, "send multipart/form-data with a file, or application/json with a text"),
        ({"files": {"file": b"no image"}}, 404, "no model is active for images"),
        ({"files": {"file": b"x"}, "data": {"model": HASHING}}, 422, "hashing/16 takes texts only"),
        ({"data": {"file": "a"}}, 422, "file: must be a file"),
        ({"files": {"image": b"x"}}, 422, "image: there is no such field; the image is sent as file"),
        ({"files": {"text": b"x"}}, 422, "text: must be a text, and no file"),
        ({"data": {"text": ["a", "b"]}}, 422, "text: given twice"),
        ({"data": {"model": HASHING}}, 422, "send either a file with an image, or a text"),
        ({"data": {"text": "a", "other": "b"}}, 422, "other: Extra inputs are not permitted"),
        (
            {"content": b"--", "headers": {"content-type": "multipart/form-data; boundary=x"}},
            422,
            "send either a file with an image, or a text",
        ),
        ({"content": b"x", "headers": {"content-type": "multipart/form-data"}}, 400, "boundary"),
    ],
)
def test_what_cannot_be_embedded(plain: Running, given: dict[str, object], status: int, message: str) -> None:
    """It is refused with what is wrong, in one JSON shape."""
    assert message in problem(plain.client.post("/embeddings/generate", **given), status)  # type: ignore[arg-type]


def test_other_paths_and_methods(plain: Running) -> None:
    """They have the same shape, and no page loads scripts from elsewhere."""
    described = "GET /openapi.json describes what there is"
    for path in ("/", "/docs"):
        assert problem(plain.client.get(path), 404) == f"there is nothing at {path}: {described}"
    answer = plain.client.get("/embeddings/generate")
    assert problem(answer, 405) == f"GET is not answered at /embeddings/generate, POST is: {described}"
    assert answer.headers["allow"] == "POST"
    assert plain.client.get("/health").json() == {"status": "ok"}
    assert plain.client.get("/ready").json() == {"status": "ready"}


def test_a_body_of_another_type(plain: Running) -> None:
    """What the body is, is told, and the header that says it."""
    message = problem(plain.client.post("/api/v1/search", content=b'{"query": "a"}'), 415)
    assert message == "send the body as JSON, with the header content-type: application/json"


def test_a_body_that_is_too_large(plain: Running) -> None:
    """It is refused by what its head says, and else when it has sent too much."""
    large = b"x" * (1 << 20) + b"x"
    json_head = {"content-type": "application/json"}
    for content in (large, iter([large])):
        answer = plain.client.post("/embeddings/generate", content=content, headers=json_head)
        assert problem(answer, 413) == "the body has more than 1 MiB, the most that is accepted"
    assert plain.client.get("/health").status_code == 200


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"POST /embeddings/generate HTTP/1.1\r\nHost: localhost\r\n",
        b"POST /embeddings/generate HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        b'Content-Length: 100\r\n\r\n{"te',
    ],
    ids=["nothing", "half a head", "half a body"],
)
@pytest.mark.parametrize("requests", [0, 1])
def test_a_request_that_is_never_finished(plain: Running, sent: bytes, requests: int) -> None:
    """It is told so when its time is over, and its connection is closed; others are answered meanwhile."""
    with plain.connected() as connection:
        for _ in range(requests if sent else 0):  # an idle connection is closed without a word
            connection.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert b"200 OK" in connection.recv(65536)
        began = time.monotonic()
        connection.sendall(sent)
        assert plain.client.get("/health").status_code == 200
        answer = read_all(connection)
        assert 0.5 < time.monotonic() - began < 10
    head, _, body = answer.rpartition("\r\n\r\n")
    assert "HTTP/1.1 408 " in head
    assert "did not arrive" in json.loads(body)["message"]


def test_a_token(database_url: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every request must bear it, save those about health; a wrong one is refused before the body is read."""
    monkeypatch.setenv("VECFERRY_TOKEN", "s3cret-token")
    with running(Options(models=(HASHING,))) as service:
        assert service.client.post("/embeddings/generate", json={"text": "a"}).status_code == 200
        description = service.client.get("/openapi.json").json()
        assert description["components"]["securitySchemes"] == {"HTTPBearer": {"type": "http", "scheme": "bearer"}}
        with httpx.Client(base_url=service.address) as client:
            assert [client.get(path).status_code for path in ("/health", "/ready")] == [200, 200]
            answer = client.post("/embeddings/generate", content=b"x" * (64 << 20))
            assert "send the header Authorization: Bearer TOKEN" in problem(answer, 401)
            assert answer.headers["www-authenticate"] == "Bearer"
            for wrong in ("Bearer wrong", "Basic s3cret-token", "Bearer", "Bearer s3cret-tokenx", "Bearer \xff"):
                answer = client.get("/openapi.json", headers={"authorization": wrong.encode("latin-1")})
                assert problem(answer, 401) == "that is not this service's token"
            assert client.get("/openapi.json", headers={"authorization": "bearer s3cret-token"}).status_code == 200


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"host": "localhost:1"}, 200),
        ({"host": "evil.example"}, 403),
        ({"host": "localhost.evil.example"}, 403),
        ({"host": "["}, 403),
        ({"host": "[::1]:8010"}, 200),
        ({"origin": "http://["}, 403),
        ({"origin": "https://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": "http://localhost:3000"}, 200),
    ],
)
def test_pages_of_the_web_may_not_ask(plain: Running, headers: dict[str, str], status: int) -> None:
    """Without a token a page in a browser of this machine is refused, by its origin and by the name it came by."""
    assert plain.client.post("/embeddings/generate", json={"text": "a"}, headers=headers).status_code == status


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--host", "0.0.0.0"), "without a token only this machine may ask, and --host 0.0.0.0 lets others"),
        (("--token", "NOT_SET"), "neither an environment variable nor a Prefect Secret block is called NOT_SET"),
        (("--token", "a token"), "parameter token takes the name of"),
        (("--token", "STRANGE"), "what STRANGE stands for has letters that no HTTP header can carry"),
        (("--model", "nobody/has"), "no provider is called 'nobody'"),
        (("--host", "no.such.host.invalid", "--token", "PLAIN"), "is not an address of this machine"),
        (("-p", "database=NOT_SET"), "neither an environment variable nor a Prefect Secret block is called NOT_SET"),
        (("-p", "database=GONE"), "cannot connect to PostgreSQL"),
    ],
)
def test_what_it_does_not_start_with(
    database_url: None,
    options: tuple[str, ...],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A mistake on its command line ends it with status 2, before it takes a request."""
    monkeypatch.setenv("STRANGE", "ä")
    monkeypatch.setenv("PLAIN", "token")
    monkeypatch.setenv("GONE", "postgresql://127.0.0.1:1/nothing")
    ended = command(capsys, "serve", "--port", "8010", *options)
    assert (ended.exit, message in ended.complaint) == (2, True), ended.complaint


def test_a_port_that_is_taken(plain: Running, database_url: None, capsys: pytest.CaptureFixture[str]) -> None:
    """It is named, with the way on."""
    ended = command(capsys, "serve", "--port", str(plain.port))
    assert ended.exit == 2
    assert ended.complaint == (
        f"http://127.0.0.1:{plain.port} cannot be served: Address already in use; choose another port with --port"
    )


def test_a_model_that_is_busy(provider: OpenAIServer) -> None:
    """What waits is bounded: the next request is refused with 429 and when to ask again; those that wait are embedded in few
    calls, and all are answered."""
    with running(Options(models=(PAID,), queue=8)) as service:
        before, provider.delay = len(provider.calls), 0.5
        with ThreadPoolExecutor(40) as pool:
            asked = [
                pool.submit(service.client.post, "/embeddings/generate", json={"text": f"text {n}"}) for n in range(40)
            ]
            answers = [future.result() for future in asked]
        statuses = [answer.status_code for answer in answers]
        assert set(statuses) == {200, 429}
        assert statuses.count(200) >= 8
        busy = next(answer for answer in answers if answer.status_code == 429)
        assert "is busy: 8 requests are waiting for it" in problem(busy, 429)
        assert int(busy.headers["retry-after"]) >= 1
        assert len(provider.calls) - before < statuses.count(200), "none was embedded together with another"
        provider.delay = 0
        assert service.client.post("/embeddings/generate", json={"text": "later"}).status_code == 200


def test_an_answer_that_takes_too_long(provider: OpenAIServer) -> None:
    """It is given up with 503 and when to ask again; what a provider refuses is told in its words, with 503 too."""
    with running(Options(models=(PAID,), timeout=0.5)) as service:
        provider.faults.append(Fault(delay=2, times=1))
        answer = service.client.post("/embeddings/generate", json={"text": "a"})
        assert "no answer could be made within 0 s" in problem(answer, 503) or answer.headers["retry-after"]
        provider.faults.append(Fault(401, message="this key is revoked"))
        time.sleep(2)
        assert "this key is revoked" in problem(service.client.post("/embeddings/generate", json={"text": "b"}), 503)


def test_no_model_is_loaded_twice(database_url: None) -> None:
    """However many ask for it first."""
    opened: list[str] = []

    def counting(name: str) -> Embedder:
        opened.append(name)
        time.sleep(0.2)
        return open_embedder(name)

    models = workers.Models(100, counting)
    with ThreadPoolExecutor(20) as pool:
        for future in [pool.submit(models.embed, HASHING, ["a"]) for _ in range(20)]:
            assert future.result().whole.shape == (1, 16)
    models.close()
    assert opened == [HASHING]


def test_a_database_that_is_busy() -> None:
    """What waits for its threads is bounded; a request that is given up leaves its place when it has not begun, and else when its
    thread is done."""
    release = threading.Event()

    async def asked() -> None:
        lane = Lane("the database", 2, 2)
        under_way = [asyncio.create_task(lane.run(release.wait)) for _ in range(4)]
        await asyncio.sleep(0.05)
        with pytest.raises(Refused) as refusal:
            await lane.run(release.wait)
        assert refusal.value.status_code == 429
        assert refusal.value.detail == "the database is busy: 2 requests are waiting for it"
        assert refusal.value.headers == {"retry-after": "1"}
        under_way[0].cancel()  # its thread goes on
        under_way[3].cancel()  # it has not begun
        await asyncio.sleep(0.05)
        under_way.append(asyncio.create_task(lane.run(release.wait)))
        await asyncio.sleep(0.05)
        with pytest.raises(Refused):
            await lane.run(release.wait)
        release.set()
        results = await asyncio.gather(*under_way, return_exceptions=True)
        assert [result for result in results if result is True] == [True] * 3
        assert await lane.run(release.wait)
        lane.close()

    asyncio.run(asked())


def test_a_database_that_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What needs it is refused with 503 and when to ask again, what does not goes on; and once it is back, all is answered."""
    with postgres_server(tmp_path / "postgres") as server:
        monkeypatch.setenv("DATABASE_URL", server.get_uri())
        with running(Options(models=(HASHING,))) as service:
            client = service.client
            assert client.get("/ready").status_code == 200
            server.stop()
            for asked in (
                lambda: client.get("/ready"),
                lambda: client.post("/embeddings/generate", json={"text": "a", "model": "other"}),
            ):
                answer = asked()
                assert "lost PostgreSQL" in problem(answer, 503)
                assert str(tmp_path) not in answer.text, "where the database is"
                assert answer.headers["retry-after"] == "2"
            assert client.get("/health").status_code == 200
            assert client.post("/embeddings/generate", json={"text": "a"}).status_code == 200
            server.ensure_postgres_running()
            assert client.get("/ready").status_code == 200
            assert client.post("/embeddings/generate", json={"text": "a", "model": "other"}).status_code == 404


@needs_timm
@pytest.mark.whole
def test_the_active_model_of_images(connection: Connection, tmp_path: Path) -> None:
    """A file, and no model named: the model that a run has switched to answers, from the switch on, without a restart; the form
    is that of the guide's curl."""
    old = f"timm/{tiny_models.timm_model(tmp_path / 'old', seed=1, width=4)}"
    new = f"timm/{tiny_models.timm_model(tmp_path / 'MegaDescriptor-L-384')}?preprocess=card"
    reports = ImageReports(connection, tmp_path / "images", old, new, rows=2)
    photo = file_of(photograph(120, 80), "JPEG")
    form = parse(ClipToMegadescriptor, reports.parameters())
    begin(form.request(), "switched", form.given())
    run = open_run("switched", "DATABASE_URL")
    shadow_of(run, run.plan.targets[0]).expand()
    with running(Options()) as service:
        answer = service.client.post("/embeddings/generate", files={"file": ("test_image.jpg", photo)})
        assert problem(answer, 404).startswith("no model is active for images: ")
        model = models.of_run(connection, "switched", 0)
        assert model
        models.activate(connection, model)
        answer = service.client.post("/embeddings/generate", files={"file": ("test_image.jpg", photo)})
        assert answer.status_code == 200, answer.text
        body = answer.json()
        assert (body["dimensions"], body["model"], body["name"]) == (64, "MegaDescriptor-L-384", new)
        np.testing.assert_array_equal(
            np.array(body["embedding"], np.float32), open_embedder(new).embed([photo]).whole[0]
        )
        no_image = service.client.post("/embeddings/generate", files={"file": ("test_image.jpg", b"no image")})
        assert "there is no vector of this image: the file is not a picture" in problem(no_image, 422)
        by_name = service.client.post(
            "/embeddings/generate", files={"file": photo}, data={"model": "MegaDescriptor-L-384"}
        )
        assert by_name.json() == body
        assert "takes images only" in problem(
            service.client.post("/embeddings/generate", json={"text": "a", "model": new}), 422
        )
