"""Settings: read once from one YAML file and the environment, frozen, passed in.

Only this module reads the environment or a settings file. Every fault of a file is reported together,
each with its line and what to do. Rules are handed on unread, with the lines they stand on: routing and
worklist parse their own (:class:`Source`).
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    ValidationError,
    model_validator,
)

from pacs_ai.errors import ConfigError, Fault

REQUIRED = "REQUIRED"
"""What a shipped file says where the site must fill in a value of its own."""

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


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Secret(_Section):
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


class Use(StrEnum):
    """How results may be used, as the responsible person states it."""

    RESEARCH = "research"
    LOCALLY_VALIDATED = "locally-validated"


class Site(_Section):
    """Who runs this gateway, where and for what."""

    name: str
    """The site's name, shown on Workitems."""
    time_zone: str
    """IANA name, such as ``Europe/Berlin``: for headers that state no zone, and for every date we write."""
    use: Use
    """How results may be used, as the responsible person states it."""
    responsible: str
    """The person who answers for that use."""
    production: bool = False
    """While false, results say that this is not a production gateway."""

    @model_validator(mode="after")
    def _known_zone(self) -> Site:
        try:
            ZoneInfo(self.time_zone)
        except Exception as error:  # zoneinfo raises three unrelated types
            raise ValueError("time_zone is an IANA name such as Europe/Berlin") from error
        return self


class Listener(_Section):
    """The DICOM face."""

    ae_title: AETitle = "PACSAI"
    host: str = "127.0.0.1"
    port: Port = 11112
    maximum_associations: int = Field(default=32, ge=1, le=256)
    """More at once are rejected for now (local limit exceeded)."""
    maximum_object: Size = 4 * 2**30
    """A larger Instance is refused."""
    minimum_free: Size = 2 * 2**30
    """Below this much free space on the spool's disk Instances are refused as *out of resources*."""
    unsafe_plain_network: bool = False
    """Allows an address other than loopback although DICOM TLS is not there yet."""


class Web(_Section):
    """The HTTP face; loopback only until it has tokens."""

    host: Literal["127.0.0.1", "::1", "localhost"] = "127.0.0.1"
    port: Port = 8080


class Profile(StrEnum):
    """Which kinds of SOP Instance a destination gets."""

    BASIC = "basic"
    ALL = "all"


class Peer(_Section):
    """A PACS or modality: what it is called, from where it may send, and where results go back."""

    ae_titles: tuple[AETitle, ...] = Field(min_length=1)
    """Calling AE titles that it uses."""
    addresses: tuple[str, ...] = Field(default=("127.0.0.1",), min_length=1)
    """IP addresses that it connects from."""
    host: str | None = None
    """Where it takes results by C-STORE; without host and port it takes none."""
    port: Port | None = None
    called_ae_title: AETitle | None = None
    """AE title of its Storage SCP; the first of ``ae_titles`` when left out."""
    profile: Profile = Profile.BASIC
    """Which kinds of results it gets: ``basic`` or ``all``."""
    narrative: bool = False
    """Whether the site releases draft reports to it."""
    quiet: Duration | None = None
    """Quiet period of Studies from here; by modality when left out."""


class FolderDestination(_Section):
    """A folder that gets results as DICOM files."""

    kind: Literal["folder"]
    path: Path
    """Where the files go, by Study."""
    profile: Profile = Profile.BASIC
    narrative: bool = False


class DicomDestination(_Section):
    """A Storage SCP that gets results by C-STORE."""

    kind: Literal["dicom"] = "dicom"
    host: str
    port: Port
    ae_title: AETitle
    profile: Profile = Profile.BASIC
    narrative: bool = False
    calling_ae_title: AETitle = "PACSAI"
    """AE title that the gateway uses towards it."""


Destination = Annotated[FolderDestination | DicomDestination, Field(discriminator="kind")]


class Window(_Section):
    """A linear window: width and level in the units of the modality (HU for CT)."""

    width: float = Field(gt=0)
    level: float


class Endpoint(_Section):
    """A scoring endpoint and the model behind it."""

    kind: Literal["insight", "parse2d", "parse3d", "cxrreport"]
    url: str
    """Its scoring URL; ``https``, plain ``http`` to loopback only."""
    key: Secret | None = None
    """Its key, as ``file:PATH`` or ``env:NAME``; sent as bearer token."""
    deployment: str | None = None
    """Pins one deployment behind the URL."""
    name: str
    """The model's name, as every result shows it."""
    version: str
    """The model's version, as configured by the site; another version is another device."""
    manufacturer: str = "Microsoft"
    reference: bool = False
    """True for the built-in reference models only: their results say so."""
    timeout: Duration = timedelta(seconds=100)
    """Deadline of one whole request."""
    concurrency: int = Field(default=1, ge=1, le=64)
    """How many requests may be under way at once."""
    window: Window = Window(width=1500, level=-160)
    """CT volumes go out as uint8 of this window."""

    @model_validator(mode="after")
    def _safe_address(self) -> Endpoint:
        loopback = re.match(r"^http://(127\.0\.0\.1|localhost|\[::1\])(:\d+)?(/|$)", self.url)
        if not self.url.startswith("https://") and not loopback:
            raise ValueError("url must be https:// (plain http only to loopback)")
        return self


class Defaults(_Section):
    """What holds where a rule or peer says nothing else."""

    max_age: DurationOrOff = timedelta(hours=48)
    """An older Study is stored and starts nothing; ``off`` takes Studies of any age."""
    deadline: Duration = timedelta(minutes=30)
    """How long inference is tried before a Job fails."""
    delivery_deadline: Duration = timedelta(days=7)
    """How long a destination may be away before a delivery fails."""
    max_result: Size = 50 * 10**6
    """A larger result is not made: the work fails and says so."""
    quiet: Mapping[str, Duration] = Field(
        default_factory=lambda: {
            "CR": timedelta(seconds=60),
            "DX": timedelta(seconds=60),
            "US": timedelta(seconds=60),
            "CT": timedelta(seconds=120),
            "MR": timedelta(seconds=180),
        }
    )
    """By Modality: how long nothing may arrive before a Study counts as complete."""
    quiet_other: Duration = timedelta(seconds=120)


class WorkTimes(_Section):
    """Times of the ledger's work rows; tests use short ones openly."""

    lease: Duration = timedelta(seconds=30)
    """How long a claim holds when nobody renews it; then another process may take over."""
    renew: Duration = timedelta(seconds=10)
    """How often a claim is renewed."""
    bell: Duration = timedelta(seconds=1)
    """How often due work is looked for."""
    strikes: int = Field(default=3, ge=1)
    """Attempts that end without an outcome (crashes) before work is held."""
    backoff: tuple[Duration, ...] = tuple(
        timedelta(seconds=seconds) for seconds in (5, 30, 120, 600, 1800, 3600)
    )
    """Waits between attempts that were refused for now; the last one repeats."""


class Identity(StrEnum):
    """What happens to an Instance without PatientID or PatientName."""

    STRICT = "strict"
    LENIENT = "lenient"


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


_RULE_SECTIONS = ("text_elements", "age", "terms", "never", "rules", "worklist")


class Settings(_Section):
    """All settings of one gateway."""

    site: Site
    data: Path = Path("pacs-ai-data")
    """Folder of spool, ledger, keys and logs."""
    listener: Listener = Listener()
    web: Web = Web()
    broker: str | None = None
    """Redis URL; without one the worker starts a private broker of its own."""
    ledger: str | None = None
    """SQLAlchemy URL, SQLite for now; without one a file in ``data``."""
    peers: Mapping[str, Peer] = Field(default_factory=dict)
    """Who may send, by a name of the site's own."""
    endpoints: Mapping[str, Endpoint] = Field(default_factory=dict)
    """Scoring endpoints, by the name that rules use."""
    destinations: Mapping[str, Destination] = Field(default_factory=dict)
    """Further destinations of results, by name."""
    delivery: Literal["hold", "origin"] | tuple[str, ...] = "hold"
    """``hold`` (shadow), ``origin`` (back to the peer it came from), or names of destinations and peers."""
    identity: Identity = Identity.STRICT
    """``strict`` holds a Study whose Instances have no PatientID or PatientName; ``lenient`` goes on."""
    defaults: Defaults = Defaults()
    work: WorkTimes = WorkTimes()
    worker_processes: int = Field(default=4, ge=1, le=64)
    """How many pieces of work one worker carries out at once."""
    series_description_prefix: str = Field(default="AI", max_length=8)
    """First word of every Series Description that the gateway writes."""
    _source: Source = PrivateAttr(default_factory=lambda: Source({}))

    @model_validator(mode="after")
    def _consistent(self) -> Settings:
        loopback = self.listener.host in ("127.0.0.1", "::1", "localhost")
        if not loopback and not self.listener.unsafe_plain_network:
            raise ValueError(
                "listener.host is not loopback: set listener.unsafe_plain_network: true "
                "and keep the network between PACS and gateway closed"
            )
        if isinstance(self.delivery, tuple):
            for name in self.delivery:
                if name not in self.destinations and name not in self.peers:
                    raise ValueError(
                        f"delivery names {name!r}, which is no destination and no peer"
                    )
        return self

    @property
    def spool_path(self) -> Path:
        """Folder of stored Instances."""
        return self.data / "spool"

    @property
    def ledger_url(self) -> str:
        """SQLAlchemy URL of the ledger."""
        return self.ledger or f"sqlite:///{(self.data / 'ledger.sqlite').resolve()}"

    def rules_source(self, section: str) -> Source | None:
        """Return a section that another module parses, or None when the file has none."""
        return self._source.child(section) if section in self._source.value else None

    def quiet(self, modality: str, peer: str) -> timedelta:
        """Return how long a Study must be quiet before it counts as complete."""
        known = self.peers.get(peer)
        if known is not None and known.quiet is not None:
            return known.quiet
        return self.defaults.quiet.get(modality, self.defaults.quiet_other)

    def peer_of(self, calling_ae_title: str, address: str) -> str | None:
        """Return the peer that may send under this AE title from this address, or None."""
        for name, peer in self.peers.items():
            if calling_ae_title in peer.ae_titles and address in peer.addresses:
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
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(
            [Fault(f"cannot be read ({error.strerror}): check --config", path)]
        ) from error
    return loads(text, file=path, overrides=overrides)


def loads(
    text: str, *, file: Path | None = None, overrides: Mapping[str, Any] | None = None
) -> Settings:
    """Read settings from YAML text; see :func:`load`."""
    source = _parse_yaml(text, file)
    merged = {**source.value, **(overrides or {})}
    source = Source(merged, file, source.lines)
    faults = [
        Fault(f"{'.'.join(map(str, path))} is REQUIRED: fill it in", file, source.lines.get(path))
        for path in _required(merged)
    ]
    try:
        values = {key: value for key, value in merged.items() if key not in _RULE_SECTIONS}
        settings = Settings.model_validate(values)
    except ValidationError as error:
        faults += [
            fault
            for problem in error.errors()
            if problem.get("input") != REQUIRED
            for fault in [_fault(problem["loc"], problem["msg"], source)]
        ]
        raise ConfigError(faults) from None
    if faults:
        raise ConfigError(faults)
    settings._source = source
    return settings


def _fault(location: tuple[str | int, ...], message: str, source: Source) -> Fault:
    path: tuple[str | int, ...] = ()
    for part in location:
        if (*path, part) in source.lines:
            path = (*path, part)
    dotted = ".".join(str(part) for part in location)
    text = message.removeprefix("Value error, ")
    return Fault(f"{dotted}: {text}" if dotted else text, source.file, source.lines.get(path))


def _required(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    if value == REQUIRED:
        yield path
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _required(item, (*path, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _required(item, (*path, index))


def _parse_yaml(text: str, file: Path | None) -> Source:
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else None
        raise ConfigError([Fault(f"not YAML: {error.problem}", file, line)]) from error
    lines: dict[tuple[str | int, ...], int] = {}
    faults: list[Fault] = []
    _walk(node, (), lines, faults, file)
    value = yaml.safe_load(text) if node is not None else {}
    if not isinstance(value, dict):
        faults.append(Fault("a settings file is a mapping of sections", file, 1))
    if faults:
        raise ConfigError(faults)
    return Source(value, file, lines)


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
