"""How much of an account's limits several processes use together: ``python -m benchmarks.together [PROCESSES …]``."""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator

from benchmarks.figures import Figure, line
from benchmarks.turns import environment
from flows.forms.form import parse
from flows.forms.text_384_to_1536 import Text384To1536
from tasks.begin import begin
from tasks.embedders.openai.server import PROBES
from tasks.stores.postgres import embedded
from tasks.stores.postgres.connection import connect
from tests.helpers.live_table import Table
from tests.helpers.openai_server import OpenAIServer, openai_server

MODEL = "openai/text-embedding-3-small"
REQUESTS = 300
"""A minute."""
SECONDS = 100


def together(url: str, processes: int) -> Iterator[Figure]:
    """Processes that buy texts for one run, as on several machines, where requests are what is short."""
    with openai_server(max_inputs=20, delay=0.3) as server, tempfile.TemporaryDirectory() as home:
        server.limit(REQUESTS, 10_000_000)
        variables = {"DATABASE_URL": url, "VECFERRY_HOME": home, "OPENAI_API_KEY": "sk-bench"}
        with environment(**variables, OPENAI_BASE_URL=server.base_url), connect(url, "benchmark") as connection:
            connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
            connection.execute("DROP TABLE IF EXISTS docs CASCADE")
            connection.execute("DROP FUNCTION IF EXISTS match_docs")
            connection.execute("DROP SCHEMA IF EXISTS vecferry CASCADE")
            Table(connection, rows=1)
            form = parse(Text384To1536, {"targets": [{"table": "docs", "text": "content"}], "embedder": MODEL})
            name = f"together-{time.time_ns()}"
            begin(form.request(), name, form.given())
            each = server.max_inputs * int(REQUESTS * (1 + SECONDS / 60)) // processes
            running = [
                subprocess.Popen(
                    [sys.executable, "-m", "tests.helpers.buyer", name, str(at * each), str((at + 1) * each)],
                    env=dict(os.environ),
                    stdout=subprocess.DEVNULL,
                )
                for at in range(processes)
            ]
            if any(process.wait() for process in running):
                raise SystemExit("a process failed")
        yield from _used(server, processes)


def _used(server: OpenAIServer, processes: int) -> Iterator[Figure]:
    """Of what was there while all had work: a minute's worth when the first had looked around, and what came back."""
    calls = sorted((c for c in server.answered() if PROBES[0] not in c.inputs), key=lambda call: call.at)
    first, last = calls[0].at, min(calls[-1].at, calls[0].at + SECONDS - 10)
    within = [call for call in calls if call.at <= last]
    there = REQUESTS * (1 + (last - first) / 60)
    refused = server.answered(429)
    late = sum(call.at > first + 60 for call in refused)
    note = f"{len(within)} of {there:.0f} in {last - first:.0f} s; {len(refused)} answers of 429 in all"
    yield Figure(f"use of the rate by {processes} processes", REQUESTS, 100 * len(within) / there, 95, "≥", " %", note)
    yield Figure(f"429s after the first minute, {processes} processes", REQUESTS, late, 0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("processes", type=int, nargs="*", default=[1, 2, 3])
    with tempfile.TemporaryDirectory() as home:
        url = embedded.url(home)
        try:
            for processes in parser.parse_args().processes:
                for figure in together(url, processes):
                    print(line(figure), flush=True)
        finally:
            embedded.close()


if __name__ == "__main__":
    main()
