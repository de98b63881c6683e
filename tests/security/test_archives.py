"""Archives with more members than any file of tensors needs are refused before their list is built."""

import io
import zipfile

import pytest

from mia_lightning.errors import MIAError
from mia_lightning.records.readers import read_records
from mia_lightning.security.archives import check_list
from mia_lightning.targets import load_target


def with_claim(path, members, size):
    """Write a zip archive whose end states a list of that many bytes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in members:
            archive.writestr(name, b"")
    content = bytearray(buffer.getvalue())
    end = content.rfind(b"PK\x05\x06")
    content[end + 12 : end + 16] = size.to_bytes(4, "little")
    path.write_bytes(content)
    return path


def test_honest_archives_pass(tmp_path):
    for count in (0, 1, 70_000):  # the last in the form of more than 65,535 members
        path = tmp_path / f"{count}.zip"
        with zipfile.ZipFile(path, "w") as archive:
            for number in range(count):
                archive.writestr(zipfile.ZipInfo(f"{number}"), b"")
        check_list(path)


def test_long_list_of_many_members(tmp_path):
    path = tmp_path / "long.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(70_000):
            archive.writestr(zipfile.ZipInfo(f"{number:090}"), b"")
    with pytest.raises(MIAError, match="lists its members in 9 MiB"):
        check_list(path)


@pytest.mark.parametrize("read", [load_target, read_records])
@pytest.mark.parametrize("member", ["archive/data.pkl", "images.npy"])
def test_stated_size_is_refused(read, member, tmp_path):
    path = with_claim(tmp_path / ("a.npz" if member.endswith("npy") else "a.pt"), [member], 2**24)
    with pytest.raises(MIAError, match=r"lists its members in 16 MiB.*save it again"):
        read(str(path))


@pytest.mark.parametrize(
    "content",
    [b"", b"PK\x05\x06", b"PK\x03\x04" * 9, bytes(99) + b"PK\x06\x07" + bytes(16) + b"PK\x05\x06" + bytes(18)],
)
def test_damaged_ends_are_for_the_readers(content, tmp_path):
    (tmp_path / "damaged").write_bytes(content)
    check_list(tmp_path / "damaged")
    check_list(tmp_path)
    check_list(tmp_path / "absent")
