"""The opener: regular files only, no blocking, no links for files of our own."""

import os
import socket

import pytest

from mia_lightning.errors import MIAError, printable
from mia_lightning.security.open import check_regular, create_own, open_own, open_regular


@pytest.fixture
def odd(tmp_path):
    """Paths that are not regular files, by what a message calls them."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "socket"))
    (tmp_path / "zero").symlink_to("/dev/zero")
    yield {name: tmp_path / name for name in ("pipe", "folder", "socket", "zero")}
    listener.close()


def test_only_regular_files_open(odd):
    for name, path in odd.items():
        for opener in (open_regular, check_regular, *([] if name == "zero" else [open_own])):
            with pytest.raises(MIAError, match=r"is a (named pipe|folder|socket|device|socket or device)"):
                opener(path)


def test_links_followed_only_for_files_of_the_user(tmp_path):
    (tmp_path / "a").write_bytes(b"text")
    (tmp_path / "link").symlink_to("a")
    with open_regular(tmp_path / "link") as file:
        assert file.read() == b"text"
    assert check_regular(tmp_path / "link") == tmp_path / "link"
    with pytest.raises(MIAError, match="is a symbolic link"):
        open_own(tmp_path / "link")
    with open_own(tmp_path / "a") as file:
        assert file.read() == b"text"


def test_create_opens_nothing_that_is_there(tmp_path):
    (tmp_path / "link").symlink_to("elsewhere")
    with pytest.raises(FileExistsError):
        create_own(tmp_path / "link")
    assert not (tmp_path / "elsewhere").exists()
    with create_own(tmp_path / "new") as file:
        file.write(b"x")
    with pytest.raises(FileExistsError):
        create_own(tmp_path / "new")


def test_missing_and_impossible_paths(tmp_path):
    with pytest.raises(FileNotFoundError):
        open_regular(tmp_path / "none")
    for opener in (open_regular, check_regular, open_own):
        with pytest.raises(MIAError, match="NUL"):
            opener("a\0b")
    with pytest.raises(OSError, match="too long"):
        open_regular("a" * 5000)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain é 漢", "plain é 漢"),
        ("a\nb\x1b[2J\0", r"a\nb\x1b[2J\x00"),
        ("a\u202eb\u2028\ud800", r"a\u202eb\u2028\ud800"),
        ("x" * 30, "x" * 20 + "…"),
        ("\x1b" * 20, r"\x1b" * 5 + "…"),
    ],
)
def test_printable(text, shown):
    assert printable(text, 20) == shown
