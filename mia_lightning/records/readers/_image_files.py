"""Image files in a folder, tar or zip, decoded in one pass with nothing written to disk."""

import contextlib
import functools
import gzip
import io
import lzma
import posixpath
import struct
import tarfile
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from mia_lightning.errors import MIAError, reason
from mia_lightning.records.lazy_images import LazyImages, Transform, lazy_digest
from mia_lightning.records.readers import _files
from mia_lightning.security.archives import RATIO, SPARE, check_list, is_zip
from mia_lightning.security.file_kinds import HEAD, bytes_kind
from mia_lightning.security.open import open_regular

Member = tuple[str, int, Callable[[], bytes]]
"""Path inside the store, bytes, and how to read them."""

FORMATS = ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP", "PPM")  # not EPS, for which PIL starts another program
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm")
LARGEST = 64 * 2**20  # bytes of one image file
LARGEST_HEADER = 2**20  # bytes of a long name or an extension header in a tar
LISTED = 2**21  # bytes of the list of members of any zip; a quarter of the archive may be added
MEMBERS, MEMBER_BYTES = 50_000, 64  # members of any tar, and bytes of it that allow another
EMPTY = 20_000  # folders and empty files in a tar
HEADERS = (
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
)
DAMAGE = (
    tarfile.TarError,
    zipfile.BadZipFile,
    gzip.BadGzipFile,
    lzma.LZMAError,
    zlib.error,
    EOFError,
    NotImplementedError,  # zip: an unknown compression
    RuntimeError,  # zip: a password
    ValueError,
    LookupError,
    TypeError,  # tarfile, where a gzip header is cut
    OverflowError,
    struct.error,
)


@contextlib.contextmanager
def damage_reported(name: str) -> Iterator[None]:
    """Turn the exceptions of a damaged archive into one sentence."""
    try:
        yield
    except DAMAGE as error:
        raise MIAError(f"{name}: is cut short or damaged ({reason(error)}); copy it again") from None


def members(store: Path) -> Iterator[Member]:
    """List the files of a folder, zip or tar; each must be read before the next.

    Raises:
        MIAError: a name leads out of the archive, or the archive decompresses too far (`security.archives`).
    """
    if store.is_dir():
        yield from opened(sorted(store.rglob("*")), store)
        return
    unfolded, limit = 0, SPARE + RATIO * store.stat().st_size
    with damage_reported(store.name):
        for name, size, read in _zip(store) if is_zip(store) else _tar(store):
            unfolded += max(size, 0) + 512
            if unfolded > limit:
                raise MIAError(
                    f"{store.name}: decompresses to over {limit >> 30} GiB, far beyond its size, refused; repack it"
                )
            yield inside(name, store.name), size, functools.partial(_content, read, store.name)


def _content(read: Callable[[], bytes], name: str) -> bytes:
    with damage_reported(name):
        return read()


def opened(files: Iterable[Path], folder: Path) -> Iterator[Member]:
    """List those of the paths that are files, named relative to the folder."""
    for file in files:
        if file.is_file():
            yield file.relative_to(folder).as_posix(), file.stat().st_size, functools.partial(_file_content, file)


def _file_content(path: Path) -> bytes:
    with open_regular(path) as file:
        return file.read(LARGEST + 1)


@dataclass(frozen=True, eq=False)
class ImageOpener:
    """Opens the image files of a source by number, for `LazyImages`; picklable."""

    stored: Callable[[int], bytes | str]
    """Returns the bytes of an image file, or its path; picklable."""

    names: Sequence[str]
    """By number, for messages."""

    source: str

    def content(self, number: int) -> bytes:
        """Return the bytes of an image file."""
        stored = self.stored(number)
        data = _file_content(Path(stored)) if isinstance(stored, str) else stored
        if len(data) > LARGEST:
            raise MIAError(f"{self.what(number)} has over {LARGEST >> 20} MiB; make it smaller")
        return data

    def what(self, number: int) -> str:
        """Return the name of an image for messages."""
        return f"{self.source}: {self.names[number]}"

    def header(self, number: int) -> tuple[bytes, tuple[int, int, int]]:
        """Return the SHA-256 of an image file, and its bytes, width and height, without decoding it."""
        data = self.content(number)
        with damaged_image_reported(data, self.what(number)):
            return sha256(data).digest(), (len(data), *open_image(data).size)

    def __call__(self, number: int) -> Any:
        data = self.content(number)
        with damaged_image_reported(data, self.what(number)):
            image = open_image(data)
            check_depth(image, self.what(number))
            return image.convert("RGB")

    def lazy(self, digests: Sequence[bytes], transform: Transform, transform_name: str) -> LazyImages:
        """Return the images as a transform returns them, decoded when they are needed."""
        digest = lazy_digest(digests, transform, transform_name)
        return LazyImages(self, np.arange(len(self.names)), self.names, transform, transform_name, digest)


def _zip(store: Path) -> Iterator[Member]:
    check_list(store, LISTED + store.stat().st_size // 4)
    with zipfile.ZipFile(store) as archive:
        for entry in archive.infolist():
            if not entry.is_dir():
                yield entry.filename, entry.file_size, lambda entry=entry: archive.read(entry)  # type: ignore[misc]


class _Entry(tarfile.TarInfo):
    """The header of a tar member, which may not announce a name or extension header of gigabytes."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> "_Entry":
        entry = super().frombuf(buf, encoding, errors)
        if entry.size < 0 or (entry.type in HEADERS and entry.size > LARGEST_HEADER):
            raise tarfile.ReadError(f"a header claims {entry.size} bytes")
        return entry


def _tar(store: Path) -> Iterator[Member]:
    with tarfile.open(store, "r|*", tarinfo=_Entry) as archive:
        count, empty, most = 0, 0, MEMBERS + store.stat().st_size // MEMBER_BYTES
        for entry in archive:
            archive.members.clear()  # type: ignore[attr-defined]  # tarfile would keep every header
            count, empty = count + 1, empty + (entry.size == 0)
            if count > most or empty > EMPTY:
                words = f"{EMPTY:,} empty members" if empty > EMPTY else f"{most:,} members, too many for its size"
                raise MIAError(f"{store.name}: has over {words}, refused; repack it with the images alone")
            if entry.isfile():
                file: IO[bytes] | None = archive.extractfile(entry)
                if file is not None:
                    yield entry.name, entry.size, file.read


def inside(path: str, name: str) -> str:
    """Return a relative path in its shortest form; MIAError when it leads out of its folder."""
    plain = posixpath.normpath(path.replace("\\", "/"))
    if plain.startswith(("/", "../")) or plain == ".." or plain[1:3] == ":/":
        raise MIAError(f"{name}: refused, {path[:80]!r} leads out of its own folder; give relative paths without ..")
    return plain


def stack(files: Iterable[Member], row_of: Callable[[str], int | None], ids: Any, name: str) -> NDArray[np.uint8]:
    """Decode the wanted images into (N, C, H, W) uint8, C = 1 when all are gray and 3 otherwise.

    Args:
        files: the files.
        row_of: the record whose image a path is, or None.
        ids: (N,) ids, for error sentences.
        name: the source, for error sentences.

    Raises:
        MIAError: a record has no image or several, or an image is damaged, not 8-bit, too large or of another shape.
    """
    pixels: NDArray[np.uint8] | None = None
    have, all_gray = np.zeros(len(ids), dtype=bool), True
    for path, size, read in files:
        row = row_of(path)
        if row is None:
            continue
        if have[row]:
            raise MIAError(f"{name}: record {ids[row]} has several images, one is {path}; leave one")
        if size > LARGEST:
            raise MIAError(f"{name}: image {path} has {size >> 20} MiB; expected under {LARGEST >> 20} MiB")
        image, gray = _decode(read(), None if pixels is None else pixels.shape[2:], f"{name}: image {path}")
        if pixels is None:
            _files.check_memory(len(ids), (3, *image.shape[:2]), 1, name)
            pixels = np.empty((len(ids), 3, *image.shape[:2]), dtype=np.uint8)
        pixels[row] = image.transpose(2, 0, 1)
        have[row], all_gray = True, all_gray and gray
    if pixels is None or not have.all():
        lacking = ids[~have]
        table = "; for a table of features give --data.reader table" if len(lacking) == len(ids) else ""
        raise MIAError(
            f"{name}: {len(lacking)} of {len(ids)} records have no image, first {lacking[0]}; "
            f"expected an image file named by its id, such as {lacking[0]}.png, or a column of files in the CSV{table}"
        )
    return pixels[:, :1].copy() if all_gray else pixels


def _decode(data: bytes, shape: tuple[int, ...] | None, what: str) -> tuple[NDArray[np.uint8], bool]:
    """Return (H, W, 3) pixels and whether the image is gray; its size is checked before it is decompressed."""
    with damaged_image_reported(data, what):
        image = open_image(data)
        if shape is not None and image.size[::-1] != shape:
            raise MIAError(f"{what} is {image.size[::-1]}, others are {shape}; give all images one size")
        check_depth(image, what)
        gray = image.mode in ("1", "L")
        return np.asarray(image if image.mode == "RGB" else image.convert("RGB")), gray


def check_depth(image: Any, what: str) -> None:
    """Raise MIAError for a PIL image of more than 8 bits per channel, which PIL would clip, not scale, to 8."""
    if image.mode.startswith(("I", "F")):
        raise MIAError(
            f"{what} has {image.mode} pixels; expected 8 bits per channel; convert it as in the target's training"
        )


def open_image(data: bytes) -> Any:
    """Return a PIL image whose pixels are not decoded yet; see `damaged_image_reported`."""
    from PIL import Image

    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        return Image.open(io.BytesIO(data), formats=FORMATS)


@contextlib.contextmanager
def damaged_image_reported(data: bytes, what: str) -> Iterator[None]:
    """Turn the exceptions of PIL into one sentence."""
    from PIL import Image, UnidentifiedImageError

    try:
        yield
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise MIAError(f"{what} has over {Image.MAX_IMAGE_PIXELS} pixels; expected small images") from None
    except (MIAError, MemoryError):
        raise
    except Exception as error:  # decoders raise nearly anything for a damaged file
        recognized = bytes_kind(data[:HEAD])
        if recognized is not None and recognized.is_placeholder:
            raise MIAError(f"{what} is {recognized.description}; {recognized.fix}") from None
        problem = "unknown format" if isinstance(error, UnidentifiedImageError) else reason(error, 120)
        raise MIAError(f"{what} is damaged or not an image ({problem}); expected {', '.join(FORMATS)}") from None
