"""``pacs-ai check --sheet`` says everything that has to be entered in the PACS."""

from __future__ import annotations

from pathlib import Path

from typer.testing import CliRunner

from listener.ae import TRANSFER_SYNTAXES
from pacs_ai.cli.commands import app
from tests.unit.cli.conftest import write_config


def test_the_sheet_names_both_directions(tmp_path: Path) -> None:
    peers = {
        "pacs": {
            "ae_titles": ["MYPACS", "OTHER"],
            "addresses": ["192.0.2.10"],
            "host": "192.0.2.11",
            "port": 104,
            "called_ae_title": "STORE",
        },
        "modality": {"ae_titles": ["CT1"], "addresses": ["192.0.2.12"]},
    }
    config = write_config(tmp_path, peers=peers, delivery="origin")
    ended = CliRunner().invoke(app, ["check", "--sheet", "--config", str(config)])
    assert ended.exit_code == 0
    said = {" ".join(line.split()) for line in ended.stdout.splitlines()}
    assert {
        "AE title PACSAI",
        "address 127.0.0.1",
        "TLS none",
        "maximum PDU 131072 bytes",
        "transfer syntaxes Explicit VR Little Endian",
        "JPEG 2000 Image Compression",
        "calling AE title MYPACS, OTHER",
        "from 192.0.2.10",
        "calling AE title CT1",
        "To pacs, results are sent",
        "called AE title STORE",
        "address 192.0.2.11, port 104",
        "SOP Classes Segmentation Storage (1.2.840.10008.5.1.4.1.1.66.4)",
    } <= said
    assert not any("1.2.840.10008.5.1.4.1.1.88.22" in one for one in said), "no draft report asked"
    assert "To modality, results are sent" not in said
    assert len(said) > len(TRANSFER_SYNTAXES)
