"""Makes ``import torchvision`` work where it was built for another torch, as a CUDA build beside a CPU torch is.

Such a torchvision cannot load its compiled part, says nothing, and then stops with ``operator torchvision::nms does not
exist`` (pytorch#122494, vision#9085); timm and transformers stop with it. Told of the two operators that it asks torch about
while it is imported, it works: transforms do, compiled operators and ``torchvision.io`` do not, and no model here needs them.
"""

import sys
from importlib.util import find_spec
from typing import Any

_OPERATORS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
_kept: list[Any] = []
"""Operators are forgotten with the library object that defined them."""


def repair() -> None:
    """To be called before the first import of timm, transformers or sentence_transformers.

    Does nothing where torchvision is healthy or not installed. Raises what ``import torchvision`` raises for other reasons.
    """
    if "torchvision" in sys.modules or find_spec("torchvision") is None:
        return
    try:
        import torchvision
    except RuntimeError as error:
        if "torchvision::nms" not in str(error):
            raise
        import torch

        for module in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
            del sys.modules[module]
        library = torch.library.Library("torchvision", "FRAGMENT")
        for operator in _OPERATORS:
            library.define(operator)
        _kept.append(library)
        import torchvision  # noqa: F401
