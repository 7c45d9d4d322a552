"""Pictures that are alike and differ as photographs do, made by arithmetic, and files of them."""

import io
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


def photograph(width: int, height: int, seed: int = 0) -> Image.Image:
    """Smooth shapes with fine grain: as large as a photograph when it is compressed, and as long to decode."""
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 256, (max(height // 40, 2), max(width // 40, 2), 3), np.uint8)
    smooth = np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC), np.int16)
    grain = random.normal(0, 12, (height, width, 1)).astype(np.int16)
    return Image.fromarray(np.clip(smooth + grain, 0, 255).astype(np.uint8))


def file_of(image: Image.Image, format: str = "PNG", **options: Any) -> bytes:
    """The bytes of the image as a file."""
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def files(count: int, width: int = 96, height: int = 72) -> list[bytes]:
    """So many different pictures."""
    return [file_of(photograph(width, height, seed)) for seed in range(count)]


SCIKIT_IMAGE = (
    "astronaut.png", "brick.png", "camera.png", "cell.png", "chelsea.png", "clock_motion.png", "coffee.png", "coins.png",
    "grass.png", "gravel.png", "horse.png", "hubble_deep_field.jpg", "ihc.png", "microaneurysms.png", "moon.png",
    "motorcycle_left.png", "page.png", "retina.jpg", "rocket.jpg", "text.png",
)  # fmt: skip
"""Pictures that come with scikit-image, each of another thing."""


def scikit_files() -> list[bytes]:
    """The pictures of scikit-image; the package itself is not imported, and need not work."""
    spec = find_spec("skimage")
    assert spec is not None
    assert spec.origin is not None
    return [(Path(spec.origin).parent / "data" / name).read_bytes() for name in SCIKIT_IMAGE]
