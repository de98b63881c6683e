"""Ready-made functions for `--data.transform`: normalized images (B, C, H, W) to images, on their device.

A function of your own works the same way: `--data.transform my_module:my_function`.
"""

from torch import Tensor


def reverse_channels(images: Tensor) -> Tensor:
    """Return the images with their channels reversed (RGB to BGR, as OpenCV and Caffe store them)."""
    return images.flip(1)


def transpose(images: Tensor) -> Tensor:
    """Return the images with rows and columns exchanged (EMNIST and MATLAB files store them so)."""
    return images.transpose(2, 3)


def rgb_to_gray(images: Tensor) -> Tensor:
    """Return the luminance of RGB images in one channel, for a target that takes one (ITU-R BT.601 weights)."""
    return 0.299 * images[:, 0:1] + 0.587 * images[:, 1:2] + 0.114 * images[:, 2:3]
