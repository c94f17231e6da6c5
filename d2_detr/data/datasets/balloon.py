"""The balloon dataset of matterport/Mask_RCNN: download, verify, convert to COCO format, register.

Two datasets are handled alike: `balloon_train` and `balloon_val` are the published photographs (61 with 255 balloons,
13 with 50), `balloon_drawn_train` and `balloon_drawn_val` are synthetic (see synthetic.py). Each has a folder below
DETECTRON2_DATASETS:

    balloon/train/*.jpg  balloon/train/via_region_data.json  balloon/val/...  balloon/annotations/balloon_train.json
"""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

from d2_detr.config.keys import PANOPTIC_SUFFIX
from d2_detr.data.datasets import catalog
from d2_detr.data.datasets.catalog import datasets_folder
from d2_detr.data.datasets.panoptic import PanopticSource
from d2_detr.data.datasets.synthetic import draw_dataset
from d2_detr.data.formats.coco import read_coco
from d2_detr.data.formats.via import VIA_FILE, parse_via, via_to_coco
from d2_detr.structures.records import Record
from d2_detr.utils.archives import open_zip
from d2_detr.utils.command_line import command
from d2_detr.utils.download import cache_folder, download, file_sha256
from d2_detr.utils.errors import InputError
from d2_detr.utils.files import read_json, write_json

logger = logging.getLogger(__name__)

URL = "https://github.com/matterport/Mask_RCNN/releases/download/v2.1/balloon_dataset.zip"
MANIFEST = Path(__file__).with_name("balloon_manifest.json")
SPLITS = ("train", "val")
NAMES = ("balloon", "balloon_drawn")
DATASETS = [f"{name}_{split}{suffix}" for name in NAMES for split in SPLITS for suffix in ("", PANOPTIC_SUFFIX)]
CONTIGUOUS_IDS = {1: 0}  # via_to_coco numbers from 1
MAX_BYTES = 200_000_000  # of the unpacked archive, which has 40 MB
NUM_DRAWN = {"train": 2000, "val": 100}


def register(dataset: str) -> None:
    """Register one of DATASETS; DETECTRON2_DATASETS is read when the dataset is."""
    instances = dataset.removesuffix(PANOPTIC_SUFFIX)
    name, split = instances.rsplit("_", 1)
    if instances == dataset:
        catalog.register(dataset, partial(_load, name, split))
    else:
        catalog.register(dataset, partial(_load_panoptic, name, split))


def annotation_file(folder: Path, split: str) -> Path:
    """Return the path of a split's annotations in COCO format."""
    return folder / "annotations" / f"{folder.name}_{split}.json"


def prepare_drawn(folder: Path) -> None:
    """Draw the images of both splits and convert their annotations, unless that is done."""
    for seed, split in enumerate(SPLITS):
        if not (folder / split / VIA_FILE).is_file():
            draw_dataset(folder / split, NUM_DRAWN[split], seed=seed)
    convert(folder)


def prepare_real(folder: Path, source: Path | None = None) -> None:
    """Put the published images into `folder` and convert their annotations, unless that is done.

    Args:
        folder: where the dataset is to be.
        source: the unpacked dataset with `train/` and `val/`, which is not changed. None downloads it and verifies
            every file.

    Raises:
        FileNotFoundError, ConnectionError, InputError: the source is incomplete, or cannot be downloaded.
    """
    if all((folder / split / VIA_FILE).is_file() for split in SPLITS):
        logger.info("%s exists and is used as it is; remove it to start over", folder)
    elif source is None:
        _download_into(folder)
    else:
        _fill(folder, partial(_copy, source))
    convert(folder)


def convert(folder: Path) -> None:
    """Write the annotations of both splits in COCO format, from images and VIA annotations in `folder`."""
    for split in SPLITS:
        write_json(_to_coco(folder / split), annotation_file(folder, split), overwrite=False)


def count(folder: Path, split: str) -> tuple[int, int]:
    """Return the numbers of images and balloons of a split."""
    coco = read_json(annotation_file(folder, split))
    return len(coco["images"]), len(coco["annotations"])


def verify(folder: Path) -> None:
    """Compare every file of the published dataset with the manifest.

    Raises:
        InputError: files are missing or differ; the message names the first and counts them.
    """
    manifest = read_json(MANIFEST)
    wrong = [name for name, digest in manifest.items() if not _has_digest(folder / name, digest)]
    if wrong:
        raise InputError(f"{folder}: {len(wrong)} of {len(manifest)} files are missing or changed, first {wrong[0]}")


def _load(name: str, split: str) -> list[Record]:
    folder = datasets_folder() / name
    path = annotation_file(folder, split)
    if not path.is_file():
        raise FileNotFoundError(f"{path} not found; prepare the dataset first: {command('prepare-balloon', '--help')}")
    catalog.set_metadata(
        f"{name}_{split}",
        json_file=str(path),
        image_root=str(folder / split),
        evaluator_type="coco",
        thing_classes=["balloon"],
        thing_dataset_id_to_contiguous_id=CONTIGUOUS_IDS,
    )
    return read_coco(path, folder / split).dataset_dicts(folder / split, CONTIGUOUS_IDS)


def _load_panoptic(name: str, split: str) -> list[Record]:
    folder = datasets_folder() / name
    source = PanopticSource.beside(
        annotation_file(folder, split),
        image_root=folder / split,
        instances=f"{name}_{split}",
        train_file=annotation_file(folder, "train"),
    )
    records, metadata = source.read()
    catalog.set_metadata(f"{name}_{split}{PANOPTIC_SUFFIX}", **metadata)
    return records


def _to_coco(folder: Path) -> dict:
    path = folder / VIA_FILE
    return via_to_coco(parse_via(read_json(path), path), folder, class_name="balloon")


def _has_digest(path: Path, digest: str) -> bool:
    return path.is_file() and file_sha256(path) == digest


def _download_into(folder: Path) -> None:
    archive = download(URL, cache_folder() / URL.rsplit("/", 1)[1])
    try:
        _fill(folder, partial(_unpack, archive))
    except InputError as error:
        archive.unlink()
        raise InputError(f"{archive}, from {URL}: {error}; the archive was removed, try again") from error


def _fill(folder: Path, write: Callable[[Path], None]) -> None:
    """Let `write` write train/ and val/ to a scratch folder, then move both into place: all or nothing."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        write(Path(scratch))
        for split in SPLITS:
            shutil.rmtree(folder / split, ignore_errors=True)
            os.replace(Path(scratch) / split, folder / split)


def _copy(source: Path, folder: Path) -> None:
    for split in SPLITS:
        if not (source / split / VIA_FILE).is_file():
            raise FileNotFoundError(
                f"{source / split / VIA_FILE} not found; give the unpacked balloon dataset, with train/ and val/"
            )
        _to_coco(source / split)  # raises before anything is copied
        for path in sorted((source / split).rglob("*")):
            target = folder / path.relative_to(source)
            if path.is_file():
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, target)  # not the permissions, which may not allow to change the copy


def _unpack(archive: Path, folder: Path) -> None:
    """Write the files of the manifest, whatever else is in the archive, and verify each."""
    wanted = set(read_json(MANIFEST))
    with open_zip(archive, max_bytes=MAX_BYTES) as packed:
        for member in packed.infolist():
            name = member.filename.removeprefix("balloon/")
            if name in wanted:
                (folder / name).parent.mkdir(exist_ok=True)
                with packed.open(member) as source, (folder / name).open("wb") as target:
                    shutil.copyfileobj(source, target)
    verify(folder)
