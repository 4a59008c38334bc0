"""Downloads from a local server: once, whole, checked, and an error that says what to do if that fails."""

import hashlib
import socket

import pytest

from solo_dist.weights.download import cache_folder, fetch
from solo_dist.weights.errors import WeightsError

CONTENT = bytes(range(256)) * 4096
NAME = f"model-{hashlib.sha256(CONTENT).hexdigest()[:8]}.pth"


@pytest.fixture
def url(file_server) -> str:
    (file_server.folder / NAME).write_bytes(CONTENT)
    return f"{file_server.url}/{NAME}"


def files_of(cache) -> list[str]:
    return [path.name for path in cache.iterdir() if path.name != "lock"]


def test_a_file_is_fetched_once(url, cache, file_server):
    assert fetch(url) == fetch(url) == f"{cache}/{NAME}"
    assert (cache / NAME).read_bytes() == CONTENT
    assert file_server.requests == [(f"/{NAME}", None)]
    assert files_of(cache) == [NAME]


@pytest.mark.parametrize("cuts", [1, 3])
def test_a_cut_connection_goes_on_where_it_broke_off(url, cache, file_server, cuts):
    file_server.cuts = cuts
    assert (cache / fetch(url)).read_bytes() == CONTENT
    had = [len(CONTENT) - len(CONTENT) // 2**i for i in range(1, cuts + 1)]
    assert [wanted for _, wanted in file_server.requests] == [None, *(f"bytes={n}-" for n in had)]


def test_a_server_without_ranges_sends_the_whole_file_again(url, cache, file_server):
    file_server.cuts, file_server.ranges = 1, False
    assert (cache / fetch(url)).read_bytes() == CONTENT


def test_a_server_that_fails_is_asked_again(url, cache, file_server):
    file_server.failures = 2
    assert (cache / fetch(url)).read_bytes() == CONTENT


def test_a_server_that_keeps_failing_is_an_error(url, cache, file_server):
    file_server.failures = 3
    with pytest.raises(
        WeightsError, match=f"could not be downloaded .the server answered 503 .*put it at {cache}/{NAME}"
    ):
        fetch(url)
    assert files_of(cache) == []


def test_other_content_is_refused_and_not_kept(url, cache, file_server):
    (file_server.folder / NAME).write_bytes(b"another file")
    with pytest.raises(WeightsError, match=rf"{NAME} was downloaded, but its SHA-256 begins with \w{{8}} and not with"):
        fetch(url)
    assert files_of(cache) == []


def test_a_missing_file_is_an_error_at_once(url, cache, file_server):
    missing = "absent-01234567.pth"
    with pytest.raises(WeightsError, match=f"the server answered 404 .*get {missing} elsewhere and put it at {cache}/"):
        fetch(f"{file_server.url}/{missing}")
    assert len(file_server.requests) == 1


def test_without_network_a_file_put_into_the_cache_is_taken(cache):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/{NAME}"
        with pytest.raises(WeightsError, match=f"could not be downloaded .*refused.*put it at {cache}/{NAME}"):
            fetch(url)
        (cache / NAME).write_bytes(CONTENT)
        assert fetch(url) == f"{cache}/{NAME}"


def test_a_damaged_file_in_the_cache_is_named(url, cache):
    cache.mkdir()
    (cache / NAME).write_bytes(CONTENT[:-1])
    with pytest.raises(WeightsError, match=f"{cache}/{NAME} is not the file that was published.*remove it"):
        fetch(url)


def test_a_cache_that_cannot_be_written_is_named(url, cache):
    cache.write_text("a file, and no folder")
    with pytest.raises(WeightsError, match=f"cannot be kept in {cache}: .*; set SOLO_DIST_CACHE to a folder"):
        fetch(url)


def test_an_address_without_digits_is_refused():
    with pytest.raises(WeightsError, match="model.pth does not end in the first digits of its SHA-256"):
        fetch("http://127.0.0.1/model.pth")


def test_the_cache_is_where_it_is_said_to_be():
    assert str(cache_folder({"SOLO_DIST_CACHE": "/a", "XDG_CACHE_HOME": "/b"})) == "/a"
    assert str(cache_folder({"XDG_CACHE_HOME": "/b"})) == "/b/solo_dist"
    assert cache_folder({}).parts[-2:] == (".cache", "solo_dist")
