"""Predict the objects in images with a trained model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import cast

import numpy as np
import torch

from d2_detr.checkpoint.checkpointer import load_model
from d2_detr.checkpoint.model_config import default_threshold, model_config
from d2_detr.checkpoint.read import read_checkpoint
from d2_detr.config.checking import check_device
from d2_detr.data.augmentation import build_augmentations
from d2_detr.data.images import convert_rgb, find_images
from d2_detr.data.mapper import image_to_tensor
from d2_detr.inference.prediction import ImageInput, Prediction, image_pixels
from d2_detr.modeling.detr import Detr
from d2_detr.structures.conversions import detections_from_instances, detections_from_segments
from d2_detr.structures.label_map import LabelMap
from d2_detr.utils.errors import InputError

from detectron2.data import transforms as T

MAX_CLASSES_SHOWN = 5
ErrorHandler = Callable[[ImageInput, Exception], None]


class Predictor:
    """A trained DETR, built from its checkpoint alone.

    Example::

        predictor = Predictor("model_best.pth")
        prediction = predictor("cat.jpg")
        print(prediction.names, prediction.boxes_xyxy)
        prediction.draw("prediction.png")
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
        """Build the model and load its weights.

        Args:
            weights: a checkpoint of any layout: a path, an https address, or a name such as detr://r50.
            threshold: minimum score of a detection, in [0, 1]; None for the best one, which the checkpoint of a
                training contains, or else 0.7. Segments of a panoptic model must also reach
                MODEL.DETR.PANOPTIC_SCORE_THRESH.
            device: "cuda", "cuda:1", "cpu", ...; "" takes CUDA if there is a GPU.
            batch_size: number of images that `all` gives to the model at once.
            opts: KEY VALUE pairs that override the config of the checkpoint, such as "INPUT.MIN_SIZE_TEST", "480".

        Raises:
            FileNotFoundError, ConnectionError, InputError: the checkpoint cannot be fetched or read, or an argument
                is invalid.
        """
        check_threshold(threshold)
        if batch_size < 1:
            raise InputError(f"batch size {batch_size}: expected 1 or more")
        checkpoint = read_checkpoint(weights)
        self.cfg, label_map = model_config(checkpoint, opts)
        assert label_map is not None  # a model without classes is refused
        self.label_map = label_map
        self.threshold = default_threshold(checkpoint) if threshold is None else float(threshold)
        self.cfg.MODEL.DETR.SCORE_THRESH_TEST = self.threshold
        if device:
            check_device(device)
            self.cfg.MODEL.DEVICE = str(device)
        self.cfg.freeze()
        self.batch_size = batch_size
        self.model = load_model(self.cfg, checkpoint)
        self._augmentations, _ = build_augmentations(self.cfg, is_train=False)

    def __repr__(self) -> str:
        names = ", ".join(self.class_names[:MAX_CLASSES_SHOWN]) + ", ..." * (len(self.class_names) > MAX_CLASSES_SHOWN)
        return f"Predictor({self.cfg.MODEL.WEIGHTS}: {names}; threshold {self.threshold}, {self.cfg.MODEL.DEVICE})"

    @property
    def class_names(self) -> tuple[str, ...]:
        """Name of each class, from 0."""
        return cast(LabelMap, self.label_map).names

    def __call__(self, image: ImageInput, *, threshold: float | None = None) -> Prediction:
        """Predict the objects in an image.

        Args:
            image: a path, a Pillow image, or an array, uint8, RGB (H, W, 3), RGBA or gray.
            threshold: minimum score for this image; None takes that of the predictor.

        Raises:
            FileNotFoundError, InputError: no such file, or no such image.
        """
        return next(self.all([image], threshold=threshold))

    def all(
        self,
        images: str | Path | Iterable[ImageInput],
        *,
        threshold: float | None = None,
        on_error: ErrorHandler | None = None,
    ) -> Iterator[Prediction]:
        """Predict the objects in each of several images, in their order, a batch at a time during the iteration.

        Images of different sizes are padded in a batch, which changes the last digits of scores.

        Args:
            images: anything that iterates over images; or a folder, a file, or a pattern such as "photos/**/*.jpg".
            threshold: minimum score for these images; None takes that of the predictor.
            on_error: called with an image that cannot be read, which is then left out, and the error. None raises it.

        Raises:
            FileNotFoundError, InputError: no such file, no such image, or no image at all in a folder.
        """
        check_threshold(threshold)
        given = find_images([str(images)]) if isinstance(images, str | Path) else images
        return self._all(given, self.threshold if threshold is None else threshold, on_error)

    def _all(
        self, images: Iterable[ImageInput], threshold: float, on_error: ErrorHandler | None
    ) -> Iterator[Prediction]:
        inputs = self._inputs(images, on_error)
        while batch := list(islice(inputs, self.batch_size)):
            cast(Detr, self.model).score_threshold = threshold  # another iteration may have changed it
            with torch.no_grad():
                outputs = self.model([model_input for _, model_input in batch])
            for (image, _), output in zip(batch, outputs, strict=True):
                yield self._prediction(image, output)

    def _inputs(self, images: Iterable[ImageInput], on_error: ErrorHandler | None) -> Iterator[tuple[ImageInput, dict]]:
        for image in images:
            try:
                pixels = image_pixels(image)
            except (InputError, OSError) as error:
                if on_error is None:
                    raise
                on_error(image, error)
            else:
                yield image, self._input(pixels)

    def _input(self, pixels: np.ndarray) -> dict:
        """Return the input of the model, as DetrDatasetMapper does for a file."""
        height, width = pixels.shape[:2]
        resized = T.AugInput(convert_rgb(pixels, self.cfg.INPUT.FORMAT))
        T.AugmentationList(self._augmentations)(resized)
        return {"image": image_to_tensor(resized.image), "height": height, "width": width}

    def _prediction(self, image: ImageInput, output: dict) -> Prediction:
        instances = output["instances"]
        boxes_xyxy, classes, scores, masks, _ = detections_from_instances(
            instances[instances.scores.argsort(descending=True)]
        )
        assert scores is not None
        segments = detections_from_segments(*output["panoptic_seg"]) if "panoptic_seg" in output else None
        return Prediction(image, cast(LabelMap, self.label_map), boxes_xyxy, classes, scores, masks, segments)


def check_threshold(threshold: float | None) -> None:
    """Check a minimum score.

    Raises:
        InputError: it is not in [0, 1].
    """
    if threshold is not None and not 0 <= threshold <= 1:
        raise InputError(f"threshold {threshold}: expected a score from 0 to 1")
