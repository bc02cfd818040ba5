"""Published data sets from a server that breaks off, lies and changes its files; archives that mean harm."""

import hashlib
import io
import json
import shlex
import stat
import tarfile
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import trees

from gcplib.lab.cli import main
from gcplib.lab.cli.train import read_spec
from gcplib.lab.data import download, unpack
from gcplib.lab.data.download import DownloadError, fetch, get_dataset
from gcplib.lab.data.published import ELSEWHERE, PUBLISHED, File, Published
from gcplib.lab.data.readers import DATASETS

CONTENT = np.random.default_rng(0).bytes(300_000)


class Server:
    """What it serves, and how it misbehaves."""

    def __init__(self):
        self.files, self.asked = {}, []
        self.etag, self.ranges, self.heeds_etag = '"one"', True, True
        self.cuts, self.statuses = [], []  # bytes until the connection breaks, and errors, for the next requests
        self.claim = None  # as Content-Length
        self.url = ""


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        state = self.server.state
        wanted, condition = self.headers.get("Range"), self.headers.get("If-Range")
        state.asked.append(wanted)
        if state.statuses:
            return self.send_error(state.statuses.pop(0))
        body = state.files.get(self.path)
        if body is None:
            return self.send_error(404)
        start = 0
        if wanted and state.ranges and (condition == state.etag or not state.heeds_etag):
            start = int(wanted.removeprefix("bytes=").rstrip("-"))
            if start >= len(body):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(body)}")
                self.send_header("Content-Length", "0")
                return self.end_headers()
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        else:
            self.send_response(200)
        if state.etag:
            self.send_header("ETag", state.etag)
        self.send_header("Content-Length", str(state.claim or len(body) - start))
        self.end_headers()
        self.wfile.write(body[start : start + state.cuts.pop(0)] if state.cuts else body[start:])

    def log_message(self, *args):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(download, "PAUSE", 0)
    monkeypatch.setattr(download, "ATTEMPTS", 3)
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        http.state = Server()
        http.state.url = f"http://127.0.0.1:{http.server_port}"
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield http.state
        http.shutdown()
        thread.join()


def offer(server, content=CONTENT, name="a.bin", method="sha256", size=True):
    """Serve a file, and return it as the table has it."""
    server.files[f"/{name}"] = content
    checksum = f"{method}:{hashlib.new(method, content).hexdigest()}" if method else None
    return File(f"{server.url}/{name}", len(content) if size else None, checksum, "the test")


@pytest.mark.parametrize("method", ["sha256", "md5", None])
def test_a_file_is_had_once(server, tmp_path, method):
    file = offer(server, method=method)
    assert fetch(file, tmp_path).read_bytes() == CONTENT
    assert fetch(file, tmp_path).read_bytes() == CONTENT
    assert server.asked == [None]
    assert [path.name for path in tmp_path.iterdir()] == ["a.bin"]


def test_a_broken_download_goes_on_where_it_was(server, tmp_path):
    server.cuts = [100_000, 50_000]
    assert fetch(offer(server), tmp_path).read_bytes() == CONTENT
    assert server.asked == [None, "bytes=100000-", "bytes=150000-"]


def test_the_next_call_goes_on_where_this_one_gave_up(server, tmp_path):
    file, server.cuts = offer(server), [100_000, 0, 0]
    with pytest.raises(DownloadError, match=r"broke off after 100,000 of 300,000 bytes\. 100,000 bytes are kept"):
        fetch(file, tmp_path)
    assert fetch(file, tmp_path).read_bytes() == CONTENT
    assert server.asked[-1] == "bytes=100000-"


def test_a_server_without_ranges_sends_all_again(server, tmp_path):
    server.ranges, server.cuts = False, [100_000]
    assert fetch(offer(server), tmp_path).read_bytes() == CONTENT
    assert server.asked == [None, "bytes=100000-"]


@pytest.mark.parametrize("etag", [None, 'W/"one"'])
def test_nothing_is_joined_where_versions_cannot_be_told(server, tmp_path, etag):
    server.etag, server.cuts = etag, [100_000]
    assert fetch(offer(server), tmp_path).read_bytes() == CONTENT
    assert server.asked == [None, None]


@pytest.mark.parametrize("heeds_etag", [True, False])
def test_a_file_that_changed_on_the_server_is_not_stitched_together(server, tmp_path, heeds_etag):
    # Neither size nor checksum is known, so that nothing else would notice.
    server.cuts, server.heeds_etag = [100_000, 0, 0], heeds_etag
    with pytest.raises(DownloadError):
        fetch(offer(server, method=None, size=False), tmp_path)
    server.etag, changed = '"two"', CONTENT[::-1]
    assert fetch(offer(server, changed, method=None, size=False), tmp_path).read_bytes() == changed


def test_a_part_that_is_all_is_not_asked_for_again(server, tmp_path):
    file = offer(server)
    (tmp_path / "a.bin.part").write_bytes(CONTENT)
    (tmp_path / "a.bin.part.json").write_text(json.dumps({"url": file.url, "validator": server.etag}))
    assert fetch(file, tmp_path).read_bytes() == CONTENT
    assert server.asked == ["bytes=300000-"]


def test_a_part_that_is_more_than_all_is_thrown_away(server, tmp_path):
    file = offer(server)
    (tmp_path / "a.bin.part").write_bytes(CONTENT + b"more")
    (tmp_path / "a.bin.part.json").write_text(json.dumps({"url": file.url, "validator": server.etag}))
    assert fetch(file, tmp_path).read_bytes() == CONTENT
    assert server.asked == ["bytes=300004-", None]


def test_a_file_of_another_size_is_not_downloaded(server, tmp_path):
    file = offer(server)._replace(size=299_999)
    with pytest.raises(DownloadError, match=r"300,000 bytes now, and 299,999 were published: it is another file"):
        fetch(file, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_server_that_promises_more_than_it_sends_is_not_believed(server, tmp_path):
    file, server.claim = offer(server, method=None, size=False), 400_000
    server.ranges = False
    with pytest.raises(DownloadError, match="broke off after 300,000 of 400,000 bytes"):
        fetch(file, tmp_path)
    assert not (tmp_path / "a.bin").exists()
    assert len(server.asked) == 3


def test_a_file_with_another_checksum_is_removed(server, tmp_path):
    file = offer(server)
    server.files["/a.bin"] = CONTENT[::-1]
    with pytest.raises(DownloadError, match=r"has the SHA256 [0-9a-f]{64}, and [0-9a-f]{64} .*the test.*removed"):
        fetch(file, tmp_path)
    assert not (tmp_path / "a.bin").exists()
    assert not (tmp_path / "a.bin.part").exists()
    # One that was put there by hand is not trusted either.
    (tmp_path / "a.bin").write_bytes(CONTENT[1:])
    with pytest.raises(DownloadError, match="has 299,999 bytes, and 300,000 were published"):
        fetch(file, tmp_path)
    assert not (tmp_path / "a.bin").exists()


def test_a_file_that_is_not_there_is_asked_for_once(server, tmp_path):
    file = offer(server)._replace(url=f"{server.url}/b.bin")
    with pytest.raises(DownloadError, match=r"b.bin: the server answers 404 .*download b.bin by hand and put it into"):
        fetch(file, tmp_path)
    assert len(server.asked) == 1


def test_a_server_that_is_busy_is_asked_again(server, tmp_path):
    file, server.statuses = offer(server), [503, 503]
    assert fetch(file, tmp_path).read_bytes() == CONTENT
    server.statuses = [503] * 3
    with pytest.raises(DownloadError, match="answers 503"):
        fetch(offer(server, name="b.bin"), tmp_path)
    assert len(server.asked) == 6


def test_no_server_at_all(server, tmp_path):
    with pytest.raises(DownloadError, match=r"refused.*the same command continues there"):
        fetch(File("http://127.0.0.1:9/a.bin", None, None, ""), tmp_path)


# Archives.


def pack(path, members):
    """Write a tar; a member is bytes, or the attributes of something else."""
    with tarfile.open(path, "w:gz") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            if isinstance(content, bytes):
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
            else:
                for key, value in content.items():
                    setattr(info, key, value)
                tar.addfile(info)
    return path


TARS = {
    "above": ("../evil.txt", b"x", "would land outside"),
    "above within": ("a/../../evil.txt", b"x", "would land outside"),
    "absolute": ("/evil.txt", b"x", "would land outside"),
    "drive": ("C:evil.txt", b"x", "would land outside"),
    "backslash": ("..\\evil.txt", b"x", "would land outside"),
    "symbolic": ("evil", {"type": tarfile.SYMTYPE, "linkname": "/etc"}, "is a link"),
    "hard": ("evil", {"type": tarfile.LNKTYPE, "linkname": "good.txt"}, "is a link"),
    "device": ("evil", {"type": tarfile.FIFOTYPE}, "is a device"),
}


@pytest.mark.parametrize("kind", TARS)
def test_a_tar_that_means_harm_is_refused_by_name(tmp_path, kind):
    name, content, message = TARS[kind]
    archive = pack(tmp_path / "a.tar.gz", {"good.txt": b"good", name: content})
    with pytest.raises(ValueError, match=r"a\.tar\.gz is refused: its member '.*evil.*' " + message):
        unpack.unpack(archive, tmp_path / "in" / "out")
    assert not list(tmp_path.rglob("evil*"))


@pytest.mark.parametrize(
    ("name", "mode", "message"),
    [
        ("../evil.txt", 0, "would land outside"),
        ("/evil.txt", 0, "would land outside"),
        ("C:\\evil.txt", 0, "would land outside"),
        ("evil.txt", stat.S_IFLNK | 0o777, "is a link"),
        ("evil.txt", stat.S_IFIFO | 0o777, "is a device"),
    ],
)
def test_a_zip_that_means_harm_is_refused_before_anything_is_written(tmp_path, name, mode, message):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as packed:
        packed.writestr("good.txt", "good")
        info = zipfile.ZipInfo(name)
        info.external_attr = mode << 16
        packed.writestr(info, "/etc/passwd")
    with pytest.raises(ValueError, match=r"a\.zip is refused: its member '.*evil\.txt' " + message):
        unpack.unpack(tmp_path / "a.zip", tmp_path / "in" / "out")
    assert [path.name for path in (tmp_path / "in").rglob("*")] == ["out"]


def test_zips_and_other_files_are_unpacked(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as packed:
        packed.writestr("images/good.txt", "good")
    (tmp_path / "list.mat").write_bytes(b"list")
    for name in ("a.zip", "list.mat"):
        unpack.unpack(tmp_path / name, tmp_path / "out")
    assert (tmp_path / "out" / "images" / "good.txt").read_text() == "good"
    assert (tmp_path / "out" / "list.mat").read_bytes() == b"list"


@pytest.mark.parametrize("name", ["a.tar.gz", "a.zip"])
def test_half_an_archive_is_damaged(tmp_path, name):
    if name == "a.zip":
        with zipfile.ZipFile(tmp_path / name, "w") as packed:
            packed.writestr("a.bin", CONTENT)
    else:
        pack(tmp_path / name, {"a.bin": CONTENT})
    (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:150_000])
    with pytest.raises(ValueError, match=f"the archive {name} is damaged"):
        unpack.unpack(tmp_path / name, tmp_path / "out")


def test_what_does_not_fit_the_disk_is_not_unpacked(tmp_path, monkeypatch):
    archive = pack(tmp_path / "a.tar.gz", {"zeros": bytes(100_000)})
    monkeypatch.setattr(unpack.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 99_999}))
    with pytest.raises(OSError, match=r"unpacks to 100,000 bytes more, and .* has 99,999 free"):
        unpack.unpack(archive, tmp_path / "out")
    assert not (tmp_path / "out" / "zeros").exists()


# From the address to the check.


def noise(label, rng):
    """Images of which no two look alike."""
    return rng.integers(0, 255, (40, 60, 3)).astype(np.uint8)


@pytest.fixture
def birds(server, tmp_path, monkeypatch):
    """A tiny CUB in the table, its archive on the server."""
    monkeypatch.setenv("GCPLIB_CACHE", str(tmp_path / "cache"))
    tree = trees.make_cub(tmp_path / "made", train=4, test=2, paint=noise)
    with tarfile.open(tmp_path / "birds.tgz", "w:gz") as tar:
        tar.add(tree, arcname="CUB_200_2011")
    file = offer(server, (tmp_path / "birds.tgz").read_bytes(), "birds.tgz")
    monkeypatch.setitem(download.PUBLISHED, "cub", Published("Birds", (file,)))
    counts = {"CUB-200-2011": {"train": 12, "test": 6, "classes": 3}}
    monkeypatch.setitem(DATASETS, "cub", DATASETS["cub"]._replace(published=counts))
    return file


def test_get_downloads_checks_and_says_what_is_next(birds, server, tmp_path, capsys):
    server.cuts = [1000]
    assert main(["data", "get", "cub", "--to", str(tmp_path / "my sets")]) == 0
    root = tmp_path / "my sets" / "cub"
    said = capsys.readouterr().out
    assert "train images:         12 of 12" in said
    # The command to train is one that is understood.
    words = shlex.split(next(line for line in said.splitlines() if "gcplib train" in line))
    spec = read_spec(None, [word for word in words if "=" in word])
    assert (spec.data.dataset, spec.data.root) == ("cub", str(root))
    assert f"gcplib probe '{root}'" in said
    # Nothing else is left, and nothing is downloaded again.
    assert {path.name for path in root.parent.iterdir()} <= {"cub", ".cub.lock"}
    assert main(["data", "get", "cub", "--to", str(tmp_path / "my sets")]) == 0
    assert len(server.asked) == 2


def test_without_a_folder_it_goes_to_the_cache(birds, tmp_path):
    assert main(["data", "get", "cub"]) == 0
    assert (tmp_path / "cache" / "published" / "cub" / "CUB_200_2011" / "images.txt").is_file()


def test_other_counts_than_the_published_ones_are_told(birds, tmp_path, monkeypatch, capsys):
    counts = {"CUB-200-2011": {"train": 13, "test": 6, "classes": 3}}
    monkeypatch.setitem(DATASETS, "cub", DATASETS["cub"]._replace(published=counts))
    assert main(["data", "get", "cub", "--to", str(tmp_path)]) == 1
    assert f"Remove {tmp_path / 'cub'} and run the same command again" in capsys.readouterr().out


def test_the_folder_within_an_archive_becomes_the_data_set(birds, tmp_path, monkeypatch):
    monkeypatch.setitem(download.PUBLISHED, "cub", Published("Birds", (birds,), inside="CUB_200_2011"))
    assert (get_dataset("cub", tmp_path) / "images.txt").is_file()


def test_another_folder_in_its_place_is_left_alone(birds, server, tmp_path):
    (tmp_path / "cub").mkdir()
    (tmp_path / "cub" / "thesis.txt").write_text("mine")
    with pytest.raises(ValueError, match="is there, and is not the folder CUB_200_2011"):
        get_dataset("cub", tmp_path)
    assert (tmp_path / "cub" / "thesis.txt").read_text() == "mine"
    assert server.asked == []


def test_too_little_room_is_told_before_the_download(birds, server, tmp_path, monkeypatch):
    monkeypatch.setattr(download.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 2 * birds.size}))
    with pytest.raises(OSError, match=r"GB free, and about .* GB are needed"):
        get_dataset("cub", tmp_path)
    assert server.asked == []


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"CUB_200_2011/images.txt": b"", "../evil.txt": b"x"}, "is refused.*It was removed"),
        ({"readme.txt": b"x"}, "what was unpacked for 'cub' is not the folder CUB_200_2011"),
    ],
)
def test_nothing_half_unpacked_is_left(birds, server, tmp_path, monkeypatch, members, message):
    file = offer(server, pack(tmp_path / "b.tgz", members).read_bytes(), "b.tgz")
    monkeypatch.setitem(download.PUBLISHED, "cub", Published("Birds", (file,)))
    with pytest.raises(ValueError, match=message):
        get_dataset("cub", tmp_path / "to")
    assert not (tmp_path / "to" / "cub").exists()
    assert not (tmp_path / "to" / ".cub.unpacking").exists()
    assert not list(tmp_path.rglob("evil.txt"))


def test_a_kill_while_unpacking_leaves_a_verified_archive(birds, server, tmp_path, monkeypatch):
    def killed(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(download, "unpack", killed)
        with pytest.raises(KeyboardInterrupt):
            get_dataset("cub", tmp_path)
    assert not (tmp_path / "cub").exists()
    get_dataset("cub", tmp_path)
    assert len(server.asked) == 1


@pytest.mark.parametrize("name", ELSEWHERE)
def test_what_is_not_published_says_whom_to_ask(name, tmp_path, capsys):
    assert main(["data", "get", name, "--to", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert f"{name!r} cannot be downloaded from here" in said
    assert ELSEWHERE[name] in said
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_name_has_the_nearest_one(capsys):
    assert main(["data", "get", "flower"]) == 2
    assert "unknown data set 'flower'; did you mean 'flowers'?" in capsys.readouterr().err


def test_the_table_is_about_data_sets_that_can_be_read():
    assert not PUBLISHED.keys() & ELSEWHERE.keys()
    assert PUBLISHED.keys() | ELSEWHERE.keys() <= DATASETS.keys()
    digits = {"md5": 32, "sha256": 64}
    for name, dataset in PUBLISHED.items():
        # Without a checksum, the counts are what tells a damaged copy.
        assert DATASETS[name].published
        names = [file.filename for file in dataset.files]
        assert len(set(names)) == len(names)
        for file in dataset.files:
            assert not set(file.filename) & set("/?=")
            method, _, checksum = (file.checksum or "").partition(":")
            assert len(checksum) == digits.get(method, 0)
            assert file.source


def test_the_help_names_every_data_set(capsys):
    with pytest.raises(SystemExit):
        main(["data", "get", "--help"])
    said = capsys.readouterr().out
    assert "example:" in said
    assert PUBLISHED.keys() <= set(said.replace(",", " ").replace(".", " ").split())
