"""Weights at the hub: what is downloaded, when, and what is said where they are not to be had."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tasks.embedders import weights
from tasks.embedders.local import torchvision_repair
from tasks.embedders.local.hub import needed
from tests.helpers import tiny_models
from tests.helpers.hub_server import COMMIT, Hub, hub_server
from tests.helpers.local_models import needs_timm
from tests.helpers.photographs import files

PROGRAM = """
import json, sys
from collections import namedtuple
from tasks.embedders.registry import open_embedder
from tasks.embedders.local import hub
from tasks.base.errors import VecferryError
image = open(sys.argv[1], "rb").read()
free = json.loads(sys.argv[2])
for name in sys.argv[3:]:
    try:
        if free is not None:
            hub.shutil.disk_usage = lambda path: namedtuple("Usage", "free")(free)
        embedder = open_embedder(name)
        items = [image] if "image" in embedder.takes else ["a text"]
        print(json.dumps([embedder.space.fingerprint, embedder.space.revision, embedder.embed(items).whole.shape, embedder.licence]))
    except VecferryError as error:
        print(json.dumps([type(error).__name__, str(error)]))
"""


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two models of images as a hub has them, and weights that nobody comes to load."""
    folder = tmp_path_factory.mktemp("models")
    listed, texts = folder / "listed", folder / "texts"
    texts.mkdir()
    (texts / "model.safetensors").write_bytes(bytes(1000))
    torchvision_repair.repair()
    import timm

    timm.models.save_for_hf(timm.create_model("test_vit"), str(listed), safe_serialization=True)
    return {
        "timm/test_vit.r160_in1k": listed,
        "BVRA/MegaDescriptor-L-384": tiny_models.timm_model(folder / "images"),
        "somebody/texts": texts,
    }


def ask(tmp_path: Path, hub: Hub | None, *names: str, free: int | None = None, **variables: str) -> list[Any]:
    """What a process of its own with an empty home makes of models by these names; ``free`` bytes are on the disk."""
    (tmp_path / "image.png").write_bytes(files(1)[0])
    environment = {k: v for k, v in os.environ.items() if not k.startswith("HF_")} | {
        "HF_HOME": str(tmp_path / "hf"),
        **variables,
    }
    environment |= {"HF_ENDPOINT": hub.url} if hub else {"HF_ENDPOINT": "http://127.0.0.1:9"}
    environment |= {"SENTENCE_TRANSFORMERS_HOME": str(tmp_path / "st"), "HF_HUB_DISABLE_XET": "1"}
    arguments = [sys.executable, "-c", PROGRAM, str(tmp_path / "image.png"), json.dumps(free), *names]
    result = subprocess.run(arguments, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return [json.loads(line) for line in result.stdout.splitlines()]


@needs_timm
def test_a_model_is_downloaded_once_and_known_by_its_commit(models: dict[str, Path], tmp_path: Path) -> None:
    """A MegaDescriptor by its name, with the organisation, and at its commit is one space; so is a model of timm's list with its
    tag and without."""
    name, listed = "timm/MegaDescriptor-L-384", "timm/test_vit.r160_in1k"
    with hub_server(models) as hub:
        written = (name, "timm/hf-hub:BVRA/MegaDescriptor-L-384", f"{name}@{COMMIT}", listed, "timm/test_vit")
        first, *same, of_list, untagged = ask(tmp_path, hub, *written)
        assert first[0].startswith("timm/BVRA/MegaDescriptor-L-384/")
        assert first[1:] == [COMMIT, [1, 64], "CC-BY-NC-4.0"]
        assert same == [first, first]
        assert of_list[0].startswith("timm/test_vit.r160_in1k/")
        assert of_list == untagged
        assert of_list[1:] == [COMMIT, [1, 64], "apache-2.0"]
        assert [path for path in hub.asked if path.endswith("model.safetensors")]


@needs_timm
@pytest.mark.whole
def test_without_a_network_a_model_is_taken_from_the_local_cache(models: dict[str, Path], tmp_path: Path) -> None:
    """One that was downloaded before."""
    names = ("timm/MegaDescriptor-L-384", "timm/test_vit.r160_in1k")
    with hub_server(models) as hub:
        downloaded = ask(tmp_path, hub, *names)
    assert ask(tmp_path, None, *names, HF_HUB_OFFLINE="1") == downloaded


@needs_timm
def test_weights_that_are_not_to_be_had_are_named(models: dict[str, Path], tmp_path: Path) -> None:
    """Without a network: which, how large, where it was looked, what to download and how a directory is written."""
    (offline,) = ask(tmp_path, None, "timm/MegaDescriptor-L-384")
    assert offline[0] == "UsageError"
    for part in (
        f"BVRA/MegaDescriptor-L-384 is not in the local cache, {tmp_path}/hf/hub",
        "hf download BVRA/MegaDescriptor-L-384 --local-dir MegaDescriptor-L-384 (about 781 MB)",
        "timm/./MegaDescriptor-L-384",
    ):
        assert part in offline[1]
    assert "\n" not in offline[1]


@needs_timm
def test_no_disk_is_filled(models: dict[str, Path], tmp_path: Path) -> None:
    """Where what is to be downloaded does not fit the disk, its size and the free space are told and nothing is fetched. A
    model that the hub does not have is named."""
    with hub_server(models) as hub:
        names = ("timm/MegaDescriptor-L-384", "sentence-transformers/somebody/texts", "timm/hf-hub:nobody/none")
        *full, absent = ask(tmp_path, hub, *names, free=268_435_456)
        assert "the hub has no model 'nobody/none'" in absent[1]
        for outcome, folder in zip(full, ("hf/hub", "st"), strict=True):
            assert outcome[0] == "UsageError"
            assert (
                f"are to be downloaded into {tmp_path}/{folder}, where 268 MB are free. Make room, or set HF_HOME"
                in outcome[1]
            )
        assert [path for path in hub.asked if "/resolve/" in path] == []


def test_weights_are_counted_in_one_format() -> None:
    """Of several formats the one that is loaded counts, and nothing that lies beside the model."""
    sizes = {"config.json": 1, "model.safetensors": 100, "pytorch_model.bin": 101, "tf_model.h5": 102, "README.md": 5}
    sizes |= {"onnx/model.onnx": 100, "1_Pooling/config.json": 2, ".gitattributes": 1}
    assert needed(sizes) == {"config.json": 1, "model.safetensors": 100, "1_Pooling/config.json": 2}
    del sizes["model.safetensors"]
    assert needed(sizes) == {"config.json": 1, "pytorch_model.bin": 101, "1_Pooling/config.json": 2}


@pytest.mark.parametrize(
    ("card", "stated"),
    [
        ("---\nlicense: apache-2.0\n---\n", "apache-2.0"),
        ("---\ntags:\n- a\nlicense:   'mit'\n---\n", "mit"),
        ("# A model\nlicense: mit\n", ""),
        ("---\ntags: []\n---\nlicense: mit\n", ""),
        ("", ""),
    ],
)
def test_a_licence_is_read_off_the_head_of_a_card(card: str, stated: str, tmp_path: Path) -> None:
    """Where the card's head states one, and nowhere else."""
    assert weights.licence(tmp_path) == ""
    (tmp_path / "README.md").write_text(card)
    assert weights.licence(tmp_path) == stated
