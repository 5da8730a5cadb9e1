"""The sections of a settings file, one class each."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal, Self
from zoneinfo import ZoneInfo

from pydantic import BeforeValidator, Field, model_validator

from pacs_ai.settings.values import (
    AETitle,
    CertificateIdentity,
    Duration,
    DurationOrNever,
    DurationOrOff,
    Host,
    Networks,
    Port,
    Secret,
    Section,
    ServedURL,
    Size,
)

LOOPBACK = ("127.0.0.1", "::1", "localhost")
"""Addresses that only this machine reaches."""


class Use(StrEnum):
    """How results may be used, as the responsible person states it."""

    RESEARCH = "research"
    LOCALLY_VALIDATED = "locally-validated"


class Site(Section):
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


class Listener(Section):
    """The DICOM face."""

    ae_title: AETitle = "PACSAI"
    """The gateway's own AE title, the one it calls others with."""
    also_called: tuple[AETitle, ...] = ()
    """Further AE titles that it may be called by."""
    host: Host = "127.0.0.1"
    port: Port = 11112
    certificate: Path | None = None
    """Its certificate and those between it and the authority's, as PEM; turns TLS on, and plain DICOM off."""
    key: Path | None = None
    """The certificate's private key, as PEM, readable by the gateway's user only."""
    client_authorities: Path | None = None
    """PEM of who vouches for the peers' certificates; with it every peer needs one (mutual TLS)."""
    transport: Literal["hardened", "plain"] = "hardened"
    """``plain`` is pynetdicom's own, without limits of time, length and address: for comparison only."""
    processes: int = Field(default=2, ge=1, le=16)
    """How many share the port; one that hangs is replaced. 1: a single process that nobody watches."""
    maximum_associations: int = Field(default=64, ge=1, le=256)
    """More at once are rejected for now (local limit exceeded)."""
    maximum_connections: int = Field(default=128, ge=1, le=1024)
    """Counted from accept; when more come, those without a request go first, the oldest first."""
    maximum_per_address: int = Field(default=24, ge=1, le=1024)
    """Of one address, in each process; its next request takes the place of its own that was idle longest."""
    maximum_backlog: int = Field(default=10_000, ge=1)
    """Pieces of work that wait to be started; above it associations and STOW-RS requests are refused."""
    maximum_object: Size = 4 * 2**30
    """A larger Instance is refused."""
    minimum_free: Size | None = None
    """Instances are refused below so much free space; else the most of 5 %, 2 GiB, 4 ``maximum_object``."""
    unsafe_plain_network: bool = False
    """Allows an address other than loopback without TLS: for a closed network only."""

    @model_validator(mode="after")
    def _whole_tls(self) -> Listener:
        _together(self.certificate, self.key)
        if self.client_authorities is not None and self.certificate is None:
            raise ValueError("client_authorities is for TLS: give certificate and key too")
        return self

    @model_validator(mode="after")
    def _enough_for_each(self) -> Listener:
        for name in ("maximum_associations", "maximum_connections"):
            if getattr(self, name) < self.processes:
                raise ValueError(
                    f"listener.{name} is shared by listener.processes: give it at least "
                    f"{self.processes}, or run fewer processes"
                )
        return self

    def watermark(self, disk: int) -> int:
        """Return below how many free bytes Instances are refused, on a disk of so many in all."""
        if self.minimum_free is not None:
            return self.minimum_free
        return max(disk // 20, 2 * 2**30, 4 * self.maximum_object)


def _together(certificate: Path | None, key: Path | None) -> None:
    if (certificate is None) != (key is None):
        raise ValueError("certificate and key belong together: give both, or none")


class ClientTLS(Section):
    """TLS towards a Storage SCP; the certificate's name is the host that is called."""

    authorities: Path | None = None
    """PEM of who vouches for its certificate; the machine's own list when left out."""
    certificate: Path | None = None
    """The gateway's own certificate towards it, as PEM, where it asks for one."""
    key: Path | None = None
    """The certificate's private key, as PEM, readable by the gateway's user only."""
    certificates: tuple[CertificateIdentity, ...] = ()
    """What its certificate must be, in place of being named like ``host``: `dns:NAME` or `sha256:DIGITS`."""

    @model_validator(mode="after")
    def _whole_pair(self) -> ClientTLS:
        _together(self.certificate, self.key)
        return self


class Reading(StrEnum):
    """Who may read over HTTP."""

    OPEN = "open"
    TOKEN = "token"  # noqa: S105 - a word of the settings, not a secret


class Web(Section):
    """The HTTP face; on loopback, or with TLS."""

    host: Host = "127.0.0.1"
    """Address to listen on; another than loopback needs ``certificate`` and ``key``."""
    port: Port = 8080
    certificate: Path | None = None
    """Its certificate and those between it and the authority's, as PEM; turns TLS on."""
    key: Path | None = None
    """The certificate's private key, as PEM, readable by the gateway's user only."""
    names: tuple[str, ...] = ()
    """Names that clients address it by, beside ``host`` and those of loopback."""
    reading: Reading = Reading.OPEN
    """``open``: who is on this machine reads without a token; ``token``: every request needs one."""
    maximum_request: Size = 64 * 2**30
    """A larger STOW-RS request is refused; one Instance has ``listener.maximum_object``."""
    simultaneous_stores: int = Field(default=8, ge=1, le=64)
    """STOW-RS requests at once; one more is told to come again."""

    @model_validator(mode="after")
    def _safe_address(self) -> Web:
        _together(self.certificate, self.key)
        if self.host not in LOOPBACK and self.certificate is None:
            raise ValueError("web.host is not loopback: give web.certificate and web.key")
        if self.host in ("0.0.0.0", "::") and not self.names:  # noqa: S104 - compared, not bound
            raise ValueError("web.host is every address: say in web.names what clients call it")
        if any("*" in name for name in self.names):
            # A name that somebody else can give to this address would open it to their pages.
            raise ValueError("web.names: * stands for names of others too: write each in full")
        return self

    @property
    def needed_to_read(self) -> Reading:
        """What reading needs: off loopback always a token."""
        return self.reading if self.host in LOOPBACK else Reading.TOKEN

    @property
    def hosts(self) -> tuple[str, ...]:
        """Names that requests may address it by."""
        return (*LOOPBACK, "[::1]", self.host, *self.names)


class Profile(StrEnum):
    """Which kinds of SOP Instance a destination gets."""

    BASIC = "basic"
    ALL = "all"


class Confirm(StrEnum):
    """How a destination is asked, right before sending, whether a Study still has this identity."""

    OFF = "off"
    C_FIND = "c-find"
    QIDO = "qido"


# YAML reads a bare `off` as false.
_Confirm = Annotated[Confirm, BeforeValidator(lambda value: "off" if value is False else value)]


class Confirmed(Section):
    """What a destination that can be asked has in common, a peer or one of its own."""

    confirm: _Confirm = Confirm.OFF
    """How it is asked, right before sending, whether it holds the Study under the same identity."""
    qido_url: ServedURL | None = None
    """With `confirm: qido`: the root of its DICOMweb service; `https`, plain `http` to loopback only."""
    qido_key: Secret | None = None
    """Key of that service, as `file:PATH` or `env:NAME`; sent as bearer token."""
    tls: ClientTLS | None = None
    """TLS for what the gateway asks and sends there; without it, plain DICOM."""

    @model_validator(mode="after")
    def _can_be_asked(self) -> Self:
        if self.confirm is Confirm.QIDO and self.qido_url is None:
            raise ValueError("confirm: qido needs qido_url, the root of the DICOMweb service")
        return self


class Peer(Confirmed):
    """A PACS or modality: what it is called, from where it may send, and where results go back."""

    ae_titles: tuple[AETitle, ...] = Field(min_length=1)
    """Calling AE titles that it uses."""
    addresses: Networks = ("127.0.0.1",)
    """IP addresses, or networks such as `192.0.2.0/24`, that it connects from."""
    certificates: tuple[CertificateIdentity, ...] | None = None
    """Certificates that its AE titles are bound to, each `dns:NAME` or `sha256:DIGITS`; `[]` for none."""
    host: Host | None = None
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


class FolderDestination(Section):
    """A folder that gets results as DICOM files."""

    kind: Literal["folder"]
    path: Path
    """Where the files go, by Study."""
    profile: Profile = Profile.BASIC
    narrative: bool = False


class DicomDestination(Confirmed):
    """A Storage SCP that gets results by C-STORE."""

    kind: Literal["dicom"] = "dicom"
    host: Host
    port: Port
    ae_title: AETitle
    profile: Profile = Profile.BASIC
    narrative: bool = False
    calling_ae_title: AETitle = "PACSAI"
    """AE title that the gateway uses towards it."""


Destination = Annotated[FolderDestination | DicomDestination, Field(discriminator="kind")]


class Window(Section):
    """A linear window: width and level in the units of the modality (HU for CT)."""

    width: float = Field(gt=0)
    level: float


class Prototypes(Section):
    """What pictures look like to the site's own embedding model."""

    file: Path
    """As `pacs-ai prototypes make` wrote it."""
    certainty: float = Field(default=0.9, gt=0.5, lt=1)
    """Below it nothing is said of a picture."""


class Endpoint(Section):
    """A scoring endpoint and the model behind it."""

    kind: Literal["insight", "parse2d", "parse3d", "cxrreport"]
    url: ServedURL
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
    maximum_request: Size = 100 * 10**6
    """Most bytes of one request, as its front door takes them; several pictures go in more requests then."""
    window: Window | None = None
    """CT goes out in this window; left out, in the catalogue's of each prompt (embeddings: W 1500 L -160)."""
    distributions: Path | None = None
    """The publisher's ``target_dist.json``, the site's own copy; without it no lesion is asked for."""
    prototypes: Prototypes | None = None
    """View, body part and modality by pixels; for `insight` only."""

    @model_validator(mode="after")
    def _prototypes_of_embeddings(self) -> Endpoint:
        if self.prototypes is not None and self.kind != "insight":
            raise ValueError("prototypes are of embeddings: only an insight endpoint has them")
        return self


class Defaults(Section):
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


class Retention(Section):
    """How long bytes are kept after everything of their Study has ended; nothing is removed before."""

    sources: DurationOrNever = timedelta(days=30)
    """What was received; ``never`` keeps it for ever."""
    results: DurationOrNever = timedelta(days=365)
    """What was made of it; ``never`` keeps it for ever."""


class WorkTimes(Section):
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
