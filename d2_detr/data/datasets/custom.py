"""A dataset of one's own as `custom_train` and `custom_val`, in any of the layouts of layouts.py.

The classes are those of the training annotations, in the order of their ids. `custom_train_panoptic` and
`custom_val_panoptic` are the same pictures with what tools/make_panoptic.py makes of annotations X.json, beside them:
X_panoptic.json and the PNGs in X_panoptic/.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from pathlib import Path

from d2_detr.data.datasets.coco_files import coco_files, in_cache
from d2_detr.data.datasets.layouts import LAYOUTS, TRAIN, VAL, Layout, Split, file_state, find_layout
from d2_detr.data.datasets.panoptic import register_made_panoptic
from d2_detr.data.formats.coco import CocoFile, read_coco
from d2_detr.data.formats.coco_panoptic import SUFFIX
from d2_detr.utils.errors import InputError

from detectron2.data import DatasetCatalog, MetadataCatalog

# The datasets, with the folders of their pictures in the first layout.
FOLDERS = {name: place.pictures[0] for name, place in LAYOUTS["custom"].items()}


def register_custom(root: str | Path) -> None:
    """Register the dataset in a folder, in place of one that was registered before. Nothing is read yet."""
    root = Path(root).expanduser().absolute()
    for name in (TRAIN, VAL):
        _register(name, partial(_load, root, name), evaluator_type="coco")
        _register(
            name + SUFFIX, partial(_load_panoptic, root, name), evaluator_type="coco_panoptic_seg", instances=name
        )


def _register(name: str, load: Callable[[], list[dict]], **metadata: object) -> None:
    if name in DatasetCatalog:
        DatasetCatalog.remove(name)
    DatasetCatalog.register(name, load)
    _set_metadata(name, **metadata)


def _load(root: Path, name: str) -> list[dict]:
    """Detectron2's dicts of a split; its metadata get the classes and the file to evaluate against."""
    layout = find_layout(root)
    coco = _read(layout, name)
    # A model can be evaluated where there is no training data.
    train = _read(layout, TRAIN) if name == VAL and TRAIN in coco_files(layout) else coco
    for category_id, category in coco.categories.items():
        theirs = train.categories.get(category_id)
        if theirs != category:
            there = f"it is {theirs!r} in {train.path}" if theirs else f"which {train.path} does not have"
            raise InputError(
                f"{coco.path}: category {category_id} is {category!r}, {there}; give both files the same categories"
            )
    contiguous_ids = {category_id: i for i, category_id in enumerate(train.categories)}
    split = layout.splits[name]
    dicts = coco.dataset_dicts(split.pictures, contiguous_ids)
    if not split.pictures.is_dir() and not Path(dicts[0]["file_name"]).is_file():
        folders = " or ".join(map(str, split.folders))
        raise FileNotFoundError(f"{split.annotations}: there is no folder with its pictures; expected {folders}")
    _set_metadata(
        name,
        evaluator_type="coco",
        image_root=str(split.pictures),
        thing_classes=list(train.categories.values()),
        thing_dataset_id_to_contiguous_id=contiguous_ids,
        json_file=str(in_cache(coco.as_json(train.categories), name)),
    )
    return dicts


def _load_panoptic(root: Path, name: str) -> list[dict]:
    """Registers the dataset anew, with the paths: where they are is not known before the layout is."""
    layout = find_layout(root)
    files = {split: part.annotations for split, part in layout.splits.items()} | coco_files(layout)
    register_made_panoptic(
        name, image_root=layout.splits[name].pictures, annotation_file=files[name], train_file=files[TRAIN]
    )
    return DatasetCatalog.get(name + SUFFIX)


def _set_metadata(name: str, **metadata: object) -> None:
    """Metadata refuse to be changed; a file that was corrected since gets new ones."""
    if name in MetadataCatalog:
        MetadataCatalog.remove(name)
    MetadataCatalog.get(name).set(**metadata)


def _read(layout: Layout, name: str) -> CocoFile:
    split, files = layout.splits[name], coco_files(layout)
    if name not in files:
        raise FileNotFoundError(
            f"{split.annotations}: no such file; {layout.root} has the layout `{layout.name}`, and lacks this split; "
            "tools/split_coco.py makes both of one annotation file"
        )
    return _read_unchanged(files[name], split, file_state(files[name]))


@lru_cache(maxsize=2)
def _read_unchanged(path: Path, split: Split, _state: tuple[int, int]) -> CocoFile:
    """Training asks for its data half a dozen times: to count, to check, to show, to load.

    Messages name the person's own file, also where another one was made of it.
    """
    return read_coco(path, split.pictures, source=split.annotations)
