"""The openai embedder against a real server over HTTP that limits its callers and fails on command."""

import base64
import heapq
import math
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from tasks.base.errors import FatalError, TransientError, UsageError
from tasks.base.retry_after import retry_after
from tasks.embedders.budget import Budget, Spent
from tasks.embedders.hashing import HashingEmbedder
from tasks.embedders.interface import RowsRejected
from tasks.embedders.naming import parse_model
from tasks.embedders.openai import packing
from tasks.embedders.openai.account import OpenAIAccount
from tasks.embedders.openai.answers import classify, decode
from tasks.embedders.openai.embedder import OpenAIEmbedder
from tasks.embedders.openai.limiter import Limiter
from tasks.embedders.openai.limits import MAX_INPUTS, seconds
from tasks.embedders.openai.packing import Caps, TokenCount, TokensPerByte, count_tokens, take
from tasks.embedders.openai.server import ATTEMPTS, CONCURRENCY, Server, Terms
from tasks.embedders.registry import open_embedder
from tasks.embedders.texts import RUNGS, cut
from tasks.runs.vectors import keys_of
from tests.helpers.openai_server import Limit, OpenAIServer, openai_server, shuffled, with_vector

MODEL = "text-embedding-3-small"


@pytest.fixture
def server() -> Iterator[OpenAIServer]:
    with openai_server() as running:
        yield running


@pytest.fixture(autouse=True)
def _no_vocabulary(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tokens are bounded, not counted, on every machine alike."""
    monkeypatch.setattr(packing, "_encoder", lambda: None)


def embedder(server: OpenAIServer, model: str = MODEL, haste: float = 50.0, **fields: Any) -> OpenAIEmbedder:
    """An embedder of a server of its own, whose waits are ``haste`` times shorter than they say; it is known to be ``quick``, so
    that requests are large from the first."""
    timeout, quick = fields.pop("timeout", 20.0), fields.pop("quick", True)
    asked = Server(
        server.base_url,
        fields.pop("key", "sk-test"),
        model,
        timeout,
        clock=lambda: time.monotonic() * haste,
        sleep=lambda delay: time.sleep(delay / haste),
    )
    if quick:
        asked.sizes.passes(MAX_INPUTS, 0.001, timeout)
        asked.sizes.known = True
    terms = Terms(fields.pop("dimensions", server.dimensions), 0.02, fields.pop("budget", None) or Budget())
    return OpenAIEmbedder(model, OpenAIAccount(asked, terms, shortens=model == MODEL), **fields)


def texts_of(count: int, words: int = 8) -> list[str]:
    return [f"row {row} " + "word " * words for row in range(count)]


def expected(server: OpenAIServer, texts: Sequence[str]) -> np.ndarray:
    return np.array([server.vector(text) for text in texts])


class Bought:
    """Remembers what on_made was given, and from which thread."""

    def __init__(self) -> None:
        self.rows: dict[int, np.ndarray] = {}
        self.threads: set[int] = set()

    def __call__(self, rows: Sequence[int], vectors: np.ndarray) -> None:
        assert len(rows) == len(vectors)
        assert not self.rows.keys() & set(rows)
        self.rows |= dict(zip(rows, vectors, strict=True))
        self.threads.add(threading.get_ident())


# Names


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("openai/", "known models: text-embedding-3-small"),
        ("openai/nobody", r"dimensions of 'nobody' are not known.*\?dimensions="),
        (f"openai/{MODEL}?dims=5", "no option is called 'dims'; available: dimensions, on_too_long, base_url"),
        (f"openai/{MODEL}?dimensions", "written option=value, got 'dimensions'"),
        (f"openai/{MODEL}?dimensions=8&dimensions=9", "dimensions is given twice"),
        (f"openai/{MODEL}?dimensions=0", "dimensions must be a whole number from 1 to 16000, got '0'"),
        (f"openai/{MODEL}?dimensions=1537", "at most 1536"),
        ("openai/text-embedding-ada-002?dimensions=512", "has 1536 dimensions"),
        (f"openai/{MODEL}?on_too_long=cut", "on_too_long must be one of quarantine, truncate, mean, got 'cut'"),
        (f"openai/{MODEL}?base_url=localhost", "must be an http or https URL"),
        (f"openai/{MODEL}@2", "without a revision"),
        (f"openai/{MODEL}?price=free", "price must be a number"),
        ("hashing/384?seed=1", "no option is called 'seed'; hashing has no options"),
    ],
)
def test_a_wrong_name_is_refused_by_option(name: str, reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message names the option and what there is, before any request."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
    with pytest.raises(UsageError, match=reason):
        open_embedder(name)


def test_a_name_has_its_parts() -> None:
    """provider/model[@revision][?option=value], values decoded."""
    name = parse_model("openai/a/b@c?base_url=http%3A%2F%2Fx%2Fv1%3Fy&on_too_long=mean")
    assert (name.provider, name.model, name.revision) == ("openai", "a/b", "c")
    assert name.options == {"base_url": "http://x/v1?y", "on_too_long": "mean"}


def test_opening_needs_a_key_and_no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without OPENAI_API_KEY nothing starts; with it the space is known before the first request."""
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    with pytest.raises(UsageError, match="OPENAI_API_KEY is not set"):
        open_embedder(f"openai/{MODEL}")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
    small, short = open_embedder(f"openai/{MODEL}"), open_embedder(f"openai/{MODEL}?dimensions=512")
    assert (small.space.provider, small.space.model, small.space.dimensions) == ("openai", MODEL, 1536)
    assert small.space.fingerprint != short.space.fingerprint
    assert small.space.fingerprint == open_embedder(f"openai/{MODEL}?on_too_long=mean").space.fingerprint
    assert open_embedder("openai/text-embedding-3-large").space.dimensions == 3072
    assert "sk-test" not in repr(small)


# The ordinary case


def test_vectors_are_in_the_order_of_the_texts(server: OpenAIServer) -> None:
    """Many requests, answers shuffled: each text has its own vector, handed over once, in the calling thread."""
    server.plant(spoil=shuffled, times=3)
    texts, bought = texts_of(3000), Bought()
    embedded = embedder(server).embed(texts, bought)
    np.testing.assert_array_equal(embedded.vectors, expected(server, texts))
    assert not embedded.rejected
    assert sorted(bought.rows) == list(range(3000))
    np.testing.assert_array_equal(np.array([bought.rows[row] for row in range(3000)]), embedded.vectors)
    assert bought.threads == {threading.get_ident()}


def test_an_open_embedder_works_by_its_name(server: OpenAIServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """By name and environment; the probe is one request a process, however often it is opened."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-named")
    monkeypatch.setenv("OPENAI_BASE_URL", server.base_url + "/")
    for _ in range(3):
        embedded = open_embedder(f"openai/{MODEL}?dimensions=256").embed(["one", "two"]).whole
    np.testing.assert_array_equal(embedded, [server.vector("one", 256), server.vector("two", 256)])
    assert [len(call.inputs) for call in server.calls] == [2, 2, 2, 2]
    assert {call.body["dimensions"] for call in server.calls} == {256}
    assert {call.body["encoding_format"] for call in server.calls} == {"base64"}
    assert {call.key for call in server.calls} == {"sk-named"}


def test_the_hashing_embedder_serves_the_same_callers() -> None:
    """Free vectors are handed over, and kept under keys, as those that cost money."""
    bought = Bought()
    embedded = HashingEmbedder(16).embed(["a", "b"], bought)
    assert list(bought.rows) == [0, 1]
    assert not embedded.rejected
    assert HashingEmbedder(16).embed([], bought).vectors.shape == (0, 16)
    assert len(keys_of(HashingEmbedder(16), ["a"])[0]) == 32


def test_dimensions_are_sent_for_the_third_generation_only(server: OpenAIServer) -> None:
    """ada-002 refuses the parameter."""
    embedder(server, "text-embedding-ada-002").embed(["a"])
    assert all("dimensions" not in call.body for call in server.calls)


# Rows at fault


def test_an_empty_text_is_rejected_without_a_call(server: OpenAIServer) -> None:
    """'' and what is no Unicode are the row's own error; a batch of nothing else asks nothing."""
    own = embedder(server)
    embedded = own.embed(["", "\ud800"])
    assert [embedded.rejected[row].kind for row in (0, 1)] == ["empty", "encoding"]
    assert own.embed([]).vectors.shape == (0, 1536)
    assert not server.calls
    with pytest.raises(RowsRejected, match="row 0: empty"):
        _ = own.embed(["", "a"]).whole


def test_an_input_that_is_refused_is_isolated(server: OpenAIServer) -> None:
    """Two bad rows of a thousand: they alone are rejected, all others bought once, in few calls."""
    server.plant(status=400, message="bad input", text="poison")
    texts, bought = texts_of(1000), Bought()
    texts[17], texts[801] = "poison one", "two poison"
    embedded = embedder(server).embed(texts, bought)
    assert set(embedded.rejected) == {17, 801}
    assert embedded.rejected[17].kind == "refused"
    assert "bad input" in embedded.rejected[17].message
    assert sorted(bought.rows) == [row for row in range(1000) if row not in (17, 801)]
    sent = [text for call in server.answered() for text in call.inputs if text in texts]
    assert len(sent) == len(set(sent)) == 998
    assert len(server.calls) < 45


def test_a_named_input_is_found_at_once(server: OpenAIServer) -> None:
    """Where the server says which input is at fault, no search is needed."""
    server.plant(status=400, message="Invalid 'input[100]': bad", text="poison", times=1)
    server.plant(status=400, message="Invalid 'input[0]': bad", text="poison")
    texts, own = texts_of(200), embedder(server)
    texts[100] = "poison"
    assert set(own.embed(texts).rejected) == {100}
    assert len(server.calls) <= 5  # probe, all, the one, a harmless one, the others


def test_a_server_that_refuses_everything_is_no_fault_of_the_rows(server: OpenAIServer) -> None:
    """When a harmless text is refused too, the run stops and nothing is quarantined."""
    server.plant(status=400, message="no such thing", after=1)
    with pytest.raises(FatalError, match=r"a harmless text.* is refused too"):
        embedder(server).embed(texts_of(100))


LONG = "many words of an over-long text " * 3000  # 96,000 bytes: 24,000 tokens to the server


def test_an_over_long_text_is_rejected(server: OpenAIServer) -> None:
    """The default: the row is quarantined, its neighbours are not; half of 32 KB is no reason to reject."""
    embedded = embedder(server).embed(["a", LONG, "x" * 20_000, "b"])
    assert {row: error.kind for row, error in embedded.rejected.items()} == {1: "too_long"}
    np.testing.assert_array_equal(embedded.vectors[2], server.vector("x" * 20_000))


@pytest.mark.parametrize("exact", [False, True])
def test_an_over_long_text_is_cut_alike_with_and_without_a_vocabulary(
    server: OpenAIServer, exact: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """truncate: its first part; mean: the weighted mean of its parts. Exactly counted, no request is refused."""
    if exact:
        monkeypatch.setattr(packing, "_encoder", lambda: lambda text: range(server.tokens_of(text)))
    parts = cut(LONG, 4 * 8192)
    truncated = embedder(server, on_too_long="truncate").embed(["a", LONG])
    np.testing.assert_array_equal(truncated.vectors, expected(server, ["a", parts[0]]))
    bought = Bought()
    averaged = embedder(server, on_too_long="mean").embed(["a", LONG, "b"], bought)
    direction = sum(len(part) * server.vector(part).astype(float) for part in parts)
    np.testing.assert_allclose(averaged.vectors[1], direction / np.linalg.norm(direction), atol=1e-6)
    assert sorted(bought.rows) == [0, 1, 2]
    assert len(server.answered(400)) == (0 if exact else 2)


def test_a_dense_text_is_cut_until_it_fits(server: OpenAIServer) -> None:
    """A token a byte: every larger cut is refused, the smallest is not."""
    server.tokens_of = lambda text: len(text.encode())
    embedded = embedder(server, on_too_long="truncate").embed(["b", "é" * 9000])
    assert not embedded.rejected
    np.testing.assert_array_equal(embedded.vectors[1], server.vector("é" * 4096))


def test_an_over_long_text_is_kept_under_what_was_done_to_it(server: OpenAIServer) -> None:
    """A truncated text's vector must not be taken for a mean; a short text's is the same under all."""
    kept = {keys_of(embedder(server, on_too_long=way), [LONG])[0] for way in ("quarantine", "truncate", "mean")}
    assert len(kept) == 3
    assert len({keys_of(embedder(server, on_too_long=way), ["short"])[0] for way in ("quarantine", "mean")}) == 1


# Errors of the run


@pytest.mark.parametrize(
    ("status", "code", "message", "verdict"),
    [
        (429, "rate_limit_exceeded", "", "transient"),
        (429, "", "", "transient"),
        (429, "rate_limit_exceeded", "Request too large for this model on tokens per min", "too_large"),
        (429, "insufficient_quota", "", "fatal"),
        (429, "credit_balance_exhausted", "", "fatal"),
        (429, "project_spend_limit_exceeded", "", "fatal"),
        (429, "monthly_usage_limit_exceeded", "", "fatal"),
        (408, "", "", "transient"),
        (409, "", "", "transient"),
        (500, "", "", "transient"),
        (503, "", "", "transient"),
        (401, "invalid_api_key", "", "fatal"),
        (402, "", "", "fatal"),
        (403, "", "", "doubtful"),
        (404, "model_not_found", "", "fatal"),
        (400, "model_not_found", "", "fatal"),
        (400, "", "'$.input' is invalid", "row"),
        (422, "", "tokenization failed", "row"),
        (400, "max_tokens_per_request", "Requested 309209 tokens, max 300000 tokens per request", "too_large"),
        (413, "", "", "too_large"),
        (413, "", "batch size 33 > maximum allowed batch size 32", "too_many"),
        (400, "", "batch size is invalid, it should not be larger than 10.: input.contents", "too_many"),
    ],
)
def test_every_answer_has_a_class(status: int, code: str, message: str, verdict: str) -> None:
    """Contract 3, in the words of OpenAI and of compatible servers."""
    assert classify(status, code, message) == verdict


@pytest.mark.parametrize(
    "fault",
    [
        {"status": 429, "code": "rate_limit_exceeded", "headers": {"retry-after": "2"}},
        {"status": 429, "headers": {"retry-after-ms": "1500"}},
        {"status": 429},
        {"status": 408},
        {"status": 409},
        {"status": 500},
        {"status": 503},
        {"cut": True},
        {"delay": 1.2},
    ],
)
def test_what_may_pass_is_sent_again(server: OpenAIServer, fault: dict[str, Any]) -> None:
    """Three failures of each kind; then all vectors are there, nothing is rejected and nothing is bought twice."""
    own = embedder(server, timeout=0.9)
    own.account.probe()
    server.plant(**fault, times=3)
    embedded = own.embed(texts_of(50))
    np.testing.assert_array_equal(embedded.vectors, expected(server, texts_of(50)))
    while len(server.calls) < 5:  # a slow answer that nobody waits for is logged late
        time.sleep(0.01)
    assert len(server.calls) == 5


def test_retry_after_is_obeyed_by_all_threads(server: OpenAIServer) -> None:
    """Nothing is sent for as long as the server asked, by any thread."""
    own = embedder(server, haste=1.0)
    own.account.probe()
    server.plant(status=429, headers={"retry-after-ms": "400"}, times=1)
    own.embed(texts_of(20_000))
    refused = server.answered(429)[0].ended
    assert sum(refused < call.at < refused + 0.4 for call in server.calls) < CONCURRENCY  # those under way
    assert not [call for call in server.calls if refused + 0.2 < call.at < refused + 0.4]
    assert len(server.answered(429)) == 1


def test_a_storm_that_does_not_pass_fails_the_batch_and_keeps_what_was_bought(server: OpenAIServer) -> None:
    """TransientError after a minute of growing waits, in which one thread asks for all; what other requests brought is handed
    over, and nothing is held against a text."""
    texts, bought = texts_of(6000), Bought()
    server.plant(status=500, after=5)
    own = embedder(server, haste=50.0)
    with pytest.raises(TransientError, match=r"500.*planted"):
        own.embed(texts, bought)
    refused = server.answered(500)
    assert len(refused) <= CONCURRENCY + ATTEMPTS
    waits = np.diff([call.at for call in refused])
    assert sum(waits) > 0.75 * 55 / 50  # in haste, less a quarter
    assert waits[-1] > 0.75 * 30 / 50
    assert len(bought.rows) == sum(len(call.inputs) for call in server.answered()[1:]) > 0
    server.heal()
    assert not own.embed(texts).rejected


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (401, "invalid_api_key"),
        (403, ""),
        (402, ""),
        (429, "insufficient_quota"),
        (429, "project_spend_limit_exceeded"),
    ],
)
def test_a_fatal_answer_midway_stops_all_calls(server: OpenAIServer, status: int, code: str) -> None:
    """At most ten more calls in the whole process; what was bought is handed over; the same again asks nothing."""
    own, texts, bought = embedder(server, haste=1.0), texts_of(20_000), Bought()
    server.delay = 0.005
    server.plant(status=status, code=code, after=6)
    with pytest.raises(FatalError, match=str(status)):
        own.embed(texts, bought)
    assert 1 <= len(server.answered(status)) <= 10
    paid = [text for call in server.answered()[1:] for text in call.inputs]
    assert sorted(texts[row] for row in bought.rows) == sorted(paid)
    before = len(server.calls)
    with pytest.raises(FatalError):
        own.embed(texts)
    assert len(server.calls) == before
    server.heal()
    own.account.server.mend()
    left = [row for row in range(3000) if row not in bought.rows]
    assert not own.embed([texts[row] for row in left]).rejected


@pytest.mark.parametrize(
    ("spoil", "reason", "times"),
    [
        (with_vector(lambda vector: vector[:-1]), "1535 dimensions, not the 1536 of the space", 1),
        (with_vector(lambda vector: np.where(np.arange(1536) == 7, np.nan, vector)), "NaN or infinity", math.inf),
        (with_vector(lambda vector: np.where(np.arange(1536) == 7, np.inf, vector)), "NaN or infinity", math.inf),
        (lambda rows: rows[:-1], "sent .*, got .* back", 1),
        (lambda rows: [*rows[:-1], rows[0]], "indexes are not 0 to", 1),
        (lambda rows: [{**row, "embedding": None} for row in rows], "is null", math.inf),
        (lambda rows: [{**row, "embedding": "no base64!"} for row in rows], "dimensions|embeddings API", 1),
    ],
)
def test_a_wrong_answer_is_fatal(
    server: OpenAIServer, spoil: Callable[[list[dict[str, Any]]], list[dict[str, Any]]], reason: str, times: float
) -> None:
    """No vector of an answer that is wrong as a whole is handed over, and no further request starts. One that spoils some vectors
    is fatal where a text that was taken before has none either; of it, only those are handed over that are vectors."""
    own, texts, bought = embedder(server), texts_of(5000), Bought()
    own.account.probe()
    server.delay = 0.1  # as fast as the service ever is
    server.plant(spoil=spoil, times=times, after=1)
    with pytest.raises(FatalError, match=reason):
        own.embed(texts, bought)
    assert len(bought.rows) < 5000
    spoilt = [call for call in server.calls if call.faulty]
    kept, last_only = {texts[row] for row in bought.rows}, reason == "NaN or infinity"
    assert not {text for call in spoilt for text in (call.inputs[-1:] if last_only else call.inputs)} & kept
    assert not last_only or {text for call in spoilt for text in call.inputs[:-1]} <= kept
    assert sum(call.at > spoilt[0].ended for call in server.calls) <= 10


def test_the_key_is_in_no_message(server: OpenAIServer) -> None:
    """Some servers repeat the key in what they say of it."""
    with pytest.raises(FatalError, match="Incorrect API key") as raised:
        embedder(server, key="sk-secret-wrong").embed(["a"])
    assert "sk-secret" not in str(raised.value)


def test_a_page_that_is_no_answer_is_fatal(server: OpenAIServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A base URL that leads elsewhere says so."""
    monkeypatch.setattr(server, "answer", lambda body, key: (200, {}, b"<html>hello</html>", None, 0))
    with pytest.raises(FatalError, match="check the base URL"):
        embedder(server).embed(["a"])


def test_an_error_of_the_callback_loses_nothing_that_was_bought(server: OpenAIServer) -> None:
    """Keeping one answer fails: the answers under way are still handed over, with those that were not kept, and the error is
    raised."""
    given: list[int] = []

    def keep(rows: Sequence[int], vectors: np.ndarray) -> None:
        given.extend(rows)
        raise OSError("disk full")

    server.delay = 0.02
    with pytest.raises(OSError, match="disk full"):
        embedder(server).embed(texts_of(10_000), keep)
    assert len(set(given)) == sum(len(call.inputs) for call in server.answered()[1:])


# Compatible servers


def test_a_compatible_server_is_learned(server: OpenAIServer) -> None:
    """No base64, no ``dimensions``, 32 inputs a request, no rate-limit headers, no usage: it works, and is asked right."""
    server.max_inputs, server.takes_base64, server.takes_dimensions, server.reports = 32, False, False, False
    own = embedder(server)
    result = own.account.probe()
    assert (result.dimensions, result.shape.encoding, result.shape.dimensions) == (1536, "float", None)
    assert result.norm == pytest.approx(1, abs=1e-5)
    np.testing.assert_allclose(own.embed(texts_of(400)).vectors, expected(server, texts_of(400)), atol=1e-7)
    before = len(server.calls)
    own.embed(texts_of(320))
    assert [len(call.inputs) for call in server.calls[before:]] == [32] * 10


def test_a_cap_is_read_in_what_the_server_says(server: OpenAIServer) -> None:
    """Digits of the model's name and of the address are not taken for it: one request is refused, and no more."""
    server.max_inputs = 2
    own = embedder(server)
    assert not own.embed(texts_of(200)).rejected
    assert len(server.answered(422)) == 1
    assert own.account.server.sizes.told == 2


def test_a_cap_is_found_though_the_server_does_not_say_it(server: OpenAIServer) -> None:
    """Refused whole, but no part of it: then it was too many, and no row's fault."""
    server.max_inputs, server.too_many = 50, "no"
    own = embedder(server)
    assert not own.embed(texts_of(200)).rejected
    assert 25 <= own.account.server.sizes.told <= 50


def test_another_dimension_than_the_space_is_fatal() -> None:
    """Both are named, before anything else is asked."""
    with openai_server(dimensions=768, takes_dimensions=False) as server:
        with pytest.raises(FatalError, match="768 dimensions, not the 1536 of the space"):
            embedder(server, dimensions=1536).embed(texts_of(100))
        assert len(server.calls) <= 3
        assert not embedder(server, "local-model", dimensions=768).embed(["a"]).rejected


# Packing


@settings(max_examples=200, deadline=None, derandomize=True, database=None)
@given(
    st.lists(st.integers(1, 400), max_size=200),
    st.integers(1, 40),
    st.integers(1, 1000),
    st.integers(50, 400),
)
def test_packing_places_every_input_once_within_the_limits(
    tokens: list[int], inputs: int, most: int, alone: int
) -> None:
    """Requests follow each other without gap or overlap; only an input too large for any request is over a limit."""
    caps, start = Caps(inputs, most, alone), 0
    while start < len(tokens):
        end = take(tokens, start, caps)
        assert start < end <= min(len(tokens), start + inputs)
        assert end == start + 1 or (sum(tokens[start:end]) <= most and max(tokens[start:end]) <= alone)
        full = end < len(tokens) and (sum(tokens[start : end + 1]) > most or end - start == inputs)
        assert end == len(tokens) or full or tokens[end] > alone or tokens[start] > alone
        start = end


@settings(max_examples=40, deadline=None, derandomize=True, database=None)
@given(data=st.data())
def test_order_is_restored_through_every_split(data: st.DataObject) -> None:
    """Empty, refused, cut and ordinary texts mixed, on a server of small limits: every row gets what is its own."""
    kinds = data.draw(st.lists(st.sampled_from(["", "poison", "long", "short"]), max_size=40))
    texts = [f"{kind} {row} " * (60 if kind == "long" else 1) if kind else "" for row, kind in enumerate(kinds)]
    with openai_server(max_input_tokens=100, max_tokens=300, max_inputs=data.draw(st.integers(2, 16))) as server:
        server.plant(status=400, text="poison")
        embedded = embedder(server, max_tokens=100, on_too_long="truncate").embed(texts)
        wanted = {"": "empty", "poison": "refused"}
        assert {row: error.kind for row, error in embedded.rejected.items()} == {
            row: wanted[kind] for row, kind in enumerate(kinds) if kind in wanted
        }
        for row, (kind, text) in enumerate(zip(kinds, texts, strict=True)):
            if kind == "short":
                np.testing.assert_array_equal(embedded.vectors[row], server.vector(text))
            if kind == "long":
                cuts = [cut(text, int(100 * rung))[0] for rung in RUNGS] + [text]
                assert any(np.array_equal(embedded.vectors[row], server.vector(one)) for one in cuts)


def test_requests_hold_the_limits_of_the_service(server: OpenAIServer) -> None:
    """The server enforces 2048 inputs and 300,000 tokens, and is made to refuse nothing; nor are requests small."""
    own = embedder(server)
    own.account.probe()
    texts = texts_of(4000, 150)  # 190 tokens each: 760,000 in all
    assert not own.embed(texts).rejected
    assert not server.answered(400)
    assert len(server.calls) <= 1 + 8 + 16
    own.embed(texts)
    assert own.account.server.density.value == pytest.approx(0.275, abs=0.005)


def test_a_request_that_is_too_large_after_all_is_halved(server: OpenAIServer) -> None:
    """The tokens learned from one table are too few for the next; nothing is rejected for it."""
    own = embedder(server)
    for _ in range(20):
        own.account.server.density.learn(100_000, 5_000)
    server.max_tokens = 2_000
    embedded = own.embed(texts_of(2000, 10))
    assert not embedded.rejected
    assert server.answered(400)


@settings(max_examples=200, deadline=None, derandomize=True, database=None)
@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=80), st.integers(1, 60))
def test_a_cut_text_is_all_there(text: str, limit: int) -> None:
    """The pieces joined are the text; each is at most the limit, but for a single larger character."""
    pieces = cut(text, limit)
    assert "".join(pieces) == text
    assert all(len(piece.encode()) <= limit or len(piece) == 1 for piece in pieces)


def test_tokens_are_bounded_without_a_vocabulary() -> None:
    """The bound is the UTF-8 bytes, and says that it is one."""
    assert count_tokens("naïve") == TokenCount(6, False)


def test_tokens_are_exact_with_a_vocabulary(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where tiktoken can count, the count is its own."""
    monkeypatch.setattr(packing, "_encoder", lambda: str.split)
    assert count_tokens("three short words") == TokenCount(3, True)


def test_the_vocabulary_is_never_downloaded(tmp_path: Any) -> None:
    """With an empty, and with a damaged cache, tiktoken is not asked: it would fetch the file anew."""
    (tmp_path / "tiktoken.py").write_text("def get_encoding(name): raise SystemExit('the network was asked')")
    (tmp_path / "9b5ad71b2ce5302211f9c61530b329a4922fc6a4").write_text("damaged")
    program = "from tasks.embedders.openai.packing import count_tokens; print(count_tokens('four').exact)"
    environment = {"PYTHONPATH": f"{tmp_path}:.", "TIKTOKEN_CACHE_DIR": str(tmp_path)}
    result = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
    assert result.stdout == "False\n", result.stderr


def test_the_learned_density_is_safe() -> None:
    """One until something is known, then the highest of what was seen and a tenth more, never over one."""
    density = TokensPerByte()
    density.learn(10, 1)
    assert density.value == 1
    density.learn(10_000, 2_000)
    density.learn(10_000, 3_000)
    density.learn(10_000, 2_500)
    assert density.value == pytest.approx(0.33)
    density.learn(10_000, 10_000)
    assert density.value == 1


# Rate limits


class VirtualServer:
    """The test server's own limits on a clock that only sleeping moves, with answers that take ``latency``."""

    def __init__(self, requests: float, tokens: float, latency: float, fixed: bool = False) -> None:
        self.now, self.latency, self.refused, self.used = 0.0, latency, [0.0][:0], [0.0][:0]
        self.elsewhere, self.looked = 0.0, 0.0
        self.limits = [Limit(limit, fixed, at=0.0) for limit in (requests, tokens)]
        self.limiter = Limiter(lambda: self.now, self._sleep)
        self._pending: list[tuple[float, int, Callable[[], None]]] = []

    def _sleep(self, delay: float) -> None:
        until = self.now + delay
        while self._pending and self._pending[0][0] <= until:
            self.now, _, deliver = heapq.heappop(self._pending)
            deliver()
        self.now = until

    def send(self, estimate: float, actual: float) -> None:
        """Sends one request as soon as the limiter lets it go."""
        while len(self._pending) >= CONCURRENCY:
            self._sleep(self._pending[0][0] - self.now)
        ticket = self.limiter.acquire(lambda: estimate)
        for limit in self.limits:
            limit.refill(self.now)
        self.limits[1].level = max(0.0, self.limits[1].level - self.elsewhere * (self.now - self.looked))
        self.looked = self.now
        within = self.limits[0].level >= 1 and self.limits[1].level >= actual
        if within:
            self.limits[0].level -= 1
            self.limits[1].level -= actual
            self.used.append(self.now)
        else:
            self.refused.append(self.now)
        headers = self.limits[0].headers("requests", self.now) | self.limits[1].headers("tokens", self.now)

        def deliver() -> None:
            self.limiter.settle(ticket, actual if within else None, headers)
            if not within:
                self.limiter.refused(ticket, 1.0, headers)

        heapq.heappush(self._pending, (self.now + self.latency, len(self.used) + len(self.refused), deliver))


@pytest.mark.parametrize("fixed", [False, True])
@pytest.mark.parametrize("latency", [0.01, 1.0, 4.0])
@pytest.mark.parametrize(
    ("requests", "tokens", "estimate", "actual"),
    [
        (60, 10_000_000, 1100, 1000),  # requests are short
        (15, 10_000_000, 1100, 1000),  # so short that a whole number in a header hides much
        (3, 10_000_000, 1100, 1000),
        (3000, 150_000, 1100, 1000),  # tokens are short
        (600, 1_000_000, 44_000, 40_000),  # large requests
        (500, 500_000, 1000, 1000),  # both alike
    ],
)
def test_the_limits_are_used_and_never_passed(
    requests: float, tokens: float, estimate: float, actual: float, latency: float, fixed: bool
) -> None:
    """Ten minutes of a simulated server: at least 95 % of the tighter limit used, and no 429 at all."""
    server = VirtualServer(requests, tokens, latency, fixed)
    while server.now < 660:
        server.send(estimate, actual)
    steady = sum(60 <= at < 660 for at in server.used)
    possible = 10 * min(requests, tokens / actual, CONCURRENCY * 60 / latency)
    assert not server.refused
    assert steady >= 0.95 * possible


def test_what_the_server_says_is_left_is_believed() -> None:
    """Somebody takes a minute's tokens at once: the next answer says so, and then nothing is sent that would fail."""
    server = VirtualServer(10_000, 60_000, 0.1)
    for _ in range(3):
        server.send(1000, 1000)
    server.limits[1].level = 0
    while server.now < 30:
        server.send(1000, 1000)
    assert len(server.refused) <= CONCURRENCY
    assert len(server.used) >= 20


def test_another_client_on_the_same_key_is_noticed() -> None:
    """Half of the tokens go elsewhere: what is left is used, with few refusals."""
    server = VirtualServer(10_000, 100_000, 0.1)
    server.elsewhere = 100_000 / 60 / 2
    while server.now < 600:
        server.send(1000, 1000)
    assert len(server.used) >= 0.45 * 1000
    assert len(server.refused) <= 0.04 * len(server.used)


def test_the_limits_are_used_over_http(server: OpenAIServer) -> None:
    """Five seconds against a real server whose limits start empty: 95 % of the tokens it gave, none refused."""
    own = embedder(server, haste=1.0)
    texts = texts_of(2000, 20)
    server.limit(requests=100_000, tokens=60 * 50_000, full=False)
    until = time.monotonic() + 5
    while time.monotonic() < until:
        own.embed(texts)
    calls = sorted(server.answered()[20:], key=lambda call: call.at)
    used = sum(call.tokens for call in calls[1:]) / (calls[-1].at - calls[0].at) / 50_000
    assert not server.answered(429)
    assert used >= 0.95


def test_requests_become_full_when_requests_are_short() -> None:
    """Where requests are the tighter limit each carries all it may; otherwise every thread gets its share."""
    short, roomy = VirtualServer(60, 10_000_000, 0.1), VirtualServer(3000, 150_000, 0.1)
    assert short.limiter.caps(3000, 8) == (375, 300_000)
    for server in (short, roomy):
        while server.now < 70:
            server.send(1000, 1000)
    assert short.limiter.caps(3000, 8) == (2048, 300_000)
    assert roomy.limiter.caps(3000, 8) == (375, 150_000 / 8)


def test_never_more_than_eight_at_once(server: OpenAIServer) -> None:
    """The bound holds for all threads of the process together."""
    server.delay = 0.05
    own = embedder(server)
    threads = [threading.Thread(target=own.embed, args=(texts_of(3000),)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    marks = sorted([(call.at, 1) for call in server.calls] + [(call.ended, -1) for call in server.calls])
    assert CONCURRENCY / 2 <= max(np.cumsum([step for _, step in marks])) <= CONCURRENCY
    assert sum(len(call.inputs) == 2 for call in server.calls) == 1  # one probe


@pytest.mark.parametrize(
    ("header", "meant"),
    [("6m0s", 360), ("20ms", 0.02), ("1.5s", 1.5), ("1h2m3s", 3723), ("7", 7), ("", None), ("x", None)],
)
def test_durations_of_the_headers(header: str, meant: float | None) -> None:
    """Go's durations, plain seconds, and nothing where it is neither."""
    assert seconds(header) == (pytest.approx(meant) if meant is not None else None)


def test_retry_after_in_its_forms() -> None:
    """Milliseconds before seconds before a date."""
    assert retry_after({"retry-after-ms": "1500", "retry-after": "9"}) == 1.5
    assert retry_after({"retry-after": "9"}) == 9
    assert retry_after({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}) == 0
    assert retry_after({"retry-after": "soon"}) is None
    assert retry_after({}) is None


# What it costs


def test_what_is_spent_is_counted(server: OpenAIServer) -> None:
    """Requests, tokens and dollars by the server's own count, the probe's too."""
    own = embedder(server, budget=Budget(spent=Spent(10, 1000, 1.0)))
    own.embed(texts_of(2000))
    tokens = sum(call.tokens for call in server.calls)
    assert own.account.budget.spent.requests == 10 + len(server.calls)
    assert own.account.budget.spent.tokens == 1000 + tokens
    assert own.account.budget.spent.dollars == pytest.approx(1.0 + tokens * 0.02 / 1e6)


def test_the_budget_is_never_passed(server: OpenAIServer) -> None:
    """The request that might pass it is not sent; what was bought is handed over; more money goes on from there."""
    own = embedder(server, budget=Budget(0.0005))  # 25,000 tokens
    texts, bought = texts_of(20_000), Bought()
    with pytest.raises(FatalError, match=r"budget of \$0\.0005 .*\$0\.000\d+ is spent") as raised:
        own.embed(texts, bought)
    assert "was not sent" in str(raised.value)
    assert 0.00025 < own.account.budget.spent.dollars <= 0.0005
    assert len(bought.rows) == sum(len(call.inputs) for call in server.answered()[1:])
    left = [text for row, text in enumerate(texts[:1000]) if row not in bought.rows]
    assert not embedder(server, budget=Budget(1.0)).embed(left).rejected


def test_an_answer_without_indexes_is_taken_in_its_order() -> None:
    """Some compatible servers leave them out."""
    rows = [{"embedding": [1.0, 0.0]}, {"embedding": [0.0, 1.0]}]
    np.testing.assert_array_equal(decode({"data": rows}, 2, 2).vectors, [[1, 0], [0, 1]])


@pytest.mark.parametrize("dimensions", [1, 2, 3, 4, 384, 1536])
def test_base64_is_the_same_with_and_without_padding(dimensions: int, rng: np.random.Generator) -> None:
    """Where there is none, the vectors of an answer are decoded at once."""
    sent = rng.standard_normal((5, dimensions)).astype("<f4")
    rows = [{"index": at, "embedding": base64.b64encode(sent[at].tobytes()).decode()} for at in (3, 0, 4, 1, 2)]
    np.testing.assert_array_equal(decode({"data": rows}, 5, dimensions).vectors, sent)
    for spoilt in (rows[0]["embedding"] + "AAAA", "!" + rows[0]["embedding"][1:]):
        with pytest.raises(ValueError, match=r"dimensions, not the|not that of an embeddings API"):
            decode({"data": [{**rows[0], "embedding": spoilt}, *rows[1:]]}, 5, dimensions)
