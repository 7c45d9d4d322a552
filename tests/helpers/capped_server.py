"""Stands before a Chroma server as a hosted one does, which gives so many records an answer and no more."""

import json
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx


@dataclass
class Capped:
    """A server's limits; ``port`` is there inside the with-block."""

    upstream: int
    records: int = 300
    refuses: bool = True
    """Says so with a 422 where a request names more; else its answers are cut off without a word."""
    refuses_ids: bool = False
    """Refuses more ids than that too, where it would answer the first of them."""
    collections: int = 1_000
    deaf: bool = False
    """Answers the first records whatever the offset: what it has behind them cannot be listed."""
    client: httpx.Client = field(default_factory=httpx.Client)
    sizes: list[int] = field(default_factory=list)
    """Records of each answer."""

    def __enter__(self) -> int:
        limits = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = 1 << 20  # else head and body are two packets, and the second waits for the first

            def log_message(self, *_: Any) -> None:
                pass

            def do_GET(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length") or 0))
                status, data = limits.answer(self.command, self.path, body)
                self.send_response(status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_POST = do_GET

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self.server.server_address[1]

    def __exit__(self, *_: Any) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.client.close()

    def answer(self, method: str, path: str, body: bytes) -> tuple[int, bytes]:
        if path.split("?")[0].endswith("/get"):
            asked = json.loads(body)
            wanted = max(asked.get("limit") or 0, len(asked.get("ids") or ()) if self.refuses_ids else 0)
            if self.refuses and wanted > self.records:
                used = f"current usage of {wanted} exceeds limit of {self.records}"
                message = f"Quota exceeded: 'Limit value' exceeded quota limit for action 'Get': {used}"
                return 422, json.dumps({"error": "ChromaError", "message": message}).encode()
            asked["limit"] = min(asked.get("limit") or self.records, self.records)
            if self.deaf:
                asked["offset"] = 0
            body = json.dumps(asked).encode()
        elif path.split("?")[0].endswith("/query") and (wanted := json.loads(body)["n_results"]) > self.records:
            return 422, json.dumps({"error": "ChromaError", "message": f"'n_results' is {wanted}"}).encode()
        elif "/collections?" in path:
            url = httpx.URL(path)
            limit = int(url.params["limit"])
            if self.refuses and limit > self.collections:
                return 413, b"too large"
            path = str(url.copy_set_param("limit", min(limit, self.collections)))
        kind = {"content-type": "application/json"}
        result = self.client.request(method, f"http://127.0.0.1:{self.upstream}{path}", content=body, headers=kind)
        if path.endswith("/get") and result.is_success:
            self.sizes.append(len(result.json()["ids"]))
        return result.status_code, result.content
