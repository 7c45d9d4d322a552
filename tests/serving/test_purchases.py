"""What is bought outside of runs: at the account's rate, within a budget, once, and noted."""

import json
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from flows.client import Allowance, Client
from flows.forms.form import parse
from flows.forms.text_384_to_1536 import Text384To1536
from flows.service.options import Options
from tasks.base.errors import UsageError
from tasks.begin import begin
from tasks.embedders.openai.server import PROBES
from tasks.embedders.texts import size
from tasks.runs import registry
from tasks.serving.purchasing import Purchasing
from tasks.stores.postgres.connection import Connection, connect
from tests.helpers.buyer import buy
from tests.helpers.command import command
from tests.helpers.live_table import Table
from tests.helpers.openai_server import OpenAIServer
from tests.helpers.service import Running, running
from tests.helpers.several_models import Several
from tests.helpers.terminal import COMMAND

MODELS, ROWS = ("hashing/64",), 3
PAID = "openai/text-embedding-3-small?dimensions=64"
PRICE = 0.02 / 1e6
Capture = pytest.CaptureFixture[str]


@pytest.fixture
def paid(served: Several, provider: OpenAIServer) -> Several:
    """With a model that costs money, which is active."""
    served.register(PAID)
    with served.connection.transaction():
        registry.set_active(served.connection, served.tables, served.model(PAID))
    return served


@pytest.fixture
def serving(paid: Several, monkeypatch: pytest.MonkeyPatch) -> Iterator[Running]:
    monkeypatch.delenv("VECFERRY_TOKEN", raising=False)
    with running(Options()) as started:
        yield started


def paragraphs(count: int, about: str) -> str:
    """A text of so many chunks."""
    return "\n\n".join(f"{about} {number}: {'words of it ' * 70}" for number in range(count))


def bought(provider: OpenAIServer) -> Counter[str]:
    return Counter(text for call in provider.answered() for text in call.inputs if text not in PROBES)


def noted(connection: Connection) -> dict[str, float]:
    """Dollars, by who spent them."""
    return dict(connection.execute("SELECT buyer, sum(dollars) FROM vecferry.purchase GROUP BY buyer").fetchall())


def test_beside_a_run_nobody_is_refused(served: Several, provider: OpenAIServer, database: str) -> None:
    """A run, a service and an application ask by one key: together they keep to its limits, from the first request on."""
    name = "openai/text-embedding-3-small"
    served.register(name)
    with served.connection.transaction():
        registry.set_active(served.connection, served.tables, served.model(name))
    provider.limit(requests=1_200, tokens=10_000_000, full=False)
    with connect(database, "vecferry test") as other:
        Table(other, rows=1)
        form = parse(
            Text384To1536, {"targets": [{"table": "docs", "text": "content"}], "embedder": f"{name}?max_inputs=10"}
        )
        begin(form.request(), "beside", form.given())
    with running(Options()) as service, served.client() as client, ThreadPoolExecutor(4) as threads:
        waiting = [
            threads.submit(buy, "beside", 0, 150),
            threads.submit(lambda: [client.ingest_document(f"{n}", paragraphs(1, f"a{n}")) for n in range(15)]),
            threads.submit(lambda: [client.search(f"query {n}") for n in range(15)]),
            threads.submit(lambda: [service.client.post("/api/v1/search", json={"query": f"q{n}"}) for n in range(15)]),
        ]
        answers = [future.result() for future in waiting][-1]
    assert [answer.status_code for answer in answers] == [200] * 15
    assert len(bought(provider)) >= 195
    assert not provider.answered(429)


def test_what_is_bought_is_noted(paid: Several, serving: Running, capsys: Capture, tmp_path: Path) -> None:
    """By day and by who bought it, and `vecferry status` and `vecferry models status` tell of it."""
    (tmp_path / "notes.txt").write_text("Words that cost money.")
    assert command(capsys, "ingest", str(tmp_path / "notes.txt")).exit == 0
    with paid.client() as client:
        client.search("what costs money")
    assert serving.client.post("/api/v1/search", json={"query": "what"}).status_code == 200
    spent = noted(paid.connection)
    assert set(spent) == {"ingest", "client", "serve"}
    assert all(dollars > 0 for dollars in spent.values())
    shown = command(capsys, "status").out
    assert "bought outside of runs" in shown
    told = json.loads(command(capsys, "models", "status", "--json").out)["bought"]
    assert {row["buyer"]: row["dollars"] for row in told} == spent


def test_a_budget_of_one_ingest(paid: Several, provider: OpenAIServer, capsys: Capture, tmp_path: Path) -> None:
    """It stops before it would spend more, says so, and what it had bought is not bought again."""
    files, provider.tokens_of = list[str](), size
    for number in range(3):
        files.append(str(tmp_path / f"{number}.txt"))
        Path(files[-1]).write_text(paragraphs(1, f"file {number}"))
    price = PRICE * provider.tokens_of(paragraphs(1, "file 0"))
    stopped = command(capsys, "ingest", *files, "-p", f"budget_usd={2.5 * price:.9f}")
    assert stopped.exit == 1
    assert "2.txt: the budget of $" in stopped.complaint
    assert "budget_usd" in stopped.complaint
    assert "written before it" in stopped.complaint
    count = bought(provider)
    assert len(count) == count.total() == 2
    assert noted(paid.connection)["ingest"] <= 2.5 * price
    assert command(capsys, "ingest", files[2], "-p", "budget_usd=1").exit == 0
    assert bought(provider).total() == 3


def test_a_budget_of_a_day(paid: Several, provider: OpenAIServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """All services of a database share it, a service that is started again does not begin anew, and the next day does."""
    monkeypatch.delenv("VECFERRY_TOKEN", raising=False)
    options, provider.tokens_of = Options(budget_usd=PRICE * 1000), size
    text = "word " * 40

    def asked(service: Running, at: int) -> int:
        answer = service.client.post("/api/v1/search", json={"query": f"{at} {text}"})
        if answer.status_code == 503:
            assert "the budget of $" in answer.json()["message"]
            assert "a day" in answer.json()["message"]
            assert 0 < int(answer.headers["retry-after"]) <= 86_400
        return answer.status_code

    with running(options) as one, running(options) as other:
        statuses = [asked(service, at) for at in range(4) for service in (one, other)]
        assert statuses[0] == 200
        assert statuses[-1] == 503
        assert noted(paid.connection)["serve"] <= options.budget_usd  # type: ignore[operator]
        assert one.client.post("/api/v1/search", json={"vector": [1.0] * 64}).status_code == 200
    with running(options) as started_again:
        assert asked(started_again, 10) == 503
        paid.connection.execute("UPDATE vecferry.purchase SET day = day - 1")
        assert asked(started_again, 11) == 200


def test_equal_texts_are_bought_once(paid: Several, provider: OpenAIServer) -> None:
    """Though two processes write documents of the same text at the same time."""
    provider.delay = 0.3
    text, ready = paragraphs(4, "the same"), threading.Barrier(2)

    def write(title: str) -> None:
        with paid.client() as client:
            ready.wait()
            client.ingest_document(title, text)

    with ThreadPoolExecutor(2) as threads:
        list(threads.map(write, ("One", "Two")))
    assert bought(provider).most_common(1)[0][1] == 1
    assert paid.connection.execute("SELECT count(*) FROM document_chunks").fetchone() == (2 * ROWS + 8,)


def test_many_that_wait_for_a_provider_keep_nobody_from_searching(paid: Several, provider: OpenAIServer) -> None:
    """A client writes more documents at a time than it has connections, and they wait for each other; searches go on."""
    provider.delay = 1.2  # twice, for the model is probed first: more than a connection is waited for
    with Client(connections=1) as client, ThreadPoolExecutor(2) as threads:
        writing = [threads.submit(client.ingest_document, f"{n}", f"Another text {n}.") for n in range(2)]
        assert client.search(vector=[1.0] * 64, model_name="hashing/64")
        assert not any(future.done() for future in writing)
        for future in writing:
            future.result()


def test_a_ledger_that_takes_no_notes(paid: Several, provider: OpenAIServer, caplog: pytest.LogCaptureFixture) -> None:
    """A copy that is only read is searched all the same, and a warning says what is not shared; a budget is refused."""
    paid.connection.execute(f"ALTER DATABASE {paid.connection.info.dbname} SET default_transaction_read_only = on")
    with paid.client() as client:
        assert client.search("words", min_similarity=-1.0).searched[0].model == PAID
    assert "what it costs is not noted: this database takes no writes" in caplog.text
    with (
        Client(allowance=Allowance(dollars=1.0)) as limited,
        pytest.raises(UsageError, match="budget_usd cannot hold: this database takes no writes"),
    ):
        limited.search("other words")


def test_a_right_that_is_missing_is_named(paid: Several, database: str, caplog: pytest.LogCaptureFixture) -> None:
    """With the statement that grants it."""
    role = f"searcher_{paid.connection.info.dbname}"
    paid.connection.execute(f"CREATE ROLE {role}; GRANT USAGE ON SCHEMA vecferry TO {role}")

    @contextmanager
    def theirs() -> Iterator[Connection]:
        with connect(database, "vecferry test") as connection:
            connection.execute(f"SET ROLE {role}")
            yield connection

    try:
        with pytest.raises(UsageError, match=f"GRANT SELECT, INSERT, UPDATE, DELETE ON vecferry.rate TO {role}"):
            Purchasing(theirs, Allowance(dollars=1.0)).open(PAID)
        Purchasing(theirs, Allowance()).open(PAID)
        assert f"GRANT SELECT, INSERT, UPDATE, DELETE ON vecferry.purchase TO {role}" in caplog.text
    finally:
        paid.connection.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")


def test_a_budget_needs_a_price(paid: Several) -> None:
    """A model whose price is not known could not be held to it."""
    buying = Purchasing(partial(connect, paid.connection.info.dsn), Allowance(dollars=1.0))
    with pytest.raises(
        UsageError, match=r"the price of openai/mine\?dimensions=8 is not known, so that budget_usd cannot"
    ):
        buying.open("openai/mine?dimensions=8")


@pytest.mark.whole
@pytest.mark.timeout(120)
def test_an_ingest_that_is_interrupted(paid: Several, provider: OpenAIServer, capsys: Capture, tmp_path: Path) -> None:
    """No document is half written, and the same command goes on: no document is there twice, and no text is bought twice but what was
    under way."""
    files = [str(tmp_path / f"{number}.txt") for number in range(10)]
    for number, file in enumerate(files):
        Path(file).write_text(f"What file {number} says.")
    provider.delay = 0.3

    def titles() -> Counter[str]:
        return Counter(t for (t,) in paid.connection.execute("SELECT title FROM documents WHERE title LIKE '%.txt'"))

    ingesting = subprocess.Popen([COMMAND, "ingest", *files], stderr=subprocess.PIPE, text=True)
    while len(titles()) < 3:
        assert ingesting.poll() is None
        time.sleep(0.05)
    ingesting.send_signal(signal.SIGINT)
    _, errors = ingesting.communicate(timeout=30)
    assert ingesting.returncode == 1
    assert "vecferry: interrupted; what is done is kept. Go on with: vecferry ingest " in errors
    assert 3 <= len(titles()) < 10
    assert command(capsys, "ingest", *files).exit == 0
    assert titles() == Counter(f"{number}.txt" for number in range(10))
    assert paid.connection.execute("SELECT count(*) FROM vecferry.claim").fetchone() == (0,)
    assert bought(provider).total() - 10 <= 1
    lacking = (
        "SELECT count(*) FROM document_chunks c LEFT JOIN chunk_embeddings e ON e.chunk_id = c.id WHERE e.id IS NULL"
    )
    assert paid.connection.execute(lacking).fetchone() == (0,)
