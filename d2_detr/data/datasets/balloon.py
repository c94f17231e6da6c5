"""The balloon dataset of matterport/Mask_RCNN: find or download it, verify it, convert it to COCO, register it.

Two datasets take this way: `balloon_train` and `balloon_val` are the published photographs (61 with 255 balloons, 13
with 50), `balloon_drawn_train` and `balloon_drawn_val` are drawn here (see synthetic.py). Each lives in a folder of its
own below DETECTRON2_DATASETS:

    balloon/train/*.jpg  balloon/train/via_region_data.json  balloon/val/...  balloon/annotations/balloon_train.json
"""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
import zipfile
import zlib
from functools import partial
from pathlib import Path

from d2_detr.data.datasets.synthetic import draw_dataset
from d2_detr.data.formats.coco import read_coco
from d2_detr.data.formats.via import via_to_coco
from d2_detr.data.images import image_size
from d2_detr.utils.download import cache_folder, download, file_sha256
from d2_detr.utils.errors import InputError
from d2_detr.utils.files import read_json, write_json

from detectron2.data import DatasetCatalog, MetadataCatalog

logger = logging.getLogger(__name__)

URL = "https://github.com/matterport/Mask_RCNN/releases/download/v2.1/balloon_dataset.zip"
MANIFEST = Path(__file__).parent / "balloon_manifest.json"
VIA_FILE = "via_region_data.json"
SPLITS = ("train", "val")
NAMES = ("balloon", "balloon_drawn")
CONTIGUOUS_IDS = {1: 0}  # via_to_coco numbers from 1
DRAWN_PICTURES = {"train": 2000, "val": 100}


def datasets_folder() -> Path:
    """DETECTRON2_DATASETS, or `datasets` in the working folder: the same as for Detectron2's builtin datasets."""
    return Path(os.environ.get("DETECTRON2_DATASETS", "datasets")).expanduser()


def annotation_file(folder: Path, split: str) -> Path:
    return folder / "annotations" / f"{folder.name}_{split}.json"


def prepare_drawn(folder: Path) -> None:
    """Draw the pictures of both splits into `folder` and convert their annotations, unless they are there."""
    for seed, split in enumerate(SPLITS):
        if not (folder / split / VIA_FILE).is_file():
            draw_dataset(folder / split, DRAWN_PICTURES[split], seed=seed)
    convert(folder)


def prepare_real(folder: Path, source: Path | None = None) -> None:
    """Bring the published pictures into `folder` and convert their annotations, unless they are there.

    Args:
        source: the unpacked dataset with `train/` and `val/`; it is left as it is. None downloads it, and checks every
            file against the manifest.
    """
    if all((folder / split / VIA_FILE).is_file() for split in SPLITS):
        logger.info("%s is there and is used as it is; remove it to bring it anew", folder)
    elif source is None:
        _download_into(folder)
    else:
        _place(partial(_copy, source), folder)
    convert(folder)


def _download_into(folder: Path) -> None:
    archive = download(URL, cache_folder() / URL.rsplit("/", 1)[1])
    try:
        _place(partial(_unpack, archive), folder)
    except InputError as error:
        archive.unlink()
        raise InputError(f"{archive}, from {URL}: {error}; the archive was removed, try again") from error


def convert(folder: Path) -> None:
    """Write the COCO annotations of both splits of a folder that holds pictures and their VIA annotations."""
    for split in SPLITS:
        write_json(_coco(folder / split), annotation_file(folder, split), overwrite=False)


def _coco(folder: Path) -> dict:
    """The COCO annotations of a folder of pictures with their VIA annotations."""
    return via_to_coco(
        read_json(folder / VIA_FILE),
        partial(_picture_size, folder),
        source=str(folder / VIA_FILE),
        class_name="balloon",
    )


def _picture_size(folder: Path, file_name: str) -> tuple[int, int]:
    """Width and height in pixels of a picture that the VIA annotations of its folder name."""
    if not (folder / file_name).is_file():
        raise FileNotFoundError(f"{folder / file_name}: named in {folder / VIA_FILE}, but there is no such picture")
    return image_size(folder / file_name)


def count(folder: Path, split: str) -> tuple[int, int]:
    """Number of pictures and of balloons."""
    coco = read_json(annotation_file(folder, split))
    return len(coco["images"]), len(coco["annotations"])


def verify(folder: Path) -> None:
    """Check every file of the published dataset against the manifest.

    Raises:
        InputError: a file is missing or differs; the message names the first and counts them all.
    """
    manifest = read_json(MANIFEST)
    wrong = [name for name, digest in manifest.items() if not _has_digest(folder / name, digest)]
    if wrong:
        raise InputError(f"{folder}: {len(wrong)} of {len(manifest)} files are missing or changed, first {wrong[0]}")


def _has_digest(path: Path, digest: str) -> bool:
    return path.is_file() and file_sha256(path) == digest


def _place(fill, folder: Path) -> None:
    """Let `fill` write train/ and val/ into a folder beside the final one, then move them: all of it or nothing."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        fill(Path(scratch))
        for split in SPLITS:
            shutil.rmtree(folder / split, ignore_errors=True)
            os.replace(Path(scratch) / split, folder / split)


def _copy(source: Path, folder: Path) -> None:
    for split in SPLITS:
        if not (source / split / VIA_FILE).is_file():
            raise FileNotFoundError(
                f"{source / split / VIA_FILE} not found; give the unpacked balloon dataset, with train/ and val/"
            )
        _coco(source / split)  # a mistake in the source shows before anything is copied
        shutil.copytree(source / split, folder / split, copy_function=shutil.copyfile)
        (folder / split).chmod(0o755)


def _unpack(archive: Path, folder: Path) -> None:
    wanted = set(read_json(MANIFEST))
    try:
        with zipfile.ZipFile(archive) as packed:
            for member in packed.infolist():
                name = member.filename.removeprefix("balloon/")
                if name in wanted:
                    (folder / name).parent.mkdir(exist_ok=True)
                    with packed.open(member) as source, (folder / name).open("wb") as target:
                        shutil.copyfileobj(source, target)
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise InputError(f"not a complete zip file ({error})") from error
    verify(folder)


def _load(name: str, split: str) -> list[dict]:
    folder = datasets_folder() / name
    path = annotation_file(folder, split)
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} not found: prepare the dataset first, with\n  python tools/prepare_balloon.py --help"
        )
    return read_coco(path, folder / split).dataset_dicts(folder / split, CONTIGUOUS_IDS)


def _register() -> None:
    for name in NAMES:
        for split in SPLITS:
            folder = datasets_folder() / name
            DatasetCatalog.register(f"{name}_{split}", partial(_load, name, split))
            MetadataCatalog.get(f"{name}_{split}").set(
                json_file=str(annotation_file(folder, split)),
                image_root=str(folder / split),
                evaluator_type="coco",
                thing_classes=["balloon"],
                thing_dataset_id_to_contiguous_id=CONTIGUOUS_IDS,
            )


_register()
