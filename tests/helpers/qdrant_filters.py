"""Qdrant's filters, JSON, as its segment engine takes them."""

from typing import Any

import qdrant_edge as edge

JSON = dict[str, Any]


def filter_of(wanted: JSON | None) -> edge.Filter | None:
    """The engine's filter; None where none is asked for."""
    if wanted is None:
        return None
    least = wanted.get("min_should")
    return edge.Filter(
        must=conditions(wanted.get("must")),
        should=conditions(wanted.get("should")),
        must_not=conditions(wanted.get("must_not")),
        min_should=least and edge.MinShould(conditions(least["conditions"]) or [], least["min_count"]),
    )


def conditions(wanted: Any) -> list[Any] | None:
    if wanted is None:
        return None
    return [condition(one) for one in (wanted if isinstance(wanted, list) else [wanted])]


def condition(wanted: JSON) -> Any:
    """One condition. Raises NotImplementedError for one that the engine does not know."""
    match wanted:
        case {"has_id": ids}:
            return edge.HasIdCondition(set(ids))
        case {"has_vector": name}:
            return edge.HasVectorCondition(name)
        case {"nested": {"key": key, "filter": inner}}:
            return edge.NestedCondition(key, filter_of(inner))
        case {"key": _}:
            return field(wanted)
        case {"is_empty": {"key": key}}:
            return edge.IsEmptyCondition(key)
        case {"is_null": {"key": key}}:
            return edge.IsNullCondition(key)
        case {"slice": _}:
            raise NotImplementedError("slice")
    return filter_of(wanted)


def field(wanted: JSON) -> edge.FieldCondition:
    box, radius, polygon = (wanted.get(f"geo_{shape}") for shape in ("bounding_box", "radius", "polygon"))
    count = wanted.get("values_count")
    return edge.FieldCondition(
        wanted["key"],
        match=match_of(wanted["match"]) if wanted.get("match") else None,
        range=range_of(wanted["range"]) if wanted.get("range") else None,
        geo_bounding_box=box and edge.GeoBoundingBox(geo(box["top_left"]), geo(box["bottom_right"])),
        geo_radius=radius and edge.GeoRadius(geo(radius["center"]), radius["radius"]),
        geo_polygon=polygon
        and edge.GeoPolygon(ring(polygon["exterior"]), [ring(one) for one in polygon.get("interiors") or []]),
        values_count=count and edge.ValuesCount(**count),
        is_empty=wanted.get("is_empty"),
        is_null=wanted.get("is_null"),
    )


def match_of(wanted: JSON) -> Any:
    kind, value = next(iter(wanted.items()))
    return {
        "value": edge.MatchValue,
        "text": edge.MatchText,
        "text_any": edge.MatchTextAny,
        "phrase": edge.MatchPhrase,
        "prefix": edge.MatchPrefix,
        "substring": edge.MatchSubstring,
        "any": edge.MatchAny,
        "except": edge.MatchExcept,
    }[kind](value)


def range_of(wanted: JSON) -> Any:
    dates = any(isinstance(value, str) for value in wanted.values())
    return (edge.RangeDateTime if dates else edge.RangeFloat)(**wanted)


def ring(wanted: JSON) -> list[edge.GeoPoint]:
    return [geo(point) for point in wanted["points"]]


def geo(point: JSON) -> edge.GeoPoint:
    return edge.GeoPoint(point["lon"], point["lat"])
