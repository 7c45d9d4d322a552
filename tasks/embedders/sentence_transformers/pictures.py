"""Images before a model of sentence-transformers: what its ``encode`` does with them, in parts that threads can share."""

import threading
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
from PIL import Image

_PIXELS = "pixel_values"


class Pictures:
    """The way of an image into the model."""

    def __init__(self, model: Any, turn: threading.Lock) -> None:
        """``turn`` is taken for a forward pass where the device works for one at a time."""
        self._model = model
        self.on_processor: bool = model.device.type == "cpu"
        self._turn = nullcontext() if self.on_processor else turn
        tensors = {key for key, value in self._features([grey()]).items() if hasattr(value, "shape")}
        # Where an image becomes more than pixels, how is decided for a batch as a whole: all are brought to one length.
        self._apart = tensors == {_PIXELS}

    def prepare(self, picture: Image.Image) -> Any:
        """The image as the model is given it, as far as that does not depend on others of its batch."""
        return self._features([picture]) if self._apart else picture

    def forward(self, prepared: Sequence[Any]) -> np.ndarray:
        """float32[n, d] of n images that were prepared. Raises what torch raises."""
        import torch

        features = self._joined(prepared) if self._apart else self._features(prepared)
        with self._turn, torch.inference_mode():
            moved = {
                key: value.to(self._model.device) if hasattr(value, "to") else value for key, value in features.items()
            }
            made = self._model(moved)["sentence_embedding"]
            return np.asarray(made.float().cpu().numpy())

    def _joined(self, prepared: Sequence[dict[str, Any]]) -> dict[str, Any]:
        import torch

        return {**prepared[0], _PIXELS: torch.cat([one[_PIXELS] for one in prepared])}

    def _features(self, pictures: Sequence[Image.Image]) -> dict[str, Any]:
        # One modality a call, and each named: what is not is guessed at.
        features: dict[str, Any] = self._model.preprocess([{"image": picture} for picture in pictures])
        return features


def grey() -> Image.Image:
    """An image that stands for any."""
    return Image.new("RGB", (64, 64), (128, 128, 128))
