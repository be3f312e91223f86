"""An example of a JSON Schema: what data of a type looks like, where nobody has given a sample."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

Schema = Mapping[str, Any]

FORMATS = {
    "date-time": "2026-11-24T08:00:00Z",
    "date": "2026-11-24",
    "time": "08:00:00Z",
    "uuid": "0b8d3c5e-5b3f-4c57-9d4c-2f1a7c0e9a11",
    "duration": "PT1H",
}
DEPTH = 12


def example(schema: Schema) -> Any:
    """A value that fits: every member that the schema names, with its default or the simplest value of its type."""
    return _value(schema, schema.get("$defs", {}), DEPTH)


def _value(schema: Schema, defs: Mapping[str, Schema], depth: int) -> Any:
    if "$ref" in schema:
        return _value(defs.get(str(schema["$ref"]).rpartition("/")[2], {}), defs, depth - 1)
    for choices in ("examples", "enum"):
        if schema.get(choices):
            return schema[choices][0]
    if "const" in schema:
        return schema["const"]
    if schema.get("default") is not None:
        return schema["default"]
    for choices in ("anyOf", "oneOf", "allOf"):
        if choices in schema:
            return _value(_first(schema[choices], depth), defs, depth)
    return _of_type(schema, defs, depth)


def _first(choices: list[Schema], depth: int) -> Schema:
    """The first that is something; what leads on and on ends with null."""
    ends = [choice for choice in choices if choice.get("type") == "null"]
    return ends[0] if ends and depth <= 0 else next((choice for choice in choices if choice not in ends), choices[0])


def _of_type(schema: Schema, defs: Mapping[str, Schema], depth: int) -> Any:
    match cast(str | None, schema.get("type")):
        case "object":
            named = {
                name: member for name, member in schema.get("properties", {}).items() if depth > 0 or name in schema.get("required", ())
            }
            return {name: _value(member, defs, depth - 1) for name, member in named.items()} if depth > -DEPTH else {}
        case "array":
            items = schema.get("prefixItems", [schema["items"]] if isinstance(schema.get("items"), Mapping) else [])
            return [_value(item, defs, depth - 1) for item in items] if depth > 0 else []
        case "string":
            return FORMATS.get(schema.get("format", ""), "text")
        case "integer" | "number":
            return max(schema.get("minimum", 0), 0)
        case "boolean":
            return False
        case _:
            return None
