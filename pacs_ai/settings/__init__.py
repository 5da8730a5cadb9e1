"""Settings: read once from one YAML file and the environment, frozen, passed in.

Only this package reads the environment or a settings file. Every fault of a file is reported together,
each with its line and what to do. Rules are handed on unread, with the lines they stand on: routing and
worklist parse their own (:class:`Source`).
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from datetime import timedelta
from itertools import combinations
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, PrivateAttr, TypeAdapter, ValidationError, model_validator
from pydantic_core import ErrorDetails

from pacs_ai.errors import ConfigError, Fault
from pacs_ai.settings.sections import (
    LOOPBACK,
    ClientTLS,
    Confirm,
    Confirmed,
    Defaults,
    Destination,
    DicomDestination,
    Endpoint,
    FolderDestination,
    Identity,
    Listener,
    Peer,
    Profile,
    Prototypes,
    Reading,
    Retention,
    Site,
    Use,
    Web,
    Window,
    WorkTimes,
)
from pacs_ai.settings.source import REQUIRED, Source, parse_yaml, required
from pacs_ai.settings.values import (
    Secret,
    Section,
    any_within,
    in_network,
    parse_duration,
    parse_size,
)
from pacs_ai.uids import digest

__all__ = [
    "REQUIRED",
    "ClientTLS",
    "Confirm",
    "Confirmed",
    "Defaults",
    "Destination",
    "DicomDestination",
    "Endpoint",
    "FolderDestination",
    "Identity",
    "Listener",
    "Peer",
    "Profile",
    "Prototypes",
    "Reading",
    "Retention",
    "Secret",
    "Settings",
    "Site",
    "Source",
    "Use",
    "Web",
    "Window",
    "WorkTimes",
    "load",
    "loads",
    "parse_duration",
    "parse_size",
]

_NAME_LENGTH = 64  # as many as the ledger's columns hold
_RULE_SECTIONS = ("text_elements", "age", "terms", "never", "rules", "worklist")


_Inconsistency = tuple[tuple[str, ...], str]
"""Where in the settings, and what is wrong there."""


class InconsistentError(ValueError):
    """Sections are sound, each by itself, and do not go together."""

    def __init__(self, found: list[_Inconsistency]) -> None:
        super().__init__("; ".join(f"{'.'.join(path)}: {message}" for path, message in found))
        self.found = found


class Settings(Section):
    """All settings of one gateway."""

    site: Site
    data: Path = Path("pacs-ai-data")
    """Folder of spool, ledger, keys and logs."""
    listener: Listener = Listener()
    web: Web = Web()
    broker: str | None = None
    """Redis URL; without one the worker starts a private broker of its own."""
    ledger: str | None = None
    """SQLAlchemy URL of SQLite or PostgreSQL; without one an SQLite file in ``data``."""
    peers: Mapping[str, Peer] = Field(default_factory=dict)
    """Who may send, by a name of the site's own."""
    endpoints: Mapping[str, Endpoint] = Field(default_factory=dict)
    """Scoring endpoints, by the name that rules use."""
    destinations: Mapping[str, Destination] = Field(default_factory=dict)
    """Further destinations of results, by name."""
    delivery: Literal["hold", "origin"] | tuple[str, ...] = "hold"
    """``hold`` (shadow), ``origin`` (back to the peer it came from), or names of destinations and peers."""
    identity: Identity = Identity.STRICT
    """``strict`` holds a Study unless every Instance has a valid PatientID and a valid PatientName."""
    defaults: Defaults = Defaults()
    retention: Retention = Retention()
    work: WorkTimes = WorkTimes()
    worker_processes: int | None = Field(default=None, ge=1, le=256)
    """Work carried out at once; left out: enough that no endpoint that hangs starves another."""
    series_description_prefix: str = Field(default="AI", max_length=8)
    """First word of every Series Description that the gateway writes."""
    _source: Source = PrivateAttr(default_factory=lambda: Source({}))

    @model_validator(mode="after")
    def _consistent(self) -> Settings:
        found = [*self._inconsistencies()]
        if found:
            raise InconsistentError(found)
        return self

    def _inconsistencies(self) -> Iterator[_Inconsistency]:
        yield from self._wrong_names()
        yield from self._open_face()
        yield from self._unbound()
        yield from self._twins()
        yield from self._undelivered()

    def _wrong_names(self) -> Iterator[_Inconsistency]:
        for section in ("peers", "endpoints", "destinations"):
            for name in getattr(self, section):
                if not 0 < len(name) <= _NAME_LENGTH:
                    yield (section, name), f"no name: use 1 to {_NAME_LENGTH} characters"

    def _open_face(self) -> Iterator[_Inconsistency]:
        face = self.listener
        if not (face.host in LOOPBACK or face.certificate or face.unsafe_plain_network):
            yield (
                ("listener", "host"),
                "not loopback: give listener.certificate and listener.key, or set "
                "listener.unsafe_plain_network: true and keep the network between PACS and gateway closed",
            )

    def _unbound(self) -> Iterator[_Inconsistency]:
        mutual = self.listener.client_authorities is not None
        for name, peer in self.peers.items():
            if mutual and peer.certificates is None:
                yield (
                    ("peers", name),
                    "listener.client_authorities is set: name its certificates, or "
                    "certificates: [] when it opens no associations",
                )
            if peer.certificates and not mutual:
                yield (
                    ("peers", name, "certificates"),
                    "nobody is asked for a certificate without listener.client_authorities: set it, or "
                    "leave certificates out",
                )

    def _twins(self) -> Iterator[_Inconsistency]:
        """A peer that an earlier one covers: all that it sends would be taken for the other's."""
        for (name, one), (later, other) in combinations(self.peers.items(), 2):
            titles = sorted(set(one.ae_titles) & set(other.ae_titles))
            bound = None not in (one.certificates, other.certificates)
            apart = bound and set(one.certificates or ()).isdisjoint(other.certificates or ())
            if titles and not apart and any_within(other.addresses, one.addresses):
                yield (
                    ("peers", later),
                    f"peers.{name} has the same AE title {titles[0]} and address: give each an AE title, "
                    "address or certificate of its own",
                )

    def _undelivered(self) -> Iterator[_Inconsistency]:
        for name in self.delivery if isinstance(self.delivery, tuple) else ():
            if name not in self.destinations and name not in self.peers:
                yield (
                    ("delivery",),
                    f"{name!r} is no destination and no peer: correct it, or add it there",
                )

    @property
    def worker_concurrency(self) -> int:
        """Processes of one worker: for every call that may be under way, and two more."""
        if self.worker_processes is not None:
            return self.worker_processes
        calls = sum(endpoint.concurrency for endpoint in self.endpoints.values())
        return calls + len(self.destination_names) + 2

    @property
    def spool_path(self) -> Path:
        """Folder of stored Instances."""
        return self.data / "spool"

    @property
    def ledger_url(self) -> str:
        """SQLAlchemy URL of the ledger."""
        return self.ledger or f"sqlite:///{(self.data / 'ledger.sqlite').resolve()}"

    @property
    def digest(self) -> str:
        """SHA-256 of everything that the file says, rules included; keys are named in it, not held."""
        return digest(json.dumps(self._source.value, default=str, sort_keys=True))

    def rules_source(self, section: str) -> Source | None:
        """Return a section that another module parses, or None when the file has none."""
        return self._source.child(section) if section in self._source.value else None

    def quiet(self, modality: str, peer: str) -> timedelta:
        """Return how long a Study must be quiet before it counts as complete."""
        known = self.peers.get(peer)
        if known is not None and known.quiet is not None:
            return known.quiet
        return self.defaults.quiet.get(modality, self.defaults.quiet_other)

    def peer_of(
        self, calling_ae_title: str, address: str, identities: Collection[str] = ()
    ) -> str | None:
        """Return the peer that may send under this AE title from this address, or None.

        Parameters
        ----------
        calling_ae_title : str
        address : str
            An IP address.
        identities : collection of str
            Of the certificate that it showed, as ``peers.NAME.certificates`` writes them; with mutual TLS
            one of them must be the peer's.
        """
        mutual = self.listener.client_authorities is not None
        for name, peer in self.peers.items():
            known = calling_ae_title in peer.ae_titles
            bound = not mutual or not set(peer.certificates or ()).isdisjoint(identities)
            if known and bound and any(in_network(address, one) for one in peer.addresses):
                return name
        return None

    def destination(self, name: str) -> FolderDestination | DicomDestination | None:
        """Return a destination by name, or None; a peer with host and port is one too."""
        if name in self.destinations:
            return self.destinations[name]
        peer = self.peers.get(name)
        if peer is None or peer.host is None or peer.port is None:
            return None
        return DicomDestination(
            host=peer.host,
            port=peer.port,
            ae_title=peer.called_ae_title or peer.ae_titles[0],
            profile=peer.profile,
            narrative=peer.narrative,
            calling_ae_title=self.listener.ae_title,
            confirm=peer.confirm,
            qido_url=peer.qido_url,
            qido_key=peer.qido_key,
            tls=peer.tls,
        )

    def reachable(self, name: str) -> FolderDestination | DicomDestination:
        """Return a destination by name.

        Raises
        ------
        ConfigError
            When the settings name none, or a peer of that name has no host and port.
        """
        found = self.destination(name)
        if found is None:
            raise ConfigError([Fault(f"{name!r} has no host and port: add them under peers")])
        return found

    @property
    def destination_names(self) -> tuple[str, ...]:
        """Names of everything that results can go to: destinations, and peers with an address."""
        reachable = (name for name in self.peers if name not in self.destinations)
        return (*self.destinations, *(n for n in reachable if self.destination(n) is not None))

    @property
    def receivers(self) -> tuple[str, ...]:
        """Names that ``delivery`` sends results to, whether they can be reached or not."""
        if self.delivery == "hold":
            return ()
        return tuple(self.peers) if self.delivery == "origin" else self.delivery

    @property
    def asked_destination_names(self) -> tuple[str, ...]:
        """Names of those that results go to as ``delivery`` stands; while it is held, of all."""
        if self.delivery == "hold":
            return self.destination_names
        return tuple(name for name in self.destination_names if name in self.receivers)

    def destinations_for(self, peer: str) -> tuple[str, ...]:
        """Return the names of the destinations that results of a peer's Study go to.

        While delivery is held, the peer itself: results are made, and marked as withheld from it.
        """
        if isinstance(self.delivery, tuple):
            return self.delivery
        return (peer,)


def load(path: Path, *, overrides: Mapping[str, Any] | None = None) -> Settings:
    """Read a settings file.

    Parameters
    ----------
    path : Path
        A YAML file.
    overrides : mapping, optional
        Top-level sections that replace those of the file (the demo's ports, for instance).

    Raises
    ------
    ConfigError
        With every fault found: each line and what to do.
    """
    return _validated(_read(path), overrides)


def loads(
    text: str, *, file: Path | None = None, overrides: Mapping[str, Any] | None = None
) -> Settings:
    """Read settings from YAML text; see :func:`load`."""
    return _validated(parse_yaml(text, file), overrides)


def _read(path: Path) -> Source:
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(
            [Fault(f"cannot be read ({error.strerror}): check --config", path)]
        ) from error
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise ConfigError([Fault("not UTF-8: save the file as UTF-8", path, line)]) from error
    return parse_yaml(text, path)


def _validated(source: Source, overrides: Mapping[str, Any] | None) -> Settings:
    merged, file = {**source.value, **(overrides or {})}, source.file
    source = Source(merged, file, source.lines)
    faults = [
        Fault(f"{'.'.join(map(str, path))} is REQUIRED: fill it in", file, source.lines.get(path))
        for path in required(merged)
    ]
    try:
        values = {key: value for key, value in merged.items() if key not in _RULE_SECTIONS}
        settings = Settings.model_validate(values)
    except ValidationError as error:
        faults += [
            _fault(path, message, source)
            for problem in error.errors()
            if problem.get("input") != REQUIRED
            for path, message in _told(problem)
        ]
        raise ConfigError(faults) from None
    if faults:
        raise ConfigError(faults)
    settings._source = source
    return settings


def salvaged(path: Path) -> tuple[Settings, frozenset[str]]:
    """Return what of a file with faults is sound, and the names of the sections that are not.

    A section that is not sound is as shipped. One that does not go together with another, or that still
    says REQUIRED, is not sound either.

    Raises
    ------
    ConfigError
        When it cannot be read at all.
    """
    source = _read(path)
    values: dict[str, Any] = {}
    lost = {str(one[0]) for one in required(source.value)}
    misspelt = not {*source.value} <= {*Settings.model_fields, *_RULE_SECTIONS}
    for name, field in Settings.model_fields.items():
        if name not in source.value:
            if misspelt or field.is_required():  # it may be what was meant
                lost.add(name)
            continue
        try:
            values[name] = TypeAdapter(field.rebuild_annotation()).validate_python(
                source.value[name]
            )
        except ValidationError:
            lost.add(name)
    settings = Settings.model_construct(**values)
    settings._source = source
    lost |= {one[0] for one, _ in settings._inconsistencies()}
    return settings, frozenset(lost)


def _told(problem: ErrorDetails) -> list[tuple[tuple[str | int, ...], str]]:
    cause = problem.get("ctx", {}).get("error")
    if isinstance(cause, InconsistentError):
        return [*cause.found]
    return [(problem["loc"], _message(problem))]


def _message(problem: ErrorDetails) -> str:
    if problem["type"] in ("union_tag_not_found", "union_tag_invalid"):
        return "say what it is: kind: folder or kind: dicom"
    if problem["type"] == "extra_forbidden":
        return "no such setting: correct its name, or take it out (docs/settings.md lists all)"
    if problem["type"] == "missing":
        return "is missing: fill it in"
    return problem["msg"]


def _fault(location: tuple[str | int, ...], message: str, source: Source) -> Fault:
    path: tuple[str | int, ...] = ()
    for part in location:
        if (*path, part) in source.lines:
            path = (*path, part)
    dotted = ".".join(str(part) for part in location)
    text = message.removeprefix("Value error, ")
    return Fault(f"{dotted}: {text}" if dotted else text, source.file, source.lines.get(path))
