"""Valid files that a command gets together with a hostile one."""

from pathlib import Path
from typing import Any


def write_good(folder: Path, task: Any) -> dict[str, str]:
    """Return paths by kind; `bad` does not exist, so that every command ends early."""
    folder.mkdir()
    (folder / "scores.csv").write_text("id,membership,score\n1,1,0.5\n2,0,0.25\n3,1,0.75\n4,0,0.125\n")
    (folder / "key.csv").write_text("id,membership\n1,1\n2,0\n3,1\n4,0\n")
    return {
        "records": str(task.folder / "pub.pt"),
        "target": str(task.folder / "01_MIA.pt"),
        "scores": str(folder / "scores.csv"),
        "key": str(folder / "key.csv"),
        "bad": str(folder / "nowhere"),
    }
