"""Servers that speak OpenAI's API as they are: a real HTTP server that behaves as each of them, opened by the name a user writes."""

import re
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any
from urllib.parse import quote

import numpy as np
import orjson
import pytest
from hypothesis import given, settings, strategies as st

from tasks.base.errors import FatalError, TransientError, VecferryError
from tasks.embedders.budget import Budget
from tasks.embedders.interface import Embedder
from tasks.embedders.openai import address, packing, server as servers
from tasks.embedders.openai.embedder import OpenAIEmbedder
from tasks.embedders.openai.server import ATTEMPTS, CONCURRENCY, PROBES, Server
from tasks.embedders.registry import open_embedder
from tasks.embedders.texts import cut
from tests.helpers import compatible
from tests.helpers.openai_server import Asked, OpenAIServer, Reply, openai_server
from tests.helpers.sampling import sampled

HASTE = 50
"""How many times shorter than they say the waits are."""


@pytest.fixture
def server() -> Iterator[OpenAIServer]:
    with openai_server(dimensions=8) as running:
        yield running


@pytest.fixture(autouse=True)
def _hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waits are short, and tokens bounded, not counted, on every machine alike."""
    clock, sleep = lambda: time.monotonic() * HASTE, lambda delay: time.sleep(delay / HASTE)
    monkeypatch.setattr(servers, "Server", partial(Server, clock=clock, sleep=sleep))
    monkeypatch.setattr(packing, "_encoder", lambda: None)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")


def model(server: OpenAIServer, name: str = "bge-m3", budget: Budget | None = None, **options: object) -> Embedder:
    """The model at that server, by its name with options."""
    given = {"dimensions": 8, "base_url": quote(server.base_url, safe=""), **options}
    return open_embedder(f"openai/{name}?" + "&".join(f"{key}={value}" for key, value in given.items()), budget)


def embedder(server: OpenAIServer) -> OpenAIEmbedder:
    """The same by its class, with what it shares with others of the process."""
    opened = model(server)
    assert isinstance(opened, OpenAIEmbedder)
    return opened


def texts_of(count: int) -> list[str]:
    return [f"text {number} of these" for number in range(count)]


class Bought:
    """Remembers what on_made was given."""

    def __init__(self) -> None:
        self.rows: dict[int, np.ndarray] = {}

    def __call__(self, rows: Sequence[int], vectors: np.ndarray) -> None:
        assert not self.rows.keys() & set(rows)
        self.rows |= dict(zip(rows, vectors, strict=True))


def paid(server: OpenAIServer) -> Counter[str]:
    """How often each text was paid for."""
    return Counter(text for call in server.answered() for text in call.inputs if text not in PROBES)


def spoil(poison: str, value: Any) -> Callable[[OpenAIServer], Callable[[Asked], Reply | None]]:
    """A server whose vectors of some texts hold ``value``, or are it."""

    def of(server: OpenAIServer) -> Callable[[Asked], Reply | None]:
        def before(asked: Asked) -> Reply | None:
            if not any(poison in text for text in asked.texts):
                return None
            rows = []
            for place, text in enumerate(asked.texts):
                vector = server.vector(text).tolist()
                bad = value if value is None or value == [] else [value, *vector[1:]]
                rows.append({"index": place, "embedding": bad if poison in text else vector})
            usage = {"prompt_tokens": 8 * len(rows), "total_tokens": 8 * len(rows)}
            data = orjson.dumps({"data": rows, "usage": usage}).replace(b'"NaN"', b"NaN").replace(b'"Inf"', b"Infinity")
            return 200, {}, data

        return before

    return of


POISON: dict[str, Callable[[OpenAIServer], Callable[[Asked], Reply | None]]] = {
    "500": lambda server: compatible.ollama(10_000),
    "null components": spoil("poison", None),
    "no vector": spoil("poison", []),
    "NaN": spoil("poison", "NaN"),
    "infinity": spoil("poison", "Inf"),
    "403 page": lambda server: compatible.firewall("poison"),
    "401 page": lambda server: compatible.firewall("poison", status=401),
    "503 page": lambda server: compatible.firewall("poison", status=503),
    "406 page": lambda server: compatible.firewall("poison", status=406),
    "403": lambda server: (
        lambda asked: (
            compatible.error(403, "blocked by the content filter")
            if any("poison" in text for text in asked.texts)
            else None
        )
    ),
    "400": lambda server: (
        lambda asked: compatible.error(400, "bad input") if any("poison" in text for text in asked.texts) else None
    ),
}
WORDS = {
    "500": "unsupported value: NaN",
    "NaN": "NaN",
    "403 page": "403.*Sorry, you have been blocked",
    "400": "bad input",
}


@pytest.mark.parametrize("kind", POISON)
@pytest.mark.parametrize("bad", [{7}, {0}, {39}, {3, 4, 30}])
def test_a_text_that_a_server_cannot_take_is_set_aside_alone(server: OpenAIServer, kind: str, bad: set[int]) -> None:
    """With the server's words; its neighbours have their vectors, each paid for once, and few requests are made in vain."""
    server.before = POISON[kind](server)
    texts, bought = [f"poison {row}" if row in bad else text for row, text in enumerate(texts_of(40))], Bought()
    embedded = model(server).embed(texts, bought)
    assert set(embedded.rejected) == set(bought.rows) ^ set(range(40)) == bad
    assert {error.kind for error in embedded.rejected.values()} == {"refused"}
    assert all(re.search(WORDS.get(kind, ""), error.message) for error in embedded.rejected.values())
    np.testing.assert_array_equal(
        np.array([bought.rows[row] for row in sorted(bought.rows)]),
        np.array([server.vector(text) for row, text in enumerate(texts) if row not in bad]),
    )
    good = {text: times for text, times in paid(server).items() if "poison" not in text}
    assert set(good.values()) == {1}
    assert len(server.calls) <= 12 + 16 * len(bad)


@pytest.mark.parametrize("kind", POISON)
def test_nothing_is_set_aside_where_the_server_takes_no_text_any_more(server: OpenAIServer, kind: str) -> None:
    """A text that it took before is refused too: the account or the server is at fault. The run stops within ten calls of
    that, and what was bought is handed over."""
    texts, bought = texts_of(400), Bought()
    own, broken, begun = model(server, max_inputs=8), POISON[kind](server), 12

    def before(asked: Asked) -> Reply | None:
        every = {**asked.body, "input": ["poison"] * len(asked.texts)}
        return broken(Asked(asked.path, asked.headers, every)) if len(server.calls) >= begun else None

    server.before = before
    with pytest.raises(VecferryError) as raised:
        own.embed(texts, bought)
    transient = kind in ("500", "503 page")  # which are waited for, by one thread for all
    assert isinstance(raised.value, TransientError if transient else FatalError)
    assert transient or "harmless text" in str(raised.value)
    under_way = CONCURRENCY - 1
    assert len(server.calls) - begun <= (under_way + ATTEMPTS + 1 if transient else 10)
    good = {text for call in server.calls[:begun] for text in call.inputs} - set(PROBES)
    assert good <= {texts[row] for row in bought.rows}


@pytest.mark.parametrize("status", [403, 503, 200])
@pytest.mark.parametrize("earlier", [[], ["another"]])
def test_the_good_rows_of_a_spoilt_answer_are_bought_once(
    server: OpenAIServer, earlier: Sequence[str], status: int
) -> None:
    """The last row of each is spoilt, and the server fails when it is asked about that: the others are kept, and nothing is set
    aside."""
    own, texts, bought, spoilt = embedder(server), texts_of(300), Bought(), set[str]()
    own.account.probe()
    own.embed(earlier)
    server.calls.clear()

    def before(asked: Asked) -> Reply | None:
        if status != 200 and asked.texts == [PROBES[0]]:
            return compatible.error(status, "no")
        spoilt.add(asked.texts[-1])
        return spoil(asked.texts[-1], "NaN")(server)(asked)

    server.before = before
    with pytest.raises(TransientError if status == 503 else FatalError):
        own.embed(texts, bought)
    assert {texts[row] for row in bought.rows} == paid(server).keys() - spoilt
    assert {times for text, times in paid(server).items() if text not in spoilt} == {1}
    if status != 503:
        assert sum(call.at > server.calls[0].ended for call in server.calls) <= 10
    server.before = None
    own.account.server.mend()
    left = [texts[row] for row in range(300) if row not in bought.rows]
    assert not own.embed(left).rejected
    assert {times for text, times in paid(server).items() if text not in spoilt} == {1}


@pytest.mark.parametrize("lasts", [False, True])
def test_only_spoilt_rows_are_asked_for_again_of_a_server_that_was_sick(server: OpenAIServer, lasts: bool) -> None:
    """It spoils a row, is down for a moment, and is well again: that row has its vector then, or is set aside if it still has none."""
    own, texts, bought, down = model(server), [*texts_of(12), "poison", *texts_of(40)[12:]], Bought(), [503] * 2
    own.embed(["another"])
    broken, spoilt = spoil("poison", "NaN")(server), Counter[str]()

    def before(asked: Asked) -> Reply | None:
        if asked.texts == [PROBES[0]] and down:
            return compatible.error(down.pop(), "no")
        poisoned = any("poison" in text for text in asked.texts)
        spoilt.update(["poison"] if poisoned else [])
        return broken(asked) if lasts or spoilt["poison"] == 1 else None

    server.before = before
    assert own.embed(texts, bought).rejected.keys() == ({12} if lasts else set())
    assert len(bought.rows) == (40 if lasts else 41)
    assert {times for text, times in paid(server).items() if text != "poison"} == {1}
    assert lasts or paid(server)["poison"] == 2
    assert paid(server)["poison"] <= 8


@pytest.mark.parametrize("fault", [{"cut": True}, {"status": 500}, {"status": 403}, {"delay": 0.8}])
@pytest.mark.parametrize("times", [1, 2, 3])
def test_a_text_that_comes_alone_is_not_set_aside_by_chance(
    server: OpenAIServer, fault: dict[str, Any], times: int
) -> None:
    """It fails a few times, and others pass meanwhile."""
    own = model(server, timeout=0.5)
    own.embed(["another"])
    if fault.get("status") == 403:
        times = 1
    server.plant(**fault, text="alone", times=times)
    np.testing.assert_array_equal(own.embed(["alone"]).whole, [server.vector("alone")])


BODIES = {
    "OpenAI's": b'{"error": {"message": "no", "type": "server_error", "param": null, "code": null}}',
    "another's": b'{"detail": "no"}',
    "a page": compatible.PAGE,
    "a word": b"no",
    "nothing": b"",
}


@settings(max_examples=15, deadline=None, derandomize=True, database=None)
@given(
    st.sampled_from([400, 403, 404, 406, 413, 422, 451, 500, 502, 503, 504, 520]),
    st.sampled_from(sorted(BODIES)),
    st.sets(st.integers(0, 49), max_size=4),
    st.integers(1, 50),
)
def test_whatever_a_server_says_of_a_text(status: int, body: str, bad: set[int], most: int) -> None:
    """By whichever status and body some texts are refused, and however many go together: those are set aside, and each of the others
    is bought once."""
    texts, bought = [f"poison {n}" if n in bad else text for n, text in enumerate(texts_of(50))], Bought()
    with openai_server(dimensions=8, max_inputs=most) as server:
        server.before = lambda asked: (
            (status, {}, BODIES[body]) if any("poison" in text for text in asked.texts) else None
        )
        assert set(model(server).embed(texts, bought).rejected) == bad
        assert set(bought.rows) == set(range(50)) - bad
        assert set(paid(server).values()) == {1}


@pytest.mark.parametrize("known", sampled([False, True], False))
def test_a_server_that_stays_down_is_hardly_asked(server: OpenAIServer, known: bool) -> None:
    """One request waits a minute for all. The next waits, is sent once, and the run stops; a later start waits anew."""
    own, under_way = embedder(server), CONCURRENCY if known else 0
    if known:
        own.embed(["a"])
    server.before = lambda asked: (500, {}, b"")
    for error, most in ((TransientError, under_way + ATTEMPTS), (FatalError, 1), (FatalError, 0)):
        before = len(server.calls)
        with pytest.raises(error, match="500 no more is said"):
            own.embed(texts_of(100))
        assert len(server.calls) - before <= most
    own.account.server.mend()
    with pytest.raises(TransientError):
        own.embed(texts_of(100))
    server.before = None
    assert not own.embed(texts_of(100)).rejected


# A server that is slow, or stands behind an impatient gateway


@pytest.mark.parametrize("one_by_one", sampled([False, True], False))
def test_requests_grow_by_what_was_measured(server: OpenAIServer, one_by_one: bool) -> None:
    """A slow server gets small requests, none of which runs into the timeout: here 250 texts would, by themselves. A quick one gets
    large ones, soon."""
    server.before = compatible.slow(0.012, one_by_one)
    embedded = model(server, timeout=3).embed(texts_of(256))
    assert not embedded.rejected
    assert set(paid(server).values()) == {1}
    assert len(server.calls) == len(server.answered()) < 40
    assert max(call.ended - call.at for call in server.calls) < 3
    with openai_server(dimensions=8) as quick:
        model(quick).embed(texts_of(4000))
        assert max(len(call.inputs) for call in quick.calls) >= 300
        assert len(quick.calls) <= 25


def test_a_gateway_that_gives_up_on_large_requests(server: OpenAIServer) -> None:
    """Smaller ones are sent, no text is set aside or bought twice, and the size that works is remembered in this process."""
    server.before = compatible.impatient_gateway(inputs=16)
    own = model(server)
    assert not own.embed(texts_of(400)).rejected
    assert set(paid(server).values()) == {1}
    assert len(server.answered(504)) <= CONCURRENCY
    before = len(server.answered(504))
    assert not model(server).embed([f"other {text}" for text in texts_of(400)]).rejected
    assert len(server.answered(504)) == before


def test_a_text_that_is_never_answered_in_time(server: OpenAIServer) -> None:
    """Is set aside as one that is refused."""

    def before(asked: Asked) -> Reply | None:
        if any("poison" in text for text in asked.texts):
            time.sleep(0.8)
        return None

    server.before = before
    texts = [*texts_of(20), "poison"]
    embedded = model(server, timeout=0.5).embed(texts)
    assert set(embedded.rejected) == {20}
    assert "no answer within 0.5 s" in embedded.rejected[20].message


def test_the_user_sets_size_and_timeout(server: OpenAIServer) -> None:
    """As options of the name."""
    model(server, max_inputs=5).embed(texts_of(40))
    assert max(len(call.inputs) for call in server.calls) == 5
    server.delay = 0.4
    with pytest.raises(TransientError, match=r"no answer within 0\.1 s"):
        model(server, timeout=0.1).embed(["another text"])


# How long a text may be

LIMITED = {
    "TEI": compatible.tei(512),
    "vLLM": compatible.vllm(512),
    "Ollama": compatible.ollama(512),
    "llama.cpp": compatible.llama_cpp(512),
}
LONG = "word " * 800


@pytest.mark.parametrize("kind", LIMITED)
def test_a_text_that_is_too_long_for_the_server_is_cut(server: OpenAIServer, kind: str) -> None:
    """By the limit that the server states, or shows; no option has to name it."""
    server.before = LIMITED[kind]
    texts = [*texts_of(30), LONG + "a", "short", LONG * 4]
    refused = model(server).embed(texts).rejected
    assert {row: error.kind for row, error in refused.items()} == {30: "too_long", 32: "too_long"}
    for way in ("truncate", "mean"):
        server.calls.clear()
        embedded = model(server, on_too_long=way).embed(texts)
        assert not embedded.rejected
        np.testing.assert_array_equal(embedded.vectors[31], server.vector("short"))
        assert len(server.calls) < 60
        for row in (30, 32) if way == "truncate" else ():
            tried = [cut(texts[row], size)[0] for size in range(512, 2560, 4)]
            assert any(np.array_equal(embedded.vectors[row], server.vector(text)) for text in tried), "less than a half"
        if way == "mean":
            parts = Counter(text for call in server.answered() for text in call.inputs if "word" in text)
            assert sum(text.count("word") * times for text, times in parts.items()) >= 5 * 800


def test_a_text_is_cut_alike_whatever_came_before(server: OpenAIServer) -> None:
    """In another process, and after other texts: verification embeds a sample again."""
    for kind, behaviour in LIMITED.items():
        made = []
        for others in ([], ["word " * 3000, "word " * 520]):
            with openai_server(dimensions=8, before=behaviour) as one:
                made.append(model(one, on_too_long="truncate").embed([*others, LONG]).vectors[-1])
        np.testing.assert_array_equal(*made, err_msg=kind)


# How a server is asked


@pytest.mark.parametrize(
    ("kind", "name", "sent"),
    [
        ("plain", "any/name", {"encoding_format": "base64", "dimensions": 8}),
        ("cloudflare", "@cf/baai/bge-m3", {"dimensions": 8}),
        ("vllm", "BAAI/bge-m3", {"encoding_format": "base64"}),
        ("litellm", "cohere/embed-v4", {"encoding_format": "base64"}),
    ],
)
def test_each_server_is_asked_as_it_wants(server: OpenAIServer, kind: str, name: str, sent: dict[str, Any]) -> None:
    """Within a few small requests; dimensions that the user asked for are sent, to whichever model, where the server takes them."""
    server.before = None if kind == "plain" else getattr(compatible, kind)()
    own = model(server, name)
    np.testing.assert_array_equal(own.embed(["a"]).whole, [server.vector("a")])
    assert server.calls[-1].body == {"model": name, **sent}
    assert own.space.model == name
    assert len(server.calls) <= 5


def test_dimensions_that_a_server_refuses_are_named(server: OpenAIServer) -> None:
    """With its own words, and what it gives instead."""
    server.before = compatible.vllm()
    with pytest.raises(
        FatalError, match=r"does not support matryoshka.*without dimensions=4: .*has 8 dimensions, not the 4"
    ):
        model(server, dimensions=4).embed(["a"])


@pytest.mark.parametrize("version", ["2024-10-21", None])
@pytest.mark.parametrize("form", ["host", "endpoint", "uri"])
def test_azure_is_asked_by_deployment(server: OpenAIServer, version: str | None, form: str, monkeypatch: Any) -> None:
    """The classic URL with an API version, the v1 URL without; as the resource's address or as the portal's whole target URI."""
    monkeypatch.setattr(address, "_AZURE_HOST", "127.0.0.1")
    server.before = compatible.azure("sk-test", "my-3-large", version)
    host = server.base_url.removesuffix("/v1")
    paths = {
        "host": "",
        "endpoint": "/openai/deployments/my-3-large",
        "uri": "/openai/deployments/my-3-large/embeddings",
    }
    if version is None:
        paths = {"host": "", "endpoint": "/openai/v1/", "uri": "/openai/v1/embeddings"}
    query = f"?api-version={version}" if version and form == "uri" else ""
    options = {"api_version": version} if version and form != "uri" else {}
    base_url = quote(f"{host}{paths[form]}{query}", safe="")
    embedded = model(server, "my-3-large", base_url=base_url, **options).embed(["a", "b"]).whole
    np.testing.assert_array_equal(embedded, server.vectors(["a", "b"]))
    assert server.calls[-1].body["dimensions"] == 8


def test_a_firewalled_wrong_key_is_told(server: OpenAIServer) -> None:
    """A page at the very first request stops the run with what it says."""
    server.before = compatible.firewall("")
    with pytest.raises(FatalError, match="403 Attention Required! Sorry, you have been blocked"):
        model(server).embed(["a"])
    assert len(server.calls) == 1


# What it costs


def test_a_budget_holds_by_the_price_that_is_given(server: OpenAIServer) -> None:
    """For a name whose price nobody knows; a plan refuses a budget without it."""
    own = model(server, budget=Budget(0.0001), price=10)
    assert own.account
    assert own.account.price == 10
    with pytest.raises(FatalError, match="budget of"):
        own.embed(texts_of(1000))
    assert own.account.budget.spent.dollars <= 0.0001
    free = model(server, budget=Budget(0.0), price=0)
    assert free.account
    assert free.account.price == 0
    assert free.embed(["a"]).whole.any()
    unknown = model(server).account
    assert unknown
    assert unknown.price is None


@pytest.mark.parametrize(
    "body",
    [
        b'{"error": {"message": "the words", "code": null}}',
        b'{"error": "the words"}',
        b'{"message": "the words", "code": 422}',
        b'{"detail": "the words"}',
        b'{"detail": [{"loc": ["body"], "msg": "the words"}]}',
        b'{"errors": [{"message": "the words", "code": 1}]}',
        b'["the words"]',
        b"the words",
        b"<html><style>p {}</style><p>the <b>words</b></p></html>",
    ],
)
def test_the_words_of_a_server_are_in_the_error(server: OpenAIServer, body: bytes) -> None:
    """Whatever its form, of what stops a run and of what sets a text aside."""
    server.before = lambda asked: (422, {}, body) if "bad" in asked.texts else None
    assert "422" in model(server).embed(["a", "bad"]).rejected[1].message
    assert "the words" in model(server).embed(["a", "bad"]).rejected[1].message
    server.before = lambda asked: (404, {}, body)
    with pytest.raises(FatalError, match=r"404.*the words"):
        model(server, "other").embed(["a"])
