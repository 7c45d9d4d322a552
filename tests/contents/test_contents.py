"""Contents: what a record's document stands for, and how a page of them becomes vectors. The second content here, whose items
are the bytes of files, shows what an adapter is: it is known to the registry, and to nothing else."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pytest

from flows.forms.form import parse
from flows.forms.text_384_to_1536 import Text384To1536
from tasks.base.errors import UsageError
from tasks.base.settings import DEFAULT_DATABASE
from tasks.begin import begin
from tasks.contents import registry
from tasks.contents.interface import KeysOf, Slice
from tasks.contents.text import Text
from tasks.embedders.interface import Embedded, Item, Kind, OnMade, RowError, Space
from tasks.runs import spending
from tasks.runs.plan import from_json
from tasks.runs.run import Run, open_run
from tasks.runs.spending import Purse
from tasks.runs.vectors import embedded
from tasks.stores.postgres.connection import Connection
from tests.helpers.live_table import Table


@dataclass(frozen=True)
class File:
    """The bytes of files below ``root``, ``at_once`` of them in memory. A name that ends in =HASH says what is in the file,
    so that a file whose vector is kept is not opened."""

    kind: ClassVar[str] = "file"
    gives: ClassVar[Kind] = "image"
    asked: ClassVar[Kind] = "image"
    steady: ClassVar[bool] = False
    root: str
    at_once: int = 2

    def slices(self, documents: Sequence[str], keys_of: KeysOf) -> Iterable[Slice]:
        for start in range(0, len(documents), self.at_once):
            part = documents[start : start + self.at_once]
            rows = list(range(start, start + len(part)))
            if all("=" in name for name in part):
                keys = [bytes.fromhex(name.partition("=")[2]) for name in part]
                yield Slice(rows, keys, lambda at, part=part: [self._open(part[i]) for i in at])  # type: ignore[misc]
                continue
            opened = dict(zip(rows, map(self._open, part), strict=True))
            items = {row: item for row, item in opened.items() if not isinstance(item, RowError)}
            refused = {row: item for row, item in opened.items() if isinstance(item, RowError)}
            there = list(items.values())
            yield Slice(list(items), keys_of(there), lambda at, there=there: [there[i] for i in at], refused)  # type: ignore[misc]

    def name_of(self, document: str) -> str:
        return document.partition("=")[0]

    def _open(self, name: str) -> Item | RowError:
        OPENED.append(name)
        try:
            return (Path(self.root) / name.partition("=")[0]).read_bytes()
        except FileNotFoundError:
            return RowError("missing", f"there is no file {name}")


OPENED: list[str] = []


class Bright:
    """A model of images: a vector says how often each of the first eight byte values occurs. Refuses ``bad``."""

    takes: ClassVar[frozenset[Kind]] = frozenset({"image"})
    account: ClassVar[None] = None
    licence: ClassVar[str] = ""

    def __init__(self) -> None:
        self.asked: list[Item] = []

    @cached_property
    def space(self) -> Space:
        return Space("tests", "bright", 8)

    def variants(self, items: Sequence[Item]) -> Sequence[str]:
        return [""] * len(items)

    def embed(self, items: Sequence[Item], on_made: OnMade | None = None) -> Embedded:
        self.asked += items
        result = np.array([self.vector(bytes(item)) for item in items], np.float32)  # type: ignore[arg-type]
        good = [at for at, item in enumerate(items) if item != b"bad"]
        if on_made and good:
            on_made(good, result[good])
        bad = RowError("refused", "the picture cannot be decoded")
        return Embedded(result, {at: bad for at in range(len(items)) if at not in good})

    @staticmethod
    def vector(item: bytes) -> np.ndarray:
        return np.bincount(np.frombuffer(item, np.uint8) % 8, minlength=8)


@pytest.fixture
def model() -> Bright:
    return Bright()


@pytest.fixture
def run(connection: Connection, model: Bright, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A run whose rows say names of files in ``tmp_path``, and whose model is Bright."""
    monkeypatch.setitem(registry.KINDS, "file", f"{__name__}:File")
    OPENED.clear()
    Table(connection, rows=1)
    form = parse(Text384To1536, {"targets": [{"table": "docs", "text": "content"}], "embedder": "hashing/8"})
    begin(form.request(), "files", form.given())
    opened = open_run("files", DEFAULT_DATABASE)
    target = replace(opened.plan.targets[0], content=File(str(tmp_path)))
    request = replace(opened.plan.request, embedder="tests/bright")
    plan = from_json(replace(opened.plan, targets=(target,), request=request).as_json())  # as the next process reads it
    result = replace(opened, plan=plan)
    result.own(Purse, lambda: Purse(result)).models["tests/bright"] = model
    return result


def rows(*documents: str | None) -> pa.Table:
    return pa.table({"id": [str(i) for i in range(len(documents))], "document": pa.array(documents, pa.string())})


def test_items_are_opened_in_slices_and_refused_one_by_one(run: Run, model: Bright, tmp_path: Path) -> None:
    """Each row gets the vector of its file; a file that is not there, and one that the model refuses, are told by their row
    and its class; equal files are made once; a row that says nothing has no vector."""
    for name, kept in {"a": b"1", "b": b"22", "twin": b"1", "bad": b"bad", "c": b"333"}.items():
        (tmp_path / name).write_bytes(kept)
    names = ["a", None, "b", "gone", "twin", "bad", "c"]
    page, refused = embedded(run, run.plan.targets[0], rows(*names), tally=True)
    assert {row: error.kind for row, error in refused.items()} == {3: "missing", 5: "refused"}
    column = page.column("embedding")
    assert [column[at].is_valid for at in range(7)] == [True, False, True, False, True, False, True]
    for at, kept in {0: b"1", 2: b"22", 4: b"1", 6: b"333"}.items():
        assert column[at].as_py() == Bright.vector(kept).tolist()
    assert model.asked == [b"1", b"22", b"bad", b"333"], "the twin of the first slice is kept by then"
    assert [name for name in names if name] == OPENED, "each once"
    with run.connection() as connection:
        files = spending.spending(connection, "files")
        assert (files.bought, files.reused) == (3, 1)

    second, refused = embedded(run, run.plan.targets[0], rows(*names))
    assert second.column("embedding") == page.column("embedding")
    assert set(refused) == {3, 5}
    assert model.asked[4:] == [b"bad"], "only what has no vector is made again"


def test_what_is_kept_is_not_opened_where_the_reference_tells_its_hash(run: Run, model: Bright, tmp_path: Path) -> None:
    """The second time nothing is opened, and the vectors are there."""
    names = []
    for name in "abcde":
        (tmp_path / name).write_bytes(name.encode())
        names.append(f"{name}={hashlib.sha256(name.encode()).hexdigest()}")
    first, _ = embedded(run, run.plan.targets[0], rows(*names))
    assert names == OPENED
    second, _ = embedded(run, run.plan.targets[0], rows(*reversed(names)))
    assert names == OPENED
    assert len(model.asked) == 5
    assert second.column("embedding").to_pylist() == first.column("embedding").to_pylist()[::-1]
    assert first.column("embedding").null_count == 0


def test_no_more_is_open_than_a_slice(run: Run, model: Bright, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The model has had the items of a slice before the next one is opened."""
    for name in "abcde":
        (tmp_path / name).write_bytes(name.encode())
    most = 0
    real = Bright.embed

    def embed(self: Bright, items: Sequence[Item], on_made: OnMade | None = None) -> Embedded:
        nonlocal most
        most = max(most, len(OPENED) - len(self.asked))
        return real(self, items, on_made)

    monkeypatch.setattr(Bright, "embed", embed)
    embedded(run, run.plan.targets[0], rows(*"abcde"))
    assert most == File.at_once == 2
    assert len(model.asked) == 5


def test_a_model_must_take_what_the_content_gives(run: Run) -> None:
    """A model of texts is refused for images before anything is read."""
    request = replace(run.plan.request, embedder="hashing/8")
    with pytest.raises(UsageError, match="hashing/8 takes text, not image"):
        spending.begin(replace(run, plan=replace(run.plan, request=request)))


def test_a_plan_without_a_content_embeds_text(run: Run) -> None:
    """Plans of before say nothing of it; a kind that is not known is refused with those there are."""
    written = run.plan.as_json()
    assert written["targets"][0]["content"] == {"kind": "file", "root": run.plan.targets[0].content.root, "at_once": 2}  # type: ignore[attr-defined]
    del written["targets"][0]["content"]
    assert from_json(written).targets[0].content == Text()
    with pytest.raises(UsageError, match="no content is called 'sound'; available: text"):
        registry.decode({"kind": "sound"})
