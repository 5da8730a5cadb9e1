from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pacs_ai.errors import ConfigError
from pacs_ai.settings import (
    Confirm,
    DicomDestination,
    Listener,
    Secret,
    Settings,
    load,
    loads,
    parse_duration,
    parse_size,
)

SITE = "site: {name: Test, time_zone: Etc/UTC, use: research, responsible: tests}\n"
PEERS = """
peers:
  pacs: {ae_titles: [PACS, PACS2], addresses: [192.0.2.1], host: 192.0.2.1, port: 104}
  scanner: {ae_titles: [CT1], quiet: 5s}
"""


def _messages(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        loads(text, file=Path("site.yaml"))
    return [str(fault) for fault in caught.value.faults]


@given(st.integers(0, 10**6), st.sampled_from(["ms", "s", "m", "h", "d"]))
def test_a_duration_is_a_number_and_its_unit(number: int, unit: str) -> None:
    seconds = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}[unit]
    assert parse_duration(f"{number}{unit}").total_seconds() == pytest.approx(number * seconds)


@pytest.mark.parametrize("text", ["60", "s", "1 week", "-5s", ""])
def test_a_duration_without_a_unit_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="with its unit"):
        parse_duration(text)


def test_sizes_tell_powers_of_ten_from_powers_of_two() -> None:
    assert (parse_size("50MB"), parse_size("2 GiB")) == (50_000_000, 2 * 2**30)


def test_every_fault_is_reported_with_its_line() -> None:
    text = SITE + "listener: {port: 0, ae_title: ''}\nidentity: relaxed\nfancy: true\n"
    found = _messages(text)
    assert len(found) == 4
    assert sum(message.startswith("site.yaml:2:") for message in found) == 2
    assert [message for message in found if message.startswith("site.yaml:3: identity")]
    assert [message for message in found if message.startswith("site.yaml:4: fancy")]


def test_a_key_that_stands_twice_is_a_fault() -> None:
    assert _messages(SITE + "data: a\ndata: b\n") == ["site.yaml:3: data stands twice: keep one"]


def test_what_is_not_yaml_is_a_fault_with_its_line() -> None:
    (message,) = _messages(SITE + "peers: [\n")
    assert message.startswith("site.yaml:")
    assert "not YAML" in message


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("peers: !!python/object:os.system x\n", ":2: not YAML: could not determine a constructor"),
        ("peers: &all [*all]\n", "not YAML: a key or a value of it cannot be read"),
        ("peers: " + "[" * 200_000 + "\n", "not YAML: a key or a value of it cannot be read"),
        ("data: 2026-13-45\n", "not YAML: a key or a value of it cannot be read"),
        ("peers: {[1, 2]: x}\n", "not YAML"),
        ("peers: {<<: 3}\n", ":2: not YAML: expected a mapping"),
        ("peers: {a: *nobody}\n", ":2: not YAML: found undefined alias"),
    ],
)
def test_what_yaml_can_say_and_settings_cannot_is_a_fault_too(written: str, said: str) -> None:
    (message,) = _messages(SITE + written)
    assert said in message


def test_a_file_that_cannot_be_read_is_a_fault(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="check --config"):
        load(tmp_path / "nowhere.yaml")


@pytest.mark.parametrize(
    ("written", "remedy"),
    [
        (b"site:\n  name: M\xfcller\n", "fault.yaml:2: not UTF-8: save the file as UTF-8"),
        (b'site:\n  name: "a\x07"\n', "fault.yaml:2: not YAML: it has a control character"),
        ("é: ää\n\nb: \x07\n".encode(), "fault.yaml:3: not YAML: it has a control character"),
    ],
)
def test_a_file_that_is_no_text_is_a_fault_with_its_line(
    tmp_path: Path, written: bytes, remedy: str
) -> None:
    file = tmp_path / "fault.yaml"
    file.write_bytes(written)
    with pytest.raises(ConfigError) as told:
        load(file)
    assert remedy in str(told.value)


def test_sections_that_do_not_go_together_are_all_told_with_their_lines() -> None:
    text = SITE + "listener:\n  host: 0.0.0.0\n" + PEERS + "delivery: [archive, elsewhere]\n"
    found = _messages(text)
    assert len(found) == 3
    assert "site.yaml:3: listener.host: not loopback" in found[0]
    line = 1 + text[: text.index("delivery")].count("\n")
    assert found[1].startswith(f"site.yaml:{line}: delivery: 'archive' is no destination")
    assert found[2].startswith(f"site.yaml:{line}: delivery: 'elsewhere' is no destination")


@pytest.mark.parametrize(
    ("one", "other", "told"),
    [
        ("addresses: [192.0.2.0/24]", "addresses: [192.0.2.1]", True),
        ("addresses: [192.0.2.1]", "addresses: [192.0.2.0/24]", False),
        ("addresses: [192.0.2.1]", "addresses: [198.51.100.1, 192.0.2.1]", True),
        ("addresses: [192.0.2.1]", "addresses: [192.0.2.2]", False),
        ("addresses: [192.0.2.1]", "addresses: ['2001:db8::1']", False),
    ],
)
def test_a_peer_that_an_earlier_one_covers_is_a_fault(one: str, other: str, *, told: bool) -> None:
    text = (
        f"{SITE}peers:\n  pacs: {{ae_titles: [PACS, CT], {one}}}\n"
        f"  modality: {{ae_titles: [CT], {other}}}\n"
    )
    if not told:
        loads(text)
        return
    (message,) = _messages(text)
    assert "peers.modality: peers.pacs has the same AE title CT and address" in message


def test_peers_of_one_title_and_address_are_told_apart_by_their_certificates() -> None:
    def written(other: str) -> str:
        return (
            f"{SITE}listener: {{certificate: a, key: b, client_authorities: c}}\npeers:\n"
            "  pacs: {ae_titles: [CT], certificates: ['dns:one']}\n"
            f"  modality: {{ae_titles: [CT], certificates: ['dns:{other}']}}\n"
        )

    loads(written("other"))
    with pytest.raises(ConfigError, match="same AE title"):
        loads(written("one"))


def test_whoever_is_not_listed_may_not_send() -> None:
    settings = loads(SITE + PEERS)
    assert settings.peer_of("PACS2", "192.0.2.1") == "pacs"
    assert settings.peer_of("PACS2", "192.0.2.9") is None
    assert settings.peer_of("OTHER", "192.0.2.1") is None
    assert settings.peer_of("CT1", "127.0.0.1") == "scanner"
    assert loads(SITE).peer_of("PACS", "127.0.0.1") is None


def test_results_go_back_where_the_study_came_from() -> None:
    settings = loads(SITE + PEERS + "delivery: origin\n")
    assert settings.destinations_for("pacs") == ("pacs",)
    destination = settings.destination("pacs")
    assert isinstance(destination, DicomDestination)
    assert (destination.host, destination.port, destination.ae_title) == ("192.0.2.1", 104, "PACS")
    assert settings.destination("scanner") is None


@pytest.mark.parametrize(
    ("delivery", "asked"),
    [
        ("hold", ("research", "pacs")),
        ("origin", ("pacs",)),
        ("[research]", ("research",)),
        ("[scanner]", ()),
    ],
)
def test_who_gets_nothing_is_asked_nothing(delivery: str, asked: tuple[str, ...]) -> None:
    folder = "destinations: {research: {kind: folder, path: here}}\n"
    settings = loads(f"{SITE}{PEERS}{folder}delivery: {delivery}\n")
    assert settings.asked_destination_names == asked


def test_delivery_to_nobody_is_a_fault() -> None:
    assert [one for one in _messages(SITE + "delivery: [archive]\n") if "'archive'" in one]


def test_a_name_is_no_longer_than_the_ledger_holds() -> None:
    def named(length: int) -> str:
        return f"{SITE}peers: {{{'p' * length}: {{ae_titles: [CT1]}}}}\n"

    assert "p" * 64 in loads(named(64)).peers
    assert [one for one in _messages(named(65)) if "64 characters" in one]


def test_the_digest_of_settings_tells_every_change_and_no_order() -> None:
    first = loads(SITE + PEERS + "never: [{}]\n")
    assert loads(SITE + "never: [{}]\n" + PEERS).digest == first.digest
    assert loads(SITE + PEERS).digest != first.digest
    assert loads(SITE + PEERS + "never: [{}]\nworker_processes: 5\n").digest != first.digest


def test_the_quiet_period_is_the_peers_before_it_is_the_modalitys() -> None:
    settings = loads(SITE + PEERS)
    assert settings.quiet("CT", "scanner") == timedelta(seconds=5)
    assert settings.quiet("CT", "pacs") == timedelta(seconds=120)
    assert settings.quiet("XA", "pacs") == settings.defaults.quiet_other


def test_an_open_address_needs_a_word_of_its_own() -> None:
    assert [one for one in _messages(SITE + "listener: {host: 0.0.0.0}\n") if "loopback" in one]
    open_to_all = "listener: {host: 0.0.0.0, unsafe_plain_network: true}\n"
    assert loads(SITE + open_to_all).listener.port == 11112
    with_tls = "listener: {host: 0.0.0.0, certificate: a.pem, key: a.key}\n"
    assert loads(SITE + with_tls).listener.port == 11112


MUTUAL = "listener: {certificate: a.pem, key: a.key, client_authorities: ca.pem}\n"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("listener: {certificate: a.pem}\n", "belong together"),
        ("listener: {client_authorities: a.pem}\n", "give certificate and key too"),
        (MUTUAL + "peers: {a: {ae_titles: [A]}}\n", "name its certificates"),
        ("peers: {a: {ae_titles: [A], certificates: ['dns:a']}}\n", "nobody is asked"),
        (MUTUAL + "peers: {a: {ae_titles: [A], certificates: ['CN=a']}}\n", "dns:NAME"),
        (MUTUAL + "peers: {a: {ae_titles: [A], certificates: ['sha256:12']}}\n", "64 hexa"),
        ("peers: {a: {ae_titles: [A], tls: {key: a.key}}}\n", "belong together"),
    ],
)
def test_half_a_tls_is_a_fault_that_says_what_is_missing(text: str, words: str) -> None:
    assert [one for one in _messages(SITE + text) if words in one]


def test_an_ae_title_is_bound_to_its_peers_certificates() -> None:
    digits = ":".join(["AB"] * 32)
    peers = f"peers: {{a: {{ae_titles: [A], certificates: ['dns:A.test', 'SHA256:{digits}']}}}}\n"
    settings = loads(SITE + MUTUAL + peers)
    for shown in ("dns:a.test", "sha256:" + "ab" * 32):
        assert settings.peer_of("A", "127.0.0.1", {shown, "dns:further.test"}) == "a"
    for other in (set(), {"dns:b.test"}):
        assert settings.peer_of("A", "127.0.0.1", other) is None


@pytest.mark.parametrize("url", ["http://models.example.org/score", "http://127.0.0.1.evil/score"])
def test_a_model_is_asked_in_plain_text_only_on_loopback(url: str) -> None:
    text = f"endpoints: {{a: {{kind: insight, url: '{url}', name: n, version: '1'}}}}\n"
    assert [one for one in _messages(SITE + text) if "https://" in one]


@pytest.mark.parametrize(
    "url",
    [
        "https://ml.example:99999/",
        "https://ml.example:port/",
        "https://ml.example:0/",
        "https://[::1/",
        "https:///score",
        "https://ml..example/",
        f"https://{'a' * 70}.example/",
    ],
)
def test_an_address_that_leads_to_no_host_is_a_fault(url: str) -> None:
    endpoints = f"endpoints: {{a: {{kind: insight, url: '{url}', name: n, version: '1'}}}}\n"
    (said,) = _messages(SITE + endpoints)
    assert said.startswith("site.yaml:2: endpoints.a.url: it leads to no host: write https://HOST")
    peers = f"peers: {{a: {{ae_titles: [A], confirm: qido, qido_url: '{url}'}}}}\n"
    (said,) = _messages(SITE + peers)
    assert said.startswith("site.yaml:2: peers.a.qido_url: it leads to no host: write https://HOST")


_LONG = "a" * 63 + ".example"


@pytest.mark.parametrize("host", ["pacs..example", "a" + _LONG, "''", "pacs:104", "a b", "'*'"])
@pytest.mark.parametrize(
    ("setting", "text"),
    [
        ("destinations.a", "destinations: {a: {kind: dicom, host: HOST, port: 1, ae_title: A}}"),
        ("peers.a", "peers: {a: {ae_titles: [A], host: HOST, port: 1}}"),
        ("listener", "listener: {host: HOST, unsafe_plain_network: true}"),
        ("web", "web: {host: HOST, certificate: a.pem, key: a.key}"),
    ],
)
def test_a_host_that_is_none_is_a_fault(setting: str, text: str, host: str) -> None:
    (said,) = _messages(SITE + text.replace("HOST", host) + "\n")
    assert said.startswith(f"site.yaml:2: {setting}")
    assert "host: it is no host: write an IP address, or a DNS name" in said


@pytest.mark.parametrize("name", ["*", "a*b", "*.example"])
def test_the_web_face_has_no_name_that_others_can_take(name: str) -> None:
    (said,) = _messages(SITE + f"web: {{names: [gateway.example, '{name}']}}\n")
    assert said.startswith("site.yaml:2: web: web.names: * stands for names of others too: write")


@pytest.mark.parametrize(
    "host",
    ["localhost", "192.0.2.1", "::1", "fe80::1%eth0", "pacs_1.example.", "bücher.example", _LONG],
)
def test_a_host_is_an_address_or_a_name(host: str) -> None:
    peers = f"peers: {{a: {{ae_titles: [A], host: '{host}', port: 104}}}}\n"
    assert loads(SITE + peers).peers["a"].host == host


def test_a_key_never_stands_in_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="never in this file"):
        Secret.model_validate("hunter2")
    key = tmp_path / "key"
    key.write_text("hunter2\n")
    key.chmod(0o644)
    secret = Secret.model_validate(f"file:{key}")
    with pytest.raises(ConfigError, match="chmod 600"):
        secret.read()
    key.chmod(0o600)
    assert secret.read() == "hunter2"
    assert "hunter2" not in f"{secret!r} {secret}"
    key.write_bytes(b"hunter2\xff")
    with pytest.raises(ConfigError, match="as UTF-8 text") as told:
        secret.read()
    assert "hunter2" not in str(told.value)
    monkeypatch.setenv("A_KEY", "s3")
    assert Secret.model_validate("env:A_KEY").read() == "s3"
    monkeypatch.delenv("A_KEY")
    with pytest.raises(ConfigError, match="is empty"):
        Secret.model_validate("env:A_KEY").read()


def test_rules_are_handed_on_with_the_lines_they_stand_on() -> None:
    settings = loads(SITE + "rules:\n  - name: a\n  - name: b\n", file=Path("site.yaml"))
    source = settings.rules_source("rules")
    assert source is not None
    assert str(source.child(1).child("name").fault("x")) == "site.yaml:4: rules.1.name: x"
    assert settings.rules_source("terms") is None


def test_a_section_can_be_replaced_from_outside() -> None:
    settings = loads(SITE, overrides={"listener": {"port": 4242}})
    assert settings.listener.port == 4242


def test_settings_do_not_change() -> None:
    settings: Settings = loads(SITE)
    with pytest.raises(ValueError, match="frozen"):
        settings.identity = "lenient"  # type: ignore[assignment,misc] # the point of the test


@pytest.mark.parametrize("zone", ["Berlin", "", "../etc"])
def test_a_time_zone_that_nobody_knows_is_a_fault(zone: str) -> None:
    text = SITE.replace("Etc/UTC", f"'{zone}'")
    assert [one for one in _messages(text) if "Europe/Berlin" in one]


# ---------------------------------------------------------------------- who may connect


NETWORKS = (
    "peers: {pacs: {ae_titles: [A], addresses: [192.0.2.10, 198.51.100.0/24, '2001:db8::/64']}}\n"
)


@pytest.mark.parametrize(
    ("address", "peer"),
    [
        ("192.0.2.10", "pacs"),
        ("192.0.2.11", None),
        ("198.51.100.1", "pacs"),
        ("198.51.101.1", None),
        ("::ffff:198.51.100.1", "pacs"),
        ("2001:db8::7", "pacs"),
        ("2001:db8:1::7", None),
        ("somewhere", None),
    ],
)
def test_a_peer_connects_from_its_addresses_and_networks_only(
    address: str, peer: str | None
) -> None:
    settings = loads(SITE + NETWORKS)
    assert settings.peer_of("A", address) == peer
    assert settings.peer_of("B", address) is None


@pytest.mark.parametrize(
    ("written", "remedy"),
    [
        ("[pacs.example.org]", "write 192.0.2.10 or 192.0.2.0/24"),
        ("[192.0.2.10/24]", "write 192.0.2.10 or 192.0.2.0/24"),
        ("[0.0.0.0/0]", "name the networks that may connect"),
        ("[]", "at least one address"),
    ],
)
def test_an_address_that_is_none_is_a_fault(written: str, remedy: str) -> None:
    text = f"peers: {{pacs: {{ae_titles: [A], addresses: {written}}}}}\n"
    assert [one for one in _messages(SITE + text) if remedy in one]


# ---------------------------------------------------------------------- confirming before sending


def test_nobody_is_asked_unless_the_settings_say_so() -> None:
    settings = loads(SITE + PEERS)
    assert settings.peers["pacs"].confirm is Confirm.OFF
    off = "peers: {pacs: {ae_titles: [A], host: 192.0.2.1, port: 104, confirm: off}}\n"
    target = loads(SITE + off).destination("pacs")
    assert isinstance(target, DicomDestination)
    assert target.confirm is Confirm.OFF


def test_a_peer_hands_on_how_it_is_asked() -> None:
    text = (
        "peers: {pacs: {ae_titles: [A], host: 192.0.2.1, port: 104, confirm: qido,"
        " qido_url: 'https://pacs.example.org/dicom-web', qido_key: 'env:PACS_KEY'}}\n"
    )
    target = loads(SITE + text).destination("pacs")
    assert isinstance(target, DicomDestination)
    assert (target.confirm, target.qido_url) == (Confirm.QIDO, "https://pacs.example.org/dicom-web")
    assert target.qido_key is not None


@pytest.mark.parametrize(
    ("values", "remedy"),
    [
        ("confirm: qido", "needs qido_url"),
        ("confirm: qido, qido_url: 'http://pacs.example.org/'", "https://"),
        ("confirm: sometimes", "'off', 'c-find' or 'qido'"),
    ],
)
def test_a_destination_that_cannot_be_asked_as_written_is_a_fault(values: str, remedy: str) -> None:
    text = f"peers: {{pacs: {{ae_titles: [A], host: 192.0.2.1, port: 104, {values}}}}}\n"
    assert [one for one in _messages(SITE + text) if remedy in one]


@pytest.mark.parametrize(
    ("listener", "disk", "watermark"),
    [
        (Listener(maximum_object=2**20), 2**30, 2 * 2**30),
        (Listener(maximum_object=2**20), 100 * 2**30, 5 * 2**30),
        (Listener(), 100 * 2**30, 16 * 2**30),
        (Listener(minimum_free=1), 100 * 2**30, 1),
    ],
)
def test_the_watermark_leaves_room_for_a_share_a_floor_and_four_of_the_largest(
    listener: Listener, disk: int, watermark: int
) -> None:
    assert listener.watermark(disk) == watermark


def test_never_is_a_time_to_keep() -> None:
    kept = loads(SITE + "retention: {sources: never, results: 0d}").retention
    assert (kept.sources, kept.results) == (None, timedelta(0))
    assert "duration" in _messages(SITE + "retention: {sources: a while}")[0]
