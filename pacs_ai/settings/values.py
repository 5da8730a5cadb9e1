"""Values of settings: durations, sizes, AE titles, secrets; each read from text a person writes."""

from __future__ import annotations

import os
import re
import stat
from datetime import timedelta
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from pacs_ai.errors import ConfigError, Fault

_DURATION = re.compile(r"^(\d+(?:\.\d+)?)(ms|s|m|h|d)$")
_DURATION_UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}
_SIZE = re.compile(r"^(\d+(?:\.\d+)?)\s*(kB|MB|GB|TB|KiB|MiB|GiB|TiB|B)$")
_SIZE_UNITS = {
    **{"B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12},
    **{"KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40},
}
_AE_TITLE = re.compile(r"^(?=.*[^ ])[\x20-\x5b\x5d-\x7e]{1,16}$")


def parse_duration(value: object) -> timedelta:
    """Read ``60s``, ``2m``, ``48h``, ``7d`` (or ``500ms``) as a duration."""
    if isinstance(value, timedelta):
        return value
    found = _DURATION.match(str(value))
    if not found:
        raise ValueError("write a duration with its unit: 500ms, 60s, 2m, 48h or 7d")
    return timedelta(seconds=float(found[1]) * _DURATION_UNITS[found[2]])


def parse_size(value: object) -> int:
    """Read ``50MB`` or ``2GiB`` as a number of bytes."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    found = _SIZE.match(str(value))
    if not found:
        raise ValueError("write a size with its unit: 50MB, 4GiB")
    return int(float(found[1]) * _SIZE_UNITS[found[2]])


def _ae_title(value: str) -> str:
    if not _AE_TITLE.match(value):
        raise ValueError("an AE title has 1 to 16 printable characters and no backslash")
    return value.strip()


def _duration_or_off(value: object) -> timedelta | None:
    return None if value in ("off", False, None) else parse_duration(value)


Duration = Annotated[timedelta, BeforeValidator(parse_duration)]
DurationOrOff = Annotated[timedelta | None, BeforeValidator(_duration_or_off)]
Size = Annotated[int, BeforeValidator(parse_size)]
AETitle = Annotated[str, AfterValidator(_ae_title)]
Port = Annotated[int, Field(ge=1, le=65535)]


class Section(BaseModel):
    """A part of a settings file: frozen, and no key is taken that it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Secret(Section):
    """A key that lives in a file or an environment variable, never in the settings file.

    Written as ``file:/path/to/key`` or ``env:NAME``. Prints as ``***``.
    """

    reference: str

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, value: object) -> object:
        if isinstance(value, str):
            if not value.startswith(("file:", "env:")):
                raise ValueError("a key is given as file:PATH or env:NAME, never in this file")
            return {"reference": value}
        return value

    def read(self) -> str:
        """Return the key itself; read at each use, so that it can be rotated.

        Raises
        ------
        ConfigError
            When the file or variable is missing, empty or readable by everyone.
        """
        kind, _, name = self.reference.partition(":")
        if kind == "env":
            value = os.environ.get(name, "")
        else:
            path = Path(name)
            if not path.is_file():
                raise ConfigError([Fault(f"the key file {path} does not exist: create it")])
            if path.stat().st_mode & stat.S_IROTH:
                raise ConfigError([Fault(f"the key file {path} is world-readable: chmod 600 it")])
            value = path.read_text().strip()
        if not value:
            raise ConfigError([Fault(f"the key {self.reference} is empty: put the key there")])
        return value

    def __repr__(self) -> str:
        return "Secret(***)"

    __str__ = __repr__
