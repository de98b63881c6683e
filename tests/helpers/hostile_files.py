"""Hostile arrays, archives, tables, images, configurations and programs. None uses the package under test."""

import bz2
import gzip
import io
import json
import lzma
import struct
import tarfile
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pyarrow as pa
from PIL import Image
from pyarrow import parquet

from helpers.datasets import png

GIB = 2**30
PIXEL = png(np.zeros((3, 6, 5), np.uint8))
TABLE = b"id,membership\n1,1\n2,0\n"
NAMED = {"1.png": PIXEL, "2.png": PIXEL}


FORMULAS = (
    "=cmd|'/C calc'!A0",
    "+1+1",
    "-1+cmd",
    "@SUM(1)",
    "a\n=1",
    "\x1b[2J",
    "a\u202egnp",
    "a\0",
    "\uff1d1+1",
    "a\r=1",
)
"""Ids that a spreadsheet would compute, or a terminal obey."""


def npy(header: str | bytes, data: bytes = b"", version: int = 1) -> bytes:
    """Return a .npy file with any header."""
    header = header.encode() if isinstance(header, str) else header
    length = struct.pack("<H" if version == 1 else "<I", len(header) % 2 ** (16 if version == 1 else 32))
    return b"\x93NUMPY" + bytes([version, 0]) + length + header + data


def described(shape: object, descr: object = "<f4") -> str:
    return repr({"descr": descr, "fortran_order": False, "shape": shape}) + "\n"


def packed(contents: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as archive:
        for name, data in contents.items():
            archive.writestr(name, data)
    return stream.getvalue()


MIB = bytes(2**20)


def deflated(start: bytes, block: bytes, times: int) -> bytes:
    """Return `start` and many times `block`, deflated in little time: after a full flush, the same bytes repeat."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    first = packer.compress(start) + packer.flush(zlib.Z_FULL_FLUSH)
    again = packer.compress(block) + packer.flush(zlib.Z_FULL_FLUSH)
    return first + again * times + packer.flush()


def unfolding(name: str, times: int, start: bytes = b"", block: bytes = MIB) -> bytes:
    """Return a zip whose one member unfolds to `start` and many times `block`; its checksum is wrong."""
    raw, size, label = deflated(start, block, times), len(start) + times * len(block), name.encode()
    common = (8, 0, 33, 0, len(raw), size, len(label), 0)
    local = struct.pack("<4s2H3H3L2H", b"PK\x03\x04", 20, 0, *common) + label + raw
    listed = struct.pack("<4s3H3H3L2H3H2L", b"PK\x01\x02", 20, 20, 0, *common, 0, 0, 0, 0, 0) + label
    return local + listed + struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 1, 1, len(listed), len(local), 0)


def gzipped(start: bytes, times: int, block: bytes = MIB) -> bytes:
    """Return `start` and many times `block` as a gzip file; its checksum is wrong."""
    return b"\x1f\x8b\x08\0\0\0\0\0\0\xff" + deflated(start, block, times) + bytes(8)


def forged(data: bytes, *, size: int | None = None, flag: int = 0, method: int | None = None) -> bytes:
    """Return a zip with another claimed size, flag or method in all its headers."""
    changed = bytearray(data)
    for magic, at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        place = changed.find(magic)
        while place >= 0:
            changed[place + at] |= flag
            if method is not None:
                changed[place + at + 2 : place + at + 4] = struct.pack("<H", method)
            if size is not None:
                changed[place + at + 16 : place + at + 20] = struct.pack("<I", size)
            place = changed.find(magic, place + 4)
    return bytes(changed)


def arrays(evil: np.ndarray) -> dict[str, bytes]:
    """Return hostile .npz files by name; `evil` is an array of objects whose unpickling runs a command."""
    good = npy(described((2, 3, 4, 4)), bytes(4 * 96))
    stream = io.BytesIO()
    np.save(stream, evil, allow_pickle=True)
    headers = {
        "shape beyond its data": described((10**6, 3, 224, 224)),
        "shape of an exabyte": described((2**40, 2**20)),
        "shape beyond 64 bits": described((2**70, 3, 4, 4)),
        "negative shape": described((-2, 3, 4, 4)),
        "shape that overflows to 0": described((2**32, 2**32, 1, 1)),
        "shape of text": described("(2, 3)"),
        "shape of floats": described((2.0, 3, 4, 4)),
        "no shape": "{'descr': '<f4', 'fortran_order': False}\n",
        "an item of 2 GiB": described((1,), "|V2147483647"),
        "objects without pickle": described((2,), "|O"),
        "objects in a structure": described((2,), [("a", "|O"), ("b", "<f4")]),
        "structure in a structure": described((2,), [("a", [("b", [("c", "<f4")])])]),
        "code for a header": "__import__('os').system('touch CANARY')\n",
        "call in a header": "{'descr': open('CANARY', 'w'), 'fortran_order': False, 'shape': (2,)}\n",
        "nested header": "(" * 9000 + "\n",
        "signs without end": "-" * 9000 + "1\n",
        "header of a megabyte": "{" + " " * 2**20 + "}\n",
        "header is no text": b"\xff\xfe" * 64,
        "no header": "",
    }
    files = {name: packed({"images.npy": npy(header, bytes(2**16), 2)}) for name, header in headers.items()}
    files |= {
        f"{name}, version 3": packed({"images.npy": npy(header, bytes(2**16), 3)}) for name, header in headers.items()
    }
    files |= {
        "objects": packed({"images.npy": good, "labels.npy": stream.getvalue()}),
        "objects as images": packed({"images.npy": stream.getvalue()}),
        "version 9": packed({"images.npy": npy(described((2,)), b"", 9)}),
        "length of a version 2 header": packed({"images.npy": b"\x93NUMPY\x02\0\xff\xff\xff\x7f{}"}),
        "pickle named npy": packed({"images.npy": b"\x80\x02cposix\nsystem\nX\x01\0\0\0x\x85R."}),
        "bomb": unfolding("images.npy", 3 << 10, npy(described((3 * 2**20, 1, 32, 32), "|u1"))),
        "two billion images of one pixel": unfolding("images.npy", 2 << 10, npy(described((2 * GIB, 1, 1, 1), "|u1"))),
        "sizes forged": forged(packed({"images.npy": good}), size=0xFFFFFFFE),
        "locked": forged(packed({"images.npy": good}), flag=1),
        "unknown compression": forged(packed({"images.npy": good}), method=77),
    }
    two = io.BytesIO()
    with zipfile.ZipFile(two, "w") as archive:
        for data in (good, stream.getvalue()):
            archive.writestr("images.npy", data)
    return files | {"two of one name": two.getvalue()}


def many_ids() -> bytes:
    """Return an .npz of two images and 2**27 ids."""
    stream = io.BytesIO(unfolding("ids.npy", 2**10, npy(described((2**27,), "<i8"))))
    with zipfile.ZipFile(stream, "a") as archive:
        archive.writestr("images.npy", npy(described((2, 3, 4, 4)), bytes(4 * 96)))
    return stream.getvalue()


def safetensors() -> dict[str, bytes]:
    """Return hostile .safetensors files by name."""

    def file(header: object, data: bytes = bytes(512), length: int | None = None) -> bytes:
        content = header.encode() if isinstance(header, str) else json.dumps(header).encode()
        return struct.pack("<Q", len(content) if length is None else length) + content + data

    def one(shape: object, offsets: object = (0, 384), dtype: object = "F32") -> dict:
        return {"images": {"dtype": dtype, "shape": shape, "data_offsets": offsets}}

    good = one([2, 3, 4, 4])["images"]
    deep = "[" * 50_000 + "]" * 50_000
    return {
        "header of 2**60 bytes": file(one([2, 3, 4, 4]), length=2**60),
        "header of 99 MB that is not there": file(one([2, 3, 4, 4]), length=99_000_000),
        "header shorter than it is": file(one([2, 3, 4, 4]), length=10),
        "shape beyond its data": file(one([10**6, 3, 32, 32])),
        "shape that overflows to 0": file(one([2**32, 2**32, 1, 1], (0, 0))),
        "size beyond 63 bits": file(one([0, 2**63, 1, 1], (0, 0))),
        "size beyond 64 bits": file(one([2**64, 1], (0, 0))),
        "negative shape": file(one([-2, 3, 4, 4])),
        "no images": file(one([0, 3, 4, 4], (0, 0))),
        "offsets outside": file(one([2, 3, 4, 4], (10**9, 10**9 + 384))),
        "offsets backwards": file(one([2, 3, 4, 4], (384, 0))),
        "negative offsets": file(one([2, 3, 4, 4], (-384, 0))),
        "offsets overlap": file({"images": good, "ids": {"dtype": "I64", "shape": [2], "data_offsets": [0, 16]}}),
        "gap between tensors": file(
            {"images": good, "ids": {"dtype": "I64", "shape": [2], "data_offsets": [400, 416]}}
        ),
        "text shape": file(one("abc")),
        "unknown dtype": file(one([2, 3, 4, 4], dtype="PICKLE")),
        "dtype numpy lacks": file(one([2, 3, 4, 4], (0, 192), dtype="BF16")),
        "dtype of 4 bits": file(one([2, 3, 4, 4], (0, 48), dtype="F4")),
        "same name twice": file('{"images":' + json.dumps(good) + ',"images":' + json.dumps(good) + "}", bytes(384)),
        "nested header": file('{"a":' + deep + "}"),
        "header is a list": file("{]"),
        "metadata of numbers": file({"__metadata__": {"a": [1]}} | one([2, 3, 4, 4])),
        "name of escapes": file({"\x1b[2J\n\0": good}, bytes(384)),
        "twenty thousand tensors": file(
            {f"t{i}": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for i in range(20_000)}, b""
        ),
        "header is no UTF-8": file("{}").replace(b"{}", b"{\xff"),
    }


def tar(*entries: tuple[tarfile.TarInfo, bytes], form: int = tarfile.GNU_FORMAT) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=form) as archive:
        for entry, data in entries:
            entry.size = entry.size or len(data)
            archive.addfile(entry, io.BytesIO(data.ljust(entry.size, b"\0")) if data else None)
    return stream.getvalue()


def entry(name: str, kind: bytes = tarfile.REGTYPE, link: str = "", size: int = 0) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, link, size
    return info


def archives(outside: Path) -> dict[str, bytes]:
    """Return hostile archives of images by file name; those that lead outside name a file in the folder `outside`."""
    good = [(entry("t.csv"), TABLE), *((entry(name), data) for name, data in NAMED.items())]
    up = "../" * 40 + str(outside).lstrip("/")
    results: dict[str, bytes] = {}
    for label, name in {
        "absolute": f"{outside}/3.png",
        "dots": f"{up}/3.png",
        "windows": "C:/3.png",
        "backslash": "..\\3.png",
    }.items():
        results[f"{label}.tar"] = tar(*good, (entry(name), PIXEL))
        results[f"{label}.zip"] = packed({"t.csv": TABLE, **NAMED, name: PIXEL})
    links = {
        "symbolic link": (tarfile.SYMTYPE, "/etc/passwd"),
        "hard link": (tarfile.LNKTYPE, f"{up}/secret.png"),
        "link to itself": (tarfile.LNKTYPE, "2.png"),
        "fifo": (tarfile.FIFOTYPE, ""),
        "character device": (tarfile.CHRTYPE, ""),
        "block device": (tarfile.BLKTYPE, ""),
        "folder": (tarfile.DIRTYPE, ""),
    }
    for label, (kind, link) in links.items():
        results[f"{label}.tar"] = tar(*good[:2], (entry("2.png", kind, link), b""))
    results["link to the table.tar"] = tar((entry("t.csv", tarfile.SYMTYPE, "/etc/passwd"), b""), *good[1:])
    linked = io.BytesIO()
    with zipfile.ZipFile(linked, "w") as archive:
        for name, data in {"t.csv": TABLE, "1.png": PIXEL}.items():
            archive.writestr(name, data)
        info = zipfile.ZipInfo("2.png")
        info.external_attr = 0o120777 << 16
        archive.writestr(info, "/etc/passwd")
    results["symbolic link.zip"] = linked.getvalue()

    header = tarfile.TarInfo("././@LongLink")
    header.type, header.size = tarfile.GNUTYPE_LONGNAME, 6 * GIB
    results["name of 6 GiB.tar.gz"] = gzipped(header.tobuf(tarfile.GNU_FORMAT), 6 << 10)
    header.type = tarfile.XHDTYPE
    results["pax header of 6 GiB.tar.gz"] = gzipped(header.tobuf(tarfile.GNU_FORMAT), 6 << 10)
    results["bomb in front.tar.gz"] = gzipped(entry("0.png", size=200 * GIB).tobuf(tarfile.GNU_FORMAT), 256)
    results["image bomb.tar.gz"] = gzipped(
        tar(*good)[: 512 * 6] + entry("3.png", size=4 * GIB).tobuf(tarfile.GNU_FORMAT), 4 << 10
    )
    results["table bomb.tar.gz"] = gzipped(entry("t.csv", size=255 << 20).tobuf(tarfile.GNU_FORMAT) + b"id\n", 255)
    results["table bomb.zip"] = unfolding("t.csv", 2 << 10, b"id\n1")
    results["table of line ends.zip"] = unfolding("t.csv", 240, b"id\n", b"1\n" * 2**19)
    negative = bytearray(tar(*good, (entry("3.png"), b"")))
    place = negative.rindex(b"3.png")
    negative[place + 124 : place + 136] = (-(10**6)).to_bytes(12, "big", signed=True)
    negative[place + 148 : place + 156] = b" " * 8
    negative[place + 148 : place + 156] = b"%06o\0 " % sum(negative[place : place + 512])
    results["negative size.tar"] = bytes(negative)
    sparse = entry("1.png", tarfile.GNUTYPE_SPARSE, size=0)
    block = bytearray(sparse.tobuf(tarfile.GNU_FORMAT))
    block[386:410] = b"%011o\0%011o\0" % (0, 0)
    block[483:495] = b"%011o\0" % (2**32)
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    results["sparse file of 4 GiB.tar"] = bytes(block) + tar(*good)
    headers = b"".join(entry(f"{i}.txt").tobuf(tarfile.GNU_FORMAT) for i in range(1000))
    results["three hundred thousand members.tar.gz"] = gzipped(b"", 300, headers)
    central, body = b"", packed({"0.txt": b""}, zipfile.ZIP_STORED)[:35]
    record = bytearray(
        struct.pack("<4s4B4HL2L5H2L", b"PK\x01\x02", 20, 3, 20, 0, 0, 0, 0, 33, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0)
    )
    central = (bytes(record) + b"0.txt") * 150_000
    end = struct.pack("<4sQ2H2L4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, 150_000, 150_000, len(central), len(body))
    end += struct.pack("<4sLQL", b"PK\x06\x07", 0, len(body) + len(central), 1)
    end += struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    results["hundred and fifty thousand members.zip"] = body + central + end
    results["archive in an archive.zip"] = packed({"t.csv": TABLE, "all.zip": packed({**NAMED})})
    results["archive of itself.tar"] = tar(*good[:2], (entry("2.png"), tar(*good)))
    results["two tables.zip"] = packed({"a.csv": TABLE, "b.csv": TABLE, **NAMED})
    twice = io.BytesIO()
    with zipfile.ZipFile(twice, "w") as archive:
        for name in ("t.csv", "1.png", "1.png", "2.png"):
            archive.writestr(name, TABLE if name == "t.csv" else PIXEL)
    results["one name twice.zip"] = twice.getvalue()
    results["locked.zip"] = forged(packed({"t.csv": TABLE, **NAMED}), flag=1)
    results["sizes forged.zip"] = forged(packed({"t.csv": TABLE, **NAMED}), size=0xFFFFFFFE)
    results["small sizes forged.zip"] = forged(packed({"t.csv": TABLE, **NAMED}), size=1)
    results["unknown compression.zip"] = forged(packed({"t.csv": TABLE, **NAMED}), method=99)
    results["cut.tar.xz"] = lzma.compress(tar(*good))[:-60]
    results["dictionary of 4 GiB.tar.xz"] = big_dictionary(tar(*good))
    results["cut.tar.bz2"] = bz2.compress(tar(*good))[:-30]
    results["only a gzip header.tar.gz"] = b"\x1f\x8b\x08"
    results["name of escapes.tar"] = tar((entry("t.csv"), b"id,file\n1,\x1b[2J.png\n"), (entry("\x1b[2J.png"), b"x"))
    results["id of escapes.zip"] = packed({"t.csv": b'id\n"\x1b]0;owned\x07"\n'})
    return results


def big_dictionary(data: bytes) -> bytes:
    """Return an .xz stream that asks for a dictionary of 4 GiB."""
    stream = bytearray(lzma.compress(data))
    size = (stream[12] + 1) * 4  # of the block's header, which ends in its checksum
    stream[16] = 40
    stream[12 + size - 4 : 12 + size] = struct.pack("<I", zlib.crc32(stream[12 : 12 + size - 4]))
    return bytes(stream)


def tables() -> dict[str, bytes]:
    """Return hostile tables of records by name; each stands beside the images 1.png and 2.png."""
    files = {
        **{f"id {i}": f'id,file\n"{key}",1.png\n2,2.png\n'.encode() for i, key in enumerate(FORMULAS)},
        "NUL bytes": b"id,membership\n1\0,1\n2,0\n",
        "NUL in the header": b"id\0,membership\n1,1\n",
        "only NUL": bytes(5000),
        "latin-1": "id,membership\n1é,1\n".encode("latin-1"),
        "UTF-16": "id,membership\n1,1\n2,0\n".encode("utf-16"),
        "UTF-16 without mark": "id,membership\n1,1\n2,0\n".encode("utf-16-le"),
        "UTF-7": b"id,+AD0-cmd\n3,1\n",
        "surrogates": b"id\n\xed\xa0\x80\n",
        "quote never closed": b'id,membership\n"1,1\n2,0\n',
        "quote never closed in the header": b'"id,membership\n1,1\n2,0\n',
        "long field": b"id\n" + b"x" * 2**20 + b"\n",
        "long line": b"id" + b",a" * 2**20 + b"\n",
        "hundred thousand columns": b"id" + b",c" * 100_000 + b"\n" + b"1" + b",1" * 100_000 + b"\n",
        "ragged": b"id,membership\n1\n2,0,0\n",
        "carriage returns only": b"id,membership\r1,1\r3,0\r",
        "label beyond 64 bits": b"id,label\n1,99999999999999999999999\n2,0\n",
        "label of digits of another script": "id,label\n1,\u0661\n2,0x10\n".encode(),
        "id beyond 64 bits": b"id\n99999999999999999999999999\n2\n",
        "membership of code": b"id,membership\n1,__import__('os')\n",
        "file outside": b"id,file\n1,../../../../etc/passwd\n2,2.png\n",
        "absolute file": b"id,file\n1,/etc/passwd\n2,2.png\n",
        "file with a NUL": b"id,file\n1,1.png\0.txt\n2,2.png\n",
        "file of 5000 characters": b"id,file\n1," + b"x" * 5000 + b".png\n2,2.png\n",
        "file is a folder": b"id,file\n1,.\n2,2.png\n",
        "column twice": b"id,id,membership\n1,1,1\n2,2,0\n",
        "empty lines": b"id\n" + b"\n" * 10**6,
        "nothing but a header": b"id,membership",
        "nothing": b"",
        "a byte": b"i",
        "a mark": b"\xef\xbb\xbf",
    }
    return files


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def portable_pixmap(
    width: int, height: int, rows: bytes, *, depth: int = 8, color: int = 2, extra: bytes = b""
) -> bytes:
    """Return a PNG of any claim."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + extra + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def encoded(kind: str, mode: str = "RGB", size: tuple[int, int] = (5, 6), **options: object) -> bytes:
    stream = io.BytesIO()
    Image.new(mode, size).save(stream, kind, **options)
    return stream.getvalue()


def images() -> dict[str, bytes]:
    """Return hostile images by name; each takes the place of 2.png beside a good 1.png."""
    rows = (b"\0" + bytes(15)) * 6
    text = b"zTXt", b"a\0\0" + zlib.compress(bytes(200 << 20), 1)
    profile = b"iCCP", b"a\0\0" + zlib.compress(bytes(200 << 20), 1)
    svg = b'<?xml version="1.0"?><!DOCTYPE s [<!ENTITY x SYSTEM "file:///etc/passwd">]><svg xmlns="http://www.w3.org/2000/svg">&x;</svg>'
    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 5 6\n%%EndComments\n(touch CANARY) (w) file\nshowpage\n"
    tiff = bytearray(encoded("TIFF"))
    huge_tiff = bytes(tiff).replace(struct.pack("<HHLHH", 257, 4, 1, 6, 0), struct.pack("<HHLL", 257, 4, 1, 2**31 - 1))
    files = {
        "bomb": portable_pixmap(30_000, 30_000, bytes(1000)),
        "size of 2**31": portable_pixmap(2**31 - 1, 2**31 - 1, bytes(1000)),
        "no width": portable_pixmap(0, 6, b""),
        "no height": portable_pixmap(5, 0, b""),
        "more rows than it says": portable_pixmap(5, 6, bytes(64 << 20)),
        "fewer rows": portable_pixmap(5, 6, rows[:20]),
        "text bomb": portable_pixmap(5, 6, rows, extra=chunk(*text)),
        "profile bomb": portable_pixmap(5, 6, rows[:1], extra=chunk(*profile)),
        "16 bits of gray": portable_pixmap(5, 6, bytes(66), depth=16, color=0),
        "16 bits of alpha": portable_pixmap(5, 6, b"", depth=16, color=6),
        "wrong checksum": bytes(bytearray(PIXEL[:29]) + b"\0\0\0\0" + PIXEL[33:]),
        "a chunk of 2 GiB": PIXEL[:33] + struct.pack(">I", 2**31 - 1) + b"IDATxxxx",
        "animated of another size": encoded(
            "GIF", size=(9, 9), save_all=True, append_images=[Image.new("RGB", (9, 9), 255)] * 3
        ),
        "CMYK of another size": encoded("JPEG", "CMYK", (7, 7)),
        "32-bit integers": encoded("TIFF", "I"),
        "floats": encoded("TIFF", "F"),
        "tall TIFF": huge_tiff,
        "TIFF without end": bytes(tiff[:8]) + b"\xff" * 64,
        "SVG": svg,
        "EPS": eps,
        "EPS that begins like a PNG": b"\x89PNG\r\n\x1a\n" + eps,
        "PDF": b"%PDF-1.4\n1 0 obj <</OpenAction <</S/Launch/F(touch CANARY)>>>>",
        "FITS": encoded("PPM")[:2] + b" 99999999999 99999999999 255\n",
        "bitmap of negative size": encoded("BMP")[:18] + struct.pack("<ii", -5, -6) + encoded("BMP")[26:],
        "icon": encoded("ICO", size=(32, 32)),
        "half a JPEG": encoded("JPEG", size=(5, 6))[:180],
        "text": b"no image",
        "nothing": b"",
    }
    return files


def configurations(canary: Path) -> dict[str, bytes]:
    """Return hostile configurations by name."""
    source = f"open({str(canary)!r}, 'w').close()"
    laughs = "a0: &a0 [x, x]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]\n" for i in range(1, 40))
    nested = "m0: &m0 {x: 1}\n" + "".join(f"m{i}: &m{i} {{a: *m{i - 1}, b: *m{i - 1}}}\n" for i in range(1, 40))
    tags = {
        "object": f"seed: !!python/object/apply:os.system ['touch {canary}']",
        "new object": f"seed: !!python/object/new:os.system ['touch {canary}']",
        "name": "seed: !!python/name:os.system",
        "module": "seed: !!python/module:os",
        "code": f'seed: !!python/object/apply:builtins.eval ["{source}"]',
        "local tag": "seed: !include /etc/passwd",
        "unknown tag": "seed: !!whatever 1",
        "binary": "seed: !!binary aGVsbG8=",
        "tag of the document": "!!python/dict {seed: 1}",
    }
    return {name: content.encode() for name, content in tags.items()} | {
        "laughs of lists": laughs.encode(),
        "laughs of mappings": nested.encode(),
        "laughs in an option": f"{laughs}signals: {{names: *a39}}\n".encode(),
        "laughs of merges": (
            "m0: &m0 {x: 1}\n" + "".join(f"m{i}: &m{i} {{<<: [*m{i - 1}, *m{i - 1}], k{i}: 1}}\n" for i in range(1, 24))
        ).encode(),
        "a mapping that holds itself": b"data: &a {public: *a}\n",
        "a list that holds itself": b"signals: {names: &a [*a]}\n",
        "deep lists": b"seed: " + b"[" * 50_000,
        "deep closed lists": b"seed: " + b"[" * 20_000 + b"]" * 20_000,
        "deep mappings": b"{a: " * 20_000 + b"1" + b"}" * 20_000,
        "deep blocks": b"".join(b" " * i + b"a:\n" for i in range(3000)),
        "a list": b"- seed\n- 1\n",
        "a text": b"seed",
        "a number": b"17",
        "keys that are numbers": b"1: 2\n",
        "keys that are lists": b"? [a, b]\n: 1\n",
        "keys that are nothing": b"null: 1\n~: 2\n",
        "options that are numbers": b"data: {1: 2}\n",
        "impossible date": b"seed: 2024-99-99\n",
        "date for a number": b"seed: 2024-01-01\n",
        "number of 5000 digits": b"seed: " + b"9" * 5000 + b"\n",
        "number beyond a float": b"seed: 1e999\n",
        "not a number": b"evaluation: {fprs: [.nan]}\n",
        "merge of nothing": b"<<: 1\n",
        "alias to nothing": b"seed: *a\n",
        "two documents": b"seed: 1\n---\nseed: 2\n",
        "NUL": b"seed: \0\n",
        "no text": b"\xff\xfe\xff\xfe\xff",
        "escapes": b'"\\e[2J\\n": 1\n',
        "an unknown key of a megabyte": b"? " + b"k" * 2**20 + b"\n: 1\n",
        "quotes without end": b'seed: "' + b"x" * 10**6,
        "formula for an attack": b"attacks: {'=cmd|x!A0': {class_path: Threshold}}\n",
        "formula for a column": b"submission: {columns: [ids, '=1+1']}\n",
        "program for an attack": b"attacks: {a: {class_path: subprocess.Popen, init_args: {args: [touch, CANARY]}}}\n",
        "program for an architecture": b"target: {architecture: 'os:abort'}\n",
        "program for a reader": b"data: {reader: antigravity}\n",
        "program for a signal": b"signals: {names: ['os:getcwd']}\n",
    }


def column_store(columns: dict[str, object], **options: object) -> bytes:
    stream = io.BytesIO()
    parquet.write_table(pa.table(columns), stream, **options)
    return stream.getvalue()


def scores() -> dict[str, bytes]:
    """Return hostile files of scores by name."""
    ids, member = [1, 2, 3, 4], [1, 0, 1, 0]
    repeated = pa.DictionaryArray.from_arrays(pa.array(np.zeros(10**5, np.int8)), ["x" * 10**5])
    same = pa.chunked_array([pa.array(np.zeros(10**7, bool))] * 5)
    good = column_store({"id": ids, "membership": member, "score": [0.1, 0.2, 0.3, 0.4]})
    files = {
        "rows of one value": column_store({"id": same, "membership": same, "score": same}, compression="zstd"),
        "long text repeated": column_store({"id": repeated, "membership": repeated}, compression="zstd"),
        "lists": column_store({"id": ids, "membership": member, "score": [[1.0]] * 4}),
        "ids of lists": column_store({"id": [[1]] * 4, "membership": member, "score": ids}),
        "structures": column_store({"id": ids, "membership": [{"a": 1}] * 4, "score": ids}),
        "binary ids": column_store({"id": [b"\xff", b"b", b"c", b"d"], "membership": member, "score": ids}),
        "binary membership": column_store({"id": ids, "membership": [b"\xff"] * 4, "score": ids}),
        "labels of lists": column_store({"id": ids, "membership": member, "label": [[1]] * 4, "score": ids}),
        "labels of times": column_store(
            {"id": ids, "membership": member, "label": pa.array(ids, pa.timestamp("ns")), "score": ids}
        ),
        "scores of times": column_store({"id": ids, "membership": member, "score": pa.array(ids, pa.timestamp("ns"))}),
        "scores of nothing": column_store({"id": ids, "membership": member, "score": [None] * 4}),
        "no columns": column_store({"a": pa.array([], pa.int64())}),
        "cut": good[:-30],
        "footer of 2 GiB": good[:-8] + struct.pack("<I", 2**31 - 1) + b"PAR1",
        "only the magic": b"PAR1",
        "magic twice": b"PAR1PAR1",
        "zeros between the magic": b"PAR1" + bytes(1000) + struct.pack("<I", 900) + b"PAR1",
        "encrypted": b"PARE" + good[4:-4] + b"PARE",
        "quote never closed": b'"id,membership,score\n' + b"1,1,0.5\n" * 10**5,
        "quote never closed in a row": b'id,membership,score\n1,1,"' + b"0.5\n1,1," * 10**5,
        "long header field": b"id,membership," + b"s" * 10**6 + b"\n1,1,0\n2,0,0\n",
        "hundred thousand columns": b"id,membership"
        + b"".join(b",s%d" % i for i in range(100_000))
        + b"\n1,1"
        + b",0" * 100_000
        + b"\n",
        "same column": b"id,membership,score,score\n1,1,0,0\n2,0,0,0\n",
        "NUL": b"id,membership,score\n1,1,0\0\n2,0,0\n",
        "UTF-16": "id,membership,score\n1,1,0\n".encode("utf-16"),
        "latin-1": b"id,membership,score\n\xe9,1,0\n2,0,1\n",
        "latin-1 header": b"id,membership,sc\xf6re\n1,1,0\n2,0,1\n",
        "huge membership": b"id,membership,score\n1,1e400,0\n2,0,1\n",
        "score of code": b"id,membership,score\n1,1,__import__('os')\n2,0,1\n",
        "escapes": b"id,membership,score\n1,1,\x1b[2J\n2,0,1\n",
        "label beyond 64 bits": b"id,membership,label,score\n1,1,1e300,0\n2,0,1,1\n",
        "label infinite": b"id,membership,label,score\n1,1,inf,0\n2,0,1,1\n",
        "ragged": b"id,membership,score\n1,1\n2,0,0,0\n",
        "only a header": b"id,membership,score\n",
        "nothing": b"",
        "zeros": bytes(10**6),
        "gzip": gzip.compress(b"id,membership,score\n1,1,0\n2,0,1\n"),
    }
    return files
