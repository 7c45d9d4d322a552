"""A model of timm's in this process: loaded once, shared by all threads."""

import threading
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from tasks.base.errors import UsageError
from tasks.embedders import weights
from tasks.embedders.local import devices, packages, torchvision_repair
from tasks.embedders.local.hub import Repository, line
from tasks.embedders.local.loading import loaded_once
from tasks.embedders.naming import ModelName
from tasks.embedders.timm import megadescriptor

NEEDED = ("torch", "torchvision", "timm", "huggingface_hub", "PIL")

HUB = "hf-hub:"
"""What timm puts before a name of the hub."""


@dataclass(frozen=True)
class Wanted:
    """Which model, and what it runs on; two equal ones are one model in memory."""

    place: Path | str
    """A directory, ``hf-hub:ORGANISATION/MODEL``, or a name that timm itself knows."""
    revision: str = ""
    precision: str = "float32"
    device: str = ""


@dataclass(frozen=True)
class Source:
    """Where the weights are."""

    name: str
    """As timm's ``create_model`` takes it."""
    called: str
    """What a space calls the model."""
    revision: str
    options: dict[str, Any]
    licence: str


class Loaded:
    """The model, in memory."""

    def __init__(self, model: Any, wanted: Wanted, source: Source) -> None:
        """Raises ValueError where it gives no vectors of images."""
        from timm.data import resolve_model_data_config

        self.called, self.revision = source.called, source.revision
        self.licence = source.licence or str(model.pretrained_cfg.get("license") or "")
        """Of its weights; "" where nothing is stated."""
        self.config: dict[str, Any] = resolve_model_data_config(model)
        """How its images are to be made ready, as timm understands its configuration."""
        channels, height, width = self.config["input_size"]
        if channels != 3:
            raise ValueError(f"it takes images of {channels} channels, and a picture has 3")
        self._model = model
        self.device = wanted.device
        self.on_processor = wanted.device == "cpu"
        # A device works on one batch, while the next is brought to it. On a processor each thread has a core of its own.
        self._turn = nullcontext() if self.on_processor else threading.Semaphore(2 if "cuda" in wanted.device else 1)
        self._precision = wanted.precision
        grey = np.full((height, width, 3), 128, np.uint8)
        shape = self.forward([grey], (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)).shape
        if len(shape) != 2:
            raise ValueError(f"it gives no vector for an image, but an array of {len(shape) - 1} directions")
        self.dimensions = shape[1]

    def forward(self, pictures: Sequence[np.ndarray], mean: Sequence[float], std: Sequence[float]) -> np.ndarray:
        """float32[n, dimensions] of n pictures, uint8[height, width, 3]; ``mean`` is taken off, from 0 to 1, and what is left
        is divided by ``std``."""
        import torch

        stacked = torch.from_numpy(np.stack(pictures))
        with self._turn, torch.inference_mode():
            batch = stacked.to(self.device).permute(0, 3, 1, 2).float().div_(255)
            for colour, values in enumerate(zip(mean, std, strict=True)):
                batch[:, colour].sub_(values[0]).div_(values[1])
            made = self._model(batch.to(getattr(torch, self._precision)))
            return np.asarray(made.float().cpu().numpy())


_loaded: dict[Wanted, Loaded] = {}
"""Process-wide: weights take gigabytes, and serve any run and any query."""


def load(name: ModelName, wanted: Wanted) -> Loaded:
    """The model that ``name`` asks for; from the second call on, the same one.

    Raises UsageError, in one line, where the packages are not installed, or the model is not there or not usable.
    """
    return loaded_once(_loaded, wanted, partial(_load, name, wanted))


def _load(name: ModelName, wanted: Wanted) -> Loaded:
    packages.require(name, NEEDED)
    try:
        source = _source(name, wanted)  # first: where there are no weights, nobody waits for torch
        torchvision_repair.repair()
        import timm
        import torch

        device = devices.chosen(wanted.device)
        model = timm.create_model(source.name, pretrained=True, num_classes=0, **source.options)
        model = model.eval().to(device=device, dtype=getattr(torch, wanted.precision))
        return Loaded(model, Wanted(wanted.place, wanted.revision, wanted.precision, device), source)
    except UsageError:
        raise
    except Exception as error:
        raise UsageError(f"embedder {name}: {wanted.place} cannot be used: {line(error)}") from error


def _source(name: ModelName, wanted: Wanted) -> Source:
    if isinstance(wanted.place, Path):
        stated = weights.licence(wanted.place) or (
            megadescriptor.LICENCE if megadescriptor.seems_one(wanted.place) else ""
        )
        return Source(f"local-dir:{wanted.place}", "local", weights.digest(wanted.place), {}, stated)
    place = wanted.place.removeprefix(HUB)
    if place == wanted.place:
        return _listed(name, place)
    repository = Repository(name, place, size=megadescriptor.size(place))
    commit = repository.commit()
    repository.check_room(commit)
    stated = megadescriptor.LICENCE if megadescriptor.is_one(place) else ""
    return Source(f"{HUB}{place}@{commit}", place, commit, {}, stated)


def _listed(name: ModelName, model: str) -> Source:
    """A model of timm's own list, by what the list says of its weights."""
    torchvision_repair.repair()
    import timm

    if not timm.is_model(model.partition(".")[0]):
        near = timm.list_models(f"*{model.partition('.')[0]}*")[:3]
        raise UsageError(
            f"embedder {name}: timm knows no model {model!r}{', but ' + ', '.join(near) if near else ''}. A directory is written "
            f"timm/./DIRECTORY, a model at the hub timm/hf-hub:ORGANISATION/MODEL, a MegaDescriptor "
            f"{' or '.join(f'timm/{known}' for known in megadescriptor.NAMES[::4])}"
        )
    config = timm.get_pretrained_cfg(model, allow_unregistered=False)
    if config is None or not config.hf_hub_id:
        raise UsageError(
            f"embedder {name}: there are no weights of {model!r} at the hub; give it a directory: timm/./DIRECTORY"
        )
    repository = Repository(name, config.hf_hub_id)
    commit = repository.commit()
    repository.check_room(commit)
    overlay = {"hf_hub_id": f"{config.hf_hub_id}@{commit}"}
    return Source(
        model, config.hf_hub_id.removeprefix("timm/"), commit, {"pretrained_cfg_overlay": overlay}, config.license or ""
    )
