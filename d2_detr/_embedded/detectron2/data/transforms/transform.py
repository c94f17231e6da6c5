import numpy as np
import torch
import torch.nn.functional as F
from fvcore.transforms.transform import Transform
from PIL import Image

__all__ = ["ResizeTransform"]


class ResizeTransform(Transform):
    """Resize (h, w) to (new_h, new_w) pixels; `interp` is a filter of Pillow's, bilinear by default.

    Pillow resizes uint8, with antialiasing; torch resizes all other types, without.
    """

    def __init__(self, h: int, w: int, new_h: int, new_w: int, interp: int | None = None):
        self.h, self.w, self.new_h, self.new_w = h, w, new_h, new_w
        self.interp = Image.BILINEAR if interp is None else interp

    def apply_image(self, img: np.ndarray, interp: int | None = None) -> np.ndarray:
        """(h, w), (h, w, C) or (h, w, D, C) with new_h, new_w and of the same type."""
        assert img.shape[:2] == (self.h, self.w), f"Expected an image of {self.h} x {self.w}, got {img.shape}"
        interp = self.interp if interp is None else interp
        if img.dtype == np.uint8:
            image = Image.fromarray(img[:, :, 0] if img.shape[2:] == (1,) else img)
            resized = np.asarray(image.resize((self.new_w, self.new_h), interp))
        else:
            mode = {Image.NEAREST: "nearest", Image.BILINEAR: "bilinear", Image.BICUBIC: "bicubic"}[interp]
            hwdc = np.ascontiguousarray(img).reshape(self.h, self.w, *[1] * (4 - img.ndim), *img.shape[2:])
            dchw = torch.from_numpy(hwdc).permute(2, 3, 0, 1)
            resized = F.interpolate(dchw, (self.new_h, self.new_w), mode=mode).permute(2, 3, 0, 1).numpy()
        return resized.reshape(self.new_h, self.new_w, *img.shape[2:])

    def apply_coords(self, coords: np.ndarray) -> np.ndarray:
        """Scale (N, 2) xy in place: an integer array keeps whole pixels."""
        coords[:, 0] = coords[:, 0] * (self.new_w / self.w)
        coords[:, 1] = coords[:, 1] * (self.new_h / self.h)
        return coords

    def apply_segmentation(self, segmentation: np.ndarray) -> np.ndarray:
        return self.apply_image(segmentation, interp=Image.NEAREST)

    def inverse(self) -> "ResizeTransform":
        return ResizeTransform(self.new_h, self.new_w, self.h, self.w, self.interp)
