"""``--config``: settings from a TOML file, by the names of the flags; and ``--print-config``, where each came from."""

import difflib
import tomllib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec


class ConfigError(ValueError):
    """A file of settings that cannot be used; the message names it, and what is wrong in it."""


def read_config(path: str, known: Collection[str]) -> dict[str, Any]:
    """Setting → value of a file whose names may have ``-`` or ``_``; raises ConfigError."""
    try:
        content = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ConfigError(f"the file of settings {path} cannot be read: {reason}") from error
    values: dict[str, Any] = {}
    for key, value in content.items():
        name = key.replace("-", "_")
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0].replace('_', '-')}?" if near else "see --help"
            raise ConfigError(f"{path}: {key} is not a setting; {hint}")
        if name in values:
            raise ConfigError(f"{path}: {key} is there twice, with - and with _")
        if not isinstance(value, str | bool | int | float):
            raise ConfigError(f"{path}: {key} must be a text, a number, true or false")
        values[name] = value
    return values


def format_config(values: Mapping[str, Any], origins: Mapping[str, str]) -> str:
    """All settings as such a file, each with where it came from; passwords in addresses are left out."""
    lines = []
    for name, value in values.items():
        key = name.replace("_", "-")
        shown = f"# {key} is not set" if value is None else f"{key} = {_toml(value)}"
        lines.append(f"{shown}  # {origins.get(name, 'default')}" if value is not None else shown)
    return "\n".join(lines) + "\n"


def _toml(value: Any) -> str:
    if isinstance(value, str) and "://" in value and (password := urlsplit(value).password):
        value = value.replace(f":{password}@", ":…@", 1)
    # Texts, numbers, true and false are written in TOML as in JSON.
    return msgspec.json.encode(value).decode()
