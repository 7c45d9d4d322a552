"""How an image is made ready for a model: to the pixel, since a model gives other vectors for other pixels.

card       squashed to the model's size, whatever its shape, by bilinear interpolation; mean and deviation 0.5
imagenet   the same with the mean and deviation of ImageNet's pixels
config     as the model's own configuration says: mostly scaled, then cropped at its centre
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

Mode = Literal["card", "imagenet", "config"]
Interpolation = Literal["bilinear", "bicubic"]
MODES: tuple[Mode, ...] = get_args(Mode)
INTERPOLATIONS: tuple[Interpolation, ...] = get_args(Interpolation)
_SQUASHED: Mapping[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "card": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
}
"""Mean and deviation of red, green and blue."""


@dataclass(frozen=True)
class Preprocessing:
    """What is done with an RGB image; ``str`` of it is what a space says of it."""

    name: Mode
    height: int
    width: int
    interpolation: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    crop: str = "squash"
    """``squash``, ``center`` or ``border``."""
    share: float = 1.0
    """Of the scaled image, what is left after the crop."""

    def __str__(self) -> str:
        crop = "squashed" if self.crop == "squash" and self.share == 1 else f"{self.crop} crop {self.share:g}"
        mean, std = (" ".join(f"{value:g}" for value in values) for values in (self.mean, self.std))
        return f"{self.name}: {crop} to {self.width}x{self.height} {self.interpolation}, mean {mean}, std {std}"

    def pixels(self) -> Callable[[Any], np.ndarray]:
        """What makes uint8[height, width, 3] of an image of Pillow's in RGB."""
        if self.crop == "squash" and self.share == 1:
            return self._squash
        from timm.data import create_transform

        # Up to the pixels: what follows is the same for all of a batch, and is done with the batch.
        transform = create_transform(
            (3, self.height, self.width),
            interpolation=self.interpolation,
            mean=self.mean,
            std=self.std,
            crop_pct=self.share,
            crop_mode=self.crop,
            normalize=False,
        )
        return lambda image: np.ascontiguousarray(transform(image).permute(1, 2, 0).numpy())

    def _squash(self, image: Any) -> np.ndarray:
        from PIL import Image

        method = Image.Resampling[self.interpolation.upper()]
        return np.asarray(image.resize((self.width, self.height), method))


def preprocessing(mode: Mode, interpolation: Interpolation | None, config: Mapping[str, Any]) -> Preprocessing:
    """``config`` is what timm resolves for the model: its size, and all else for the mode ``config``."""
    _, height, width = config["input_size"]
    if mode != "config":
        mean, std = _SQUASHED[mode]
        return Preprocessing(mode, height, width, interpolation or "bilinear", mean, std)
    return Preprocessing(
        mode,
        height,
        width,
        interpolation or config["interpolation"],
        tuple(config["mean"]),
        tuple(config["std"]),
        config["crop_mode"] or "center",
        float(config["crop_pct"]),
    )
