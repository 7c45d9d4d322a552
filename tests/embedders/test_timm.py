"""Models of timm's on this machine: its real code with tiny random weights, and the real architecture of MegaDescriptor-L-384."""

import io
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tasks.base.errors import FatalError, UsageError
from tasks.embedders.local import packages, torchvision_repair
from tasks.embedders.pictures import cropped
from tasks.embedders.registry import open_embedder
from tasks.embedders.timm import megadescriptor
from tasks.embedders.timm.embedder import TimmEmbedder
from tasks.embedders.timm.model import Loaded
from tasks.embedders.timm.preprocessing import Preprocessing, preprocessing
from tests.helpers import tiny_models
from tests.helpers.local_models import needs_timm
from tests.helpers.photographs import file_of, files, photograph

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
HALVES = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
SHAPES = [(517, 389), (389, 517), (384, 384), (900, 20), (1, 1)]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a model of images: 64 dimensions, 64×64 pixels, not normalized."""
    return tiny_models.timm_model(tmp_path_factory.mktemp("tiny") / "model")


def opened(folder: Path, options: str = "") -> TimmEmbedder:
    """The embedder of a directory."""
    embedder = open_embedder(f"timm/{folder}{options}")
    assert isinstance(embedder, TimmEmbedder)
    return embedder


def library(folder: Path, images: Sequence[bytes]) -> np.ndarray:
    """What timm itself makes of the images, each by itself, with its own transforms."""
    torchvision_repair.repair()
    import timm
    import torch

    model = timm.create_model(f"local-dir:{folder}", pretrained=True, num_classes=0).eval()
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model), is_training=False)
    with torch.inference_mode():
        return np.concatenate(
            [model(transform(Image.open(io.BytesIO(image)).convert("RGB"))[None]).numpy() for image in images]
        )


# What needs no model


@pytest.mark.parametrize("package", ["torch", "torchvision", "timm"])
def test_without_the_packages_the_extra_is_named(package: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Where torch, torchvision or timm is not installed, one line says how to install them."""
    monkeypatch.setattr(packages, "find_spec", lambda name: None if name == package else object())
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UsageError, match=f"{package} is not installed; install torch first and alone") as raised:
        opened(tmp_path)
    assert "pip install -c constraints.txt -e '.[models]'" in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("", "timm/MODEL, e.g. timm/MegaDescriptor-L-384"),
        ("./nowhere", "there is no directory './nowhere'"),
        ("MegaDescriptor-XL-384", "the MegaDescriptors are MegaDescriptor-T-224, MegaDescriptor-S-224"),
        (
            "BVRA/MegaDescriptor-L-384",
            "at the hub is written timm/hf-hub:ORGANISATION/MODEL: timm/hf-hub:BVRA/MegaDescriptor-L-384",
        ),
        ("hf-hub:a/b/c", "a model at the hub is written timm/hf-hub:ORGANISATION/MODEL"),
        ("m?dimensions=3", "no option is called 'dimensions'; available: preprocess"),
        ("m?preprocess=mine", "preprocess must be one of card, imagenet, config"),
        ("m?interpolation=nearest", "interpolation must be one of bilinear, bicubic"),
        ("m?normalize=yes", "normalize must be one of true, false"),
        ("m?precision=int8", "precision must be one of float32, bfloat16"),
        ("m?batch=0", "batch must be a whole number from 1"),
    ],
)
def test_a_wrong_name_is_refused_in_one_line(name: str, reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is wrong is said before anything is imported or loaded."""
    monkeypatch.setitem(sys.modules, "torch", None)  # type: ignore[arg-type]  what Python itself has for "not there"
    with pytest.raises(UsageError, match=re.escape(reason)) as raised:
        open_embedder(f"timm/{name}")
    assert repr(f"timm/{name}") in str(raised.value)
    assert "\n" not in str(raised.value)


def test_no_other_embedder_imports_the_packages() -> None:
    """Opening another model costs no import of torch."""
    program = (
        "import sys; from tasks.embedders.registry import open_embedder; import tasks.embedders.timm.embedder; "
        "open_embedder('hashing/8'); print({'torch', 'timm', 'torchvision'} & set(sys.modules))"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout == "set()\n"


# Pixels, each mode against its source


def reference(transforms: Sequence[Any], image: Image.Image, mean: Sequence[float], std: Sequence[float]) -> Any:
    """What a pipeline of torchvision's gives a model."""
    from torchvision import transforms as T

    return T.Compose([*transforms, T.ToTensor(), T.Normalize(mean=mean, std=std)])(image)


def card(image: Image.Image, size: int) -> Any:
    """The card of BVRA/MegaDescriptor-L-384 at the hub: T.Resize(size=(384, 384)), T.ToTensor(), T.Normalize([0.5]*3, [0.5]*3).
    Resize is bilinear where nothing is said."""
    from torchvision import transforms as T

    return reference([T.Resize(size=(size, size))], image, *HALVES)


def imagenet(image: Image.Image, size: int) -> Any:
    """baselines/extract_features.py of WildlifeDatasets/wildlife-datasets: T.Resize([384, 384]), T.ToTensor(), ImageNet's mean and
    deviation."""
    from torchvision import transforms as T

    return reference([T.Resize([size, size])], image, *IMAGENET)


def config(image: Image.Image, size: int) -> Any:
    """config.json of the hub, as timm evaluates: the shorter edge to size / 0.9, bicubic, and the centre of it."""
    from torchvision import transforms as T

    scaled = T.Resize(int(size / 0.9), interpolation=T.InterpolationMode.BICUBIC)
    return reference([scaled, T.CenterCrop(size)], image, *IMAGENET)


def bicubic(image: Image.Image, size: int) -> Any:
    """The card's, with the other interpolation."""
    from torchvision import transforms as T

    return reference([T.Resize((size, size), interpolation=T.InterpolationMode.BICUBIC)], image, *HALVES)


MODES: dict[str, Callable[[Image.Image, int], Any]] = {
    "preprocess=card": card,
    "preprocess=imagenet": imagenet,
    "preprocess=config": config,
    "preprocess=card&interpolation=bicubic": bicubic,
}


@needs_timm
@pytest.mark.parametrize("mode", MODES)
def test_a_model_is_given_the_pixels_of_the_source(mode: str, tiny: Path) -> None:
    """From the bytes of a file to the tensor before the first layer: equal to the last bit, whatever the picture's shape."""
    import torch

    embedder = opened(tiny, f"?{mode}&batch=2")
    images = [photograph(width, height, seed) for seed, (width, height) in enumerate(SHAPES)]
    given: list[Any] = []
    hook = embedder.model._model.register_forward_pre_hook(lambda _, inputs: given.append(inputs[0].clone()))
    try:
        for image in images:
            assert not embedder.embed([file_of(image)]).rejected
    finally:
        hook.remove()
    assert len(given) == len(images)
    for image, tensor in zip(images, given, strict=True):
        assert torch.equal(tensor[0], MODES[mode](image, 64)), image.size


@needs_timm
@pytest.mark.parametrize("size", [224, 384])
def test_the_pixels_of_megadescriptor(size: int) -> None:
    """At its own sizes, by each source: an edge of 384 is scaled to 426 before the crop, one of 224 to 248."""
    torchvision_repair.repair()
    stated = {
        "input_size": (3, size, size),
        "interpolation": "bicubic",
        "crop_pct": 0.9,
        "crop_mode": "center",
        "mean": IMAGENET[0],
        "std": IMAGENET[1],
    }
    for mode, source in (("card", card), ("imagenet", imagenet), ("config", config)):
        way = preprocessing(mode, None, stated)  # type: ignore[arg-type]
        for seed, (width, height) in enumerate(SHAPES):
            image = photograph(width, height, seed)
            pixels = way.pixels()(image)
            assert pixels.dtype == np.uint8
            mean, std = (np.array(values, np.float32)[:, None, None] for values in (way.mean, way.std))
            tensor = (pixels.transpose(2, 0, 1).astype(np.float32) / np.float32(255) - mean) / std
            np.testing.assert_array_equal(tensor, source(image, size).numpy())


@needs_timm
@pytest.mark.parametrize("crop_mode", ["squash", "border"])
def test_a_configuration_may_crop_otherwise(crop_mode: str, tmp_path: Path) -> None:
    """timm's other ways to crop, and images that are not square, are as its own transforms have them."""
    folder = tiny_models.timm_model(tmp_path / "m", crop_mode=crop_mode, crop_pct=0.8)
    images = [file_of(photograph(width, height)) for width, height in SHAPES[:2]]
    embedder = opened(folder)
    assert crop_mode in embedder.space.preprocessing
    np.testing.assert_allclose(embedder.embed(images).whole, library(folder, images), atol=1e-5)


def test_how_an_image_is_made_ready_is_said_in_full() -> None:
    """The name of the mode, what is done with the shape, size, interpolation, mean and deviation."""
    stated = {"input_size": (3, 384, 384), "interpolation": "bicubic", "crop_pct": 0.9, "crop_mode": None}
    stated |= {"mean": IMAGENET[0], "std": IMAGENET[1]}
    assert str(preprocessing("card", None, stated)) == (
        "card: squashed to 384x384 bilinear, mean 0.5 0.5 0.5, std 0.5 0.5 0.5"
    )
    assert str(preprocessing("config", None, stated)) == (
        "config: center crop 0.9 to 384x384 bicubic, mean 0.485 0.456 0.406, std 0.229 0.224 0.225"
    )
    assert str(preprocessing("imagenet", "bicubic", stated)) == (
        "imagenet: squashed to 384x384 bicubic, mean 0.485 0.456 0.406, std 0.229 0.224 0.225"
    )
    assert isinstance(preprocessing("card", None, stated), Preprocessing)


# Tiny models


@needs_timm
def test_vectors_are_those_of_the_library(tiny: Path) -> None:
    """Each image gets the vector that timm gives it with its own transforms, alone or among others, as float32."""
    images = files(23)
    embedder = opened(tiny)
    embedded = embedder.embed(images).whole
    assert embedded.shape == (23, 64)
    assert embedded.dtype == np.float32
    np.testing.assert_allclose(embedded, library(tiny, images), atol=1e-5)
    assert np.unique(embedded.round(4), axis=0).shape == embedded.shape
    np.testing.assert_allclose(embedder.embed(images[:1]).whole, embedded[:1], atol=1e-5)
    assert embedder.embed([]).whole.shape == (0, 64)
    assert embedder.takes == {"image"}
    with pytest.raises(FatalError, match="timm/local takes images, not text"):
        embedder.embed(["a text"])


@needs_timm
def test_each_vector_is_handed_over_once_as_it_is_made(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``on_made`` gets every good row once, in several calls, and what was made before a failure is not lost."""
    monkeypatch.setattr("tasks.embedders.local.images.SLICE", 8)
    embedder = opened(tiny, "?batch=4")
    images = files(30)
    given: dict[int, np.ndarray] = {}
    calls: list[int] = []

    def keep(rows: Sequence[int], vectors: np.ndarray) -> None:
        calls.append(len(rows))
        for row, vector in zip(rows, vectors, strict=True):
            assert row not in given
            given[row] = vector

    embedded = embedder.embed([*images, b"no picture"], keep)
    assert sorted(embedded.rejected) == [30]
    assert sorted(given) == list(range(30))
    assert calls == [8, 8, 8, 6]
    np.testing.assert_array_equal(np.stack([given[row] for row in range(30)]), embedded.vectors[:30])

    real, passes = Loaded.forward, 0

    def fail(self: Loaded, *arguments: Any, **named: Any) -> np.ndarray:
        nonlocal passes
        passes += 1
        if passes > 5:
            raise ConnectionError("the card is gone")
        return real(self, *arguments, **named)

    monkeypatch.setattr(Loaded, "forward", fail)
    given.clear()
    with pytest.raises(ConnectionError, match="the card is gone"):
        opened(tiny, "?batch=4").embed(images, keep)
    assert len(given) == 20


@needs_timm
def test_an_image_without_a_vector_is_its_own_fault(tiny: Path) -> None:
    """What is no picture, empty or cut off is told with its kind, and the others have their vectors."""
    good = files(3)
    large = file_of(photograph(400, 300), "JPEG")
    embedded = opened(tiny).embed([good[0], b"", b"hello", good[1], large[: len(large) // 2], good[2]])
    assert {row: error.kind for row, error in embedded.rejected.items()} == {
        1: "empty",
        2: "not_an_image",
        4: "truncated",
    }
    np.testing.assert_allclose(embedded.vectors[[0, 3, 5]], library(tiny, good), atol=1e-5)
    assert not embedded.vectors[[1, 2, 4]].any()


@needs_timm
def test_a_part_of_a_picture_has_the_vector_of_that_part(tiny: Path) -> None:
    """An item that says which part of a picture is meant is embedded as that part alone, EXIF rotation applied before."""
    image = photograph(200, 120)
    turned = image.transpose(Image.Transpose.ROTATE_90)  # what orientation 6 turns back
    exif = Image.Exif()
    exif[0x0112] = 6
    part = image.crop((20, 10, 150, 90))
    items = [
        cropped(file_of(image), (20, 10, 150, 90)),
        cropped(file_of(turned, exif=exif), (20, 10, 150, 90)),
        file_of(part),
    ]
    embedded = opened(tiny).embed(items).whole
    np.testing.assert_allclose(embedded[[0, 1]], embedded[[2, 2]], atol=1e-6)


@needs_timm
def test_the_options_do_what_they_say(tiny: Path) -> None:
    """normalize, precision, preprocess and interpolation change vectors, and the space tells them apart; batch and device do
    not."""
    images = files(12, 120, 60)
    plain = opened(tiny)
    raw = plain.embed(images).whole
    assert (plain.space.normalized, plain.space.provider, plain.space.model) == (False, "timm", "local")
    assert np.linalg.norm(raw, axis=1).std() > 0 or np.linalg.norm(raw[0]) != pytest.approx(1)
    unit = opened(tiny, "?normalize=true")
    np.testing.assert_allclose(unit.embed(images).whole, raw / np.linalg.norm(raw, axis=1, keepdims=True), atol=1e-5)
    assert unit.space.normalized
    coarse = opened(tiny, "?precision=bfloat16&normalize=true")
    assert coarse.space.preprocessing.endswith(", bfloat16")
    embedded = coarse.embed(images).whole
    np.testing.assert_allclose(np.linalg.norm(embedded, axis=1), 1, atol=1e-6)
    assert 0.99 < np.sum(embedded * unit.embed(images).whole, axis=1).min() < 1 - 1e-7
    ways = [opened(tiny, f"?{mode}") for mode in MODES]
    assert [way.space.preprocessing.partition(":")[0] for way in ways] == ["card", "imagenet", "config", "card"]
    assert plain.space == ways[2].space, "a directory's own configuration, where nothing is asked for"
    spaces = {e.space.fingerprint for e in (plain, unit, coarse, *ways)}
    assert len(spaces) == 6
    vectors = [way.embed(images).whole for way in ways]
    assert all(np.abs(one - other).max() > 1e-3 for at, one in enumerate(vectors) for other in vectors[:at])
    same = opened(tiny, "?device=cpu&batch=5&normalize=false")
    assert opened(tiny, "?device=auto").model is plain.model
    assert same.space == plain.space
    np.testing.assert_allclose(same.embed(images).whole, raw, atol=1e-5)
    for device in ("nonsense", "cuda:7"):
        with pytest.raises(
            UsageError, match=f"cannot be used: torch has no device '{device}' here; the fastest is "
        ) as raised:
            opened(tiny, f"?device={device}")
        assert "\n" not in str(raised.value)


@needs_timm
def test_the_space_of_a_directory_is_that_of_its_weights(tiny: Path, tmp_path: Path) -> None:
    """A copied model is the same space wherever it lies; other weights of equal size, and another configuration, are others."""
    copy = shutil.copytree(tiny, tmp_path / "an@other" / "place")
    assert opened(copy).space == opened(tiny).space
    assert "place" not in str(opened(copy).space)
    assert opened(copy).space.fingerprint.startswith("timm/local/")
    other = tiny_models.timm_model(tmp_path / "trained", seed=1)
    squashed = tiny_models.timm_model(tmp_path / "squashed", crop_pct=1.0)
    assert len({opened(folder).space.fingerprint for folder in (tiny, other, squashed)}) == 3


@needs_timm
def test_the_licence_is_there_to_be_shown(tiny: Path, tmp_path: Path) -> None:
    """As the card of a directory states it, else its configuration; a MegaDescriptor's is known. A model
    of which nothing is stated has none."""
    assert opened(tiny).licence == "mit"
    stated = tiny_models.timm_model(tmp_path / "stated", license="apache-2.0")
    assert opened(stated).licence == "apache-2.0"
    (stated / "README.md").write_text("---\ntags:\n- animals\nlicense: cc-by-nc-4.0\n---\n# A card\nlicense: none\n")
    assert opened(stated).licence == "apache-2.0", "loaded before: the card is read with the weights"
    assert opened(shutil.copytree(stated, tmp_path / "copy")).licence == "cc-by-nc-4.0"
    copied = shutil.copytree(tiny, tmp_path / "MegaDescriptor-L-384")
    assert opened(copied, "?preprocess=card").licence == megadescriptor.LICENCE == "CC-BY-NC-4.0"
    assert open_embedder("hashing/8").licence == ""


@needs_timm
def test_how_images_of_a_copied_megadescriptor_are_made_ready_has_to_be_said(tiny: Path, tmp_path: Path) -> None:
    """Its card and its configuration disagree, so a copy in a directory is not opened by either unless one is named."""
    copied = shutil.copytree(tiny, tmp_path / "MegaDescriptor-L-384")
    with pytest.raises(UsageError, match="give the option preprocess: card, imagenet or config"):
        opened(copied)
    assert opened(copied, "?preprocess=card").space.preprocessing.startswith("card: squashed to 64x64 bilinear")
    moved = shutil.move(copied, tmp_path / "animals")
    (tmp_path / "animals" / "README.md").write_text("# MegaDescriptor-L-384\n")
    with pytest.raises(UsageError, match="is a MegaDescriptor"):
        opened(Path(moved))


@needs_timm
def test_a_directory_without_a_model_is_named(tmp_path: Path, tiny: Path) -> None:
    """No model, a damaged one, one for other channels: each is refused in one line."""
    with pytest.raises(UsageError, match=f"{tmp_path} holds no model"):
        opened(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    damaged = shutil.copytree(tiny, tmp_path / "damaged")
    (damaged / "model.safetensors").write_bytes(b"weights")
    grey = tiny_models.timm_model(tmp_path / "grey", channels=1)
    for folder in (tmp_path, damaged, grey):
        with pytest.raises(UsageError, match="cannot be used: ") as raised:
            opened(folder)
        assert "\n" not in str(raised.value)


@needs_timm
def test_threads_share_one_model(tiny: Path) -> None:
    """Many threads open and embed at once: the model is loaded once, and every vector is right."""
    images = files(20)
    wanted = opened(tiny).embed(images).whole

    def embed(_: int) -> tuple[int, np.ndarray]:
        embedder = opened(tiny, "?batch=3")
        return id(embedder.model), embedder.embed(images).whole

    with ThreadPoolExecutor(6) as threads:
        embedded = list(threads.map(embed, range(12)))
    assert len({model for model, _ in embedded}) == 1
    for _, vectors in embedded:
        np.testing.assert_allclose(vectors, wanted, atol=1e-5)


@needs_timm
def test_with_too_little_memory_fewer_go_at_once(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A device that runs out of memory is given half as many until it does not, and no more than that from then on; where one
    image is too many, the run stops."""
    import torch

    images = files(21)
    wanted = opened(tiny).embed(images).whole
    real, most = Loaded.forward, 3
    sizes: list[int] = []

    def forward(self: Loaded, pictures: Sequence[np.ndarray], **named: Any) -> np.ndarray:
        sizes.append(len(pictures))
        if len(pictures) > most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(self, pictures, **named)

    monkeypatch.setattr(Loaded, "forward", forward)
    embedder = opened(tiny, "?batch=16")
    monkeypatch.setattr(embedder.model, "on_processor", False)  # as on a device: one pass at a time
    np.testing.assert_allclose(embedder.embed(images).whole, wanted, atol=1e-5)
    assert {16, 8, 4} <= set(sizes)
    assert sum(size for size in sizes if size <= most) == 21
    assert embedder.forward.batch == 2
    sizes.clear()
    embedder.embed(images)
    assert sizes == [2] * 10 + [1]
    most = 0
    with pytest.raises(FatalError, match="cpu has too little memory for 1 image at once"):
        embedder.embed(images[:3])


@needs_timm
def test_bfloat16_stays_near(tiny: Path) -> None:
    """Half the bits turn no vector by more than a verification allows."""
    images = files(24)
    exact, coarse = (opened(tiny, f"?normalize=true&precision={precision}") for precision in ("float32", "bfloat16"))
    assert np.sum(exact.embed(images).whole * coarse.embed(images).whole, axis=1).min() > 0.999


@needs_timm
@pytest.mark.whole
def test_the_real_architecture_from_end_to_end(tmp_path: Path) -> None:
    """Swin-L at 384 pixels with random weights, saved and loaded as MegaDescriptor-L-384 is: 1536 dimensions of a handful of
    photographs, by the card, not normalized, each as timm itself has it; in bfloat16 nearly the same."""
    torchvision_repair.repair()
    import timm
    import torch

    torch.manual_seed(0)
    folder = tmp_path / "MegaDescriptor-L-384"
    model = timm.create_model("swin_large_patch4_window12_384", num_classes=0)
    timm.models.save_for_hf(model, str(folder), safe_serialization=True)
    images = [file_of(photograph(640, 480, seed), "JPEG") for seed in range(5)]
    embedder = opened(folder, "?preprocess=card")
    assert embedder.space.dimensions == 1536
    assert embedder.space.preprocessing == "card: squashed to 384x384 bilinear, mean 0.5 0.5 0.5, std 0.5 0.5 0.5"
    embedded = embedder.embed(images).whole
    assert embedded.shape == (5, 1536)
    with torch.inference_mode():
        batch = torch.stack([card(Image.open(io.BytesIO(image)), 384) for image in images])
        np.testing.assert_allclose(embedded, model.eval()(batch).numpy(), atol=1e-4)
    assert megadescriptor.size("BVRA/MegaDescriptor-L-384") == pytest.approx(
        (folder / "model.safetensors").stat().st_size, rel=0.01
    )
    coarse = opened(folder, "?preprocess=card&precision=bfloat16").embed(images).whole
    cosines = np.sum(embedded * coarse, axis=1) / np.linalg.norm(embedded, axis=1) / np.linalg.norm(coarse, axis=1)
    assert cosines.min() > 0.999
