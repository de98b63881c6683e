"""Store of references: weights, the keep matrix, and phi of all references in one memory-mapped file."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mia_lightning.errors import MIAError
from mia_lightning.runtime.atomic import write_atomically
from mia_lightning.runtime.locks import Lock
from mia_lightning.runtime.store import key_of

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class ReferenceRecord:
    """Description of one reference."""

    number: int
    status: str
    """"trained", or "diverged": left out."""

    accuracy_in: float = 0.0
    """Accuracy on its training records, as stored, in eval mode; in [0, 1]."""

    accuracy_out: float = 0.0
    """Accuracy on the other records."""

    seconds: float = 0.0
    """Training time of the last attempt."""

    reason: str = ""
    """Reason for leaving it out."""

    sha256: str = ""
    """Digest of its row of phi (hex)."""


class ReferenceStore:
    """References of one set of records, architecture, recipe and scheme.

    A reference is finished once its description exists; phi of other queries is another file next to the same weights.

    Args:
        root: Folder of the store.
        training: Everything that determines the weights.
        asking: Everything besides the weights that determines phi.
        records: N.
        queries: Q.
    """

    def __init__(
        self, root: Path, *, training: Mapping[str, Any], asking: Mapping[str, Any], records: int, queries: int
    ) -> None:
        key = key_of(training)
        self.folder = root / "references" / key
        self.rows = self.folder / f"phi-{key_of(asking)[:16]}"
        self.phi = self.rows / "phi.float32"
        self.shape = (records, queries)
        self.key_inputs = {"training": dict(training), "asking": dict(asking)}

    def open(self, keep: NDArray[np.bool_], *, weights_bytes: int) -> None:
        """Create the folders and reserve room for K references; existing files are kept.

        Raises:
            MIAError: the disk has too little room or cannot be written.
        """
        needed = keep.shape[0] * (weights_bytes + self._row_bytes) - self._present()
        try:
            self.rows.mkdir(parents=True, exist_ok=True)
            free = shutil.disk_usage(self.folder).free
            if needed > free:
                raise MIAError(
                    f"{keep.shape[0]} references need about {needed / 2**30:.1f} GiB more in the store, which has "
                    f"{free / 2**30:.1f} GiB left; free space, or name another --cache_dir"
                )
            with self.phi.open("ab") as file:
                if file.tell() < keep.shape[0] * self._row_bytes:
                    file.truncate(keep.shape[0] * self._row_bytes)
        except OSError as error:
            raise _cannot_write(error) from error
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
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _cannot_write(error) from error
        return Lock(self.folder / "lock")

    def _keeps(self, keep: NDArray[np.bool_]) -> bool:
        """Whether the stored keep-matrix begins with these rows; with fewer references the remaining rows stay."""
        try:
            stored = np.load(self.folder / "keep.npy", allow_pickle=False)
        except (OSError, ValueError, EOFError):
            return False
        return bool(np.array_equal(stored[: len(keep)], keep))

    @property
    def _row_bytes(self) -> int:
        return self.shape[0] * self.shape[1] * 4

    def _present(self) -> int:
        return sum(file.stat().st_size for file in self.folder.glob("*.safetensors")) if self.folder.exists() else 0

    def checkpoint(self, number: int) -> Path:
        """Return the file of a reference's last finished epoch."""
        return self.folder / f"{number:04d}.checkpoint"

    def weights(self, number: int) -> Path:
        """Return the file of a trained reference's weights."""
        return self.folder / f"{number:04d}.safetensors"

    def row(self, number: int) -> ReferenceRecord | None:
        """Return the description of a finished reference, or None; one whose phi is damaged is not finished."""
        try:
            row = ReferenceRecord(**json.loads((self.rows / f"{number:04d}.json").read_text()))
        except (OSError, ValueError, TypeError):
            return None
        if row.status == "trained" and sha256(self._read(number)).hexdigest() != row.sha256:
            return None
        return row

    def has_description(self, number: int) -> bool:
        """Whether a reference was finished once."""
        return (self.rows / f"{number:04d}.json").exists()

    def _read(self, number: int) -> bytes:
        with self.phi.open("rb") as file:
            file.seek(number * self._row_bytes)
            return file.read(self._row_bytes)

    def finish(self, row: ReferenceRecord, phi: NDArray[np.float32] | None) -> None:
        """Write a reference's phi, then its description.

        Raises:
            MIAError: the disk is full or cannot be written.
        """
        digest = ""
        if phi is not None:
            payload = np.ascontiguousarray(phi, np.float32).tobytes()
            digest = sha256(payload).hexdigest()
            try:
                with self.phi.open("r+b") as file:
                    file.seek(row.number * self._row_bytes)
                    file.write(payload)
                    file.flush()
                    os.fsync(file.fileno())
            except OSError as error:
                raise _cannot_write(error) from error
        description = {**asdict(row), "sha256": digest}
        write_atomically(self.rows / f"{row.number:04d}.json", json.dumps(description, indent=2).encode())
        self.checkpoint(row.number).unlink(missing_ok=True)

    def matrix(self, count: int) -> NDArray[np.float32]:
        """Return phi of the first references as a read-only memory map, (K, N, Q)."""
        return np.memmap(self.phi, np.float32, mode="r", shape=(count, *self.shape))

    def save_weights(self, number: int, state: Mapping[str, Tensor]) -> None:
        """Write a reference's weights with a checksum of their values."""
        from safetensors.torch import save

        state = {name: tensor.cpu().contiguous() for name, tensor in state.items()}
        payload = save(state, metadata={"sha256": _digest(state)})
        write_atomically(self.weights(number), payload)

    def load_weights(self, number: int) -> dict[str, Tensor] | None:
        """Return a reference's weights, or None where they are missing or damaged."""
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(self.weights(number), "pt") as file:
                state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (not a mapping)
                recorded = (file.metadata() or {}).get("sha256")
        except (OSError, SafetensorError):
            return None
        return state if _digest(state) == recorded else None


def _digest(state: Mapping[str, Tensor]) -> str:
    digest = sha256()
    for name in sorted(state):
        digest.update(f"{name} {state[name].dtype} {tuple(state[name].shape)}\n".encode())
        digest.update(state[name].reshape(-1).numpy().tobytes())
    return digest.hexdigest()


def _cannot_write(error: OSError) -> MIAError:
    if error.errno not in (errno.ENOSPC, errno.EACCES, errno.EPERM, errno.EROFS, errno.EDQUOT, errno.EFBIG):
        raise error
    return MIAError(
        f"cannot write references into the store: {error.strerror}; free space, or name another --cache_dir"
    )
