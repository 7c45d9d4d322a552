"""A Hugging Face hub on this machine: directories of models, over HTTP, as far as its client asks for them."""

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

COMMIT = "4" * 40
"""Of every model there."""


@dataclass
class Hub:
    """What it has, and what it was asked for."""

    url: str
    models: Mapping[str, Path]
    """ORGANISATION/MODEL → its files."""
    asked: list[str] = field(default_factory=list)


@contextmanager
def hub_server(models: Mapping[str, Path]) -> Iterator[Hub]:
    """The hub, at a free port of this machine."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            hub.asked.append(self.path)
            path = self.path.partition("?")[0].strip("/")
            if path.startswith("api/models/"):
                self._tell("/".join(path.split("/")[2:4]))
            else:
                organisation, model, _, _, *file = path.split("/")
                self._send_file(models.get(f"{organisation}/{model}", Path("/nowhere")) / "/".join(file))

        do_HEAD = do_GET

        def _tell(self, model: str) -> None:
            if model not in models:
                self._send(404, b"{}", {"X-Error-Code": "RepoNotFound"})
                return
            files = [file for file in models[model].rglob("*") if file.is_file()]
            siblings = [{"rfilename": str(f.relative_to(models[model])), "size": f.stat().st_size} for f in files]
            told = {"id": model, "modelId": model, "sha": COMMIT, "siblings": siblings, "tags": [], "downloads": 0}
            self._send(200, json.dumps(told).encode(), {"Content-Type": "application/json"})

        def _send_file(self, file: Path) -> None:
            if not file.is_file():
                self._send(404, b"", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT})
                return
            data = file.read_bytes()
            self._send(200, data, {"ETag": f'"{sha256(data).hexdigest()}"', "X-Repo-Commit": COMMIT})

        def _send(self, status: int, data: bytes, headers: Mapping[str, str]) -> None:
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(data))}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(data)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub = Hub(f"http://127.0.0.1:{server.server_port}", models)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
