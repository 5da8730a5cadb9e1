"""Statements that every Instance on its way in needs, run by the driver as they are.

SQLAlchemy spends 0.1 to 0.2 ms on a statement whose text and types never change; there are half a dozen for
an Instance, and its sender waits. A prepared statement is written as every other, compiled once for each
kind of database, and then handed to the driver with its values. Errors are SQLAlchemy's own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
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
        compiled = self._compiled.get(connection.dialect.name) or self._for(connection.dialect)
        try:
            cursor = driver_cursor(connection)  # a connection that the server cut has none
            cursor.execute(compiled.text, compiled.bound(values))
        except connection.dialect.loaded_dbapi.Error as error:
            raise told(connection, error) from error
        return cursor

    def run_each(self, connection: Connection, rows: Sequence[Mapping[str, Any]]) -> None:
        """Run it once for each row of values."""
        compiled = self._compiled.get(connection.dialect.name) or self._for(connection.dialect)
        try:
            driver_cursor(connection).executemany(compiled.text, map(compiled.bound, rows))
        except connection.dialect.loaded_dbapi.Error as error:
            raise told(connection, error) from error

    def compile(self, dialect: Dialect) -> None:
        """Compile it now, or whoever needs it first waits for that."""
        self._for(dialect)

    def _for(self, dialect: Dialect) -> _Compiled:
        statement = self._make(dialect.name)
        made: Any = statement.compile(dialect=dialect, column_keys=self._columns)
        found = self._compiled[dialect.name] = _compiled(made, dialect)
        return found


@dataclass(frozen=True, slots=True)
class _Compiled:
    """Text for a driver, and how its values are put in place."""

    text: str
    arrange: Callable[[Mapping[str, Any]], Any]
    fixed: Mapping[str, Any]
    convert: Sequence[tuple[str, Callable[[Any], Any]]]

    def bound(self, values: Mapping[str, Any]) -> Any:
        every = {**self.fixed, **values}
        for name, convert in self.convert:
            every[name] = convert(every[name])
        return self.arrange(every)


def _compiled(made: SQLCompiler, dialect: Dialect) -> _Compiled:
    convert = []
    for name, one in made.binds.items():
        processor = one.type.dialect_impl(dialect).bind_processor(dialect)
        if processor is not None:
            convert.append((name, processor))
    fixed = {name: one.effective_value for name, one in made.binds.items() if not one.required}
    return _Compiled(made.string, _arrangement(made.positiontup), fixed, convert)


def _arrangement(order: Sequence[str] | None) -> Callable[[Mapping[str, Any]], Any]:
    """Return what makes of values by name what the driver takes: the same, or a sequence in order."""
    if order is None:
        return dict
    if len(order) > 1:
        return itemgetter(*order)  # in C; of one name it would return a bare value
    return lambda values: [values[name] for name in order]


def driver_cursor(connection: Connection) -> Any:
    """Return a new cursor of the driver; what it raises is for :func:`told`."""
    driver: Any = connection.connection.dbapi_connection
    return driver.cursor()


def told(connection: Connection, error: Any) -> Exception:
    """Return what SQLAlchemy would raise for an error of the driver, and do what it would do.

    The values of the statement are left out: a patient's may be among them. A connection that is broken is
    dropped, so that nothing tries to roll back on it.
    """
    dialect = connection.dialect
    driver: Any = dialect.loaded_dbapi
    broken = not connection.invalidated and dialect.is_disconnect(
        error, connection.connection.dbapi_connection, None
    )
    if broken:
        connection.invalidate(error)
    made: Exception = DBAPIError.instance(
        None,
        None,
        error,
        driver.Error,
        hide_parameters=True,
        connection_invalidated=broken,
        dialect=dialect,
    )
    return made
