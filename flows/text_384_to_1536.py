"""Live PostgreSQL tables get vectors of another model beside the old ones, and are switched without downtime."""

from prefect import State, flow

from flows.forms.form import form
from flows.forms.text_384_to_1536 import Text384To1536
from flows.migrate import migrate
from flows.naming import RUNNER, run_name
from flows.outcome import Result
from flows.snapshot import snapshot


@flow(name="text-384-to-1536", flow_run_name=run_name, task_runner=RUNNER, validate_parameters=False)
@form(Text384To1536)
def text_384_to_1536(parameters: Text384To1536) -> State[Result]:
    """Move live tables onto another text model: expand, re-embed, index, catch up, verify, switch the search functions."""
    return migrate(parameters)


@flow(name="snapshot-text-384-to-1536", flow_run_name=run_name, task_runner=RUNNER, validate_parameters=False)
@form(Text384To1536)
def snapshot_text_384_to_1536(parameters: Text384To1536) -> State[Result]:
    """Back up the keys, texts and old vectors of live tables as Parquet with checksums and a manifest; the tables are not
    touched."""
    return snapshot(parameters)
