"""Names of models as a person writes them, without a provider, and the one form that each has in a registry."""

from urllib.parse import quote

from tasks.base.errors import UsageError
from tasks.base.words import listed
from tasks.embedders.naming import parse_model
from tasks.embedders.registry import PROVIDERS

USUAL = {
    "text-embedding-3-small": "openai",
    "text-embedding-3-large": "openai",
    "text-embedding-ada-002": "openai",
    "all-MiniLM-L6-v2": "sentence-transformers",
    "all-MiniLM-L12-v2": "sentence-transformers",
    "all-mpnet-base-v2": "sentence-transformers",
    "all-distilroberta-v1": "sentence-transformers",
    "multi-qa-MiniLM-L6-cos-v1": "sentence-transformers",
    "multi-qa-mpnet-base-dot-v1": "sentence-transformers",
    "paraphrase-multilingual-MiniLM-L12-v2": "sentence-transformers",
    "paraphrase-multilingual-mpnet-base-v2": "sentence-transformers",
    "clip-ViT-B-32": "sentence-transformers",
    "clip-ViT-L-14": "sentence-transformers",
    "MegaDescriptor-L-384": "timm",
}
"""Models that are meant by their names alone → their provider."""


def with_provider(written: str) -> str:
    """The name as it is written, with the provider that is left out. Raises UsageError where it is not one of the usual."""
    model = written.partition("?")[0]
    if "/" in model:
        return written
    provider = USUAL.get(model.partition("@")[0])
    if provider is None:
        raise UsageError(
            f"model {written!r} has no provider: write provider/{written}; providers are {listed(list(PROVIDERS))}"
        )
    return f"{provider}/{written}"


def whole_name(written: str) -> str:
    """provider/model[@revision][?option=value&…], options sorted and encoded. Raises UsageError as ``with_provider``."""
    written = with_provider(written)
    parsed = parse_model(written)
    options = "&".join(f"{name}={quote(value, safe='/:.,')}" for name, value in sorted(parsed.options.items()))
    return written.partition("?")[0] + (f"?{options}" if options else "")
