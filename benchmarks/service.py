"""The HTTP service: what it adds to a search whose vector is given, and whether it holds a rate of them."""

import http.client
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import orjson

from benchmarks import fixtures
from benchmarks.figures import Figure
from benchmarks.models import TOP_K, made
from benchmarks.turns import environment
from flows.client import Client
from tasks.stores.postgres.connection import connect
from tests.helpers.servers import free_port, wait_for

ROWS, SEARCHES = 5_000, 400
RATE, SECONDS, CLIENTS = 200, 20, 16
"""Searches a second, for so long, by so many clients that keep their connections."""


def service(url: str) -> Iterator[Figure]:
    """The 95th percentiles of a search by ``flows.client`` in this process and over HTTP, in turns; then the rate."""
    with connect(url, "vecferry benchmark") as connection:
        served = made(connection, ROWS)
    model = served.models[0]
    probes = served.probes(model)
    bodies = [orjson.dumps({"vector": probe.tolist(), "model": model.name, "top_k": TOP_K}) for probe in probes]
    with environment(DATABASE_URL=url), _serving(url) as port, Client() as client:
        own, over = list[float](), list[float]()
        connection_of = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        for probe, body in zip(probes[:SEARCHES], bodies, strict=False):
            started = time.perf_counter()
            client.search(vector=probe, model_name=model.name, top_k=TOP_K)
            own.append(time.perf_counter() - started)
            started = time.perf_counter()
            if _asked(connection_of, body) != 200:
                raise RuntimeError("the service does not answer")
            over.append(time.perf_counter() - started)
        own, over = own[SEARCHES // 10 :], over[SEARCHES // 10 :]
        added = _p95(over) - _p95(own)
        note = f"p95 {_p95(over):.2f} ms over HTTP, {_p95(own):.2f} ms by flows.client, one at a time in turns"
        yield Figure("service: added to a search by a vector, p95", ROWS, added, 5.0, unit=" ms", note=note)
        yield _rate(port, bodies)


def _rate(port: int, bodies: Sequence[bytes]) -> Figure:
    """Searches are due at their times, whether or not those before are answered."""
    total = RATE * SECONDS
    latencies, failures = [0.0] * total, list[str]()
    start, lock, following = time.perf_counter() + 0.5, threading.Lock(), iter(range(total))

    def ask() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        while True:
            with lock:
                at = next(following, None)
            if at is None:
                return
            due = start + at / RATE
            time.sleep(max(0.0, due - time.perf_counter()))
            try:
                status = str(_asked(connection, bodies[at % len(bodies)]))
            except (OSError, http.client.HTTPException) as error:
                connection.close()
                status = type(error).__name__
            latencies[at] = time.perf_counter() - due
            if status != "200":
                failures.append(status)

    threads = [threading.Thread(target=ask) for _ in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    rate = total / (time.perf_counter() - start)
    errors = f"errors: {', '.join(sorted(set(failures)))}" if failures else "no error"
    note = (
        f"{rate:.0f} searches/s for {SECONDS} s, {errors}; p50 {np.percentile(latencies, 50) * 1000:.1f} ms, p95 "
        f"{_p95(latencies):.1f} ms from when each was due; load {os.getloadavg()[0]:.1f}"
    )
    return Figure(f"service: failed of {total:,} searches at {RATE}/s", ROWS, len(failures), 0, note=note)


def _asked(connection: http.client.HTTPConnection, body: bytes) -> int:
    connection.request("POST", "/api/v1/search", body, {"content-type": "application/json"})
    answer = connection.getresponse()
    answer.read()
    return answer.status


@contextmanager
def _serving(url: str) -> Iterator[int]:
    """The command, as people start it."""
    port, log = free_port(), fixtures.PLACE / "service.log"
    command = [str(Path(sys.executable).parent / "vecferry"), "serve", "--port", str(port)]
    with open(log, "wb") as text:
        process = subprocess.Popen(command, stdout=text, stderr=text, env=os.environ | {"DATABASE_URL": url})
        try:
            wait_for(f"http://127.0.0.1:{port}/ready")
            yield port
        finally:
            process.terminate()
            process.wait(20)


def _p95(seconds: Sequence[float]) -> float:
    return float(np.percentile(seconds, 95)) * 1000
