"""``vecferry embed``: the vectors of images and texts on the terminal and as JSON, and what is said where there are none."""

import re
import sys
from pathlib import Path

import numpy as np
import pytest

from flows.command.completion import models
from tasks.embedders.registry import open_embedder
from tests.helpers import tiny_models
from tests.helpers.command import command
from tests.helpers.local_models import needs_models, needs_timm
from tests.helpers.photographs import file_of, photograph

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    """Two files with images."""
    paths = [tmp_path / f"{name}.jpg" for name in ("cat", "dog")]
    for seed, path in enumerate(paths):
        path.write_bytes(file_of(photograph(120, 80, seed), "JPEG"))
    return paths


@needs_timm
def test_images_as_json(pictures: list[Path], tmp_path: Path, capsys: Capture) -> None:
    """Model, dimensions, space, and for each file its vector to the last bit, and nothing else on standard output."""
    model = f"timm/{tiny_models.timm_model(tmp_path / 'm')}?preprocess=card"
    ended = command(capsys, "embed", *map(str, pictures), "--model", model, "--json")
    assert ended.exit == 0, ended.err
    embedder = open_embedder(model)
    assert {key: value for key, value in ended.json.items() if key != "embeddings"} == {
        "model": model,
        "dimensions": 64,
        "space": embedder.space.fingerprint,
    }
    assert [list(entry) for entry in ended.json["embeddings"]] == [["input", "embedding"]] * 2
    assert [entry["input"] for entry in ended.json["embeddings"]] == list(map(str, pictures))
    vectors = np.array([entry["embedding"] for entry in ended.json["embeddings"]], np.float32)
    np.testing.assert_array_equal(vectors, embedder.embed([path.read_bytes() for path in pictures]).whole)


@needs_timm
def test_images_for_a_person(pictures: list[Path], tmp_path: Path, capsys: Capture) -> None:
    """The space with what makes it up, the licence, and of each file length, cosine to the first, and first components."""
    folder = tiny_models.timm_model(tmp_path / "m", license="cc-by-nc-4.0")
    ended = command(capsys, "embed", *map(str, pictures), "--model", f"timm/{folder}?preprocess=card&normalize=true")
    assert ended.exit == 0, ended.err
    assert "64 dimensions, normalized\n" in ended.out
    assert "preprocessing  card: squashed to 64x64 bilinear, mean 0.5 0.5 0.5, std 0.5 0.5 0.5\n" in ended.out
    assert "licence        cc-by-nc-4.0\n" in ended.out
    assert re.search(r"^space          timm/local/[0-9a-f]{12}$", ended.out, re.M)
    assert re.search(rf"^{re.escape(str(pictures[0]))} +1\.0000 +1\.0000 +(-?0\.\d{{4}} ){{4}}…", ended.out, re.M)
    assert re.search(rf"^{re.escape(str(pictures[1]))} +1\.0000 +-?0\.\d{{4}} ", ended.out, re.M)


@needs_models
def test_images_and_texts_of_one_space(pictures: list[Path], tmp_path: Path, capsys: Capture) -> None:
    """A model of both embeds both: texts are those after --text, whatever they look like."""
    model = f"sentence-transformers/{tiny_models.clip_model(tmp_path / 'clip')}"
    ended = command(
        capsys, "embed", str(pictures[0]), "--text", "a cat", "--model", model, "--text", "dog.jpg", "--json"
    )
    assert ended.exit == 0, ended.err
    assert [entry["input"] for entry in ended.json["embeddings"]] == [str(pictures[0]), "a cat", "dog.jpg"]
    embedder = open_embedder(model)
    wanted = [embedder.embed([pictures[0].read_bytes()]).whole, embedder.embed(["a cat", "dog.jpg"]).whole]
    vectors = np.array([entry["embedding"] for entry in ended.json["embeddings"]], np.float32)
    np.testing.assert_allclose(vectors, np.concatenate(wanted), atol=1e-6)


def test_texts_need_no_torch(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model of texts alone works without the packages of local models."""
    monkeypatch.setitem(sys.modules, "torch", None)  # type: ignore[arg-type]  what Python itself has for "not there"
    ended = command(capsys, "embed", "--model", "hashing/8", "--text", "one two")
    assert ended.exit == 0, ended.err
    assert "8 dimensions, normalized\nspace          hashing/8/" in ended.out


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--model", "hashing/8"], "nothing to embed: name a FILE with an image, or give a text with --text"),
        (["--text", "a"], "name a model with --model, e.g. --model timm/MegaDescriptor-L-384"),
        (["no.jpg", "--model", "hashing/8"], "there is no file 'no.jpg'; a text is given with --text"),
        ([".", "--model", "hashing/8"], "'.' cannot be read: Is a directory"),
        (["cat.jpg", "--model", "hashing/8"], "embedder 'hashing/8' takes texts only: a FILE is an image"),
        (["--text", "a", "--model", "nobody/8"], "no provider is called 'nobody'; available: hashing, openai"),
        (["--text", "a", "--model", "nobody"], "model 'nobody' has no provider: write provider/nobody"),
        (
            ["cat.jpg", "--model", "MegaDescriptor-L-384?normalize=x"],
            "embedder 'timm/MegaDescriptor-L-384?normalize=x'",
        ),
        (["--text", "a", "--model", "hashing/x"], "give hashing its dimensions"),
        (["cat.jpg", "--model", "timm/MegaDescriptor-M"], "the MegaDescriptors are MegaDescriptor-T-224"),
    ],
)
def test_a_mistake_is_one_line_and_exit_2(
    arguments: list[str], complaint: str, pictures: list[Path], monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    """Nothing is printed but what is wrong and what to do; a file that is missing is never a text."""
    monkeypatch.chdir(pictures[0].parent)
    ended = command(capsys, "embed", *arguments)
    assert ended.exit == 2
    assert ended.out == ""
    assert complaint in ended.complaint


def test_without_torch_it_says_so(pictures: list[Path], monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    """Where the packages are not installed, the line says how to install them."""
    monkeypatch.setitem(sys.modules, "torch", None)  # type: ignore[arg-type]  as above
    ended = command(capsys, "embed", str(pictures[0]), "--model", "timm/MegaDescriptor-L-384")
    assert ended.exit == 2
    assert "torch is not installed; install torch first and alone, then the extra: pip install" in ended.complaint


@needs_timm
def test_what_is_no_image_is_named(pictures: list[Path], tmp_path: Path, capsys: Capture) -> None:
    """A file that cannot be opened is told with its reason, and no vector is printed; nor has a model of images one of a text."""
    model = f"timm/{tiny_models.timm_model(tmp_path / 'm')}"
    (tmp_path / "notes.jpg").write_text("not a picture")
    ended = command(capsys, "embed", str(pictures[0]), str(tmp_path / "notes.jpg"), "--model", model, "--json")
    assert (ended.exit, ended.out) == (2, "")
    assert f"has no vector of '{tmp_path}/notes.jpg': the file is not a picture that Pillow can read" in ended.complaint
    assert ended.complaint.endswith("(not_an_image)")
    ended = command(capsys, "embed", "--text", "a cat", "--model", model)
    assert ended.exit == 2
    assert "takes images only: --text marks a text" in ended.complaint


def test_models_are_completed() -> None:
    """Providers, and the names that are known here."""
    assert "timm/MegaDescriptor-L-384" in models("timm/Mega")
    assert models("hash") == ["hashing/"]
    assert models("timm/x") == []
