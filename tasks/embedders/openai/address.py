"""Where a model is asked, and how the key is handed over: as OpenAI does, or as Azure does."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, quote, urlsplit, urlunsplit

OFFICIAL = "https://api.openai.com/v1"

_AZURE_HOST = ".azure.com"
_DEPLOYMENTS = "/openai/deployments"
_EMBEDDINGS = "/embeddings"


@dataclass(frozen=True)
class Address:
    """The base URL of a server, to which ``/embeddings`` is added."""

    base_url: str
    query: Mapping[str, str] = field(default_factory=dict)
    azure: bool = False
    """Whether the key goes into the header ``api-key``, without a ``Bearer``."""


def address_of(written: str, model: str, api_version: str | None) -> Address:
    """What the base URL that a user wrote means. The whole URI of an embeddings endpoint, as Azure's portal shows it, is taken
    too. Raises ValueError where it is no http or https URL.

    Azure, classic: ``https://NAME.openai.azure.com`` with an API version, where the model is the name of a deployment.
    Azure, v1: ``https://NAME.openai.azure.com/openai/v1``.
    """
    parts = urlsplit(written)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"must be an http or https URL, got {written!r}")
    query = dict(parse_qsl(parts.query))
    if api_version:
        query["api-version"] = api_version
    path = parts.path.rstrip("/").removesuffix(_EMBEDDINGS).rstrip("/")
    azure = parts.hostname.endswith(_AZURE_HOST) or "api-version" in query or _DEPLOYMENTS in path
    if azure and "api-version" in query and path in ("", "/openai"):
        path = f"{_DEPLOYMENTS}/{quote(model, safe='')}"
    elif azure and path == "":
        path = "/openai/v1"
    return Address(urlunsplit((parts.scheme, parts.netloc, path, "", "")), query, azure)
