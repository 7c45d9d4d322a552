"""ChromaDB collections become PostgreSQL tables with pgvector."""

from prefect import State, flow

from flows.forms.chroma_to_pgvector import ChromaToPgvector
from flows.forms.form import form
from flows.migrate import migrate
from flows.naming import RUNNER, run_name
from flows.outcome import Result
from flows.snapshot import snapshot


@flow(name="chroma-to-pgvector", flow_run_name=run_name, task_runner=RUNNER, validate_parameters=False)
@form(ChromaToPgvector)
def chroma_to_pgvector(parameters: ChromaToPgvector) -> State[Result]:
    """Move ChromaDB collections into PostgreSQL with pgvector: snapshot, load, index, catch up, verify, cut over."""
    return migrate(parameters)


@flow(name="snapshot-chroma-to-pgvector", flow_run_name=run_name, task_runner=RUNNER, validate_parameters=False)
@form(ChromaToPgvector)
def snapshot_chroma_to_pgvector(parameters: ChromaToPgvector) -> State[Result]:
    """Back up ChromaDB collections as Parquet with checksums and a manifest; no table is made."""
    return snapshot(parameters)
