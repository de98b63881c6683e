"""Copy of a reference store behind fsspec, such as s3://bucket/folder, for workers without a shared folder."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mia_lightning.errors import MIAError
from mia_lightning.runtime.atomic import write_atomically

EXTRAS = {"s3": 'pip install "mia-lightning[s3]"', "gs": "pip install gcsfs", "gcs": "pip install gcsfs"}
"""Installation of the libraries behind protocols."""

BUCKETS = ("s3", "s3a", "gs", "gcs", "az", "abfs")
"""Protocols whose addresses begin with a bucket."""


def is_address(text: str | None) -> bool:
    """Whether a folder is written as an address of fsspec, PROTOCOL://PATH, or as one with a slash too few."""
    return text is not None and ("://" in text or re.match(r"[A-Za-z][A-Za-z0-9]+:/", text) is not None)


@dataclass(frozen=True)
class RemoteFolder:
    """Folder at an address of fsspec. Picklable; every method raises MIAError where the address cannot be used."""

    address: str

    def joined(self, name: str) -> RemoteFolder:
        """Return a folder in this one."""
        return RemoteFolder(f"{self.address.rstrip('/')}/{name}")

    def check(self) -> None:
        """Write and remove a small file."""
        self.write(".mia-lightning", b"")
        self.remove(".mia-lightning")

    def write(self, name: str, payload: bytes) -> None:
        """Write a file; it appears when it is complete."""
        with self._files("write into") as (files, root):
            files.makedirs((f"{root}/{name}").rpartition("/")[0], exist_ok=True)
            files.pipe_file(f"{root}/{name}", payload)

    def read(self, name: str, end: int | None = None) -> bytes | None:
        """Return the content of a file up to an offset, None where it does not exist."""
        with self._files("read from") as (files, root):
            try:
                content: bytes = files.cat_file(f"{root}/{name}", start=None if end is None else 0, end=end)
            except FileNotFoundError:
                return None
            return content

    def remove(self, name: str) -> None:
        """Remove a file if it exists."""
        with self._files("write into") as (files, root):
            try:
                files.rm_file(f"{root}/{name}")
            except FileNotFoundError:
                return

    def send(self, path: Path) -> None:
        """Copy a local file here under its name."""
        self.write(path.name, path.read_bytes())

    def fetch(self, path: Path) -> None:
        """Copy the file of a path's name to that path, unless it exists there or not here."""
        if not path.exists() and (payload := self.read(path.name)) is not None:
            write_atomically(path, payload)

    @contextmanager
    def _files(self, doing: str) -> Iterator[tuple[Any, str]]:
        protocol, slashes, rest = self.address.partition("://")
        if not slashes:
            protocol, _, rest = self.address.partition(":/")
            raise MIAError(f"--cache_dir {self.address} has one slash too few; write {protocol}://{rest}")
        if protocol in BUCKETS and not rest.partition("/")[0]:
            raise MIAError(f"--cache_dir {self.address} names no bucket; write {protocol}://BUCKET/FOLDER")
        try:
            from fsspec.core import url_to_fs  # type: ignore[import-untyped]

            files, root = url_to_fs(self.address, use_listings_cache=False)
            yield files, str(root).rstrip("/")
        except ImportError as error:
            fix = EXTRAS.get(protocol, f"install the library of fsspec for {protocol}://")
            raise MIAError(f"--cache_dir {self.address}: {protocol}:// needs another library; {fix}") from error
        except MIAError:
            raise
        except Exception as error:  # each protocol has its own
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            raise MIAError(
                f"--cache_dir: cannot {doing} {self.address} ({reason}); check the address, its permissions and the "
                "credentials of this machine and of the workers"
            ) from error
