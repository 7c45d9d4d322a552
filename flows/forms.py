"""From a model of parameters to Prefect's form, and from what a person gave to the model, with errors that name the parameter."""

import inspect
from collections.abc import Callable
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from flows import interrupt
from tasks.errors import UsageError
from tasks.plan import check_run_id
from tasks.settings import refuse_secrets

M = TypeVar("M", bound=BaseModel)


def changed(parameters: BaseModel) -> set[str]:
    """Fields that differ from their default. Prefect hands over every field, so being set says nothing."""
    fields = type(parameters).model_fields
    return {
        name
        for name, field in fields.items()
        if getattr(parameters, name) != field.get_default(call_default_factory=True)
    }


def parse(model: type[M], values: dict[str, Any]) -> M:
    """The parameters, checked. Raises UsageError naming the parameter, what is wrong and what there is."""
    refuse_secrets(values)
    try:
        parameters = model.model_validate(values)
    except ValidationError as error:
        raise UsageError("; ".join(_explain(model, e) for e in error.errors())) from error
    if (run_id := getattr(parameters, "run_id", None)) is not None:
        check_run_id(run_id)
    if getattr(parameters, "batch_ids", None) == []:
        raise UsageError("batch_ids is empty: name the batches to rerun, or leave the parameter out for all")
    return parameters


def form(model: type[M]) -> Callable[[Callable[[M], Any]], Callable[..., Any]]:
    """Gives a flow body one keyword for every field of ``model``, with its help, so that Prefect shows them as a form."""

    def decorate(body: Callable[[M], Any]) -> Callable[..., Any]:
        def flow_function(**values: Any) -> Any:
            plain = {k: v.model_dump(exclude_unset=True) if isinstance(v, BaseModel) else v for k, v in values.items()}
            with interrupt.in_flow_run():
                return body(parse(model, plain))

        fields = {model.model_fields[name].alias or name: model.model_fields[name] for name in _in_order(model)}
        flow_function.__name__, flow_function.__module__ = body.__name__, body.__module__
        flow_function.__doc__ = "\n".join(
            [inspect.getdoc(body) or "", "", "Args:", *(f"    {n}: {f.description}" for n, f in fields.items())]
        )
        flow_function.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
            [
                inspect.Parameter(
                    name,
                    inspect.Parameter.KEYWORD_ONLY,
                    default=_default(field),
                    annotation=Annotated[(field.annotation, *field.metadata)] if field.metadata else field.annotation,
                )
                for name, field in fields.items()
            ]
        )
        return flow_function

    return decorate


def _in_order(model: type[BaseModel]) -> list[str]:
    """The fields as a person fills them in: what must be given, then what is special to the flow, then what all have."""
    depth = {
        name: i for i, base in reversed([*enumerate(model.__mro__)]) for name in vars(base).get("__annotations__", {})
    }
    fields = model.model_fields
    return sorted(fields, key=lambda name: 0 if fields[name].is_required() else 1 + depth[name])


def _default(field: FieldInfo) -> Any:
    return inspect.Parameter.empty if field.is_required() else field.get_default()


def _explain(model: type[BaseModel], error: Any) -> str:
    where = ".".join(map(str, error["loc"]))
    if error["type"] == "extra_forbidden":
        known = sorted(field.alias or name for name, field in model.model_fields.items())
        return f"there is no parameter {where!r}; there are: {', '.join(known)}"
    return f"parameter {where or model.__name__}: {error['msg'].removeprefix('Value error, ')}, got {error['input']!r}"
