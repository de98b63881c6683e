"""Checkpoints of torch's old form with a pickled module: the weights next to it are read, the module is not built."""

import pytest
import torch
from torch import nn

from mia_lightning.errors import MIAError
from mia_lightning.security.module_sources import without_module_sources
from mia_lightning.targets import load_target


class Small(nn.Module):
    def __init__(self, num_classes=5):
        super().__init__()
        self.conv = nn.Conv2d(3, 2, 3)
        self.fc = nn.Linear(2, num_classes)

    def forward(self, images):
        return self.fc(self.conv(images).mean((2, 3)))

    def __setstate__(self, state):
        raise AssertionError("the pickled module was built")


def saved(path, payload):
    torch.save(payload, path, _use_new_zipfile_serialization=False)
    return path


def payload_of(form):
    torch.manual_seed(1)
    network = Small()
    state, wrapped = network.state_dict(), nn.DataParallel(network)
    return network, {
        "after": {"state_dict": state, "model": network},
        "before": {"model": network, "state_dict": state},
        "two": {"model": network, "state_dict": state, "teacher": Small()},
        "wrapped": {"model": wrapped, "module": 1, "state_dict": state},
        "optimizer": {"model": network, "state_dict": state, "losses": [nn.CrossEntropyLoss(), nn.MSELoss()]},
    }[form]


@pytest.mark.parametrize("form", ["after", "before", "two", "wrapped", "optimizer"])
def test_weights_next_to_a_module(form, tmp_path):
    network, payload = payload_of(form)
    target = load_target(str(saved(tmp_path / "t.pt", payload)), architecture=f"{__name__}:Small")
    loaded = target.network.state_dict()
    for name, tensor in network.state_dict().items():
        matching = [value for key, value in loaded.items() if key.endswith(name)]
        assert any(torch.equal(value, tensor) for value in matching), name


def test_module_alone_is_named(tmp_path):
    with pytest.raises(MIAError, match=r"contains a pickled module \(.*Small\), which is not run"):
        load_target(str(saved(tmp_path / "t.pt", Small())), architecture=f"{__name__}:Small")


def test_other_files_are_left(tmp_path):
    path = saved(tmp_path / "t.pt", {"state_dict": Small().state_dict(), "module": ("module", 1)})
    assert without_module_sources(path) is None
    content = saved(tmp_path / "u.pt", {"model": Small()}).read_bytes()
    for length in (0, 1, 50, len(content) // 3):
        (tmp_path / "cut.pt").write_bytes(content[:length])
        without_module_sources(tmp_path / "cut.pt")
        with pytest.raises(MIAError):
            load_target(str(tmp_path / "cut.pt"), architecture=f"{__name__}:Small")
