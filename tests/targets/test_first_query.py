"""A program whose native code crashes or hangs ends its child process, not this one."""

import os
import signal
import sys

import pytest
import torch
from torch import nn

from mia_lightning.errors import MIAError
from mia_lightning.targets import first_query, load_target

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="exit codes of signals are those of POSIX")


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 4, 3), nn.Linear(4, 5)

    def forward(self, images):
        return self.head(self.conv(images).relu().mean((2, 3)))


def crash(images):
    os.kill(os.getpid(), signal.SIGSEGV)
    return images


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    path = tmp_path_factory.mktemp("program") / "p.pt2"
    shapes = ({0: torch.export.Dim.DYNAMIC},)
    torch.export.save(torch.export.export(Net().eval(), (torch.randn(4, 3, 16, 16),), dynamic_shapes=shapes), path)
    return str(path)


def test_crash_of_a_query(program):
    with pytest.raises(MIAError, match=r"^p\.pt2: the program's first query ended its process \(SIGSEGV\); export"):
        load_target(program, transform="tests.targets.test_first_query:crash", image_shape=(3, 16, 16))


@pytest.mark.parametrize(("code", "name"), [("os.abort()", "SIGABRT"), ("os.kill(os.getpid(), 9)", "SIGKILL")])
def test_signals(code, name, program, monkeypatch):
    monkeypatch.setattr(first_query, "CODE", f"import os; {code}")
    with pytest.raises(MIAError, match=name):
        load_target(program, image_shape=(3, 16, 16))


def test_hang(program, monkeypatch):
    monkeypatch.setattr(first_query, "CODE", "import time; time.sleep(600)")
    monkeypatch.setattr(first_query, "SECONDS", 0.5)
    with pytest.raises(MIAError, match=r"did not finish its first query in 0\.5 s"):
        load_target(program, image_shape=(3, 16, 16))


def test_program_that_returns(program):
    assert load_target(program, image_shape=(3, 16, 16)).num_classes == 5


def test_child_without_a_program(program, monkeypatch):
    monkeypatch.setattr(first_query, "CODE", "raise SystemExit(1)")
    with pytest.raises(MIAError, match=r"^p\.pt2: the process that reads it ended with exit code 1; export"):
        load_target(program, image_shape=(3, 16, 16))
    monkeypatch.setattr(first_query, "CODE", "import os; os.write(1, b'nonsense')")
    with pytest.raises(MIAError, match=r"^p\.pt2: the process that reads it returned no program; export"):
        load_target(program, image_shape=(3, 16, 16))
    monkeypatch.setattr(first_query, "CODE", "import os, sys; os.write(1, b'p.pt2: \\x1b[2J'); sys.exit(3)")
    with pytest.raises(MIAError, match=r"^p\.pt2: \\x1b\[2J$"):
        load_target(program, image_shape=(3, 16, 16))


def test_only_programs_have_a_child(tmp_path, monkeypatch):
    monkeypatch.setattr(first_query, "CODE", "import os; os.abort()")
    torch.save(Net().state_dict(), tmp_path / "c.pt")
    assert load_target(str(tmp_path / "c.pt"), architecture="tests.targets.test_first_query:Net").num_classes == 5
