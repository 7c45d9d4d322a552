"""Models of sentence-transformers on this machine: its real code with tiny random weights, and the real all-MiniLM-L6-v2."""

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pytest

from flows.forms.form import parse
from flows.forms.text_384_to_1536 import Text384To1536
from tasks.base.errors import FatalError, UsageError
from tasks.embedders import weights
from tasks.embedders.interface import RowsRejected
from tasks.embedders.local import torchvision_repair
from tasks.embedders.registry import open_embedder
from tasks.embedders.sentence_transformers.embedder import SLICE, SentenceTransformersEmbedder
from tasks.embedders.sentence_transformers.model import CACHE
from tasks.embedders.texts import cuts, size
from tasks.runs.vectors import keys_of
from tests.helpers import tiny_models
from tests.helpers.local_models import needs_minilm, needs_models
from tests.helpers.photographs import files
from tests.helpers.pipeline import build, finish, quarantined

WORDS = ["the", "quick", "brown", "fox", "jumps", "over", "a", "lazy", "dog", "and", "runs"]
TEXTS = [" ".join(WORDS[i % 7 : i % 7 + 1 + i % 4]) + f" {i}" for i in range(700)]
"""Of many lengths, none too long for the tiny models."""


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a text model: 32 dimensions, 32 tokens, not normalized."""
    return tiny_models.text_model(tmp_path_factory.mktemp("tiny"))


def opened(folder: Path, options: str = "") -> SentenceTransformersEmbedder:
    """The embedder of a directory."""
    embedder = open_embedder(f"sentence-transformers/{folder}{options}")
    assert isinstance(embedder, SentenceTransformersEmbedder)
    return embedder


def library(folder: Path, texts: list[str], **options: Any) -> np.ndarray:
    """What the library itself makes of the texts."""
    torchvision_repair.repair()
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(folder), device="cpu", local_files_only=True)
    result = model.encode([{"text": text} for text in texts], show_progress_bar=False, **options)
    return np.asarray(result)


def library_images(folder: Path, images: list[bytes], **options: Any) -> np.ndarray:
    """What the library itself makes of the images, each by itself."""
    torchvision_repair.repair()
    from PIL import Image
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(folder), device="cpu", local_files_only=True)
    pictures = [{"image": Image.open(BytesIO(image)).convert("RGB")} for image in images]
    return np.asarray(model.encode(pictures, batch_size=1, show_progress_bar=False, **options))


# What needs no model


@pytest.mark.parametrize("package", ["torch", "sentence_transformers"])
def test_without_the_packages_the_extra_is_named(package: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Where torch or sentence-transformers is not installed, one line says how to install them."""
    monkeypatch.setitem(sys.modules, package, None)  # type: ignore[arg-type]  what Python itself has for "not there"
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UsageError, match="is not installed; install torch first and alone") as raised:
        opened(tmp_path)
    assert "pip install -c constraints.txt -e '.[models]'" in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("", "sentence-transformers/MODEL"),
        ("a/b/c", "ORGANISATION/MODEL"),
        ("a/..", "ORGANISATION/MODEL"),
        ("./nowhere", "there is no directory './nowhere'"),
        ("./nowhere@v1", "there is no directory './nowhere@v1'"),
        ("/no/where", "there is no directory '/no/where'"),
        ("tests/data", "tests/data is a directory here: write sentence-transformers/./tests/data"),
        ("m?dimensions=3", "no option is called 'dimensions'; available: prefix"),
        ("m?normalize=yes", "normalize must be one of true, false"),
        ("m?precision=int8", "precision must be one of float32, bfloat16"),
        ("m?on_too_long=drop", "on_too_long must be one of quarantine, truncate, mean"),
        ("m?max_tokens=0", "max_tokens must be a whole number from 1"),
        ("m?batch=0", "batch must be a whole number from 1"),
    ],
)
def test_a_wrong_name_is_refused_in_one_line(
    name: str, reason: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """What is wrong is said before anything is imported or loaded."""
    (tmp_path / "tests" / "data").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "torch", None)  # type: ignore[arg-type]  as above
    with pytest.raises(UsageError, match=re.escape(reason)) as raised:
        open_embedder(f"sentence-transformers/{name}")
    assert repr(f"sentence-transformers/{name}") in str(raised.value)
    assert "\n" not in str(raised.value)


def test_no_other_embedder_imports_the_packages() -> None:
    """Opening another model costs no import of torch."""
    program = (
        "import sys; from tasks.embedders.registry import open_embedder; import tasks.embedders.sentence_transformers.embedder; "
        "open_embedder('hashing/8'); print({'torch', 'sentence_transformers', 'torchvision'} & set(sys.modules))"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout == "set()\n"


def test_a_directory_is_known_by_what_is_in_it(tmp_path: Path) -> None:
    """A copy is the same model wherever it is; a weight or a file's name that differs makes another, a readme does not."""
    first = tmp_path / "first"
    (first / "1_Pooling").mkdir(parents=True)
    (first / "model.safetensors").write_bytes(b"weights")
    (first / "1_Pooling" / "config.json").write_text("{}")
    known = weights.digest(first)
    copy = shutil.copytree(first, tmp_path / "somewhere" / "else")
    (copy / "README.md").write_text("about it")
    (copy / ".cache").mkdir()
    (copy / ".cache" / "lock").write_text("")
    assert weights.digest(copy) == known
    (copy / "model.safetensors").write_bytes(b"Weights")
    assert weights.digest(copy) != known
    (first / "1_Pooling").rename(first / "2_Pooling")
    assert weights.digest(first) != known


def test_the_form_says_what_becomes_of_over_long_texts() -> None:
    """on_too_long of the form reaches a model that can be told, and neither one that was told nor one that takes all."""
    for embedder, result in {
        "sentence-transformers/m": "sentence-transformers/m?on_too_long=mean",
        "sentence-transformers/m?batch=8": "sentence-transformers/m?batch=8&on_too_long=mean",
        "sentence-transformers/m?on_too_long=truncate": "sentence-transformers/m?on_too_long=truncate",
        "hashing/8": "hashing/8",
    }.items():
        form = parse(Text384To1536, {"embedder": embedder, "on_too_long": "mean"})
        assert form.request().embedder == result


def test_every_way_to_cut_loses_nothing() -> None:
    """Each way to cut a text gives all of it back, in more pieces than the one before."""
    text = "".join(f"wörd{i} " for i in range(50))
    counts = []
    for at, (limit, pieces) in enumerate(cuts(text, 20)):
        assert limit == (4 - at / 2) * 20
        assert "".join(pieces) == text
        assert max(size(piece) for piece in pieces) <= limit
        counts.append(len(pieces))
    assert counts == sorted(counts)
    assert len(counts) == 7
    assert [limit for limit, _ in cuts(text, 20, below=50)] == [40, 30, 20]


# Tiny models


@needs_models
def test_vectors_are_those_of_the_library(tiny: Path) -> None:
    """Texts of all lengths, more than one slice of them: each gets the vector that the library gives it, as float32."""
    embedded = opened(tiny).embed(TEXTS).whole
    assert embedded.shape == (len(TEXTS), 32)
    assert embedded.dtype == np.float32
    np.testing.assert_allclose(embedded, library(tiny, TEXTS), atol=1e-5)
    assert np.unique(embedded.round(4), axis=0).shape == embedded.shape


@needs_models
def test_a_batch_is_its_rows(tiny: Path) -> None:
    """The same texts give the same bytes again, and a text alone or among others the same vector but for rounding."""
    embedder = opened(tiny)
    embedded = embedder.embed(TEXTS).whole
    np.testing.assert_array_equal(embedder.embed(TEXTS).whole, embedded)
    np.testing.assert_allclose(embedder.embed(TEXTS[::-1]).whole[::-1], embedded, atol=1e-5)
    np.testing.assert_allclose(embedder.embed(TEXTS[:1]).whole, embedded[:1], atol=1e-5)
    assert embedder.embed([]).whole.shape == (0, 32)


@needs_models
def test_each_vector_is_handed_over_once_as_soon_as_it_is_there(tiny: Path) -> None:
    """``on_made`` gets every good row once, in several calls, and what was done before a failure is not lost."""
    embedder = opened(tiny)
    given: dict[int, np.ndarray] = {}
    calls = 0

    def keep(rows: Any, vectors: np.ndarray) -> None:
        nonlocal calls
        calls += 1
        for row, vector in zip(rows, vectors, strict=True):
            assert row not in given
            given[row] = vector

    texts = [*TEXTS, "", "x" * 99]
    embedded = embedder.embed(texts, keep)
    assert sorted(embedded.rejected) == [700, 701]
    assert sorted(given) == list(range(700))
    assert calls == -(-700 // SLICE)
    np.testing.assert_array_equal(np.stack([given[row] for row in range(700)]), embedded.vectors[:700])

    def fail(rows: Any, vectors: np.ndarray) -> None:
        keep(rows, vectors)
        raise ConnectionError

    given.clear()
    with pytest.raises(ConnectionError):
        embedder.embed(texts, fail)
    assert len(given) == SLICE


@needs_models
def test_a_text_without_a_vector_is_its_own_fault(tiny: Path) -> None:
    """Empty, blank, not Unicode, too long: each is told with its kind, and the others have their vectors."""
    texts = ["good", "", " \t\n", "\ud800", "x" * 31, "x" * 30, "é" * 200 + " " + "x " * 31]
    embedder = opened(tiny)
    embedded = embedder.embed(texts)
    kinds = {row: error.kind for row, error in embedded.rejected.items()}
    assert kinds == {1: "empty", 2: "empty", 3: "encoding", 4: "too_long", 6: "too_long"}
    assert embedded.rejected[4].message == "33 tokens, where the model takes 32"
    assert not embedded.vectors[[1, 2, 3, 4, 6]].any()
    np.testing.assert_allclose(embedded.vectors[[0, 5]], library(tiny, ["good", "x" * 30]), atol=1e-5)
    with pytest.raises(RowsRejected, match="5 items have no vector"):
        _ = embedder.embed(texts).whole


@needs_models
def test_a_vector_that_no_index_finds_is_refused(tmp_path: Path) -> None:
    """A zero vector, and one with NaN, are told as the row's own fault."""
    folder = tiny_models.table_model(tmp_path / "table", {"0": 0.0, "N": float("nan")})
    embedded = opened(folder).embed(["a", "0", "N", "b"])
    assert {row: error.kind for row, error in embedded.rejected.items()} == {1: "refused", 2: "refused"}
    assert np.isfinite(embedded.vectors).all()
    assert embedded.vectors[[0, 3]].any(axis=1).all()


@needs_models
def test_what_is_done_with_an_over_long_text(tiny: Path) -> None:
    """truncate gives what the library cuts silently; mean is a vector of all of the text; neither is kept as the other."""
    start = "x" * 10 + " " + "y " * 25
    texts = ["short", start + "a " * 40, start + "b " * 40]
    truncate, mean = opened(tiny, "?on_too_long=truncate"), opened(tiny, "?on_too_long=mean")
    cut = truncate.embed(texts).whole
    np.testing.assert_allclose(cut, library(tiny, texts), atol=1e-5)
    np.testing.assert_allclose(cut[1], cut[2], atol=1e-5)
    whole = mean.embed(texts).whole
    np.testing.assert_allclose(whole[0], cut[0], atol=1e-5)
    assert np.abs(whole[1] - whole[2]).max() > 1e-2
    norms = np.linalg.norm(library(tiny, _pieces(texts[1])), axis=1)
    assert norms.min() * 0.99 <= np.linalg.norm(whole[1]) <= norms.max() * 1.01, "not as long as its neighbours"

    quarantine = opened(tiny)
    assert len({keys_of(e, [texts[1]])[0] for e in (truncate, mean, quarantine)}) == 3
    assert len({keys_of(e, [texts[0]])[0] for e in (truncate, mean, quarantine)}) == 1
    assert truncate.space.fingerprint == mean.space.fingerprint == quarantine.space.fingerprint


def _pieces(text: str) -> list[str]:
    return next(pieces for _, pieces in cuts(text, 30) if max(len(p.replace(" ", "")) for p in pieces) <= 30)


@needs_models
def test_the_mean_of_a_text_is_that_of_its_pieces(tiny: Path) -> None:
    """Normalized, the vector of an over-long text is the unit mean of its pieces', each weighing its length."""
    text = " ".join(WORDS * 3)
    pieces = _pieces(text)
    assert len(pieces) > 1
    one = opened(tiny, "?on_too_long=mean&normalize=true").embed([text]).whole[0]
    parts = library(tiny, pieces, normalize_embeddings=True)
    wanted = np.average(parts, axis=0, weights=[size(piece) for piece in pieces])
    np.testing.assert_allclose(one, wanted / np.linalg.norm(wanted), atol=1e-5)


@needs_models
def test_the_options_do_what_they_say(tiny: Path, tmp_path: Path) -> None:
    """prefix, normalize, max_tokens and precision change vectors as the library would, and the space tells them apart."""
    texts = ["a b c", "some words", "y " * 29]
    plain = opened(tiny)
    assert (plain.space.normalized, plain.space.prefix, plain.space.preprocessing) == (False, "", "max_seq_length=32")
    prefixed = opened(tiny, "?prefix=q%3A%20")
    assert prefixed.space.prefix == "q: "
    np.testing.assert_allclose(
        prefixed.embed(texts[:2]).whole, plain.embed([f"q: {t}" for t in texts[:2]]).whole, atol=1e-5
    )
    assert list(prefixed.embed(texts).rejected) == [2], "the prefix has tokens too"
    unit = opened(tiny, "?normalize=true")
    raw = plain.embed(texts).whole
    np.testing.assert_allclose(unit.embed(texts).whole, raw / np.linalg.norm(raw, axis=1, keepdims=True), atol=1e-5)
    short, long = opened(tiny, "?max_tokens=16"), opened(tiny, "?max_tokens=64")
    assert list(short.embed(texts).rejected) == [2]
    assert not long.embed(["y " * 62]).rejected
    coarse = opened(tiny, "?precision=bfloat16&normalize=true")
    assert coarse.space.preprocessing == "max_seq_length=32&precision=bfloat16"
    embedded = coarse.embed(TEXTS).whole
    np.testing.assert_allclose(np.linalg.norm(embedded, axis=1), 1, atol=1e-6)
    assert 0.99 < np.sum(embedded * unit.embed(TEXTS).whole, axis=1).min() < 1 - 1e-6
    spaces = {e.space.fingerprint for e in (plain, prefixed, unit, short, long, coarse)}
    assert len(spaces) == 6
    same = opened(tiny, "?device=cpu&batch=7&normalize=false&on_too_long=mean")
    assert same.space == plain.space
    np.testing.assert_allclose(same.embed(texts).whole, raw, atol=1e-5)


@needs_models
def test_what_a_model_does_by_itself_is_kept_unless_told_otherwise(tmp_path: Path) -> None:
    """A model that normalizes and has a prompt of its own does both; options take each away."""
    folder = tiny_models.text_model(tmp_path, normalize=True, prompts={"doc": "d: "})
    own = opened(folder)
    assert (own.space.normalized, own.space.prefix) == (True, "d: ")
    np.testing.assert_allclose(own.embed(["abc"]).whole, library(folder, ["abc"]), atol=1e-5)
    raw = opened(folder, "?normalize=false&prefix=e:%20")
    assert (raw.space.normalized, raw.space.prefix) == (False, "e: ")
    vector = raw.embed(["abc"]).whole[0]
    assert np.linalg.norm(vector) > 1.5
    np.testing.assert_allclose(vector / np.linalg.norm(vector), library(folder, ["abc"], prompt="e: ")[0], atol=1e-5)


@needs_models
def test_the_space_of_a_directory_is_that_of_its_weights(tiny: Path, tmp_path: Path) -> None:
    """A copied model is the same space, and says nothing of where it lies; other weights of equal size are another."""
    copy = shutil.copytree(tiny, tmp_path / "an@other" / "place")
    assert opened(copy).space == opened(tiny).space
    assert "place" not in str(opened(copy).space)
    assert opened(copy).space.fingerprint.startswith("sentence-transformers/local/")
    other = tiny_models.text_model(tmp_path / "trained", seed=1)
    files = [
        sorted((p.name, p.stat().st_size) for p in m.glob("*") if p.suffix == ".safetensors") for m in (tiny, other)
    ]
    assert files[0] == files[1]
    assert opened(other).space.fingerprint != opened(tiny).space.fingerprint


@needs_models
def test_a_text_is_never_opened_as_an_image(tiny: Path, tmp_path: Path) -> None:
    """A text that is the path of an image has the vector of its letters, with models that know images and without."""
    from PIL import Image

    path = tmp_path / "i.png"
    Image.new("RGB", (40, 40), (200, 30, 30)).save(path)
    texts = [str(path), "http://localhost:9/no.png", "data:image/png;base64,xx"]
    for folder in (tiny_models.clip_model(tmp_path / "clip"), tiny):
        embedder = opened(folder, "?on_too_long=mean")
        embedded = embedder.embed(texts)
        assert not embedded.rejected
        assert len(np.unique(embedded.vectors.round(3), axis=0)) == len(texts)
    clip = opened(tmp_path / "clip" / "model", "?on_too_long=truncate")
    assert clip.space.dimensions == 24
    np.testing.assert_allclose(clip.embed(texts).whole, library(tmp_path / "clip" / "model", texts), atol=1e-5)


@needs_models
def test_images_and_texts_are_of_one_space(tmp_path: Path) -> None:
    """CLIP takes both: each image has the vector that the library gives it by itself, in the space of the texts; what is no image
    is its own fault."""
    folder = tiny_models.clip_model(tmp_path / "clip")
    images = files(11)
    embedder = opened(folder)
    assert embedder.takes == {"text", "image"}
    embedded = embedder.embed([*images, b"no picture", b""])
    assert {row: error.kind for row, error in embedded.rejected.items()} == {11: "not_an_image", 12: "empty"}
    np.testing.assert_allclose(embedded.vectors[:11], library_images(folder, images), atol=1e-5)
    assert np.unique(embedded.vectors[:11].round(4), axis=0).shape == (11, 24)
    unit = opened(folder, "?normalize=true&batch=3").embed(images).whole
    np.testing.assert_allclose(unit, library_images(folder, images, normalize_embeddings=True), atol=1e-5)
    given: list[int] = []
    embedder.embed(images, lambda rows, vectors: given.extend(rows))
    assert sorted(given) == list(range(11))
    assert list(embedder.variants(images)) == [""] * 11
    with pytest.raises(FatalError, match="takes images, not text"):
        embedder.embed([images[0], "a text"])
    with pytest.raises(FatalError, match="takes text, not images"):
        embedder.embed(["a text", images[0]])


@needs_models
def test_a_model_of_texts_takes_no_images(tiny: Path) -> None:
    """It says so before anything is embedded, and is refused where it is given one."""
    embedder = opened(tiny)
    assert embedder.takes == {"text"}
    with pytest.raises(FatalError, match="sentence-transformers/local takes text, not images"):
        embedder.embed(files(1))


@needs_models
def test_threads_share_one_model(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many threads open, count and embed at once: the model is loaded once, works for one at a time, and every vector is
    right."""
    from sentence_transformers import SentenceTransformer

    texts = [*TEXTS[:100], *("x " * length for length in range(40, 60))]
    wanted = opened(tiny, "?on_too_long=truncate").embed(texts).whole
    real = SentenceTransformer.encode
    at_work = most = 0

    def encode(self: Any, *given: Any, **options: Any) -> Any:
        nonlocal at_work, most
        at_work += 1
        most = max(most, at_work)
        try:
            return real(self, *given, **options)
        finally:
            at_work -= 1

    monkeypatch.setattr(SentenceTransformer, "encode", encode)

    def embed(_: int) -> tuple[int, np.ndarray]:
        embedder = opened(tiny, "?on_too_long=truncate&device=cpu")
        return id(embedder.model), embedder.embed(texts).whole

    def count(_: int) -> set[bytes]:
        embedder = opened(tiny, "?on_too_long=truncate&device=cpu")
        return {keys_of(embedder, ["x " * 60])[0] for _ in iter(lambda: done.is_set(), True)}

    done = Event()
    with ThreadPoolExecutor(6) as threads:
        counted = threads.map(count, range(2))
        try:
            embedded = list(threads.map(embed, range(40)))
        finally:
            done.set()
        assert set().union(*counted) == {sha256(("x " * 60).encode() + b"\0truncate").digest()}
    assert len({model for model, _ in embedded}) == 1
    assert most == 1
    for _, vectors in embedded:
        np.testing.assert_allclose(vectors, wanted, atol=1e-5)


@needs_models
@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ("?max_tokens=65", "no room for 65 tokens"),
        ("?max_tokens=2", "leaves none of 2 tokens for the text"),
        ("?prefix=" + "p" * 40, "leaves none of 32 tokens for the text"),
        ("?device=nonsense", "cannot be used"),
    ],
)
def test_what_a_model_cannot_do_is_said_in_one_line(tiny: Path, options: str, reason: str) -> None:
    """Options that the model cannot follow are refused when it is opened, not in the middle of a run."""
    with pytest.raises(UsageError, match=reason) as raised:
        opened(tiny, options)
    assert "\n" not in str(raised.value)


@needs_models
def test_too_little_memory_is_fatal(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A device that runs out of memory stops the run, and the message names a batch that may fit."""
    import torch
    from sentence_transformers import SentenceTransformer

    def fail(*_: Any, **__: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    embedder = opened(tiny, "?batch=48")
    monkeypatch.setattr(SentenceTransformer, "encode", fail)
    with pytest.raises(FatalError, match="too little memory for 48 texts at once: set batch=24"):
        embedder.embed(["abc"])


@needs_models
def test_a_directory_without_a_model_is_named(tmp_path: Path) -> None:
    """A directory without a model, a model that is damaged, and a limit for one that has none are refused in one line."""
    with pytest.raises(UsageError, match=f"{tmp_path} holds no model: neither modules.json nor config.json"):
        opened(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UsageError, match=f"{tmp_path} cannot be used: ") as raised:
        opened(tmp_path)
    assert "\n" not in str(raised.value)
    table = tiny_models.table_model(tmp_path / "table", {})
    assert opened(table).space.preprocessing == ""
    with pytest.raises(UsageError, match="takes texts of any length"):
        opened(table, "?max_tokens=9")


@needs_models
def test_a_model_of_the_hub_is_known_by_its_commit(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name or a branch means the commit that the cache has for it: where a branch has moved, the space is another."""
    monkeypatch.setenv(CACHE, str(tmp_path))
    commits = {"main": "1" * 40, "v2": "2" * 40}
    cached = tmp_path / "models--somebody--tiny"
    (cached / "refs").mkdir(parents=True)
    for branch, commit in commits.items():
        shutil.copytree(tiny, cached / "snapshots" / commit)
        (cached / "refs" / branch).write_text(commit)
    name = "sentence-transformers/somebody/tiny"
    embedders = [open_embedder(n) for n in (name, f"{name}@main", f"{name}@{commits['main']}", f"{name}@v2")]
    assert [e.space.revision for e in embedders] == ["1" * 40, "1" * 40, "1" * 40, "2" * 40]
    assert [len({e.space.fingerprint for e in part}) for part in (embedders[:3], embedders)] == [1, 2]
    assert embedders[0].space.fingerprint.startswith("sentence-transformers/somebody/tiny/")
    np.testing.assert_allclose(embedders[0].embed(["abc"]).whole, library(tiny, ["abc"]), atol=1e-5)


@needs_models
@pytest.mark.parametrize("name", ["nobody", "nobody/none", "nobody/none@v1", f"nobody/none@{'3' * 40}"])
def test_a_model_that_is_not_to_be_had_is_named(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without a network a model that was never downloaded is refused in one line, at once."""
    monkeypatch.setenv(CACHE, str(tmp_path))
    with pytest.raises(UsageError, match=r"nobody.*(is not in the local cache|cannot be used)") as raised:
        open_embedder(f"sentence-transformers/{name}")
    assert "\n" not in str(raised.value)


# torchvision


@pytest.mark.whole
@needs_models
@pytest.mark.skipif(find_spec("torchvision") is None, reason="not installed: torchvision; make models")
def test_torchvision_works_whatever_torch_it_was_built_for() -> None:
    """After the repair torchvision, and with it timm, can be imported and transforms work; a second call does nothing."""
    program = (
        "from tasks.embedders.local.torchvision_repair import repair; repair(); repair()\n"
        "import torch; from torchvision import transforms; from PIL import Image\n"
        "image = transforms.ToTensor()(transforms.Resize(8)(Image.new('RGB', (16, 16), (255, 0, 0))))\n"
        "assert image.shape == (3, 8, 8) and image[0].min() == 1\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


@needs_models
@pytest.mark.parametrize(
    ("package", "outcome"),
    [
        ("works = True\n", "ok True 0"),
        (
            "import torch\n"
            "if not hasattr(torch.ops.torchvision, 'nms'):\n"
            "    raise RuntimeError('operator torchvision::nms does not exist')\n"
            "works = 'repaired'\n",
            "ok repaired 1",
        ),
        ("raise RuntimeError('something else')\n", "RuntimeError something else 0"),
    ],
    ids=["healthy", "built for another torch", "broken otherwise"],
)
def test_only_the_known_fault_of_torchvision_is_repaired(package: str, outcome: str, tmp_path: Path) -> None:
    """A healthy torchvision is left as it is, one without its operators gets them, and another fault is not hidden."""
    (tmp_path / "torchvision").mkdir()
    (tmp_path / "torchvision" / "__init__.py").write_text(package)
    program = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "from tasks.embedders.local.torchvision_repair import _kept, repair\n"
        "try:\n"
        "    repair(); import torchvision; print('ok', torchvision.works, len(_kept))\n"
        "except RuntimeError as error: print('RuntimeError', error, len(_kept))\n"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert result.stdout.strip() == outcome, result.stderr


def test_without_torchvision_nothing_is_repaired(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where torchvision is not installed the repair does nothing."""
    monkeypatch.setattr(torchvision_repair, "find_spec", lambda name: None)
    monkeypatch.delitem(sys.modules, "torchvision", raising=False)
    torchvision_repair.repair()
    assert "torchvision" not in sys.modules


# The real all-MiniLM-L6-v2


@needs_minilm
def test_minilm_is_what_its_card_says(minilm: Path) -> None:
    """384 dimensions, 256 tokens, unit vectors, and like texts are near each other."""
    embedder = opened(minilm)
    space = embedder.space
    assert (space.dimensions, space.normalized, space.preprocessing) == (384, True, "max_seq_length=256")
    texts = ["A man is eating food.", "Someone eats a meal.", "The stock market fell sharply today."]
    embedded = embedder.embed(texts).whole
    np.testing.assert_allclose(np.linalg.norm(embedded, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(embedded, library(minilm, texts), atol=1e-6)
    assert embedded[0] @ embedded[1] > 0.5 > 0.2 > embedded[0] @ embedded[2]


@needs_minilm
def test_the_end_of_a_long_text_is_found(minilm: Path) -> None:
    """What is said after 256 tokens is out of sight of truncate, and in sight of mean."""
    text = "The committee discussed the budget of the city. " * 40 + "Volcanoes erupt molten lava and ash. " * 40
    question = opened(minilm).embed(["volcanic eruption"]).whole[0]
    cut, whole = (opened(minilm, f"?on_too_long={way}").embed([text]).whole[0] for way in ("truncate", "mean"))
    np.testing.assert_allclose(cut, library(minilm, [text])[0], atol=1e-6)
    assert whole @ question > 0.25 > 0.15 > cut @ question
    assert opened(minilm).embed([text]).rejected[0].kind == "too_long"


@needs_minilm
def test_bfloat16_stays_near(minilm: Path) -> None:
    """Half the bits turn no vector by more than a verification allows, alone or among others, and all have length 1."""
    exact, coarse = (opened(minilm, f"?precision={precision}") for precision in ("float32", "bfloat16"))
    texts = TEXTS[:48]
    embedded = coarse.embed(texts).whole
    np.testing.assert_allclose(np.linalg.norm(embedded, axis=1), 1, atol=1e-6)
    assert np.sum(embedded * exact.embed(texts).whole, axis=1).min() > 0.999
    assert np.sum(embedded[:5] * np.concatenate([coarse.embed([t]).whole for t in texts[:5]]), axis=1).min() > 0.999


@needs_minilm
def test_a_migration_with_it(
    minilm: Path, database: str, chroma_dir: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Documents are re-embedded, loaded, verified row by row and switched; empty ones are quarantined with their reason."""
    chroma = {"path": chroma_dir(count=60)}
    run = build("minilm", chroma=chroma, embedder=f"sentence-transformers/{minilm}", batch_rows=25)
    (report,) = finish(run, max_quarantined=100)
    assert report.passed
    assert quarantined(run) == sum(i % 13 == 0 and i % 11 != 0 for i in range(60))
