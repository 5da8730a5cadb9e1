"""A settings file as plain values that still know the lines they stand on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from pacs_ai.errors import ConfigError, Fault

_DEEPEST = 100

REQUIRED = "REQUIRED"
"""What a shipped file says where the site must fill in a value of its own."""


@dataclass(frozen=True, slots=True)
class Source:
    """A part of a settings file that another module parses, with the lines it stands on.

    Attributes
    ----------
    value : object
        Plain Python: mappings, lists, strings, numbers, booleans, None.
    file : Path or None
    lines : mapping of tuple to int
        Line (1-based) of each node, by its path from the file's root, e.g. ``("rules", 0, "when")``.
    path : tuple
        Where this part stands in the file, e.g. ``("rules",)``.
    """

    value: Any
    file: Path | None = None
    lines: Mapping[tuple[str | int, ...], int] = field(default_factory=dict, repr=False)
    path: tuple[str | int, ...] = ()

    def child(self, key: str | int) -> Source:
        """Return the part below this one at a key or index."""
        return Source(self.value[key], self.file, self.lines, (*self.path, key))

    def __iter__(self) -> Iterator[Source]:
        keys = range(len(self.value)) if isinstance(self.value, list) else list(self.value)
        return (self.child(key) for key in keys)

    def fault(self, message: str) -> Fault:
        """Return a fault at this place."""
        path = self.path
        while path and path not in self.lines:
            path = path[:-1]
        dotted = ".".join(str(part) for part in self.path)
        text = f"{dotted}: {message}" if dotted else message
        return Fault(text, self.file, self.lines.get(path))


def required(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Yield where a file still says REQUIRED."""
    if value == REQUIRED:
        yield path
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from required(item, (*path, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from required(item, (*path, index))


def parse_yaml(text: str, file: Path | None) -> Source:
    """Read YAML text; every key that stands twice is a fault.

    Raises
    ------
    ConfigError
        With every fault found.
    """
    lines: dict[tuple[str | int, ...], int] = {}
    faults: list[Fault] = []
    try:
        _refuse_depth(text)
        loader = yaml.CSafeLoader(text)
        node = loader.get_single_node()
        _walk(node, (), lines, faults, file)
        value = {} if faults or node is None else loader.construct_document(node)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else None
        raise ConfigError([Fault(f"not YAML: {error.problem}", file, line)]) from error
    except yaml.reader.ReaderError as error:
        line = text.encode()[: error.position].count(b"\n") + 1
        raise ConfigError(
            [Fault("not YAML: it has a control character: take it out", file, line)]
        ) from error
    except (RecursionError, TypeError, ValueError, AttributeError) as error:
        raise ConfigError(
            [Fault("not YAML: a key or a value of it cannot be read", file)]
        ) from error
    if not isinstance(value, dict):
        faults.append(Fault("a settings file is a mapping of sections", file, 1))
    if faults:
        raise ConfigError(faults)
    return Source(value, file, lines)


def _refuse_depth(text: str) -> None:
    """Refuse what is nested so deeply that libyaml, which composes by recursion, ends the process of it."""
    depth = 0
    for event in yaml.parse(text, Loader=yaml.CSafeLoader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(
            event, yaml.CollectionEndEvent
        )
        if depth > _DEEPEST:
            raise ValueError("nested too deeply")


def _walk(
    node: yaml.Node | None,
    path: tuple[str | int, ...],
    lines: dict[tuple[str | int, ...], int],
    faults: list[Fault],
    file: Path | None,
) -> None:
    if node is None:
        return
    lines[path] = node.start_mark.line + 1
    if isinstance(node, yaml.MappingNode):
        for key, child in node.value:
            name = (*path, key.value)
            if name in lines:
                faults.append(
                    Fault(f"{key.value} stands twice: keep one", file, key.start_mark.line + 1)
                )
            _walk(child, name, lines, faults, file)
            lines[name] = key.start_mark.line + 1
    elif isinstance(node, yaml.SequenceNode):
        for index, child in enumerate(node.value):
            _walk(child, (*path, index), lines, faults, file)
