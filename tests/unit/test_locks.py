"""The locks hold all that Debian's own Python needs: pip refuses a lock with hashes that lacks something."""

from __future__ import annotations

import re
from importlib.metadata import distribution
from pathlib import Path

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

DEBIAN_12 = "3.11.2"
LOCKS = Path("requirements")


def locked(name: str) -> dict[str, set[str]]:
    """Return the extras of every distribution in a lock, by canonical name."""
    rows = re.findall(r"^([\w.-]+)(?:\[([\w,-]+)\])?==", (LOCKS / name).read_text(), re.MULTILINE)
    return {canonicalize_name(one): set(filter(None, extras.split(","))) for one, extras in rows}


@pytest.mark.parametrize("name", ["run.txt", "test.txt"])
def test_a_lock_lacks_nothing_that_debians_python_needs(name: str) -> None:
    held = locked(name)
    environment = default_environment() | {"python_full_version": DEBIAN_12}
    lacking = []
    for one in sorted(held.keys() - {"pip", "setuptools"}):
        for line in distribution(one).requires or ():
            wanted = Requirement(line)
            applies = wanted.marker is None or wanted.marker.evaluate(environment | {"extra": ""})
            if applies and canonicalize_name(wanted.name) not in held:
                lacking.append(f"{wanted.name}, which {one} needs")
    assert len(held) > 50
    assert lacking == []
