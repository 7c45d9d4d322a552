"""Numbers with any decimals, in both interfaces of Prefect's."""

from typing import Annotated, Any

from pydantic import GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue


class _AnyDecimals:
    """Puts a number's schema into a ``oneOf``. The V1 interface gives a plain number a field that steps by 0.01 and saves
    nothing where one says 0.999; it does not know ``oneOf``, and takes JSON there. The V2 interface and the server read
    the number in it, with its bounds."""

    def __get_pydantic_json_schema__(self, schema: Any, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        made = handler(schema)
        return {"oneOf": made.pop("anyOf", [made])}


Number = Annotated[float, _AnyDecimals()]
"""Of every field that holds a float."""
OptionalNumber = Annotated[float | None, _AnyDecimals()]
