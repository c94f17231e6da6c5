"""Using a trained model: pictures in, what is in them out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from d2_detr.checkpoint.model_config import config_of, default_threshold
from d2_detr.data.augmentation import build_augmentations
from d2_detr.inference.attention import load_model
from d2_detr.inference.prediction import Picture, Prediction, read_pixels
from d2_detr.structures.conversions import detections_from_instances, detections_from_segments
from d2_detr.utils.errors import InputError

from detectron2.data import transforms as T

CLASSES_SHOWN = 5


class Predictor:
    """A trained DETR, from its checkpoint alone.

    predictor = Predictor("model_best.pth")
    found = predictor("cat.jpg")
    print(found.names, found.boxes_xyxy)
    found.draw("found.png")
    """

    def __init__(
        self,
        weights: str | Path,
        *,
        threshold: float | None = None,
        device: str | torch.device = "",
        batch_size: int = 1,
        opts: Sequence[str] = (),
    ):
        """
        Args:
            weights: a checkpoint of any layout: a path, an https address, a name as detr://r50 (see config_of).
            threshold: least score of what is found, in [0, 1]; masks of all else are not computed. None takes the one
                that is best for the model, where its checkpoint tells it, and 0.7 elsewhere. Segments of a panoptic
                model have MODEL.DETR.PANOPTIC_SCORE_THRESH besides.
            device: "cuda", "cuda:1", "cpu", ...; "" takes CUDA where there is one.
            batch_size: how many pictures `all` gives to the model at once.
            opts: KEY VALUE pairs that win over the config of the checkpoint, as "INPUT.MIN_SIZE_TEST", "480".

        Raises:
            FileNotFoundError, ConnectionError, InputError: the checkpoint cannot be had or read, is not whole, or
                another argument is none of these.
        """
        check_threshold(threshold)
        if batch_size < 1:
            raise InputError(f"batch size {batch_size}: expected 1 or more")
        self.cfg, self.label_map = config_of(str(weights), opts)
        self.threshold = default_threshold(str(weights)) if threshold is None else float(threshold)
        self.cfg.MODEL.DETR.SCORE_THRESH_TEST = self.threshold
        if device:
            self.cfg.MODEL.DEVICE = _checked(device)
        self.cfg.freeze()
        self.batch_size = batch_size
        self.model = load_model(self.cfg)
        self._augmentations, _ = build_augmentations(self.cfg, is_train=False)

    def __repr__(self) -> str:
        names = ", ".join(self.class_names[:CLASSES_SHOWN]) + ", ..." * (len(self.class_names) > CLASSES_SHOWN)
        return f"Predictor({self.cfg.MODEL.WEIGHTS}: {names}; threshold {self.threshold}, {self.cfg.MODEL.DEVICE})"

    @property
    def class_names(self) -> tuple[str, ...]:
        """By class, from 0."""
        return self.label_map.names

    def __call__(self, picture: Picture) -> Prediction:
        """What is in a picture: a path, a picture of Pillow's, or an array (H, W, 3), uint8, RGB.

        Raises:
            FileNotFoundError, InputError: no such file, or not such a picture.
        """
        return next(self.all([picture]))

    def all(
        self, pictures: Iterable[Picture], *, on_error: Callable[[Picture, Exception], None] | None = None
    ) -> Iterator[Prediction]:
        """What is in each of many pictures, in their order, a batch at a time while one iterates.

        Pictures of unequal size are padded in a batch, which changes scores in the last digits.

        Args:
            on_error: called with a picture that cannot be read, which is then left out, and the reason. None raises it.
        """
        inputs = self._inputs(pictures, on_error)
        while batch := list(islice(inputs, self.batch_size)):
            with torch.no_grad():
                outputs = self.model([model_input for _, model_input in batch])
            for (picture, _), output in zip(batch, outputs, strict=True):
                yield self._prediction(picture, output)

    def _inputs(
        self, pictures: Iterable[Picture], on_error: Callable[[Picture, Exception], None] | None
    ) -> Iterator[tuple[Picture, dict]]:
        for picture in pictures:
            try:
                pixels = read_pixels(picture)
            except (InputError, OSError) as error:
                if on_error is None:
                    raise
                on_error(picture, error)
            else:
                yield picture, self._input(pixels)

    def _input(self, pixels: np.ndarray) -> dict:
        """As DetrDatasetMapper makes it of a file."""
        height, width = pixels.shape[:2]
        resized = T.AugInput(pixels[:, :, ::-1] if self.cfg.INPUT.FORMAT == "BGR" else pixels)
        T.AugmentationList(self._augmentations)(resized)
        image = torch.from_numpy(np.ascontiguousarray(resized.image.transpose(2, 0, 1)))
        return {"image": image, "height": height, "width": width}

    def _prediction(self, picture: Picture, output: dict) -> Prediction:
        instances = output["instances"]
        found = detections_from_instances(instances[instances.scores.argsort(descending=True)])
        segments = detections_from_segments(*output["panoptic_seg"]) if "panoptic_seg" in output else None
        return Prediction(picture, self.label_map, found.boxes_xyxy, found.classes, found.scores, found.masks, segments)


def check_threshold(threshold: float | None) -> None:
    if threshold is not None and not 0 <= threshold <= 1:
        raise InputError(f"threshold {threshold}: expected a score, from 0 to 1")


def _checked(device: str | torch.device) -> str:
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:  # no such word, no such device, or a torch without it
        raise InputError(f"device {str(device)!r}: {str(error).splitlines()[0]}") from error
    return str(device)
