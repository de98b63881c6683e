"""Store of references: weights, the keep matrix, and phi of all references in one memory-mapped file."""

from __future__ import annotations

import json
import logging
import os
import shutil
import stat
from collections.abc import Mapping
from contextlib import suppress
from copy import copy
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from mia_lightning.errors import MIAError
from mia_lightning.references.remote import RemoteFolder
from mia_lightning.runtime.atomic import STORE_FIX, make_folder, readable_write_error, write_atomically
from mia_lightning.runtime.locks import Lock
from mia_lightning.runtime.own_files import ArraySpec, DamagedFileError, read_array, read_json
from mia_lightning.runtime.store import key_of, store_lock
from mia_lightning.security.open import open_own, update_own

if TYPE_CHECKING:
    from torch import Tensor

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ReferenceRecord:
    """Description of one reference."""

    number: int
    status: Literal["trained", "diverged"]
    """"diverged": left out."""

    accuracy_in: float = 0.0
    """Accuracy on its training records, as stored, in eval mode; in [0, 1]."""

    accuracy_out: float = 0.0
    """Accuracy on the other records."""

    seconds: float = 0.0
    """Training time of the last attempt."""

    reason: str = ""
    """Reason for leaving it out."""

    losses: tuple[float, ...] = ()
    """Mean training loss of each epoch; of the last ones only where training was interrupted."""

    sha256: str = ""
    """Digest of the other fields and its row of phi (hex)."""


class ReferenceStore:
    """References of one set of records, architecture, recipe and scheme.

    A reference is finished once its description exists; phi of other queries is another file next to the same weights.

    Args:
        root: Folder of the store.
        training: Everything that determines the weights.
        inference: Everything besides the weights that determines phi.
        records: N.
        queries: Q.
        remote: Address of a folder behind fsspec that holds a copy, which other machines have access to.
    """

    def __init__(
        self,
        root: Path,
        *,
        training: Mapping[str, Any],
        inference: Mapping[str, Any],
        records: int,
        queries: int,
        remote: str | None = None,
    ) -> None:
        self.key_inputs = {"training": dict(training), "inference": dict(inference)}
        self.shape = (records, queries)
        self.remote = None if remote is None else RemoteFolder(remote).joined(f"references/{key_of(training)}")
        self._place(root)

    def _place(self, root: Path) -> None:
        self.folder = root / "references" / key_of(self.key_inputs["training"])
        self.rows = self.folder / f"phi-{key_of(self.key_inputs['inference'])[:16]}"
        self.phi = self.rows / "phi.float32"

    def at(self, root: Path) -> ReferenceStore:
        """Return the same store with its local files in another folder, of a machine that shares none."""
        moved = copy(self)
        moved._place(root)
        return moved

    def open(self, keep: NDArray[np.bool_], *, weights_bytes: int) -> None:
        """Create the folders and reserve room for K references; existing files are kept.

        Raises:
            MIAError: the disk has too little room or cannot be written, or a folder of the store is a symbolic link.
        """
        present = sum(file.lstat().st_size for file in self.folder.glob("*.safetensors"))
        needed = keep.shape[0] * (weights_bytes + self._row_bytes) - present
        with readable_write_error("references into the store", STORE_FIX):
            for folder in (self.folder.parent, self.folder, self.rows):
                make_folder(folder)
            free = shutil.disk_usage(self.folder).free
            if needed > free:
                raise MIAError(
                    f"{keep.shape[0]} references need about {needed / 2**30:.1f} GiB more in the store, which has "
                    f"{free / 2**30:.1f} GiB left; free space, or name another --cache_dir"
                )
            if os.path.lexists(self.phi) and not stat.S_ISREG(os.lstat(self.phi).st_mode):
                log.warning("%s is not a regular file; replacing it", self.phi)
                self.phi.unlink()
            with update_own(self.phi) as file:
                if os.fstat(file.fileno()).st_size < keep.shape[0] * self._row_bytes:
                    file.truncate(keep.shape[0] * self._row_bytes)
        if not self._keeps(keep):
            buffer = BytesIO()
            np.save(buffer, keep)
            write_atomically(self.folder / "keep.npy", buffer.getvalue())
        write_atomically(self.folder / "key_inputs.json", json.dumps(self.key_inputs, indent=2).encode())

    def lock(self) -> Lock:
        """Return the lock to hold while these references are trained.

        Raises:
            MIAError: the store cannot be written.
        """
        return store_lock(self.folder)

    def _keeps(self, keep: NDArray[np.bool_]) -> bool:
        """Whether the stored keep-matrix begins with these rows; with fewer references the remaining rows stay."""
        try:
            stored = read_array(self.folder / "keep.npy", ArraySpec(np.bool_, (None, keep.shape[1])))
        except FileNotFoundError:
            return False
        except DamagedFileError as error:
            log.warning("%s", error)
            return False
        return bool(np.array_equal(stored[: len(keep)], keep))

    @property
    def _row_bytes(self) -> int:
        return self.shape[0] * self.shape[1] * 4

    def checkpoint(self, number: int) -> Path:
        """Return the file of a reference's last finished epoch."""
        return self.folder / f"{number:04d}.checkpoint"

    def weights(self, number: int) -> Path:
        """Return the file of a trained reference's weights."""
        return self.folder / f"{number:04d}.safetensors"

    def fetch_checkpoint(self, number: int) -> None:
        """Copy a reference's last finished epoch from the remote folder, where there is one."""
        if self.remote is not None:
            self.remote.fetch(self.checkpoint(number))

    def send_checkpoint(self, number: int) -> None:
        """Copy a reference's last finished epoch into the remote folder, where there is one."""
        if self.remote is not None and self.checkpoint(number).exists():
            self.remote.send(self.checkpoint(number))

    def progress(self, number: int) -> bytes:
        """Return the beginnings of a reference's files, which change with each epoch; empty if nothing is stored."""
        beginnings = []
        for path in (self.checkpoint(number), self.weights(number)):
            if self.remote is not None:
                beginnings.append(self.remote.read(path.name, 32) or b"")
                continue
            with suppress(OSError, MIAError), open_own(path) as file:
                beginnings.append(file.read(32))  # the checksum of a checkpoint
        return b"".join(beginnings)

    def _fetch_row(self, number: int) -> None:
        """Copy a finished reference's phi and description from the remote folder, if they are only there."""
        if self.remote is None or self.has_description(number):
            return
        rows = self.remote.joined(self.rows.name)
        description, phi = rows.read(f"{number:04d}.json"), rows.read(f"{number:04d}.float32")
        if description is not None and phi is not None and len(phi) in (0, self._row_bytes):
            self._write_phi(number, phi)
            write_atomically(self._description(number), description)

    def row(self, number: int) -> ReferenceRecord | None:
        """Return the description of a finished reference, or None; one that or whose phi is damaged is not finished."""
        self._fetch_row(number)
        try:
            row = read_json(self._description(number), ReferenceRecord)
            payload = self._read(number) if row.status == "trained" else b""
        except (OSError, MIAError):
            return None
        is_intact = row.number == number and row.sha256 == _row_digest(row, payload)
        return row if is_intact and np.isfinite(np.frombuffer(payload, np.float32)).all() else None

    def has_description(self, number: int) -> bool:
        """Whether a reference was finished once."""
        return os.path.lexists(self._description(number))

    def _description(self, number: int) -> Path:
        return self.rows / f"{number:04d}.json"

    def _read(self, number: int) -> bytes:
        with open_own(self.phi) as file:
            file.seek(number * self._row_bytes)
            return file.read(self._row_bytes)

    def finish(self, row: ReferenceRecord, phi: NDArray[np.float32] | None) -> None:
        """Write a reference's phi, then its description.

        Raises:
            MIAError: the disk is full or cannot be written.
        """
        payload = b"" if phi is None else np.ascontiguousarray(phi, np.float32).tobytes()
        with readable_write_error("references into the store", STORE_FIX):
            self._write_phi(row.number, payload)
            described = asdict(replace(row, sha256=_row_digest(row, payload)))
            description = json.dumps(described, indent=2).encode()
            write_atomically(self._description(row.number), description)
            self.checkpoint(row.number).unlink(missing_ok=True)
        if self.remote is not None:
            rows = self.remote.joined(self.rows.name)
            rows.write(f"{row.number:04d}.float32", payload)
            rows.write(f"{row.number:04d}.json", description)
            self.remote.remove(self.checkpoint(row.number).name)

    def _write_phi(self, number: int, payload: bytes) -> None:
        if not payload:
            return
        with update_own(self.phi) as file:
            file.seek(number * self._row_bytes)
            file.write(payload)
            file.flush()
            os.fsync(file.fileno())

    def matrix(self, count: int) -> NDArray[np.float32]:
        """Return phi of the first references as a read-only memory map, (K, N, Q)."""
        with open_own(self.phi) as file:
            return np.memmap(file, np.float32, mode="r", shape=(count, *self.shape))

    def save_weights(self, number: int, state: Mapping[str, Tensor]) -> None:
        """Write a reference's weights with a checksum of their values."""
        from safetensors.torch import save

        state = {name: tensor.cpu().contiguous() for name, tensor in state.items()}
        payload = save(state, metadata={"sha256": _digest(state)})
        write_atomically(self.weights(number), payload)
        if self.remote is not None:
            self.remote.write(self.weights(number).name, payload)

    def load_weights(self, number: int, like: Mapping[str, Tensor]) -> dict[str, Tensor] | None:
        """Return a reference's weights, or None where they are missing, damaged or unlike these in shape or dtype."""
        from safetensors import SafetensorError, safe_open

        path = self.weights(number)
        if self.remote is not None:
            self.remote.fetch(path)
        try:
            open_own(path).close()  # safetensors would follow a link and wait for a named pipe
            with safe_open(path, "pt") as file:
                state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (not a mapping)
                recorded = (file.metadata() or {}).get("sha256")
        except FileNotFoundError:
            return None
        except (OSError, MIAError, SafetensorError) as error:
            log.warning("the weights of reference %d are damaged (%s); training it again", number, error)
            return None
        headers, expected = ({n: (t.shape, t.dtype) for n, t in tensors.items()} for tensors in (state, like))
        if headers != expected or _digest(state) != recorded:
            log.warning("the weights of reference %d are damaged; training it again", number)
            return None
        return state


def _row_digest(row: ReferenceRecord, phi: bytes) -> str:
    values = asdict(replace(row, sha256=""))
    if not row.losses:  # descriptions of earlier versions have none
        del values["losses"]
    text = json.dumps(values, sort_keys=True)
    return sha256(text.encode() + phi).hexdigest()


def _digest(state: Mapping[str, Tensor]) -> str:
    digest = sha256()
    for name in sorted(state):
        digest.update(f"{name} {state[name].dtype} {tuple(state[name].shape)}\n".encode())
        digest.update(state[name].reshape(-1).numpy().tobytes())
    return digest.hexdigest()
