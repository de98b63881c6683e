"""Image files with a CSV: layouts, pixels, and what is refused."""

import io
import random
import struct
import zipfile
import zlib

import numpy as np
import pytest
from helpers.datasets import csv_text, make_images, png, write_store
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from mia_lightning.errors import MIAError
from mia_lightning.records.readers import read_records

PIXELS = (make_images(3, (3, 6, 5)) * 255).round().astype(np.uint8)
TABLE = csv_text({"id": [70, 1, 5], "label": [2, "", 0], "membership": [1, 0, "true"]})
NAMED = {f"{key:05d}.png": png(image) for key, image in zip((70, 1, 5), PIXELS, strict=True)}


def _check(path, pixels=PIXELS):
    records = read_records(str(path))
    np.testing.assert_array_equal(records.images, pixels)
    assert records.ids.tolist() == [70, 1, 5]
    assert records.labels.tolist() == [2, -1, 0]
    assert records.membership.tolist() == [1, 0, 1]
    assert records.source == path.name


@pytest.mark.parametrize("store", ["images.tar.xz", "images.tar.gz", "images.tar", "images.zip", "images", "."])
def test_csv_next_to_images(tmp_path, store):
    (tmp_path / "public.csv").write_text(TABLE)
    (tmp_path / "private.csv").write_text("id\n1\n")  # two tables share the images, as in the replica
    write_store(tmp_path / store, NAMED | {"readme.txt": b"no image", "999.png": b"nobody asks for this one"})
    _check(tmp_path / "public.csv")


@pytest.mark.parametrize("form", ["all.zip", "all.tar", "all.tar.xz", "folder"])
@pytest.mark.parametrize("inside", ["", "set/"])
def test_store_with_table_and_images(tmp_path, form, inside):
    table_in = "" if form == "folder" else inside
    contents = {f"{inside}{name}": data for name, data in NAMED.items()} | {f"{table_in}t.csv": TABLE.encode()}
    _check(write_store(tmp_path / form, contents))


@pytest.mark.parametrize("form", ["all.zip", "all.tar.gz", "folder", "csv"])
def test_column_of_files(tmp_path, form):
    files = ["b/one.png", "a/one.png", "a/deep/x.bmp"]
    table = csv_text({"id": [70, 1, 5], "label": [2, "", 0], "membership": [1, 0, 1], "file": files})
    contents = {file: png(image) for file, image in zip(files, PIXELS, strict=True)} | {"t.csv": table.encode()}
    path = write_store(tmp_path / ("folder" if form == "csv" else form), contents)
    _check(path / "t.csv" if form == "csv" else path)


def test_order_of_table_and_jpeg_pixels(tmp_path):
    files = {}
    for key, image in zip((70, 1, 5), PIXELS, strict=True):
        stream = io.BytesIO()
        Image.fromarray(image.transpose(1, 2, 0)).save(stream, "JPEG", quality=60)
        files[f"{key}.jpg"] = stream.getvalue()
    truth = np.stack([np.asarray(Image.open(io.BytesIO(data))).transpose(2, 0, 1) for data in files.values()])
    (tmp_path / "t.csv").write_text(TABLE)
    write_store(tmp_path / "images.tar", dict(sorted(files.items())))
    _check(tmp_path / "t.csv", truth)


def test_gray_and_color_mixed(tmp_path):
    gray = {name: png(image[0]) for name, image in zip(NAMED, PIXELS, strict=True)}
    (tmp_path / "t.csv").write_text(TABLE)
    write_store(tmp_path / "images", gray)
    _check(tmp_path / "t.csv", PIXELS[:, :1])
    (tmp_path / "images" / "00001.png").write_bytes(NAMED["00001.png"])
    mixed = np.repeat(PIXELS[:, :1], 3, axis=1)
    mixed[1] = PIXELS[1]
    _check(tmp_path / "t.csv", mixed)


def test_string_ids_and_padded_text(tmp_path):
    for key in ("cat_1", "007", "a.png"):
        (tmp_path / "t.csv").write_text(f"ids\n{key}\n")
        store = write_store(tmp_path / f"{key}d", {key if "." in key else f"{key}.png": png(PIXELS[0])})
        (store / "t.csv").write_text(f"ids\n{key}\n")
        assert read_records(str(store)).ids.tolist() == [key]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("label,membership\n1,0\n", "has no column of ids or files, it has label, membership; name one id or file"),
        ("id,label\n70,0\n1,0\n70,1\n", "line 4: id 70 duplicates 2"),
        ("id,membership\n70,maybe\n", "line 2: membership is 'maybe'; expected 1 or 0"),
        ("id,membership\n70,2\n", "line 2: membership is '2'"),
        ("id,label\n70,cat\n1,3\n", "line 2: label is 'cat'; expected a whole number"),
        ("id,label\n70\n", "Expected 2 columns, got 1"),
        ("id,label\n", "contains no records"),
        ("id,label\n,4\n", "line 2: has no id"),
        ('id,label\n70,"0\n', "a quote is never closed"),
        (f"id,label\n70,{'x' * 200_000}\n", "expected a whole number for every class, or a name"),
        ("id\n70\n1\n4\n8\n", "2 of 4 records have no image, first 4; expected an image file named by its id"),
        ("id,file\n70,../../secret.png\n", "leads out of its own folder"),
        ("id,file\n70,/etc/x.png\n", "leads out of its own folder"),
        ("id,file\n70,00070.png\n1,gone.png\n", "1 of 2 records have no image, first 1"),
        ("id,file\n70,00070.png\n1,00070.png\n", "line 3: 00070.png is also the image of 70"),
    ],
)
def test_tables_that_cannot_be_records(tmp_path, text, says):
    write_store(tmp_path, NAMED)
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(MIAError, match=says):
        read_records(str(tmp_path / "t.csv"))


def test_table_is_not_text(tmp_path):
    (tmp_path / "t.csv").write_bytes(b"id\n\xff\xfe\n")
    with pytest.raises(MIAError, match=r"^t\.csv: is not UTF-8 text"):
        read_records(str(tmp_path / "t.csv"))


def test_blank_lines_bom_and_floats(tmp_path):
    write_store(tmp_path, NAMED)
    (tmp_path / "t.csv").write_bytes(b"\xef\xbb\xbfID, Label,membership\r\n70,2.0,1.0\r\n\r\n1,nan,0\r\n5,0,True\r\n")
    _check(tmp_path / "t.csv")


@pytest.mark.parametrize("tables", [[], ["a.csv", "b.csv"]])
@pytest.mark.parametrize("form", ["folder", "all.zip", "all.tar"])
def test_store_needs_one_table(tmp_path, tables, form):
    path = write_store(tmp_path / form, NAMED | {name: TABLE.encode() for name in tables})
    says = r"contains 2 CSV files \(a.csv, b.csv\)" if tables else "contains no CSV file"
    with pytest.raises(MIAError, match=f"^{form}: {says}"):
        read_records(str(path))


@pytest.mark.parametrize("form", ["all.zip", "all.tar"])
@pytest.mark.parametrize("name", ["../00070.png", "/tmp/00070.png", "a/../../00070.png", "..\\00070.png"])
def test_archive_paths_outside(tmp_path, form, name):
    path = write_store(tmp_path / form, NAMED | {"t.csv": TABLE.encode(), name: png(PIXELS[0])})
    with pytest.raises(MIAError, match=f"^{form}: refused, .*leads out of its own folder"):
        read_records(str(path))
    assert sorted(tmp_path.parent.glob("*.png")) == []


def _image(kind):
    stream = io.BytesIO()
    if kind == "other size":
        return png(np.zeros((3, 9, 9), np.uint8))
    if kind == "sixteen bits":
        Image.fromarray(np.zeros((6, 5), np.uint16)).save(stream, "PNG")
    if kind == "truncated":
        return NAMED["00001.png"][:-40]
    if kind == "text":
        return b"not an image at all"
    if kind == "postscript":
        return b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 5 6\n%%EndComments\nshowpage\n"
    if kind == "bomb":
        head = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
        chunks = [(b"IHDR", head), (b"IDAT", zlib.compress(bytes(1000))), (b"IEND", b"")]
        parts = [struct.pack(">I", len(d)) + t + d + struct.pack(">I", zlib.crc32(t + d)) for t, d in chunks]
        return b"\x89PNG\r\n\x1a\n" + b"".join(parts)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("other size", r"is \(9, 9\), others are \(6, 5\)"),
        ("sixteen bits", "expected 8 bits"),
        ("truncated", "is damaged or not an image"),
        ("text", "is damaged or not an image"),
        ("postscript", "is damaged or not an image"),
        ("bomb", r"has over \d+ pixels|is \(30000, 30000\)"),
    ],
)
@pytest.mark.parametrize("place", ["00070.png", "00001.png"])
def test_bad_images_are_named(tmp_path, kind, says, place):
    if (kind, place) == ("other size", "00070.png"):
        says = r"00005\.png is \(6, 5\), others are \(9, 9\)"
    elif kind != "other size":
        says = rf"{place} .*({says})"
    (tmp_path / "t.csv").write_text(TABLE)
    write_store(tmp_path / "images.zip", dict(sorted((NAMED | {place: _image(kind)}).items(), reverse=True)))
    with pytest.raises(MIAError, match=says):
        read_records(str(tmp_path / "t.csv"))


def test_two_images_of_one_record(tmp_path):
    path = write_store(tmp_path / "all.zip", NAMED | {"t.csv": TABLE.encode(), "b/70.png": png(PIXELS[0])})
    with pytest.raises(MIAError, match=r"record 70 has several images, one is b/70\.png"):
        read_records(str(path))


def test_zip_bomb(tmp_path):
    path = write_store(tmp_path / "all.zip", NAMED | {"t.csv": TABLE.encode()})
    data = bytearray(path.read_bytes())
    for index in [at for at in range(len(data)) if data[at : at + 4] == b"PK\x01\x02"]:
        data[index + 24 : index + 28] = b"\xfe\xff\xff\xff"
    path.write_bytes(data)
    with pytest.raises(MIAError, match=r"^all\.zip: decompresses to over 1 GiB"):
        read_records(str(path))


def test_locked_zip(tmp_path):
    path = write_store(tmp_path / "all.zip", NAMED | {"t.csv": TABLE.encode()})
    data = bytearray(path.read_bytes())
    for magic, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        for index in [at for at in range(len(data)) if data[at : at + 4] == magic]:
            data[index + offset] |= 1
    path.write_bytes(data)
    with pytest.raises(MIAError, match=r"^all\.zip: .*password"):
        read_records(str(path))


@pytest.mark.parametrize("form", ["all.zip", "all.tar", "all.tar.xz", "all.tar.gz"])
def test_truncated_archives(tmp_path, form):
    path = write_store(tmp_path / form, NAMED | {"t.csv": TABLE.encode()})
    whole = path.read_bytes()
    # the end of a compressed tar is padding, without which nothing is lost
    content_ends = {"all.tar": whole.rfind(b"70,2") + 4, "all.zip": len(whole) - 12}.get(form, len(whole) * 7 // 10)
    for cut in range(40, content_ends, len(whole) // 15):
        path.write_bytes(whole[:cut])
        with pytest.raises(MIAError, match=rf"^all{form[3:]}: "):
            read_records(str(path))


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(form=st.sampled_from(["a.zip", "a.tar", "a.tar.gz"]), seed=st.integers(0, 2**32), flips=st.integers(1, 6))
def test_flipped_bits(tmp_path, form, seed, flips):
    path = write_store(tmp_path / form, NAMED | {"t.csv": TABLE.encode()})
    data, chance = bytearray(path.read_bytes()), random.Random(seed)
    for _ in range(flips):
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    path.write_bytes(data)
    try:
        assert len(read_records(str(path), reader="images")) >= 1
    except MIAError as error:
        assert "\n" not in str(error)  # noqa: PT017 (both outcomes are right)


def test_empty_zip(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w"):
        pass
    with pytest.raises(MIAError, match=r"^a\.zip: "):
        read_records(str(tmp_path / "a.zip"))
