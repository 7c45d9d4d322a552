"""The fields of a form, as ``-p`` names them: one walk over its models, for lists, for help and for what was misspelt."""

import json
import types
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

WORDS: dict[Any, str] = {str: "text", int: "integer", float: "number", bool: "true or false"}


@dataclass(frozen=True)
class Parameter:
    """One parameter: ``chroma.path``, or ``targets[].table`` of each entry of a list."""

    name: str
    type: str
    required: bool
    default: Any
    """None where there is none."""
    help: str


def parameters(model: type[BaseModel], prefix: str = "", may_be_left_out: bool = False) -> Iterator[Parameter]:
    """Every parameter of a form, in the order of its fields; of a nested model the fields, of a list of models both, as of a model
    that a plain value may stand for. None of a model that ``may_be_left_out`` as a whole is required."""
    for name in in_order(model):
        field = model.model_fields[name]
        key = prefix + (field.alias or name)
        nested, in_list = _nested(field.annotation)
        if nested is None or in_list or _plain_too(field.annotation):
            default = None if field.is_required() else _plain(field.get_default(call_default_factory=True))
            required = field.is_required() and not may_be_left_out
            yield Parameter(key, _type(field), required, default, field.description or "")
        if nested is not None:
            left_out = not field.is_required() and field.get_default(call_default_factory=True) is None
            yield from parameters(nested, f"{key}[]." if in_list else f"{key}.", left_out)


def in_order(model: type[BaseModel]) -> list[str]:
    """The fields as a person fills them in: what must be given, then what is special to the flow, then what all have."""
    depth = {
        name: i for i, base in reversed([*enumerate(model.__mro__)]) for name in vars(base).get("__annotations__", {})
    }
    fields = model.model_fields
    return sorted(fields, key=lambda name: 0 if fields[name].is_required() else 1 + depth[name])


def at(model: type[BaseModel], path: Sequence[str | int]) -> type[BaseModel] | None:
    """The model that holds the field which ``path`` leads to; None when no model does."""
    holder: type[BaseModel] | None = model
    for part in path[:-1]:
        if isinstance(part, int):  # an entry of a list has the list's model
            continue
        fields = {} if holder is None else {field.alias or n: field for n, field in holder.model_fields.items()}
        holder = _nested(fields[part].annotation)[0] if part in fields else None
    return holder


def names(model: type[BaseModel]) -> list[str]:
    """The names of a model's own fields, as a user writes them."""
    return sorted(field.alias or name for name, field in model.model_fields.items())


def nearest(model: type[BaseModel], path: Sequence[str | int]) -> str | None:
    """The parameter that ``path``, which leads to none, may have meant."""
    holder, wrong, before = at(model, path), str(path[-1]), "".join(f"{part}." for part in path[:-1])
    if holder and (near := get_close_matches(wrong, names(holder), n=1)):
        return before + near[0]
    if before:
        return None
    # A name of a nested model without that model's: min_recall for gates.min_recall.
    dotted = {p.name.rpartition(".")[2]: p.name for p in parameters(model) if "." in p.name and "[]" not in p.name}
    return dotted[near[0]] if (near := get_close_matches(wrong, dotted, n=1, cutoff=0.8)) else None


def _nested(annotation: Any) -> tuple[type[BaseModel] | None, bool]:
    """The model in an annotation, and whether it is that of a list's entries."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation, False
    for part in get_args(annotation):
        model, in_list = _nested(part)
        if model is not None:
            return model, in_list or get_origin(annotation) is list
    return None, False


def without_alternative(
    model: type[BaseModel], path: tuple[str | int, ...]
) -> tuple[tuple[str | int, ...], Literal["plain", "model"] | None]:
    """The path of an error without the name of the alternative, of a field that takes a plain value or a model; and which it is."""
    by_alias = {field.alias or name: field for name, field in model.model_fields.items()}
    field = by_alias.get(str(path[0])) if path else None
    if field is None or len(path) < 2:
        return path, None
    nested, in_list = _nested(field.annotation)
    if not _plain_too(field.annotation):
        if nested is None or in_list:
            return path, None
        below, of_below = without_alternative(nested, path[1:])
        return (path[0], *below), of_below
    kind: Literal["plain", "model"] = "model" if nested and path[1] == nested.__name__ else "plain"
    return (path[0], *path[2:]), kind


def _plain_too(annotation: Any) -> bool:
    """Whether a field takes a plain value in place of a nested model."""
    kinds = set(get_args(annotation)) - {type(None)} if get_origin(annotation) in (Union, types.UnionType) else set()
    return len(kinds) > 1


def _type(field: FieldInfo) -> str:
    bounds = {b: v for b in ("ge", "gt", "le", "lt") for m in field.metadata if (v := getattr(m, b, None)) is not None}
    if {"ge", "le"} <= bounds.keys():
        return f"{_word(field.annotation)}, {bounds['ge']:g} to {bounds['le']:g}"
    signs = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
    return ", ".join([_word(field.annotation), *(f"{signs[b]} {value:g}" for b, value in bounds.items())])


def _word(annotation: Any) -> str:
    origin, parts = get_origin(annotation), [a for a in get_args(annotation) if a is not type(None)]
    if origin is Literal:
        return " | ".join(str(p) for p in parts)
    if origin in (Union, types.UnionType):
        return " or ".join(_word(p) for p in parts)
    if origin is list:
        return f"[{_word(parts[0])}, …]"
    if origin is dict:
        return f"{{{_word(parts[0])}: {_word(parts[1])}, …}}"
    if hasattr(annotation, "__metadata__"):  # Annotated
        return _word(parts[0])
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return f"{{{', '.join(field.alias or name for name, field in annotation.model_fields.items())}}}"
    return WORDS.get(annotation, str(annotation))


def _plain(value: Any) -> Any:
    """What JSON can hold."""
    return json.loads(json.dumps(value, default=lambda model: model.model_dump(exclude_defaults=True)))
