"""How near images come to what the cores allow: photographs of 1280×960 through a small model on the processor.

What the cores allow is their number over what an image costs of one of them, decoded and passed through the model; each is measured
by itself with all cores at it, in turns with the whole, at the same batch and precision.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks import fixtures
from benchmarks.figures import Figure
from benchmarks.turns import timed
from tasks.embedders.local import torchvision_repair
from tasks.embedders.local.lanes import cores, one_thread
from tasks.embedders.registry import open_embedder
from tasks.embedders.timm.embedder import TimmEmbedder
from tests.helpers.photographs import file_of, photograph

NEEDED = ("torch", "torchvision", "timm")
SIZE, QUALITY = (1280, 960), 90
IMAGES, FEW = 96, 8
TURNS = 5


def images() -> Iterator[Figure]:
    """The share of what the cores allow, and how near bfloat16 comes to float32 in the architecture of MegaDescriptor-L-384."""
    if absent := [package for package in NEEDED if find_spec(package) is None]:
        print(f"images are left out, not installed: {', '.join(absent)}; make models", file=sys.stderr)
        return
    pictures = [file_of(photograph(*SIZE, seed), "JPEG", quality=QUALITY) for seed in range(IMAGES)]
    yield _share(_embedder("tf_efficientnet_lite0", "preprocess=config"), pictures)
    large = [
        _embedder("swin_large_patch4_window12_384", f"preprocess=card&normalize=true&precision={p}")
        for p in ("float32", "bfloat16")
    ]
    exact, coarse = (embedder.embed(pictures[:FEW]).whole for embedder in large)
    cosine = float(np.sum(exact * coarse, axis=1).min())
    yield Figure(
        "lowest row cosine of bfloat16, Swin-L-384", FEW, cosine, 0.999, "≥", note=f"{cosine:.5f}; random weights"
    )


def _share(embedder: TimmEmbedder, pictures: Sequence[bytes]) -> Figure:
    batch = embedder.forward.batch
    prepared = [embedder.prepare(picture) for picture in pictures]
    batches = [prepared[at : at + batch] for at in range(0, len(prepared), batch)]
    with ThreadPoolExecutor(cores()) as pool:
        one_thread(pool)
        parts: list[Callable[[], Any]] = [
            lambda: embedder.embed(pictures),
            lambda: list(pool.map(embedder.prepare, pictures)),
            lambda: list(pool.map(embedder.forward, batches)),
            lambda: list(map(embedder.forward, batches)),
        ]
        for part in parts:
            part()  # what the first time takes is start-up
        turns = [[timed(part) / len(pictures) for part in parts] for _ in range(TURNS)]
    whole, decode, apart, spread = (median(turn[at] for turn in turns) for at in range(len(parts)))
    core_ms = [f"{1000 * cores() * seconds:.0f}" for seconds in (decode, apart, spread)]
    note = (
        f"{1 / whole:.1f} images/s on {cores()} cores; core-ms of one: decode {core_ms[0]}, forward {core_ms[1]}, "
        f"or {core_ms[2]} with torch's own threads; batches of {batch}"
    )
    # By whichever way a forward pass costs less, in the turn itself: what else the machine does changes from one to the next.
    share = median((decode + min(apart, spread)) / whole for whole, decode, apart, spread in turns)
    return Figure("images a second to what the cores allow", len(pictures), share, 0.95, "≥", note=note)


def _embedder(architecture: str, options: str) -> TimmEmbedder:
    """The architecture with random weights, which take as long as any."""
    folder = fixtures.PLACE.absolute() / architecture
    if not folder.exists():
        _save(architecture, folder)
    embedder = open_embedder(f"timm/{folder}?device=cpu&{options}")
    assert isinstance(embedder, TimmEmbedder)
    return embedder


def _save(architecture: str, folder: Path) -> None:
    torchvision_repair.repair()
    import timm
    import torch

    torch.manual_seed(0)
    unfinished = folder.with_suffix(".unfinished")
    timm.models.save_for_hf(timm.create_model(architecture, num_classes=0), str(unfinished), safe_serialization=True)
    unfinished.rename(folder)
