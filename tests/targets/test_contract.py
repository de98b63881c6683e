"""The contract of a target's architecture: those of the package and the documentation, and small torchvision ones."""

import importlib
import inspect
import pickle
import pkgutil
import re
import sys
import textwrap

import pytest
import torch
from helpers import ROOT
from torch import nn

import mia_lightning.targets as package
from mia_lightning.targets import check_fits, load_target
from mia_lightning.targets.architectures import untrained

PAGE = (ROOT / "docs/extending.md").read_text()
PASTED = {
    name.rpartition("/")[2].removesuffix(".py"): source
    for name, source in re.findall(r'```python title="([^"]+/targets/[^"]+)"\n(.*?)```', PAGE, flags=re.DOTALL)
}
PASTED["docstring"] = textwrap.dedent(str(package.__doc__).partition("::\n")[2])
SHAPE, CLASSES = (3, 32, 32), 5


def networks(module):
    """Return the names of what a module defines that `--target.architecture` can build for a number of classes."""
    return [
        name
        for name, value in vars(module).items()
        if getattr(value, "__module__", None) == module.__name__
        and (inspect.isfunction(value) or (inspect.isclass(value) and issubclass(value, nn.Module)))
        and "num_classes" in (parameters := inspect.signature(value).parameters)
        and all(key == "num_classes" or item.default is not item.empty for key, item in parameters.items())
    ]


def discovered():
    names = [f"{package.__name__}.{item.name}" for item in pkgutil.iter_modules(package.__path__)]
    return [f"{module}:{name}" for module in names for name in networks(importlib.import_module(module))]


@pytest.fixture(params=[*discovered(), *PASTED, "resnet18", "mobilenet_v3_small", "squeezenet1_1"])
def architecture(request, tmp_path, monkeypatch):
    if request.param not in PASTED:
        return request.param
    module = f"pasted_{request.param}"
    (tmp_path / f"{module}.py").write_text(PASTED[request.param])
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, module, raising=False)
    names = networks(importlib.import_module(module))
    assert names, "the example defines no network"
    return f"{module}:{names[0]}"


def test_architecture(architecture, tmp_path):
    like = {} if ":" in architecture else untrained_torchvision(architecture)
    network = untrained(architecture, CLASSES, like, seed=1).eval()
    torch.save(network.state_dict(), tmp_path / "t.pt")
    target = load_target(str(tmp_path / "t.pt"), architecture=architecture, image_shape=SHAPE)
    assert target.num_classes == CLASSES
    assert not target.network.training
    assert not any(parameter.requires_grad for parameter in target.network.parameters())
    check_fits(target, SHAPE)
    images = torch.randn(4, *SHAPE, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        logits = network(images)
        assert logits.shape == (4, CLASSES)
        torch.testing.assert_close(target.network(images), logits)
        torch.testing.assert_close(target.network(images[:1]), logits[:1], rtol=1e-4, atol=1e-5)
        copied = pickle.loads(pickle.dumps(target.network))  # noqa: S301
        torch.testing.assert_close(copied(images), logits)
    again = load_target(str(tmp_path / "t.pt"), architecture=architecture, image_shape=SHAPE)
    assert again.digest == target.digest
    other = untrained(target.architecture, CLASSES, target.network.state_dict(), seed=2)
    shapes = {name: tensor.shape for name, tensor in other.state_dict().items()}
    assert shapes == {name: tensor.shape for name, tensor in target.network.state_dict().items()}
    assert any(not torch.equal(tensor, network.state_dict()[name]) for name, tensor in other.state_dict().items())


def untrained_torchvision(name):
    import torchvision

    return torchvision.models.get_model(name, weights=None, num_classes=CLASSES).state_dict()


def test_documentation_has_an_example():
    assert len(PASTED) == 2
