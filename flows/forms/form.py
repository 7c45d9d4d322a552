"""From a model of parameters to Prefect's form, and from what a person gave to the model, with errors that name the parameter."""

import inspect
from collections.abc import Callable, Iterator
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from flows import schedule_overrides
from flows.command import fields, interrupt
from tasks.base.errors import UsageError
from tasks.base.settings import refuse_secrets
from tasks.runs.names import check_run_id

M = TypeVar("M", bound=BaseModel)


def changed(parameters: BaseModel) -> set[str]:
    """Fields that differ from their default. Prefect hands over every field, so being set says nothing."""
    return {
        name
        for name, field in type(parameters).model_fields.items()
        if getattr(parameters, name) != field.get_default(call_default_factory=True)
    }


def parse(model: type[M], values: dict[str, Any]) -> M:
    """The parameters, checked. Raises UsageError naming the parameter, what is wrong and what there is."""
    refuse_secrets(values)
    try:
        parameters = model.model_validate(values)
    except ValidationError as error:
        raise UsageError("; ".join(_explain(model, e) for e in _told(model, error.errors()))) from error
    if (run_id := getattr(parameters, "run_id", None)) is not None:
        check_run_id(run_id)
    if getattr(parameters, "batch_ids", None) == []:
        raise UsageError("batch_ids is empty: name the batches to rerun, or leave the parameter out for all")
    return parameters


def form(
    model: type[M], complete: Callable[[M], M] = lambda given: given
) -> Callable[[Callable[[M], Any]], Callable[..., Any]]:
    """Gives a flow body one keyword for every field of ``model``, with its help, so that Prefect shows them as a form.
    ``complete`` finds out what was left open."""

    def decorate(body: Callable[[M], Any]) -> Callable[..., Any]:
        def flow_function(**values: Any) -> Any:
            plain = {k: v.model_dump(exclude_unset=True) if isinstance(v, BaseModel) else v for k, v in values.items()}
            try:
                with interrupt.in_flow_run():
                    return body(complete(parse(model, schedule_overrides.effective(plain))))
            except UsageError as error:
                raise _with_place(error) from None  # one traceback in the log, not three

        shown = {model.model_fields[name].alias or name: model.model_fields[name] for name in fields.in_order(model)}
        flow_function.__name__, flow_function.__module__ = body.__name__, body.__module__
        flow_function.__doc__ = "\n".join(
            [inspect.getdoc(body) or "", "", "Args:", *(f"    {n}: {f.description}" for n, f in shown.items())]
        )
        flow_function.__signature__ = _FormSignature(  # type: ignore[attr-defined]
            [
                inspect.Parameter(
                    name,
                    inspect.Parameter.KEYWORD_ONLY,
                    default=_default(field),
                    annotation=Annotated[(field.annotation, *field.metadata)] if field.metadata else field.annotation,
                )
                for name, field in shown.items()
            ]
        )
        return flow_function

    return decorate


class _FormSignature(inspect.Signature):
    """Prefect binds the parameters before a flow run has begun, and one that is missing would end the process there, and
    the run as crashed without a word. It is let through, and ``parse`` says what is missing."""

    def bind(self, *args: Any, **kwargs: Any) -> inspect.BoundArguments:
        return self.bind_partial(*args, **kwargs)


def _with_place(error: UsageError) -> UsageError:
    """The error, with where the parameters of a scheduled run are set."""
    from flows.naming import place_of_parameters

    place = place_of_parameters()
    ended = str(error) if str(error).endswith((".", "?")) else f"{error}."
    return UsageError(f"{ended} {place}") if place else error


def _default(field: FieldInfo) -> Any:
    return inspect.Parameter.empty if field.is_required() else field.get_default()


def _told(model: type[BaseModel], errors: list[Any]) -> Iterator[Any]:
    """The errors, without the names of alternatives that pydantic puts into their paths. Of a field that takes a plain value or a
    model only the errors of what was given: of the model where it was one."""
    paths = [(error, *fields.without_alternative(model, error["loc"])) for error in errors]
    models = {path[0] for error, path, kind in paths if kind == "model" and len(path) > 1}
    for error, path, kind in paths:
        if kind is None or (kind == "model") == (path[0] in models):
            yield {**error, "loc": path}


def _explain(model: type[BaseModel], error: Any) -> str:
    path = error["loc"]
    where = ".".join(map(str, path))
    if error["type"] == "extra_forbidden":
        return f"unknown parameter {where!r}{_instead(model, path)}"
    if error["type"] in ("model_type", "model_attributes_type") and (holder := fields.at(model, (*path, ""))):
        keys = ", ".join(f"{where}.{name}" for name in fields.names(holder))
        return f"parameter {where} has keys of its own: {keys}; got {error['input']!r}"
    if error["type"] == "missing":
        field = model.model_fields.get(where)
        return f"parameter {where} is missing" + (f": {field.description}" if field else "")
    return f"parameter {where or model.__name__}: {error['msg'].removeprefix('Value error, ')}, got {error['input']!r}"


def _instead(model: type[BaseModel], path: tuple[str | int, ...]) -> str:
    near = fields.nearest(model, path)
    holder = fields.at(model, path) or model
    before = "".join(f"{part}." for part in path[:-1]) if holder is not model else ""
    known = f"The parameters are {', '.join(before + name for name in fields.names(holder))}"
    return f": did you mean {near}? {known}" if near else f". {known}"
