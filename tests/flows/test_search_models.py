"""``vecferry search`` and ``vecferry ingest`` over tables that serve several models."""

import json
from pathlib import Path

import pytest

from tasks.runs import registry
from tests.helpers.command import command
from tests.helpers.sent import recorded
from tests.helpers.several_models import Several

Capture = pytest.CaptureFixture[str]
MODELS, ROWS = ("hashing/64", "flipped/64"), 12


def test_a_text_is_looked_for_by_the_active_model_or_those_named(served: Several, capsys: Capture) -> None:
    """A line a chunk, the nearest first, with the title of its document; of several models their ranks; in JSON all of it."""
    text = served.connection.execute("SELECT content FROM document_chunks WHERE id = 3").fetchone()
    assert text
    shown = command(capsys, "search", text[0], "--limit", "3")
    assert (shown.exit, shown.err) == (0, "")
    first, nearest, *others = shown.out.splitlines()
    assert first == "Found 3 chunks by hashing/64"
    assert nearest == f"  1. document 1: {text[0]} (similarity 1.000)"
    assert len(others) == 2
    fused = command(capsys, "search", text[0], "--model", "flipped/64", "--model", "hashing/64", "--limit", "1")
    assert fused.out.splitlines() == [
        "Found 1 chunk by flipped/64 and hashing/64 (union)",
        f"  1. document 1: {text[0]} (ranks 1 by flipped/64, 1 by hashing/64)",
    ]
    answer = command(
        capsys,
        "search",
        text[0],
        "--model",
        "flipped/64",
        "--model",
        "hashing/64",
        "--aggregation",
        "intersection",
        "--json",
    ).json
    assert (answer["query"], answer["aggregation"], answer["notes"]) == (text[0], "intersection", [])
    assert answer["hits"][0]["models"][0] == {"model": "flipped/64", "rank": 1, "similarity": pytest.approx(1.0)}


def test_a_search_that_finds_nothing_says_why(served: Several, capsys: Capture) -> None:
    """On standard error, so that what is printed stays what was found; a search that worked ends with 0."""
    registry.set_threshold(served.connection, served.model("hashing/64"), 0.95)
    served.remake()
    shown = command(capsys, "search", "nothing of the kind")
    assert (shown.exit, shown.out) == (0, "Found 0 chunks by hashing/64\n")
    assert shown.complaint.startswith("hashing/64 finds nothing because of its threshold")


def test_what_does_not_go_together_is_refused(served: Several, capsys: Capture) -> None:
    """With what is meant instead."""
    for arguments, message in (
        (["x", "--aggregation", "union"], "--aggregation is for several models: name each with --model"),
        (["x", "--run", "r", "--model", "hashing/64"], "--run searches by the run's own model"),
        ([], "give a TEXT to search for, or a file of labelled queries with --queries"),
        (["x", "--model", "nobody"], "no model 'nobody' is registered"),
        (["x", "--model", "64"], "write the whole name"),
    ):
        ended = command(capsys, "search", *arguments)
        assert (ended.exit, message in ended.complaint) == (2, True), ended.err


def test_models_are_compared_by_labelled_queries(served: Several, capsys: Capture, tmp_path: Path) -> None:
    """How well each answers, with an interval, against the active one; how fast, and what its vectors take. An answer is a chunk's
    id, or the title of its document. A threshold keeps nothing back here."""
    registry.set_threshold(served.connection, served.model("hashing/64"), 1.0)
    served.connection.execute("UPDATE chunk_embeddings SET embedding_64 = NULL WHERE model_id = 2 AND chunk_id % 2 = 0")
    served.remake()
    rows = served.connection.execute("SELECT id, content FROM document_chunks ORDER BY id").fetchall()
    lines = [{"query": text, "relevant": {str(key): 1}} for key, text in rows]
    file = tmp_path / "queries.jsonl"
    file.write_text("\n".join(map(json.dumps, lines)))
    models = command(capsys, "search", "--queries", str(file), "--json").json["models"]
    assert [one["model"] for one in models] == ["hashing/64", "flipped/64"]
    whole, half = models
    assert (whole["ndcg"], whole["gain"], whole["verdict"]) == (1.0, None, None)
    assert half["ndcg"] < 0.9
    assert half["ndcg_interval"]["low"] < half["ndcg"] < half["ndcg_interval"]["high"]
    assert half["gain"] == pytest.approx(half["ndcg"] - 1)
    assert half["verdict"] == "worse"
    assert 0 < half["p50_ms"] <= half["p95_ms"]
    assert whole["storage"]["vectors"] == 2 * half["storage"]["vectors"] == 24 * (64 * 4 + 8)
    assert whole["storage"]["indexes"] == half["storage"]["indexes"] > 0
    file.write_text('{"query": "document 4", "relevant": ["document 4"]}')
    shown = command(capsys, "search", "--queries", str(file), "--model", "hashing/64").out
    assert "hashing/64" in shown
    assert "flipped/64" not in shown


def test_files_become_documents(served: Several, capsys: Capture, tmp_path: Path) -> None:
    """Their names are the titles unless one is given; what is written is searched at once. All files are read before one is
    written."""
    first, second = tmp_path / "first.md", tmp_path / "second.md"
    first.write_text("# Heading\n\n" + "A paragraph about elephants. " * 60)
    second.write_text("\ufeffA short one about giraffes.")
    shown = command(capsys, "ingest", str(first), str(second), "--model", "flipped/64")
    assert shown.exit == 0, shown.err
    lines = shown.out.splitlines()
    assert lines[0].startswith(f"{first}: document ")
    assert lines[0].endswith("2 chunks by flipped/64")
    assert lines[1].endswith("1 chunk by flipped/64")
    hits = command(
        capsys, "search", "short one about giraffes", "--model", "flipped/64", "--limit", "1", "--json"
    ).json["hits"]
    assert (hits[0]["title"], hits[0]["content"]) == ("second.md", "A short one about giraffes.")
    titled = command(capsys, "ingest", str(second), "--title", "Giraffes", "--json").json
    assert titled["model"] == "hashing/64"
    [document] = titled["documents"]
    key = document["document_id"]
    assert served.connection.execute("SELECT title FROM documents WHERE id = %s", (key,)).fetchone() == ("Giraffes",)
    count = served.connection.execute("SELECT count(*) FROM documents").fetchone()
    binary = tmp_path / "binary"
    binary.write_bytes(b"\xff\xfe\x00")
    for arguments, message in (
        ([str(first), "absent.txt"], "there is no file 'absent.txt'"),
        ([str(first), str(binary)], "is not text in UTF-8"),
        ([str(first), str(second), "--title", "Both"], "--title is of one document"),
    ):
        ended = command(capsys, "ingest", *arguments)
        assert (ended.exit, message in ended.complaint) == (2, True), ended.err
    assert served.connection.execute("SELECT count(*) FROM documents").fetchone() == count


def test_what_was_written_before_a_failure_is_named(served: Several, capsys: Capture, tmp_path: Path) -> None:
    """Each file is a document by itself."""
    good, empty = tmp_path / "good.txt", tmp_path / "empty.txt"
    good.write_text("words")
    empty.write_text(" \n")
    ended = command(capsys, "ingest", str(good), str(empty))
    assert ended.exit == 2
    assert ended.complaint == f"{empty}: the document has no text to embed; written before it: {good}"


def test_a_file_is_ingested_once(served: Several, capsys: Capture, tmp_path: Path) -> None:
    """The same command once more, as after Ctrl-C, writes what is missing: documents, and vectors of a model. A file that says
    something else by now is another document."""
    first, second = tmp_path / "first.md", tmp_path / "second.md"
    first.write_text("elephants " * 200)
    assert command(capsys, "ingest", str(first)).exit == 0
    second.write_text("giraffes")
    rerun = command(capsys, "ingest", str(first), str(second), "--model", "flipped/64", "--json").json["documents"]
    assert [one["new"] for one in rerun] == [False, True]
    shown = command(capsys, "ingest", str(first), str(second)).out.splitlines()
    key = rerun[0]["document_id"]
    assert shown[0] == f"{first}: document {key} already, 2 chunks by hashing/64"
    titles = served.connection.execute("SELECT title FROM documents WHERE title LIKE '%.md' ORDER BY id").fetchall()
    assert titles == [("first.md",), ("second.md",)]
    with served.client() as client:
        assert {of.model: of.chunks for of in client.document_embeddings(key).models} == {
            "hashing/64": 2,
            "flipped/64": 2,
        }
    first.write_text("lions")
    assert command(capsys, "ingest", str(first), "--json").json["documents"][0]["new"]


def test_a_long_document_is_written_in_short_statements(served: Several) -> None:
    """None takes as long as its vectors together: a statement has a time limit."""
    with served.client() as client, recorded() as statements:
        key = client.ingest_document("Long", "\n\n".join(f"{n} {'words ' * 120}" for n in range(1100)))
        assert client.document_embeddings(key).chunks == 1100
    assert sum('INTO "public"."chunk_embeddings"' in one.text for one in statements) == 3
