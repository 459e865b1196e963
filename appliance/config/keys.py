"""What keys a configuration has: read from the Structs themselves, so that no second list can differ.

A key's unit is in its name, its range and description are in its `msgspec.Meta`, and whether it is a path on disk is said by
`Meta(extra={"path": True})` or by a name that ends in `_dir`, `_path` or `_file`.
"""

import types
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import msgspec
from msgspec import NODEFAULT, Meta, Struct
from msgspec.structs import FieldInfo

PATH_SUFFIXES = ("_dir", "_path", "_file")
_UNITS = {
    "_s": "seconds",
    "_ms": "milliseconds",
    "_days": "days",
    "_bytes": "bytes",
    "_mib": "MiB",
    "_gib": "GiB",
    "_tokens": "tokens",
    "_pages": "pages",
    "_per_minute": "per minute",
    "_per_second": "per second",
    "_fraction": "fraction of 1",
}
_BOUNDS = (("ge", "at least"), ("gt", "more than"), ("le", "at most"), ("lt", "less than"))


@dataclass(frozen=True)
class Key:
    """One key of the configuration.

    Attributes:
        path: as TOML users write it; an entry of an array of tables is `engines[].name`.
        kind: the type in words, with its range.
        default: what stands when the file does not say; `NODEFAULT` when it must.
        unit: empty where the name carries none.
    """

    path: str
    kind: str
    default: Any
    unit: str
    description: str


def metas_of(annotation: Any) -> list[Meta]:
    """The `Meta`s of an annotation, the outermost last (`Annotated` flattens nested ones in this order)."""
    if get_origin(annotation) is Annotated:
        return [meta for meta in annotation.__metadata__ if isinstance(meta, Meta)]
    return []


def bare(annotation: Any) -> Any:
    """The annotation without its `Annotated`."""
    return get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation


def alternatives(annotation: Any) -> tuple[Any, ...]:
    """The members of a union, or the type alone."""
    plain = bare(annotation)
    return get_args(plain) if get_origin(plain) in (Union, types.UnionType) else (plain,)


def table_type(annotation: Any) -> type[Struct] | None:
    """The Struct that a key holds as a table, if it does (`T` or `T | None`)."""
    for choice in alternatives(annotation):
        plain = bare(choice)
        if isinstance(plain, type) and issubclass(plain, Struct):
            return plain
    return None


def array_type(annotation: Any) -> type[Struct] | None:
    """The Struct of an array of tables, if the key is one."""
    for choice in alternatives(annotation):
        plain = bare(choice)
        if get_origin(plain) in (list, tuple):
            return table_type(get_args(plain)[0])
    return None


def is_path(field: FieldInfo) -> bool:
    """Whether the key's text is a path, which is then resolved from the file's folder."""
    said = [meta.extra["path"] for meta in metas_of(field.type) if meta.extra and "path" in meta.extra]
    return bool(said[-1]) if said else field.encode_name.endswith(PATH_SUFFIXES)


def is_secret(field: FieldInfo) -> bool:
    """Whether the key's value must not be repeated in messages: `Meta(extra={"secret": True})`."""
    return any(meta.extra and meta.extra.get("secret") for meta in metas_of(field.type))


def default_of(field: FieldInfo) -> Any:
    """The value when the file does not name the key; `NODEFAULT` where it must."""
    return field.default_factory() if field.default_factory is not NODEFAULT else field.default


def unit_of(name: str) -> str:
    """The unit that a name carries, in words."""
    if name.startswith("num_"):
        return name.removeprefix("num_").replace("_", " ")
    longest_first = sorted(_UNITS, key=len, reverse=True)
    return next((_UNITS[suffix] for suffix in longest_first if name.endswith(suffix)), "")


def walk_keys(struct: type[Struct], prefix: str = "") -> Iterator[Key]:
    """Every key of a Struct and of the tables in it, in the order of their definition."""
    for field in msgspec.structs.fields(struct):
        path = prefix + field.encode_name
        if table := table_type(field.type):
            yield from walk_keys(table, path + ".")
        elif entry := array_type(field.type):
            yield from walk_keys(entry, path + "[].")
        else:
            yield Key(
                path, describe_type(field.type), default_of(field), unit_of(field.encode_name), _description(field)
            )


def describe_type(annotation: Any) -> str:
    """A type in words with its range: `integer, at least 1, at most 65535`."""
    words = " or ".join(_type_words(bare(choice)) for choice in alternatives(annotation) if choice is not type(None))
    metas = [meta for part in (annotation, *alternatives(annotation)) for meta in metas_of(part)]
    return ", ".join([words, *dict.fromkeys(limit for meta in metas for limit in _limits(meta))])


def _type_words(plain: Any) -> str:
    names = {str: "text", int: "integer", float: "number", bool: "true or false"}
    if get_origin(plain) is Literal:
        return " or ".join(f'"{choice}"' if isinstance(choice, str) else str(choice) for choice in get_args(plain))
    if get_origin(plain) in (list, tuple, frozenset, set):
        return f"list of {describe_type(get_args(plain)[0])}"
    if get_origin(plain) is dict:
        return f"table of {describe_type(get_args(plain)[1])}"
    return names.get(plain, str(getattr(plain, "__name__", plain)))


def _limits(meta: Meta) -> Iterator[str]:
    if meta.ge is not None and meta.le is not None:
        yield f"from {meta.ge} to {meta.le}"
    else:
        yield from (f"{words} {getattr(meta, name)}" for name, words in _BOUNDS if getattr(meta, name) is not None)
    if meta.multiple_of is not None:
        yield f"a multiple of {meta.multiple_of}"
    if meta.min_length is not None and meta.max_length is not None:
        yield f"length {meta.min_length} to {meta.max_length}"
    elif meta.min_length is not None:
        yield f"length at least {meta.min_length}"
    elif meta.max_length is not None:
        yield f"length at most {meta.max_length}"
    if meta.pattern is not None:
        yield f"matching `{meta.pattern}`"


def _description(field: FieldInfo) -> str:
    described = [meta.description for meta in metas_of(field.type) if meta.description]
    return described[-1] if described else ""
