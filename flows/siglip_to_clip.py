"""A Qdrant collection gets vectors of another model, images and texts in one space, and its readers are switched at once."""

from prefect import State, flow

from flows.forms.form import form
from flows.forms.siglip_to_clip import SiglipToClip
from flows.migrate import migrate
from flows.naming import RUNNER, run_name
from flows.outcome import Result
from flows.snapshot import snapshot


@flow(name="siglip-to-clip", flow_run_name=run_name, task_runner=RUNNER, validate_parameters=False)
@form(SiglipToClip)
def siglip_to_clip(parameters: SiglipToClip) -> State[Result]:
    """Move a Qdrant collection onto another model: snapshot, re-embed, index, catch up, verify, switch vector, alias or name."""
    return migrate(parameters)


@flow(name="snapshot-siglip-to-clip", flow_run_name=run_name, task_runner=RUNNER, validate_parameters=False)
@form(SiglipToClip)
def snapshot_siglip_to_clip(parameters: SiglipToClip) -> State[Result]:
    """Back up a Qdrant collection, with payloads and all vectors, as Parquet with checksums and a manifest; the collection is not
    touched."""
    return snapshot(parameters)
