"""The table of published models, and downloads from a server on the loopback interface."""

import dataclasses
import hashlib
import itertools
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest
from orb_export import variants
from orb_export.variants import VARIANTS, Variant


class _QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, format, *args):
        pass


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A folder that is served in place of the published one."""
    folder = tmp_path / "served"
    folder.mkdir()
    httpd = ThreadingHTTPServer(("127.0.0.1", 0), partial(_QuietHandler, directory=str(folder)))
    thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    monkeypatch.setattr(variants, "BASE_URL", f"http://127.0.0.1:{httpd.server_address[1]}/")
    yield folder
    httpd.shutdown()
    thread.join()
    httpd.server_close()


ROW = Variant("orb-v3-test", "test.ckpt", "direct", 20, "nothing")
CONTENT = b"weights" * 1000


def test_the_ten_published_models_are_there():
    parts = itertools.product(("conservative", "direct"), ("20", "inf"), ("omat", "mpa"))
    names = {"-".join(("orb-v3", *part)) for part in parts}
    assert VARIANTS.keys() == names | {"orb-v3-conservative-omol", "orb-v3-direct-omol"}


@pytest.mark.parametrize("row", VARIANTS.values(), ids=lambda row: row.name)
def test_rows_agree_with_their_names(row):
    parts = row.name.split("-")
    assert row.kind == parts[2]
    assert row.max_neighbors == (20 if "20" in parts else 120)
    assert row.has_charge_spin == ("omol" in parts)
    assert row.has_stress == (row.name != "orb-v3-direct-omol")
    assert row.file_name.startswith(row.name)
    assert row.url.startswith("https://")
    assert row.url.endswith(row.file)
    assert variants.by_file(row.file_name) is row


@pytest.mark.parametrize("name", ["orb-v3-direct-20-omat", "orb_v3_direct_20_omat", "ORB-v3-direct_20-omat"])
def test_names_are_accepted_with_dashes_and_underscores(name):
    assert variants.get(name).name == "orb-v3-direct-20-omat"


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("orb-v3-direct-120-omat", "did you mean orb-v3-direct-20-omat"),
        ("orb-v3-conservative-inf-oma", "did you mean orb-v3-conservative-inf-omat"),
        ("gemnet", "known: orb-v3-conservative-20-omat, "),
    ],
)
def test_unknown_names_get_a_hint(name, hint):
    with pytest.raises(ValueError, match=f"`name` is '{name}' but must be .*{hint}"):
        variants.get(name)


class TestWeights:
    """Local files, downloads and the cache."""

    def test_a_local_file_is_used_as_it_is(self, tmp_path):
        (tmp_path / "w.ckpt").write_bytes(CONTENT)
        assert variants.weights_path(ROW, tmp_path / "w.ckpt") == tmp_path / "w.ckpt"

    def test_an_absent_local_file_is_named(self, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"`weights` is '.*w\.ckpt' but no such file exists"):
            variants.weights_path(ROW, tmp_path / "w.ckpt")

    def test_download_happens_once_and_leaves_its_checksum(self, server, tmp_path):
        (server / ROW.file).write_bytes(CONTENT)
        path = variants.weights_path(ROW, cache=tmp_path / "cache")
        assert path.read_bytes() == CONTENT
        record = (tmp_path / "cache/test.ckpt.sha256").read_text()
        assert record == f"{hashlib.sha256(CONTENT).hexdigest()}  test.ckpt\n"
        (server / ROW.file).unlink()
        assert variants.weights_path(ROW, cache=tmp_path / "cache") == path

    def test_a_cached_file_that_has_changed_is_refused(self, server, tmp_path):
        (server / ROW.file).write_bytes(CONTENT)
        path = variants.weights_path(ROW, cache=tmp_path)
        path.write_bytes(CONTENT[:-1])
        with pytest.raises(ValueError, match=r"test\.ckpt` has SHA-256 \w+ but must have \w+; delete it"):
            variants.weights_path(ROW, cache=tmp_path)

    def test_a_download_with_another_checksum_is_refused(self, server, tmp_path):
        (server / ROW.file).write_bytes(CONTENT)
        row = dataclasses.replace(ROW, sha256="0" * 64)
        with pytest.raises(ValueError, match="does not have the published checksum"):
            variants.weights_path(row, cache=tmp_path)
        assert not (tmp_path / "test.ckpt").exists()

    def test_without_network_the_error_says_what_to_do(self, server, tmp_path):
        # the server has no such file
        with pytest.raises(
            ConnectionError, match=r"could not be downloaded from http.*give its path as `weights`"
        ):
            variants.weights_path(ROW, cache=tmp_path)
        assert not (tmp_path / "test.ckpt").exists()

    def test_an_unreachable_server_is_a_connection_error(self, monkeypatch, tmp_path):
        monkeypatch.setattr(variants, "BASE_URL", "http://127.0.0.1:9/")
        with pytest.raises(ConnectionError, match="orb-v3-test could not be downloaded"):
            variants.weights_path(ROW, cache=tmp_path)
