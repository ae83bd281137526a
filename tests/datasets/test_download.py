"""Downloads from a real server on this machine: whole, cut, resumed, from a mirror, wrong, and from nowhere."""

from __future__ import annotations

import hashlib
import random
import socket
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from tests.datasets.server import Handler, Server
from weightzoo.datasets.download import download
from weightzoo.datasets.record import RemoteFile
from weightzoo.errors import DownloadError

CONTENT = random.Random(0).randbytes(512_000)
NAME = "images.bin"


def of(serve: Callable[..., Server], **options: object) -> Server:
    """A server of the file."""
    return serve({f"/{NAME}": CONTENT}, **options)


fetch = partial(download, pauses=(0.0, 0.0, 0.0), timeout=5)


def file_at(*servers: Server | str, content: bytes = CONTENT) -> RemoteFile:
    urls = tuple(f"{server if isinstance(server, str) else server.url}/{NAME}" for server in servers)
    return RemoteFile(NAME, hashlib.md5(content).hexdigest(), urls)


def nowhere() -> str:
    """An address that nobody listens at."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}"


def partial_of(folder: Path) -> Path:
    return folder / f".{NAME}.partial"


def test_a_file_arrives_whole_and_alone(serve: Callable[..., Server], tmp_path: Path) -> None:
    server, seen = of(serve), []
    path = fetch(file_at(server), tmp_path / "new", lambda done, total, what="": seen.append((done, total, what)))
    assert path.read_bytes() == CONTENT
    assert list(path.parent.iterdir()) == [path]
    assert seen[-1] == (512, 512, NAME)
    assert [done for done, _, _ in seen] == sorted(done for done, _, _ in seen)
    assert server.asked == [(f"/{NAME}", None)]


def test_a_cut_download_goes_on_where_it_was(serve: Callable[..., Server], tmp_path: Path) -> None:
    server = of(serve, cuts=[100_000, 1, 200_000, 0])
    path = fetch(file_at(server), tmp_path)
    assert path.read_bytes() == CONTENT
    starts = [wanted for _, wanted in server.asked]
    assert starts == [None, "bytes=100000-", "bytes=100001-", "bytes=300001-", "bytes=300001-"]


def test_a_later_call_goes_on_where_an_earlier_one_gave_up(serve: Callable[..., Server], tmp_path: Path) -> None:
    server = of(serve, cuts=[70_000, 0, 0, 0, 0])
    with pytest.raises(DownloadError, match="the connection ended after 70,000 of 512,000 bytes"):
        fetch(file_at(server), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [f".{NAME}.partial"]
    server.cuts.clear()
    assert fetch(file_at(server), tmp_path).read_bytes() == CONTENT
    assert server.asked[-1] == (f"/{NAME}", "bytes=70000-")
    assert not partial_of(tmp_path).exists()


def test_a_server_without_ranges_sends_all_again(serve: Callable[..., Server], tmp_path: Path) -> None:
    server = of(serve, ranges=False, cuts=[100_000])
    assert fetch(file_at(server), tmp_path).read_bytes() == CONTENT
    assert len(server.asked) == 2


@pytest.mark.parametrize("left", [b"something else", CONTENT + b"more", CONTENT[:-1] + b"?"])
def test_leftovers_of_another_file_are_replaced(left: bytes, serve: Callable[..., Server], tmp_path: Path) -> None:
    partial_of(tmp_path).write_bytes(left)
    server = of(serve)
    assert fetch(file_at(server), tmp_path).read_bytes() == CONTENT
    assert server.asked[-1] == (f"/{NAME}", None)


def test_a_leftover_that_is_whole_needs_no_more(serve: Callable[..., Server], tmp_path: Path) -> None:
    partial_of(tmp_path).write_bytes(CONTENT)
    server = of(serve)
    assert fetch(file_at(server), tmp_path).read_bytes() == CONTENT
    assert server.asked == [(f"/{NAME}", f"bytes={len(CONTENT)}-")]


def test_a_length_that_is_not_told_is_no_obstacle(serve: Callable[..., Server], tmp_path: Path) -> None:
    assert fetch(file_at(of(serve, known_length=False)), tmp_path).read_bytes() == CONTENT


@pytest.mark.parametrize("status", [404, 403, 410])
def test_a_mirror_takes_over_where_the_first_has_no_file(
    status: int, serve: Callable[..., Server], tmp_path: Path
) -> None:
    first, mirror = of(serve, statuses=[status]), of(serve)
    assert fetch(file_at(first, mirror), tmp_path).read_bytes() == CONTENT
    assert (len(first.asked), len(mirror.asked)) == (1, 1)  # such an answer is not asked for twice


def test_a_mirror_goes_on_where_the_first_broke_off(serve: Callable[..., Server], tmp_path: Path) -> None:
    first, mirror = of(serve, cuts=[50_000, 0, 0, 0]), of(serve)
    assert fetch(file_at(first, mirror), tmp_path).read_bytes() == CONTENT
    assert mirror.asked == [(f"/{NAME}", "bytes=50000-")]


def test_a_server_in_trouble_is_asked_again(serve: Callable[..., Server], tmp_path: Path) -> None:
    server = of(serve, statuses=[503, 500])
    assert fetch(file_at(server), tmp_path).read_bytes() == CONTENT
    assert len(server.asked) == 3


def test_a_wrong_file_is_refused_and_the_mirrors_is_taken(serve: Callable[..., Server], tmp_path: Path) -> None:
    wrong = serve({f"/{NAME}": b"<html>moved</html>"})
    with pytest.raises(DownloadError) as caught:
        fetch(file_at(wrong), tmp_path)
    md5 = hashlib.md5(b"<html>moved</html>").hexdigest()
    expected = hashlib.md5(CONTENT).hexdigest()
    assert f"gave 18 bytes with md5 {md5}, expected {expected}" in str(caught.value)
    assert list(tmp_path.iterdir()) == []
    assert fetch(file_at(wrong, of(serve)), tmp_path).read_bytes() == CONTENT


def test_without_a_way_out_one_line_says_what_to_do(serve: Callable[..., Server], tmp_path: Path) -> None:
    gone, offline = serve({}), nowhere()
    with pytest.raises(DownloadError) as caught:
        fetch(file_at(offline, gone), tmp_path)
    text = str(caught.value)
    assert text.startswith(f"can't download {NAME}: {offline.removeprefix('http://')} can't be reached (")
    assert "answers 404" in text
    assert text.endswith("give files you have with --from DIR")
    assert "\n" not in text
    assert list(tmp_path.iterdir()) == []


def test_a_host_without_an_address_is_no_traceback(tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match=r"no-such-host\.invalid can't be reached"):
        fetch(file_at("http://no-such-host.invalid"), tmp_path)


def test_a_part_that_was_not_asked_for_is_refused(
    serve: Callable[..., Server], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    partial_of(tmp_path).write_bytes(CONTENT[:1000])
    server = of(serve)
    monkeypatch.setattr(Handler, "send_header", _shifted(Handler.send_header))
    with pytest.raises(DownloadError, match="sends another part than was asked for"):
        fetch(file_at(server), tmp_path)
    assert partial_of(tmp_path).read_bytes() == CONTENT[:1000]


def _shifted(send: Callable[..., None]) -> Callable[..., None]:
    def send_header(self: Handler, name: str, value: str) -> None:
        send(self, name, value.replace("bytes 1000-", "bytes 500-"))

    return send_header


def test_a_full_disk_is_named(serve: Callable[..., Server]) -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("no /dev/full here")
    from weightzoo.datasets.download import _receive

    with pytest.raises(DownloadError, match="/dev/full: can't be written"):
        _receive(f"{of(serve).url}/{NAME}", full, None, 5)
