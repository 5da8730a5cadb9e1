"""Statements that every Instance on its way in needs, run by the driver as they are.

SQLAlchemy spends 0.1 to 0.2 ms on a statement whose text and types never change; there are half a dozen for
an Instance, and its sender waits. A prepared statement is written as every other, compiled once for each
kind of database, and then handed to the driver with its values. Errors are SQLAlchemy's own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Dialect
from sqlalchemy.exc import DBAPIError
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.elements import CompilerElement


class Prepared:
    """A statement that is compiled once.

    Parameters
    ----------
    make : callable
        Takes the name of a dialect and returns the statement; its varying values are ``bindparam``.
    columns : sequence of str
        The columns of an INSERT.
    """

    def __init__(
        self, make: Callable[[str], CompilerElement], *, columns: Sequence[str] = ()
    ) -> None:
        self._make = make
        self._columns = [*columns] or None
        self._compiled: dict[str, _Compiled] = {}

    def run(self, connection: Connection, values: Mapping[str, Any]) -> Any:
        """Run it once; return the driver's cursor."""
        compiled = self._for(connection)
        with driver_cursor(connection) as cursor:
            cursor.execute(compiled.text, compiled.bound(values))
            return cursor

    def run_each(self, connection: Connection, rows: Sequence[Mapping[str, Any]]) -> None:
        """Run it once for each row of values."""
        compiled = self._for(connection)
        with driver_cursor(connection) as cursor:
            cursor.executemany(compiled.text, [compiled.bound(row) for row in rows])

    def _for(self, connection: Connection) -> _Compiled:
        dialect = connection.dialect
        found = self._compiled.get(dialect.name)
        if found is None:
            statement = self._make(dialect.name)
            made: Any = statement.compile(dialect=dialect, column_keys=self._columns)
            found = self._compiled[dialect.name] = _compiled(made, dialect)
        return found


@dataclass(frozen=True, slots=True)
class _Compiled:
    """Text for a driver, and how its values are put in place."""

    text: str
    order: Sequence[str] | None
    fixed: Mapping[str, Any]
    convert: Mapping[str, Callable[[Any], Any]]

    def bound(self, values: Mapping[str, Any]) -> Any:
        every = {**self.fixed, **values}
        for name, convert in self.convert.items():
            every[name] = convert(every[name])
        return every if self.order is None else [every[name] for name in self.order]


def _compiled(made: SQLCompiler, dialect: Dialect) -> _Compiled:
    convert = {}
    for name, one in made.binds.items():
        processor = one.type.dialect_impl(dialect).bind_processor(dialect)
        if processor is not None:
            convert[name] = processor
    fixed = {name: one.effective_value for name, one in made.binds.items() if not one.required}
    return _Compiled(made.string, made.positiontup, fixed, convert)


@contextmanager
def driver_cursor(connection: Connection) -> Iterator[Any]:
    """Open a cursor of the driver inside a connection's transaction.

    Raises
    ------
    sqlalchemy.exc.DBAPIError
        What the driver raises, without the values of the statement: a patient's may be among them.
    """
    driver: Any = connection.dialect.loaded_dbapi
    try:
        yield connection.connection.cursor()
    except driver.Error as error:
        raise DBAPIError.instance(
            None, None, error, driver.Error, hide_parameters=True, dialect=connection.dialect
        ) from error
