"""`download` against a server on this machine: resumed, checked, unpacked whole, refused where it must be."""

import functools
import hashlib
import http.server
import io
import tarfile
import threading
import zipfile
from pathlib import Path

import pytest
import yaml
from observe import said

from pipeline.core import files, settings
from pipeline.tools import download

CONTENT = {"VOCdevkit/VOC/JPEGImages/a.jpg": bytes(range(256)) * 20_000, "VOCdevkit/VOC/lists/train.txt": b"a\n"}


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves `content` by name; `ends_after` bytes of an answer the connection ends; ranges may be unknown to it."""

    def __init__(self, server, *args):
        self.of = server
        super().__init__(*args)

    def do_GET(self):
        body = self.of.content.get(self.path[1:])
        self.of.asked.append((self.path[1:], self.headers.get("Range")))
        if body is None:
            self.send_error(404)
            return
        start = 0
        if self.of.ranges and "Range" in self.headers:
            start = int(self.headers["Range"].removeprefix("bytes=").rstrip("-"))
        if start >= len(body):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(body)}")
            self.end_headers()
            return
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        self.send_header("Content-Length", str(len(body) - start))
        self.end_headers()
        self.wfile.write(body[start:][: self.of.ends_after])

    def log_message(self, *args):
        """Say nothing."""


class Server:
    """A server's state and address."""

    def __init__(self):
        self.content, self.asked, self.ranges, self.ends_after, self.url = {}, [], True, None, ""


@pytest.fixture
def server():
    state = Server()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, state)) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        state.url = f"http://127.0.0.1:{running.server_address[1]}"
        yield state
        running.shutdown()


def tar_of(content, mode="w"):
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode=mode) as archive:
        for name, data in content.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return written.getvalue()


def zip_of(content):
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w") as archive:
        for name, data in content.items():
            archive.writestr(name, data)
    return written.getvalue()


def md5(content):
    return "md5:" + hashlib.md5(content).hexdigest()


@pytest.fixture
def known(tmp_path, monkeypatch, server):
    """Write the list of what may be fetched: one file `name`, with changes."""

    def write(name, content, **changed):
        entry = {"file": name, "checksum": md5(content), "urls": [f"{server.url}/{name}"]}
        entry |= {"unpacks": {"VOCdevkit/VOC": "VOCdevkit/VOC"}} if "into" not in changed else {}
        listed = {"voc": {"terms": "cite them", "page": "https://example.org", "files": [entry | changed]}}
        (tmp_path / "downloads.yaml").write_text(yaml.safe_dump(listed))
        monkeypatch.setattr(download, "LIST", tmp_path / "downloads.yaml")
        server.content[name] = content

    return write


@pytest.fixture
def data(tmp_path):
    return tmp_path / "data"


def run(data, *options):
    return download.main(["voc", "--to", str(data), *options])


def tree(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.parametrize(
    ("name", "pack"),
    [("a.tar", tar_of), ("a.tar.gz", functools.partial(tar_of, mode="w:gz")), ("a.zip", zip_of)],
)
def test_an_archive_is_fetched_and_unpacked(server, known, data, capsys, name, pack):
    known(name, pack(CONTENT | {"VOCdevkit/other.txt": b"not asked for"}))
    assert run(data) == 0
    assert tree(data) == CONTENT
    assert "terms: cite them" in capsys.readouterr().err
    # Once more there is nothing to do.
    assert run(data) == 0
    assert "is there already" in capsys.readouterr().err
    assert len(server.asked) == 1


def test_an_archive_is_kept_if_asked(known, data):
    known("a.tar", tar_of(CONTENT))
    assert run(data, "--keep") == 0
    assert set(tree(data)) == {"a.tar", *CONTENT}


def test_a_file_that_is_no_archive(known, data):
    known(
        "weights.pth",
        b"numbers",
        into="weights/weights.pth",
        checksum="sha256:" + hashlib.sha256(b"numbers").hexdigest()[:8],
    )
    assert run(data) == 0
    assert (data / "weights/weights.pth").read_bytes() == b"numbers"


def test_an_unknown_checksum_is_told(known, data, capsys):
    known("a.txt", b"names", into="a.txt", checksum="unknown")
    assert run(data) == 0
    assert f"no checksum is known; found sha256:{hashlib.sha256(b'names').hexdigest()}" in capsys.readouterr().err


@pytest.mark.parametrize("ranges", [True, False])
def test_a_broken_download_goes_on(server, known, data, ranges):
    """Where the server knows ranges with what is missing, else anew, and then only a whole answer helps."""
    content = tar_of(CONTENT)
    known("a.tar", content)
    server.ranges, server.ends_after = ranges, 2_000_000 if ranges else None
    data.mkdir()
    files.partial(data / "a.tar").write_bytes(content[:1000])  # of an earlier run
    assert run(data) == 0
    assert tree(data) == CONTENT
    starts = [asked for _, asked in server.asked]
    assert starts == (["bytes=1000-", "bytes=2001000-", "bytes=4001000-"] if ranges else ["bytes=1000-"])


def test_a_download_that_was_killed_before_its_end_was_noticed(server, known, data):
    content = tar_of(CONTENT)
    known("a.tar", content)
    data.mkdir()
    files.partial(data / "a.tar").write_bytes(content)
    assert run(data) == 0
    assert tree(data) == CONTENT
    assert server.asked == [("a.tar", f"bytes={len(content)}-")]


def test_another_address_is_tried(server, known, data):
    content = tar_of(CONTENT)
    known("a.tar", content, urls=["http://127.0.0.1:9/a.tar", f"{server.url}/gone.tar", f"{server.url}/a.tar"])
    assert run(data) == 0
    assert [name for name, _ in server.asked] == ["gone.tar", "a.tar"]


def test_no_address_helps(server, known, data, capsys):
    known("a.tar", tar_of(CONTENT), urls=[f"{server.url}/gone.tar"])
    assert run(data) == 2
    assert "gone.tar: found status 404 Not Found, expected a.tar; mend `urls`" in said(capsys)


def test_a_partial_file_of_another_content_is_thrown_away(server, known, data):
    content = tar_of(CONTENT)
    known("a.tar", content)
    data.mkdir()
    files.partial(data / "a.tar").write_bytes(bytes(len(content) + 5))
    assert run(data) == 0
    assert tree(data) == CONTENT


@pytest.mark.parametrize(
    ("changed", "found"),
    [
        (
            {"checksum": "md5:" + 32 * "0"},
            "expected md5:00000000000000000000000000000000; delete ",
        ),
        ({"bytes": 5}, "bytes, expected 5; delete "),
    ],
)
def test_another_file_than_expected_is_refused(known, data, capsys, changed, found):
    known("a.tar", tar_of(CONTENT), **changed)
    assert run(data) == 2
    assert found in said(capsys)
    assert set(tree(data)) == {".a.tar.download"}  # nothing is unpacked, nothing lost


def test_a_wrong_file_is_refused_again_and_again(known, data, capsys):
    """What was not checked never stands in its place, though it goes there under its own name."""
    known("a.pth", b"numbers", into="a.pth", checksum="md5:" + 32 * "0")
    assert [run(data), run(data)] == [2, 2]
    assert set(tree(data)) == {".a.pth.download"}
    (data / ".a.pth.download").unlink()
    known("a.pth", b"numbers", into="a.pth")
    assert run(data) == 0
    assert tree(data) == {"a.pth": b"numbers"}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.tar", lambda: tar_of(CONTENT | {"VOCdevkit/VOC/../../../../escaped": b"!"})),
        ("a.tar", lambda: linked("/etc", "VOCdevkit/VOC/link/escaped")),
        ("a.tar", lambda: linked("../../../..", "VOCdevkit/VOC/link/escaped")),
    ],
)
def test_nothing_leaves_the_folder(known, data, capsys, name, content):
    known(name, content())
    assert run(data) == 2
    assert "found a member that leaves the folder (" in said(capsys)
    assert set(tree(data)) == {f".{name}.download"}
    assert not list(data.parent.rglob("escaped"))


def test_nothing_leaves_the_folder_of_a_zip(known, data, capsys):
    known("a.zip", zip_of(CONTENT | {"VOCdevkit/VOC/../../../../escaped": b"!", "/escaped": b"!"}))
    assert run(data) == 2
    assert "found a member that leaves the folder (" in said(capsys)
    assert not list(data.parent.rglob("escaped"))


def linked(target, name):
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode="w") as archive:
        link = tarfile.TarInfo("VOCdevkit/VOC/link")
        link.type, link.linkname = tarfile.SYMTYPE, target
        archive.addfile(link)
        archive.addfile(tarfile.TarInfo(name))
    return written.getvalue()


@pytest.mark.parametrize("name", ["a.tar", "a.tar.gz", "a.zip"])
def test_a_damaged_archive(known, data, capsys, name):
    whole = zip_of(CONTENT) if name == "a.zip" else tar_of(CONTENT, "w:gz" if name.endswith("gz") else "w")
    known(name, whole[: len(whole) // 2])
    assert run(data) == 2
    assert "found a damaged archive (" in said(capsys)
    assert set(tree(data)) == {f".{name}.download"}


def test_an_archive_without_the_folder(known, data, capsys):
    known("a.tar", tar_of({"elsewhere/a.jpg": b"1"}))
    assert run(data) == 2
    assert ".a.tar.download: found no VOCdevkit/VOC in it" in said(capsys)


def test_a_file_of_ones_own(server, known, data, tmp_path, capsys):
    """Where an account is asked for; it is left where it is, and the page is named without it."""
    content = tar_of(CONTENT)
    known("a.tar", content, urls=[])
    assert run(data) == 2
    expected = "a.tar: found no address to fetch it from, expected a file; "
    assert said(capsys).endswith(expected + "get it at https://example.org and give --archive a.tar")
    (tmp_path / "a.tar").write_bytes(content)
    assert run(data, "--archive", str(tmp_path / "a.tar")) == 0
    assert tree(data) == CONTENT and (tmp_path / "a.tar").exists() and not server.asked


def test_a_file_of_another_name(known, data, tmp_path, capsys):
    known("a.tar", tar_of(CONTENT))
    assert run(data, "--archive", str(tmp_path / "b.tar")) == 2
    assert "--archive: found a file b.tar, expected one of a.tar; rename it, or leave it out" in said(capsys)


def test_unknown_names(known, data, capsys):
    known("a.tar", b"")
    assert download.main(["vok", "--to", str(data)]) == 2
    assert "NAME: found 'vok', expected a known one; did you mean 'voc'?" in said(capsys)


def test_an_address_that_is_none(known, data, capsys):
    known("a.tar", b"", urls=["www.example.org/a.tar"])
    assert run(data) == 2
    assert "key 'voc.files.0.urls.0': found 'www.example.org/a.tar', expected pattern ^https?://" in said(capsys)


def test_data_sets_come_to_where_packs_and_networks_look():
    listed = settings.read(settings.ROOT / "config/downloads.yaml", "downloads")
    come = {str(place) for entry in listed.values() for file in entry.files for place in places_of(file)}
    config = settings.ROOT / "config"
    packs = [settings.read(path, "packs") for path in sorted((config / "packs").glob("*.yaml"))]
    looked = {pack[key] for pack in packs for key in ("root", "sbd", "labels") if key in pack}
    # Of a folder what is in it may come file by file; where MSRC-21 is found, its page says.
    looked -= {"data/MSRC_ObjCategImageDatabase_v2"}
    assert len(looked) >= 6
    assert all(path in come or any(one.startswith(f"{path}/") for one in come) for path in looked)
    nets = [settings.read(path, "nets") for path in sorted((config / "nets").glob("*.yaml"))]
    weights = {net.weights for net in nets if net.get("weights", "none") != "none"}
    assert len(weights) >= 4 and weights <= come


def places_of(file):
    return download.places(file, Path("data")).values()


def test_the_list_of_the_project(capsys):
    listed = settings.read(settings.ROOT / "config/downloads.yaml", "downloads")
    assert {"voc2012", "sbd", "pascal_context", "cityscapes", "camvid", "vgg16", "resnet101"} <= set(listed)
    assert download.main([]) == 0
    assert "voc2012: VOCtrainval_11-May-2012.tar" in capsys.readouterr().out
