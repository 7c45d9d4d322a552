"""How servers behave that speak OpenAI's API, by their documentation and by reports of their users: what each answers before
``OpenAIServer`` does. Tried against a local server only."""

import threading
import time
from contextlib import nullcontext
from http import HTTPStatus
from urllib.parse import parse_qs, urlsplit

import orjson

from tests.helpers.openai_server import Asked, Before, Reply

PAGE = b"""<!DOCTYPE html><html><head><title>Attention Required!</title><style>body {color: red}</style></head>
<body><h1>Sorry, you have been blocked</h1><p>Ray ID: 8a1b</p></body></html>"""
"""What a gateway says to a text that looks like an attack."""


def error(status: int, message: str, **more: object) -> Reply:
    """OpenAI's form."""
    return status, {}, orjson.dumps({"error": {"message": message, "type": "invalid_request_error", **more}})


def tei(tokens: int = 512, inputs: int = 32) -> Before:
    """Hugging Face's text-embeddings-inference: 413 for too many texts, and for one that is too long."""

    def before(asked: Asked) -> Reply | None:
        if len(asked.texts) > inputs:
            return _tei(f"batch size {len(asked.texts)} > maximum allowed batch size {inputs}")
        if (longest := max(map(words, asked.texts))) > tokens:
            return _tei(f"Input validation error: `inputs` must have less than {tokens} tokens. Given: {longest}")
        return None

    return before


def _tei(message: str) -> Reply:
    return 413, {}, orjson.dumps({"message": message, "type": "Validation", "code": 413})


def vllm(tokens: int = 512, matryoshka: bool = False) -> Before:
    """vLLM: 400 in OpenAI's form, without a code that says anything."""

    def before(asked: Asked) -> Reply | None:
        if not matryoshka and "dimensions" in asked.body:
            name = asked.body["model"]
            return error(400, f'Model "{name}" does not support matryoshka representation, changing output dimensions')
        if (longest := max(map(words, asked.texts))) > tokens:
            return error(
                400,
                f"This model's maximum context length is {tokens} tokens. However, you requested {longest} tokens in the "
                "input for embedding generation. Please reduce the length of the input.",
                code=400,
            )
        return None

    return before


def ollama(tokens: int = 512) -> Before:
    """Ollama: 400 without a number for a text that is too long, 500 where the model gives NaN."""

    def before(asked: Asked) -> Reply | None:
        if any("poison" in text for text in asked.texts):
            message = "failed to encode response: json: unsupported value: NaN"
            return (
                500,
                {},
                orjson.dumps({"error": {"message": message, "type": "api_error", "param": None, "code": None}}),
            )
        if max(map(words, asked.texts)) > tokens:
            return 400, {}, orjson.dumps({"error": "the input length exceeds the context length"})
        return None

    return before


def llama_cpp(tokens: int = 512) -> Before:
    """llama.cpp's server: 500 for a text that is too long, vectors of null where the model gives NaN."""

    def before(asked: Asked) -> Reply | None:
        if (longest := max(map(words, asked.texts))) > tokens:
            message = f"input ({longest} tokens) is too large to process. increase the physical batch size"
            return error(500, f"{message} (current batch size: {tokens})")
        return None

    return before


def azure(key: str, deployment: str, version: str | None) -> Before:
    """Azure: the key in a header of its own; classic URLs with an API version, v1 URLs without."""

    def before(asked: Asked) -> Reply | None:
        url = urlsplit(asked.path)
        if asked.headers.get("api-key") != key or asked.headers.get("authorization"):
            return error(401, "Access denied due to invalid subscription key or wrong API endpoint.")
        if version is None:
            right = url.path == "/openai/v1/embeddings" and asked.body["model"] == deployment
        else:
            right = url.path == f"/openai/deployments/{deployment}/embeddings"
            right = right and parse_qs(url.query).get("api-version") == [version]
        return None if right else error(404, "The API deployment for this resource does not exist.")

    return before


def cloudflare() -> Before:
    """Workers AI, as its users report it: any encoding_format is refused, in the form of Cloudflare's own API."""

    def before(asked: Asked) -> Reply | None:
        if "encoding_format" in asked.body:
            reasons = [{"message": "AiError: Bad input: Unsupported field encoding_format", "code": 5006}]
            return 400, {}, orjson.dumps({"success": False, "errors": reasons, "result": {}, "messages": []})
        return None

    return before


def litellm() -> Before:
    """LiteLLM in front of a provider without ``dimensions``: refused, unless the proxy is told to drop it."""

    def before(asked: Asked) -> Reply | None:
        if "dimensions" in asked.body:
            return error(
                400, "litellm.UnsupportedParamsError: Setting {'dimensions': 1536} is not supported by cohere."
            )
        return None

    return before


def firewall(*words_of_it: str, status: int = HTTPStatus.FORBIDDEN) -> Before:
    """A gateway that takes some texts for attacks, and shows a page."""

    def before(asked: Asked) -> Reply | None:
        if any(word in text for text in asked.texts for word in words_of_it):
            return int(status), {"Content-Type": "text/html"}, PAGE
        return None

    return before


def impatient_gateway(inputs: int, seconds: float = 0.05) -> Before:
    """A gateway that gives up waiting for a request of more than so many texts."""

    def before(asked: Asked) -> Reply | None:
        if len(asked.texts) > inputs:
            time.sleep(seconds)
            return 504, {"Content-Type": "text/html"}, b"<html><title>504 Gateway Time-out</title></html>"
        return None

    return before


def slow(seconds: float, one_by_one: bool = False) -> Before:
    """A model on a processor: so many seconds a text; requests at the same time, or one after the other."""
    turn = threading.Lock() if one_by_one else nullcontext()

    def before(asked: Asked) -> Reply | None:
        with turn:
            time.sleep(seconds * len(asked.texts))
        return None

    return before


def words(text: str) -> int:
    """Tokens of the models above, the first and the last among them."""
    return len(text.split()) + 2
