"""Values of settings: durations, sizes, AE titles, secrets; each read from text a person writes."""

from __future__ import annotations

import ipaddress
import os
import re
import stat
from collections.abc import Iterable
from contextlib import suppress
from datetime import timedelta
from functools import lru_cache
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from pacs_ai.errors import ConfigError, Fault

_DURATION = re.compile(r"^(\d+(?:\.\d+)?)(ms|s|m|h|d)$")
_DURATION_UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}
_SIZE = re.compile(r"^(\d+(?:\.\d+)?)\s*(kB|MB|GB|TB|KiB|MiB|GiB|TiB|B)$")
_SIZE_UNITS = {
    **{"B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12},
    **{"KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40},
}
_FINGERPRINT = re.compile(r"^sha256:([0-9a-f]{2}:?){31}[0-9a-f]{2}$")
_DNS_NAME = re.compile(r"^dns:[0-9a-z_]([0-9a-z_.-]*[0-9a-z])?$")
_HOST_NAME = re.compile(r"^[0-9A-Za-z_-]([0-9A-Za-z_.-]*[0-9A-Za-z_-])?\.?$")
_AE_TITLE = re.compile(r"^(?=.*[^ ])[\x20-\x5b\x5d-\x7e]{1,16}$")


def parse_duration(value: object) -> timedelta:
    """Read ``60s``, ``2m``, ``48h``, ``7d`` (or ``500ms``) as a duration."""
    if isinstance(value, timedelta):
        return value
    found = _DURATION.match(str(value))
    if not found:
        raise ValueError("write a duration with its unit: 500ms, 60s, 2m, 48h or 7d")
    try:
        return timedelta(seconds=float(found[1]) * _DURATION_UNITS[found[2]])
    except OverflowError:
        raise ValueError("that is longer than a million years: write a shorter one") from None


def parse_size(value: object) -> int:
    """Read ``50MB`` or ``2GiB`` as a number of bytes."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    found = _SIZE.match(str(value))
    if not found:
        raise ValueError(
            "write a size with its unit (B, kB, MB, GB, TB, KiB, MiB, GiB or TiB): 50MB, 4GiB"
        )
    return int(float(found[1]) * _SIZE_UNITS[found[2]])


def _ae_title(value: str) -> str:
    if not _AE_TITLE.match(value):
        raise ValueError("an AE title has 1 to 16 printable characters and no backslash")
    return value.strip()


def _duration_or_off(value: object) -> timedelta | None:
    return None if value in ("off", False, None) else parse_duration(value)


def _duration_or_never(value: object) -> timedelta | None:
    return None if value in ("never", None) else parse_duration(value)


def _network(value: str) -> str:
    try:
        network = ipaddress.ip_network(value)
    except ValueError as error:
        raise ValueError(
            f"{value!r} is no IP address and no network: write 192.0.2.10 or 192.0.2.0/24"
        ) from error
    if not network.prefixlen:
        raise ValueError(f"{value!r} is everybody: name the networks that may connect")
    return str(network) if "/" in value else value


def _somewhere(value: tuple[str, ...]) -> tuple[str, ...]:
    if not value:
        raise ValueError("name at least one address or network")
    return value


@lru_cache(1024)
def in_network(address: str, network: str) -> bool:
    """Tell whether an IP address is, or lies in, what a peer's ``addresses`` names."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return False
    if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped is not None:
        found = found.ipv4_mapped  # how a listener on an IPv6 address sees an IPv4 peer
    return found in ipaddress.ip_network(network)


def any_within(networks: Iterable[str], others: Iterable[str]) -> bool:
    """Tell whether one of some networks lies within one of others."""
    inner, outer = ([ipaddress.ip_network(text) for text in texts] for texts in (networks, others))
    return any(
        one.version == other.version
        and one.network_address in other
        and one.broadcast_address in other
        for one in inner
        for other in outer
    )


def site_text(path: Path, *, largest: int) -> str:
    """Return the text of a file that a site supplies.

    Raises
    ------
    ValueError
        When it cannot be used; with the reason in words.
    """
    try:
        if path.stat().st_size > largest:
            raise ValueError("it is too large for one")
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"it cannot be read ({type(error).__name__})") from error


def _certificate_identity(value: str) -> str:
    lower = value.strip().lower()
    if _FINGERPRINT.match(lower):
        return "sha256:" + lower.removeprefix("sha256:").replace(":", "")
    if _DNS_NAME.match(lower):
        return lower
    raise ValueError(
        f"{value!r} names no certificate: write dns:NAME (a DNS name of its Subject Alternative Name) "
        "or sha256: and the 64 hexadecimal digits of its fingerprint"
    )


def _host(value: str) -> str:
    if not _is_host(value):
        raise ValueError(
            "it is no host: write an IP address, or a DNS name whose parts have 1 to 63 characters"
        )
    return value


def _is_host(value: str) -> bool:
    with suppress(ValueError):
        ipaddress.ip_address(value)
        return True
    try:
        # As a call would: what this refuses is no OSError there, and what it lets pass may be no name.
        name = value.encode("idna").decode("ascii")
    except UnicodeError:
        return False
    return len(name.rstrip(".")) <= 253 and bool(_HOST_NAME.match(name))


def _served_url(value: str) -> str:
    loopback = re.match(r"^http://(127\.0\.0\.1|localhost|\[::1\])(:\d+)?(/|$)", value)
    if not value.startswith("https://") and not loopback:
        raise ValueError("a URL is https:// (plain http only to loopback)")
    try:
        address = urlsplit(value)
        host, port = address.hostname, address.port
    except ValueError:  # brackets without an IPv6 address, or a port out of range
        host, port = None, None
    if host is None or not _is_host(host) or port == 0:
        raise ValueError(
            "it leads to no host: write https://HOST/PATH or https://HOST:PORT/PATH, with a port "
            "from 1 to 65535"
        )
    return value


Duration = Annotated[timedelta, BeforeValidator(parse_duration)]
DurationOrOff = Annotated[timedelta | None, BeforeValidator(_duration_or_off)]
DurationOrNever = Annotated[timedelta | None, BeforeValidator(_duration_or_never)]
Size = Annotated[int, BeforeValidator(parse_size)]
AETitle = Annotated[str, AfterValidator(_ae_title)]
Networks = Annotated[
    tuple[Annotated[str, AfterValidator(_network)], ...], AfterValidator(_somewhere)
]
CertificateIdentity = Annotated[str, AfterValidator(_certificate_identity)]
Host = Annotated[str, AfterValidator(_host)]
ServedURL = Annotated[str, AfterValidator(_served_url)]
Port = Annotated[int, Field(ge=1, le=65535)]


class Section(BaseModel):
    """A part of a settings file: frozen, and no key is taken that it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid")


_KEY = re.compile(r"[!-~]+")
"""What an Authorization header can carry (RFC 6750 section 2.1 allows less)."""


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
            When the file or variable is missing or empty, or the file is readable by everyone, or
            cannot be read as text, or what it holds is no key.
        """
        kind, _, name = self.reference.partition(":")
        if kind == "env":
            value = os.environ.get(name, "")
        else:
            path = Path(name)
            if not path.is_file():
                raise ConfigError([Fault(f"the key file {path} does not exist: put the key there")])
            if path.stat().st_mode & stat.S_IROTH:
                raise ConfigError([Fault(f"the key file {path} is world-readable: chmod 600 it")])
            try:
                value = path.read_text(encoding="utf-8-sig").strip()  # as some editors begin a file
            except (OSError, UnicodeDecodeError):
                fault = f"the key file {path} cannot be read: it is to hold the key as UTF-8 text"
                raise ConfigError([Fault(fault)]) from None  # the cause holds the key's bytes
        if not value:
            raise ConfigError([Fault(f"the key {self.reference} is empty: put the key there")])
        if not _KEY.fullmatch(value):
            fault = (
                f"the key {self.reference} is more than one word of ASCII: put the key alone there"
            )
            raise ConfigError([Fault(fault)])
        return value

    def __repr__(self) -> str:
        return "Secret(***)"

    __str__ = __repr__
