"""The documents of a database that serves several models get vectors of one more, and may be searched by it."""

from prefect import State, flow

from flows.forms.form import form
from flows.forms.multi_model import MultiModel
from flows.migrate import migrate
from flows.naming import RUNNER, run_name
from flows.outcome import Result
from flows.snapshot import snapshot


@flow(name="multi-model", flow_run_name=run_name, task_runner=RUNNER, validate_parameters=False)
@form(MultiModel)
def multi_model(parameters: MultiModel) -> State[Result]:
    """Give documents vectors of another registered model, all or some of them, and make that the default: re-embed, index, catch up,
    verify, switch. The model before stays searchable."""
    return migrate(parameters)


@flow(name="snapshot-multi-model", flow_run_name=run_name, task_runner=RUNNER, validate_parameters=False)
@form(MultiModel)
def snapshot_multi_model(parameters: MultiModel) -> State[Result]:
    """Back up the keys, texts and vectors of the source model as Parquet with checksums and a manifest; the tables are not touched."""
    return snapshot(parameters)
