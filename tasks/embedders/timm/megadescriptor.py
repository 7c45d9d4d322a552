"""The MegaDescriptors, embedders of animals (Čermák et al. 2024, "WildlifeDatasets"), by their names.

How an image is made ready differs by who tells it, and the vectors with it: the model's card squashes it to a square and has mean
and deviation 0.5; its library's examples have ImageNet's instead; its configuration at the hub says a bicubic centre crop.
"""

from pathlib import Path

LICENCE = "CC-BY-NC-4.0"
_ORGANISATION = "BVRA"
_PARAMETERS = {
    "MegaDescriptor-T-224": 27_500_000,
    "MegaDescriptor-S-224": 48_800_000,
    "MegaDescriptor-B-224": 86_700_000,
    "MegaDescriptor-L-224": 195_000_000,
    "MegaDescriptor-L-384": 195_200_000,
}
"""Swin T, S, B and L, without a classifier: 768, 768, 1024 and 1536 dimensions."""
NAMES = tuple(_PARAMETERS)


def place(model: str) -> str | None:
    """ORGANISATION/MODEL at the hub; None where the name is of no MegaDescriptor."""
    return f"{_ORGANISATION}/{model}" if model in NAMES else None


def is_one(place: str) -> bool:
    """Whether the hub's ORGANISATION/MODEL is one."""
    return place.startswith(f"{_ORGANISATION}/MegaDescriptor")


def seems_one(folder: Path) -> bool:
    """Whether a directory is a copy of one, by its name or its card."""
    card = folder / "README.md"
    told = folder.name + (card.read_text(errors="replace") if card.is_file() else "")
    return "megadescriptor" in told.lower()


def size(place: str) -> int | None:
    """Bytes of its weights; None where they are not known."""
    parameters = _PARAMETERS.get(place.removeprefix(f"{_ORGANISATION}/"))
    return parameters and 4 * parameters
