"""A batch of padded images."""

from typing import Any

import torch


class ImageList:
    """Images in one `tensor` (B, ..., H, W), padded on the right and at the bottom.

    `image_sizes` are their (height, width) without padding.
    """

    def __init__(self, tensor: torch.Tensor, image_sizes: list[tuple[int, int]]):
        self.tensor = tensor
        self.image_sizes = image_sizes

    @staticmethod
    def from_tensors(tensors: list[torch.Tensor], size_divisibility: int = 0, pad_value: float = 0.0) -> "ImageList":
        """Pad images (..., H, W) to a common size, divisible by `size_divisibility`."""
        assert len(tensors) > 0, "expected at least one image"
        first = tensors[0]
        assert all(t.shape[:-2] == first.shape[:-2] for t in tensors), (
            f"images differ in channels: {[t.shape for t in tensors]}"
        )
        image_sizes = [(image.shape[-2], image.shape[-1]) for image in tensors]
        divisor = max(1, size_divisibility)
        sides = [-(-max(lengths) // divisor) * divisor for lengths in zip(*image_sizes, strict=True)]
        batch = first.new_full((len(tensors), *first.shape[:-2], *sides), pad_value)
        for i, (height, width) in enumerate(image_sizes):
            batch[i, ..., :height, :width] = tensors[i]
        return ImageList(batch, image_sizes)

    def __len__(self) -> int:
        return len(self.image_sizes)

    def __getitem__(self, idx: int) -> torch.Tensor:
        """Return an image without its padding."""
        height, width = self.image_sizes[idx]
        return self.tensor[idx, ..., :height, :width]

    def to(self, *args: Any, **kwargs: Any) -> "ImageList":
        return ImageList(self.tensor.to(*args, **kwargs), self.image_sizes)

    @property
    def device(self) -> torch.device:
        return self.tensor.device
