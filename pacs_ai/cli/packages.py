"""Are ``listener`` and ``worker`` ours? Their names are common, and another package may stand before them."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pacs_ai
from pacs_ai.errors import ConfigError, Fault

_FACES = ("listener", "worker")


def strangers() -> Iterator[Fault]:
    """Yield a fault for each face that Python would import from elsewhere than beside ``pacs_ai``.

    Nothing of it is imported, since that would run it.
    """
    home = Path(pacs_ai.__file__).resolve().parents[1]
    for name in _FACES:
        found = find_spec(name)
        where = Path(found.origin).resolve() if found is not None and found.origin else None
        if where is None or where.parents[1] != home:
            yield Fault(
                f"the package {name!r} that Python finds ({where or 'nowhere'}) is not the one "
                f"beside pacs_ai ({home}): remove the other from the environment"
            )


def refuse_strangers() -> None:
    """Start nothing while a face is not ours.

    Raises
    ------
    ConfigError
        When another package stands in the place of ``listener`` or ``worker``.
    """
    faults = [*strangers()]
    if faults:
        raise ConfigError(faults)
