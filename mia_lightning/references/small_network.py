"""Small network for references that only measure how hard a record is."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

INPUT = (3, 32, 32)
"""Channels, height and width that images are averaged or repeated to."""

WIDTHS = (16, 32, 64)
"""Channels of the three stages."""


class SmallNetwork(nn.Module):
    """A residual network of three stages for images of any size, whatever the target's architecture.

    Trained for a few epochs on one random half of the records, its phi on the other half measures difficulty without
    membership in the target's training (difficulty calibration, Watson et al. 2022). On 32 x 32 images a training step
    takes about a twentieth of that of a stock resnet18.
    """

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(INPUT[0], WIDTHS[0], 3, 2, 1, bias=False), nn.BatchNorm2d(WIDTHS[0]), nn.ReLU()
        )
        starts = (WIDTHS[0], *WIDTHS[:-1])
        self.stages = nn.ModuleList(ResidualStage(start, end) for start, end in zip(starts, WIDTHS, strict=True))
        self.fc = nn.Linear(WIDTHS[-1], num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (B, num_classes) of images (B, C, H, W)."""
        if images.shape[1:] != INPUT:
            images = F.adaptive_avg_pool3d(images.unsqueeze(1), INPUT).squeeze(1)
        maps = self.stem(images)
        for stage in self.stages:
            maps = stage(maps)
        logits: Tensor = self.fc(maps.mean(dim=(2, 3)))
        return logits


class ResidualStage(nn.Module):
    """Two convolutions around a 1 x 1 convolution; the map is halved where the number of channels changes."""

    def __init__(self, start: int, end: int) -> None:
        super().__init__()
        stride = 1 if start == end else 2
        self.body = nn.Sequential(
            nn.Conv2d(start, end, 3, stride, 1, bias=False),
            nn.BatchNorm2d(end),
            nn.ReLU(),
            nn.Conv2d(end, end, 3, 1, 1, bias=False),
            nn.BatchNorm2d(end),
        )
        self.skip = nn.Conv2d(start, end, 1, stride)

    def forward(self, maps: Tensor) -> Tensor:
        """Return maps (B, end, H / stride, W / stride)."""
        return torch.relu(self.body(maps) + self.skip(maps))
