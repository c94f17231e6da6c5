"""A dataset of one's own in COCO layout, as `custom_train` and `custom_val`.

    path/to/coco/annotations/custom_train.json  annotations/custom_val.json  train2017/  val2017/

The classes are those of the training annotations, in the order of their ids. `custom_train_panoptic` and
`custom_val_panoptic` are the same pictures with annotations/custom_train_panoptic.json and the PNGs in
annotations/custom_train_panoptic/, as tools/make_panoptic.py writes them.
"""

from __future__ import annotations

import hashlib
import json
from functools import lru_cache, partial
from pathlib import Path

from d2_detr.data.coco import CocoFile, read_coco
from d2_detr.data.panoptic import register_made_panoptic
from d2_detr.download import cache_folder
from d2_detr.errors import InputError
from d2_detr.files import write_json

from detectron2.data import DatasetCatalog, MetadataCatalog

TRAIN, VAL = "custom_train", "custom_val"
FOLDERS = {TRAIN: "train2017", VAL: "val2017"}


def register_custom(root: str | Path) -> None:
    """Register the dataset in a folder, in place of one that was registered before. Nothing is read yet."""
    root = Path(root).expanduser().absolute()
    for name in FOLDERS:
        if name in DatasetCatalog:
            DatasetCatalog.remove(name)
        DatasetCatalog.register(name, partial(_load, root, name))
        _set_metadata(name)
        register_made_panoptic(
            name,
            image_root=root / FOLDERS[name],
            annotation_file=annotation_file(root, name),
            train_file=annotation_file(root, TRAIN),
        )


def annotation_file(root: Path, name: str) -> Path:
    return root / "annotations" / f"{name}.json"


def _load(root: Path, name: str) -> list[dict]:
    """Detectron2's dicts of a split; its metadata get the classes and the file to evaluate against."""
    coco = _read(root, name)
    # A model can be evaluated where there is no training data.
    train = _read(root, TRAIN) if name == VAL and annotation_file(root, TRAIN).is_file() else coco
    for category_id, category in coco.categories.items():
        if train.categories.get(category_id) != category:
            raise InputError(
                f"{coco.path}: category {category_id} is {category!r}, in {train.path.name} it is "
                f"{train.categories.get(category_id, 'missing')!r}; give both files the same categories"
            )
    contiguous_ids = {category_id: i for i, category_id in enumerate(train.categories)}
    _set_metadata(
        name,
        image_root=str(root / FOLDERS[name]),
        thing_classes=list(train.categories.values()),
        thing_dataset_id_to_contiguous_id=contiguous_ids,
        json_file=str(_evaluation_file(coco, train.categories)),
    )
    return coco.dataset_dicts(root / FOLDERS[name], contiguous_ids)


def _set_metadata(name: str, **metadata: object) -> None:
    """Metadata refuse to be changed; a file that was corrected since gets new ones."""
    if name in MetadataCatalog:
        MetadataCatalog.remove(name)
    MetadataCatalog.get(name).set(evaluator_type="coco", **metadata)


def _read(root: Path, name: str) -> CocoFile:
    path = annotation_file(root, name)
    if not path.is_file():
        found = ", ".join(sorted(str(p.relative_to(root)) for p in root.glob("**/*.json"))[:5]) or "no JSON file"
        raise FileNotFoundError(
            f"{path}: no such file. A dataset of your own lies in one folder as annotations/{TRAIN}.json, "
            f"annotations/{VAL}.json, {FOLDERS[TRAIN]}/ and {FOLDERS[VAL]}/; in {root} there is {found}"
        )
    status = path.stat()
    return _read_unchanged(path, root / FOLDERS[name], status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=len(FOLDERS))
def _read_unchanged(path: Path, image_root: Path, *_: int) -> CocoFile:
    """Training asks for its data half a dozen times: to count, to check, to show, to load."""
    return read_coco(path, image_root)


def _evaluation_file(coco: CocoFile, categories: dict[int, str]) -> Path:
    """The annotations as pycocotools takes them without mistakes, in the cache; its name is the hash of its content."""
    content = coco.as_json(categories)
    digest = hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]
    path = cache_folder() / "datasets" / f"{coco.path.stem}-{digest}.json"
    if not path.is_file():
        write_json(content, path)
    return path
