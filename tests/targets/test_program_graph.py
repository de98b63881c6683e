"""A program that passes between processes as plain data computes the same bits, and its description runs nothing."""

import json
import struct

import pytest
import torch
from safetensors.torch import save
from torch import nn

from mia_lightning.targets.exported import read_program
from mia_lightning.targets.program_graph import rebuild


class Attention(nn.Module):
    """Texts, lists, dtypes, shapes of the batch and a buffer among the arguments of its operations."""

    def __init__(self):
        super().__init__()
        self.patches, self.head, self.token = nn.Conv2d(3, 8, 4, 4), nn.Linear(8, 5), nn.Parameter(torch.randn(1, 1, 8))
        self.layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.register_buffer("places", torch.arange(8))

    def forward(self, images):
        tokens = self.patches(images).flatten(2).transpose(1, 2) + self.places.to(torch.float32)
        tokens = self.layer(torch.cat([self.token.expand(tokens.shape[0], -1, -1), tokens], 1))
        tokens = torch.einsum("btd,de->bte", tokens, torch.eye(8))
        return self.head(tokens.reshape(tokens.shape[0] * 3, -1, 8).mean(1)).view(tokens.shape[0], 3, 5).sum(1)


def test_the_same_bits(tmp_path):
    torch.manual_seed(0)
    network, images = Attention().eval(), torch.randn(6, 3, 16, 8)
    shapes = ({0: torch.export.Dim.DYNAMIC},)
    torch.export.save(torch.export.export(network, (images[:4],), dynamic_shapes=shapes), tmp_path / "p.pt2")
    program, description = read_program(tmp_path / "p.pt2")
    rebuilt, details = rebuild(description)
    assert details == {"image_shape": [3, 16, 8], "classes": 5}
    for batch in (images, images[:1]):
        assert torch.equal(program.traced(batch), rebuilt(batch))
        torch.testing.assert_close(rebuilt(batch), network(batch))
    assert [name for name, _ in rebuilt.named_parameters()] == [name for name, _ in program.traced.named_parameters()]


def described(*nodes, **tensors):
    content = json.dumps({"nodes": [*nodes, ["output", "output", [{"node": 0}], {}]], "learned": []}).encode()
    return struct.pack("<Q", len(content)) + content + save(tensors)


IMAGES = ["placeholder", "x", [], {}]


@pytest.mark.parametrize(
    "node",
    [
        ["call_function", "os.system", ["touch x"], {}],
        ["call_function", "_operator.attrgetter", ["a"], {}],
        ["call_function", "aten.__class__.__init__", [], {}],
        ["call_module", "x", [], {}],
        ["call_method", "numpy", [{"node": 0}], {}],
        ["get_attr", "x');import os;('", [], {}],
        ["get_attr", "absent", [], {}],
        ["call_function", "aten.relu.default", [{"dtype": "load"}], {}],
        ["call_function", "aten.relu.default", [{"pickle": "x"}], {}],
    ],
)
def test_other_nodes_are_refused(node):
    with pytest.raises((ValueError, KeyError, AttributeError)):
        rebuild(described(IMAGES, node))
