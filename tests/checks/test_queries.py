"""Texts that find images: the queries that a user gives, each image finding itself, and the threshold between texts and images.

The model here has one space for both: a text and a picture with the same bytes have the same vector.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pytest

from tasks.base.errors import UsageError
from tasks.checks.benchmark import Answer
from tasks.checks.gates import Gates
from tasks.checks.itself import itself_check, itself_checks
from tasks.checks.labelled import labelled, ndcg
from tasks.checks.queries import query_checks
from tasks.checks.query_file import read_queries
from tasks.checks.threshold import threshold_of, translated
from tasks.contents.image.content import Image
from tasks.contents.interface import Content
from tasks.contents.text import Text
from tasks.embedders.interface import Embedded, Item, Kind, OnMade, RowError, Space
from tasks.runs.plan import Plan, Request, Target
from tasks.runs.run import Run
from tasks.runs.spending import Purse
from tasks.stores.exact_search import exact_search
from tasks.stores.interface import Collection, Hits, Metric, Records, records, vector_column
from tasks.stores.memory import MemoryRecords
from tests.contents.test_contents import File
from tests.helpers.memory_target import AliasedCollection

GATES = Gates(min_recall=0.9, recall_k=3, min_row_cosine=0.999, sample=300, max_quarantined=0, max_deleted=0.5)
NEW, OLD = "tests/both", "tests/before"
COLOURS = [
    f"{colour} {thing}"
    for colour in ("red", "green", "blue", "grey")
    for thing in ("bus", "chart", "cat", "sky", "tree")
]


@dataclass(frozen=True)
class Both:
    """A model of texts and of images: the counts of pairs of bytes, folded into so many dimensions."""

    dimensions: int
    takes: frozenset[Kind] = frozenset({"text", "image"})
    longest: int = 1_000
    account: ClassVar[None] = None
    licence: ClassVar[str] = ""

    @property
    def space(self) -> Space:
        return Space("tests", "both", self.dimensions)

    def variants(self, items: Sequence[Item]) -> Sequence[str]:
        return [""] * len(items)

    def embed(self, items: Sequence[Item], on_made: OnMade | None = None) -> Embedded:
        refused = {at: RowError("too_long", f"{len(i)} bytes") for at, i in enumerate(items) if len(i) > self.longest}
        made = [
            np.zeros(self.dimensions, np.float32) if at in refused else self.vector(i) for at, i in enumerate(items)
        ]
        return Embedded(np.stack(made), refused)

    def vector(self, item: Item) -> np.ndarray:
        data = np.frombuffer(item.encode() if isinstance(item, str) else item, np.uint8).astype(int)
        counts = np.bincount((data[:-1] * 31 + data[1:]) % self.dimensions, minlength=self.dimensions)
        return (counts / np.linalg.norm(counts)).astype(np.float32)


@dataclass(frozen=True)
class Pictures(File):
    """Files that texts search."""

    asked: ClassVar[Kind] = "text"


@dataclass
class Bench:
    """A run, its target, and the old and new vectors of its pictures: ids 0, 1, … for the files NAME.jpg."""

    run: Run
    target: Target[Any]
    old: MemoryRecords
    new: MemoryRecords

    def swap(self, one: str, other: str) -> None:
        """The fault: two rows have each other's new vector."""
        rows = self.new.rows
        rows[one]["embedding"], rows[other]["embedding"] = rows[other]["embedding"], rows[one]["embedding"]

    def asking(self, path: Path | None = None, **asked: Any) -> "Bench":
        request = replace(self.run.plan.request, queries=str(path) if path else None, **asked)
        return replace(self, run=_run(request, self.target))


def _run(request: Request, *targets: Target[Any]) -> Run:
    run = Run(Plan("r", request, targets), "unused", "unused")
    purse = run.own(Purse, lambda: Purse(run))
    purse.models |= {NEW: Both(64), OLD: Both(48)}
    return run


def bench(content: Content, documents: Sequence[str], items: Sequence[Item], metric: Metric = "cosine") -> Bench:
    place = AliasedCollection(where="w", alias="docs_live", collection="docs__new", dimensions=64)
    target = Target(0, Collection("docs", "", len(items), 48, metric), place, 64, NEW, content=content)
    request = Request(flow="memory", source={"store": "memory", "name": "w"}, database="DATABASE_URL", embedder=NEW,
                      batch_rows=100, limit=None, rollback_days=7)  # fmt: skip
    sides = [_records(Both(dimensions), documents, items, metric) for dimensions in (48, 64)]
    return Bench(_run(request, target), target, *sides)


def _records(model: Both, documents: Sequence[str], items: Sequence[Item], metric: Metric) -> MemoryRecords:
    nothing = pa.nulls(len(items), pa.string())
    ids, vectors = [str(at) for at in range(len(items))], vector_column(model.embed(items).vectors)
    batch = pa.RecordBatch.from_arrays(
        [pa.array(ids), pa.array(documents), nothing, nothing, vectors], schema=records(model.dimensions)
    )
    return MemoryRecords(
        Collection("docs", "", 0, model.dimensions, metric), {row["id"]: row for row in batch.to_pylist()}
    )


@pytest.fixture
def pictures(tmp_path: Path) -> Bench:
    """Twenty files, whose bytes are what they show."""
    names = [f"{shown.replace(' ', '/')}.jpg" for shown in COLOURS]
    for name, shown in zip(names, COLOURS, strict=True):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(shown.encode())
    return bench(Pictures(str(tmp_path)), names, [shown.encode() for shown in COLOURS])


def written(folder: Path, *entries: Any) -> Path:
    path = folder / "queries.jsonl"
    path.write_text("\n".join(json.dumps(entry) for entry in entries))
    return path


def test_queries_are_answered_by_path_or_id(pictures: Bench, tmp_path: Path) -> None:
    """The check passes, and each query is told with its place and score; what is only graded is not asked for."""
    path = written(
        tmp_path,
        {"query": "blue cat", "expected": "blue/cat.jpg"},
        {"query": "grey sky", "expected": ["none.jpg", COLOURS.index("grey sky")]},
        {"query": "anything", "relevant": ["green/tree.jpg"]},
    )
    given = pictures.asking(path)
    told = query_checks(given.run, given.target, given.new, GATES)
    assert [(c.name, c.passed, c.looked_at, c.result) for c in told.checks] == [
        ("queries", True, 2, "2 of 2 queries are answered")
    ]
    assert told.notes == [
        "query 'blue cat': blue/cat.jpg is at place 1, score 1.000",
        f"query 'grey sky': none.jpg or {COLOURS.index('grey sky')} is at place 1, score 1.000",
    ]
    assert told.answers[0] == Answer("blue cat", ("blue/cat.jpg",), 1, pytest.approx(1), pytest.approx(0, abs=1e-6))


def test_a_query_without_its_answer_fails(pictures: Bench, tmp_path: Path) -> None:
    """Rows that have each other's vectors are seen, and where the answer is instead; what is nowhere is said to be."""
    path = written(
        tmp_path, {"query": "blue cat", "expected": "blue/cat.jpg"}, {"query": "red bus", "expected": "x.jpg"}
    )
    given = pictures.asking(path)
    given.swap(str(COLOURS.index("blue cat")), str(COLOURS.index("red tree")))
    told = query_checks(given.run, given.target, given.new, GATES)
    assert [(c.passed, c.result, c.wanted, c.gate) for c in told.checks] == [
        (False, "0 of 2 queries are answered", "each within 3", "recall_k")
    ]
    first, second = sorted(told.notes)
    assert first.startswith(
        "query 'blue cat': blue/cat.jpg is not among the first 3; when every row is compared it is at place "
    )
    assert (
        second
        == "query 'red bus': x.jpg is not among the first 3; when every row is compared it is not among the first 100"
    )
    assert [answer.rank for answer in told.answers] == [None, None]


def test_a_query_that_a_model_refuses(pictures: Bench, tmp_path: Path) -> None:
    """It is not answered, for the reason that is told, and not looked for by no vector; threshold and grades go without it."""
    path = written(tmp_path, *({"query": text, "expected": "blue/cat.jpg"} for text in ("blue cat", "blue cat " * 20)))
    given = pictures.asking(path, old_embedder=OLD, similarity_threshold=0.3)
    given.run.own(Purse, lambda: Purse(given.run)).models |= {NEW: Both(64, longest=50), OLD: Both(48)}
    answered = query_checks(given.run, given.target, given.new, GATES)
    assert [(c.passed, c.result) for c in answered.checks] == [(False, "1 of 2 queries are answered")]
    assert [answer.rank for answer in answered.answers] == [1, None]
    assert answered.notes[0] == f"query {'blue cat ' * 20!r}: the model has no vector of it, 180 bytes (too_long)"
    told = threshold_of(given.run, given.target, (given.old, given.new), _neighbours(given))
    assert told
    assert told.line.endswith("of the 20 nearest images of 1 query through")
    graded = labelled(given.run, given.target, given.old, given.new)
    assert graded
    assert graded[0].startswith("nDCG@10 of 1 labelled query: 1.000 → 1.000")


def test_a_part_of_the_rows_need_not_answer(pictures: Bench, tmp_path: Path) -> None:
    """In a smoke run, and where one of several targets is asked, the places are told and decide nothing."""
    given = pictures.asking(written(tmp_path, {"query": "red bus", "expected": "x.jpg"}))
    for targets in ((replace(given.target, limit=20),), (given.target, given.target)):
        run = _run(given.run.plan.request, *targets)
        told = query_checks(run, given.target, given.new, GATES)
        assert (told.checks, len(told.notes)) == ([], 1)


def test_a_model_without_texts_is_told(pictures: Bench, tmp_path: Path) -> None:
    """One line that names it, and nothing is asked of it; nDCG is left out."""
    given = pictures.asking(written(tmp_path, {"query": "blue cat", "expected": "blue/cat.jpg"}))
    given.run.own(Purse, lambda: Purse(given.run)).models[NEW] = Both(64, frozenset({"image"}))
    told = query_checks(given.run, given.target, given.new, GATES)
    assert [(c.passed, c.result) for c in told.checks] == [(False, f"{NEW} cannot embed texts")]
    assert labelled(given.run, given.target, given.old, given.new) is None


def test_no_queries_no_check(pictures: Bench, tmp_path: Path) -> None:
    """Where none is given, or none has an answer that must be."""
    assert query_checks(pictures.run, pictures.target, pictures.new, GATES).checks == []
    graded = pictures.asking(written(tmp_path, {"query": "blue cat", "relevant": ["1"]}))
    assert query_checks(graded.run, graded.target, graded.new, GATES).checks == []


def test_texts_are_asked_by_id(tmp_path: Path) -> None:
    """Of a collection of texts too; its own words are no name. Without a similarity the distance is told."""
    texts = bench(Text(), COLOURS, COLOURS, "l2")
    given = texts.asking(
        written(tmp_path, {"query": "red sky", "expected": 3}, {"query": "red bus", "expected": "red bus"})
    )
    told = query_checks(given.run, given.target, given.new, GATES)
    assert [answer.rank for answer in told.answers] == [1, None]
    assert "query 'red sky': 3 is at place 1, distance 0.000" in told.notes


def test_answers_are_graded_by_their_names(pictures: Bench, tmp_path: Path) -> None:
    """nDCG takes paths as it takes ids, and what is expected as a grade of 1; a name counts once, however many rows have it."""
    given = pictures.asking(written(tmp_path, {"query": "blue cat", "expected": "blue/cat.jpg"},
                                    {"query": "red sky", "relevant": {"3": 2}}), old_embedder=OLD)  # fmt: skip
    answered = labelled(given.run, given.target, given.old, given.new)
    assert answered
    assert (answered[1].queries, answered[1].old, answered[1].new) == (2, 1.0, 1.0)
    assert ndcg([{"1", "a.jpg"}, {"2", "a.jpg"}], {"a.jpg": 1.0}) == 1.0


def test_each_image_finds_itself(pictures: Bench) -> None:
    """Embedded once more; a copy of it under another id counts. Swapped vectors are seen and named."""
    copy = {**pictures.new.rows["4"], "id": "copy"}
    pictures.new.rows["copy"] = copy
    check = itself_check(pictures.run, pictures.target, pictures.new, GATES)
    assert (check.passed, check.looked_at, check.result) == (True, 21, "21 of 21")
    del pictures.new.rows["copy"]
    for one, other in (("0", "7"), ("1", "8"), ("2", "9")):
        pictures.swap(one, other)
    [check] = itself_checks(pictures.run, pictures.target, pictures.new, GATES)
    assert (check.passed, check.result.partition(";")[0], check.gate) == (False, "14 of 20", "min_recall")
    pictures.new.rows.clear()
    assert not itself_check(pictures.run, pictures.target, pictures.new, GATES).passed, "it looked at nothing"


def test_rows_searched_by_their_like_are_not_asked(pictures: Bench) -> None:
    """There recall says the same; asked for, a text finds itself as an image does."""
    assert itself_checks(pictures.run, replace(pictures.target, content=Text()), pictures.new, GATES) == []
    texts = bench(Text(), COLOURS, COLOURS)
    assert itself_check(texts.run, texts.target, texts.new, GATES).result == "20 of 20"
    texts.swap("0", "1")
    assert itself_check(texts.run, texts.target, texts.new, GATES).result.startswith("18 of 20; not ")


def test_a_threshold_between_texts_and_images(pictures: Bench, tmp_path: Path) -> None:
    """It is translated on what the queries score by both models, not on what stored images score with each other."""
    texts = ["a blue cat", "the red bus", "green trees", "a chart of what is grey"]
    given = pictures.asking(written(tmp_path, *({"query": text, "expected": "0"} for text in texts)),
                            old_embedder=OLD, similarity_threshold=0.3)  # fmt: skip
    told = threshold_of(given.run, given.target, (given.old, given.new), _neighbours(given))
    assert told
    assert told.figures
    assert told.figures.new
    scores = [_scores(Both(side.described.dimensions or 0), texts, side) for side in (given.old, given.new)]
    assert told.figures.passing == pytest.approx((scores[0] >= 0.3).mean())
    assert (scores[1] >= told.figures.new).mean() == pytest.approx(told.figures.passing, abs=0.03)
    assert told.line.endswith("of the 20 nearest images of 4 queries through")
    by_rows = translated(*_neighbours(given), 0.3, "others").figures
    assert by_rows
    assert by_rows.new != pytest.approx(told.figures.new, abs=0.01), "the images' own scores would have said so too"


@pytest.mark.parametrize(
    ("lacking", "why"),
    [
        ({"old_embedder": OLD}, "the run has no `queries`"),
        ({}, "the run has no `queries` and no `old_embedder`"),
        ({"old_embedder": "tests/images", "queries": "asked"}, "tests/images cannot embed texts"),
    ],
)
def test_a_threshold_that_cannot_be_translated(
    pictures: Bench, tmp_path: Path, lacking: dict[str, Any], why: str
) -> None:
    """The reason is said, and no figure is given."""
    asked = {name: value for name, value in lacking.items() if name != "queries"}
    path = written(tmp_path, {"query": "blue cat", "expected": "0"}) if "queries" in lacking else None
    given = pictures.asking(path, similarity_threshold=0.3, **asked)
    given.run.own(Purse, lambda: Purse(given.run)).models["tests/images"] = Both(48, frozenset({"image"}))
    told = threshold_of(given.run, given.target, (given.old, given.new), _neighbours(given))
    assert told
    assert told.figures is None
    assert told.line == (
        "the similarity threshold 0.3 of the old vectors cannot be translated: scores of texts and images lie elsewhere "
        f"than those of stored images, and {why}"
    )


def _neighbours(given: Bench) -> tuple[list[Hits], list[Hits]]:
    sides = []
    for side in (given.old, given.new):
        rows = np.array([row["embedding"] for row in side.rows.values()], np.float32)
        sides.append(exact_search(rows, side.stream(), side.metric, 10))
    return sides[0], sides[1]


def _scores(model: Both, texts: list[str], side: Records) -> np.ndarray:
    hits = exact_search(model.embed(texts).vectors, side.stream(), side.metric, 50)
    return 1 - np.concatenate([hit.distances for hit in hits])


@pytest.mark.parametrize(
    "line",
    ['{"query": "a"}', '{"relevant": ["1"]}', "[1]", "no", '{"query": "a", "expected": {"a": {}}, "relevant": 3}'],
)
def test_a_line_that_is_no_query(line: str, tmp_path: Path) -> None:
    """The file, the line and what it should be are named."""
    path = tmp_path / "queries.jsonl"
    path.write_text(f'{{"query": "a", "expected": "1"}}\n\n{line}\n')
    with pytest.raises(UsageError, match=r"queries: line 3 of .*queries\.jsonl is not \{"):
        read_queries(str(path))


def test_a_file_without_queries(tmp_path: Path) -> None:
    """Empty, not there, or no text."""
    for name, content in (("empty", b"\n"), ("binary", b"\xff\xfe")):
        (tmp_path / name).write_bytes(content)
    for name in ("empty", "binary", "gone"):
        with pytest.raises(UsageError, match=r"^queries: "):
            read_queries(str(tmp_path / name))


def test_an_image_is_called_by_its_reference() -> None:
    """With a crop too; a document that says nothing is its own name."""
    assert Image().name_of('{"image": "a.jpg", "crop": [0, 0, 1, 1]}') == "a.jpg"
    assert Image().name_of("a.jpg") == "a.jpg"
    assert Image().name_of("{") == "{"
