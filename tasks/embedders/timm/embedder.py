"""Models of timm's, on this machine: they take images.

    timm/MODEL[@revision][?preprocess=card|imagenet|config&interpolation=bilinear|bicubic&normalize=true|false
        &precision=float32|bfloat16&device=…&batch=…]

MODEL is a MegaDescriptor, MegaDescriptor-L-384; a model of timm's list, swin_base_patch4_window7_224.ms_in1k; one of the Hugging Face
hub, hf-hub:ORGANISATION/MODEL; or a directory, ./models/tiny, /srv/models/tiny. Without options the vectors are those of the
model, as it makes them: not normalized, in float32.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from tasks.base.errors import UsageError
from tasks.embedders import weights
from tasks.embedders.budget import Budget
from tasks.embedders.interface import Embedded, Item, Kind, OnMade, Rates, RowError, Space, as_images
from tasks.embedders.local.devices import Halving, asked_for
from tasks.embedders.local.images import collected, opened
from tasks.embedders.local.lanes import BATCH_OF_CORE, passed
from tasks.embedders.naming import ModelName
from tasks.embedders.timm import megadescriptor
from tasks.embedders.timm.model import HUB, Loaded, Wanted, load
from tasks.embedders.timm.preprocessing import INTERPOLATIONS, MODES, Interpolation, Mode, preprocessing

OPTIONS = ("preprocess", "interpolation", "normalize", "precision", "device", "batch")
BATCH = 32
"""Images a forward pass of a device."""


@dataclass(frozen=True)
class TimmEmbedder:
    """A model at work. Opening it again is cheap: the model itself is shared by the process."""

    space: Space
    model: Loaded = field(repr=False, compare=False)
    pixels: Callable[[Any], np.ndarray] = field(repr=False, compare=False)
    """uint8[height, width, 3] of an image of Pillow's in RGB."""
    forward: Halving = field(repr=False, compare=False)
    takes: ClassVar[frozenset[Kind]] = frozenset({"image"})
    account: ClassVar[None] = None

    @property
    def licence(self) -> str:
        return self.model.licence

    def variants(self, items: Sequence[Item]) -> Sequence[str]:
        return [""] * len(items)

    def embed(self, items: Sequence[Item], on_made: OnMade | None = None) -> Embedded:
        """As Embedder.embed: some hundred at a time, or what some seconds have made. Rejected are images that cannot be opened,
        and those whose vector is zero or not finite."""
        images = as_images(self, items)
        passes = passed(images, self.prepare, self.forward, self.forward.batch, alone=self.model.on_processor)
        return collected(len(images), self.space.dimensions, passes, self.space.normalized, on_made)

    def prepare(self, image: bytes) -> np.ndarray | RowError:
        """uint8[height, width, 3] as the model is given it, or why the image cannot be opened."""
        picture = opened(image)
        return picture if isinstance(picture, RowError) else self.pixels(picture)


def open_timm(name: ModelName, budget: Budget | None = None, rates: Rates | None = None) -> TimmEmbedder:
    """The embedder that ``name`` describes, its model in memory; the first time that may download it.

    Raises UsageError for an unknown option or value, where the packages are not installed, and where the model is not to
    be had.
    """
    name.allow(OPTIONS)
    mode: Mode | None = name.one_of("preprocess", MODES)  # type: ignore[assignment]
    interpolation: Interpolation | None = name.one_of("interpolation", INTERPOLATIONS)  # type: ignore[assignment]
    normalize = name.one_of("normalize", ("true", "false")) == "true"
    precision = name.one_of("precision", ("float32", "bfloat16")) or "float32"
    batch = name.whole("batch", 1, 100_000)
    place = _place(name, mode)
    model = load(name, Wanted(place, "" if isinstance(place, Path) else name.revision, precision, asked_for(name)))
    prepared = preprocessing(mode or _usual(place), interpolation, model.config)
    space = Space(
        provider=name.provider,
        model=model.called,
        dimensions=model.dimensions,
        revision=model.revision,
        preprocessing=f"{prepared}{'' if precision == 'float32' else f', {precision}'}",
        normalized=normalize,
    )
    forward = Halving(
        partial(model.forward, mean=prepared.mean, std=prepared.std),
        f"embedder {name}: {model.device}",
        batch or (BATCH_OF_CORE if model.on_processor else BATCH),
    )
    return TimmEmbedder(space, model, prepared.pixels(), forward)


def _place(name: ModelName, mode: Mode | None) -> Path | str:
    """Where the model is. Raises UsageError for a name that means none, and where it is not said how the images of a
    MegaDescriptor in a directory are made ready."""
    if not name.model:
        raise UsageError(
            f"embedder {name}: write timm/MODEL, e.g. timm/{megadescriptor.NAMES[-1]}, or timm/./DIRECTORY"
        )
    folder = weights.directory(name)
    if folder and mode is None and megadescriptor.seems_one(folder):
        raise UsageError(
            f"embedder {name}: {folder} is a MegaDescriptor, of whose images its publishers say different things; give the option "
            "preprocess: card, imagenet or config"
        )
    if folder:
        return folder
    known = megadescriptor.place(name.model)
    if known is None and name.model.lower().startswith("megadescriptor"):
        raise UsageError(f"embedder {name}: the MegaDescriptors are {', '.join(megadescriptor.NAMES)}")
    if "/" in name.model and not re.fullmatch(rf"{HUB}\w[\w.-]*/\w[\w.-]*", name.model):
        written = name.model.removeprefix(HUB)
        raise UsageError(
            f"embedder {name}: a model at the hub is written timm/{HUB}ORGANISATION/MODEL"
            + (f": timm/{HUB}{written}" if written.count("/") == 1 else "")
        )
    return f"{HUB}{known}" if known else name.model


def _usual(place: Path | str) -> Mode:
    """How the images of a model are made ready where nothing is said of it."""
    return "card" if isinstance(place, str) and megadescriptor.is_one(place.removeprefix(HUB)) else "config"
