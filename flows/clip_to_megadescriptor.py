"""The images of a live PostgreSQL table get vectors of another model beside the old ones, and are switched without downtime."""

from prefect import State, flow

from flows.forms.clip_to_megadescriptor import ClipToMegadescriptor
from flows.forms.form import form
from flows.migrate import migrate
from flows.naming import RUNNER, run_name
from flows.outcome import Result
from flows.snapshot import snapshot


@flow(name="clip-to-megadescriptor", flow_run_name=run_name, task_runner=RUNNER, validate_parameters=False)
@form(ClipToMegadescriptor)
def clip_to_megadescriptor(parameters: ClipToMegadescriptor) -> State[Result]:
    """Move the images of a live table onto another model: expand, re-embed, index, catch up, verify, switch column and functions."""
    return migrate(parameters)


@flow(name="snapshot-clip-to-megadescriptor", flow_run_name=run_name, task_runner=RUNNER, validate_parameters=False)
@form(ClipToMegadescriptor)
def snapshot_clip_to_megadescriptor(parameters: ClipToMegadescriptor) -> State[Result]:
    """Back up the keys, image references and old vectors of a live table as Parquet with checksums and a manifest; the table
    is not touched."""
    return snapshot(parameters)
