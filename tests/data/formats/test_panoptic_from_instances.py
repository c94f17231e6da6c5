"""Panoptic ground truth from instances: one segment per pixel, smaller objects in front, the user's files kept."""

import copy
import json

import numpy as np
import pycocotools.mask as mask_util
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from d2_detr.data.annotations import read_annotations
from d2_detr.data.datasets.panoptic import PanopticSource
from d2_detr.data.formats.coco_panoptic import read_ids, read_panoptic
from d2_detr.data.formats.panoptic_from_instances import make_panoptic
from d2_detr.utils.errors import InputError

WIDTH, HEIGHT = 12, 8
CAT, DOG, GROUND = 4, 9, 10


def rectangle(x0, y0, x1, y1):
    return [x0, y0, x1, y0, x1, y1, x0, y1]


def thing(category_id, *corners, image_id=1, **changes):
    x0, y0, x1, y1 = corners
    entry = {
        "id": 1,
        "image_id": image_id,
        "category_id": category_id,
        "bbox": [x0, y0, x1 - x0, y1 - y0],
        "segmentation": [rectangle(*corners)],
        "area": (x1 - x0) * (y1 - y0),
        "iscrowd": 0,
    }
    return entry | changes


def coco(*annotations, **changes):
    base = {
        "images": [{"id": 1, "file_name": "a.jpg", "width": WIDTH, "height": HEIGHT}],
        "annotations": list(annotations),
        "categories": [{"id": DOG, "name": "dog"}, {"id": CAT, "name": "cat"}],
    }
    return copy.deepcopy(base | changes)


def write(folder, content):
    path = folder / "mine.json"
    path.write_text(json.dumps(content))
    return path


def pixel_classes(json_file, number=0):
    """Return the category id of every pixel of an image, and its segments."""
    annotation = read_panoptic(json_file).annotations[number]
    ids = read_ids(json_file.with_suffix("") / annotation["file_name"])
    classes = np.full(ids.shape, 0)
    for segment in annotation["segments_info"]:
        classes[ids == segment["id"]] = segment["category_id"]
    return classes, annotation["segments_info"]


def expected(*painted):
    """Return the category ids of the pixels after painting rectangles, in order, onto the ground."""
    classes = np.full((HEIGHT, WIDTH), GROUND)
    for category_id, (x0, y0, x1, y1) in painted:
        classes[y0:y1, x0:x1] = category_id
    return classes


# ---- pixels


LARGE, SMALL = (1, 1, 9, 7), (3, 2, 6, 5)


@pytest.mark.parametrize("order", [(0, 1), (1, 0)], ids=["large_first", "small_first"])
def test_smaller_object_is_in_front(tmp_path, order):
    things = [thing(CAT, *LARGE), thing(DOG, *SMALL)]
    classes, segments = pixel_classes(make_panoptic(write(tmp_path, coco(*(things[i] for i in order)))))
    assert (classes == expected((CAT, LARGE), (DOG, SMALL))).all()
    by_class = {segment["category_id"]: segment for segment in segments}
    assert by_class[CAT]["area"] == 48 - 9 and by_class[CAT]["bbox"] == [1, 1, 8, 6]
    assert by_class[DOG]["area"] == 9 and by_class[DOG]["bbox"] == [3, 2, 3, 3]
    assert by_class[GROUND]["area"] == WIDTH * HEIGHT - 48 and by_class[GROUND]["bbox"] == [0, 0, WIDTH, HEIGHT]


def test_area_and_box_are_those_of_the_visible_part(tmp_path):
    behind, front = (0, 0, 8, 4), (4, 0, 8, 4)
    _, segments = pixel_classes(make_panoptic(write(tmp_path, coco(thing(CAT, *behind), thing(DOG, *front)))))
    cat = next(segment for segment in segments if segment["category_id"] == CAT)
    assert (cat["bbox"], cat["area"]) == ([0, 0, 4, 4], 16)


def test_a_hidden_object_is_left_out(tmp_path):
    halves = [thing(CAT, 0, 0, 4, 8), thing(CAT, 4, 0, 8, 8)]
    _, segments = pixel_classes(make_panoptic(write(tmp_path, coco(thing(DOG, 0, 0, 8, 8), *halves))))
    assert sorted(segment["category_id"] for segment in segments) == [CAT, CAT, GROUND]


def test_crowds_are_behind_other_objects_and_stay_crowds(tmp_path):
    crowd = thing(DOG, *SMALL, iscrowd=1)
    classes, segments = pixel_classes(make_panoptic(write(tmp_path, coco(crowd, thing(CAT, 0, 0, 5, 8)))))
    assert (classes == expected((DOG, SMALL), (CAT, (0, 0, 5, 8)))).all()
    assert {segment["category_id"]: segment["iscrowd"] for segment in segments} == {CAT: 0, DOG: 1, GROUND: 0}


def test_an_image_without_objects_is_all_background(tmp_path):
    classes, segments = pixel_classes(make_panoptic(write(tmp_path, coco())))
    assert (classes == GROUND).all()
    assert [(s["category_id"], s["area"], s["bbox"]) for s in segments] == [(GROUND, 96, [0, 0, WIDTH, HEIGHT])]


def test_an_image_covered_by_an_object_has_no_background(tmp_path):
    _, segments = pixel_classes(make_panoptic(write(tmp_path, coco(thing(CAT, 0, 0, WIDTH, HEIGHT)))))
    assert [segment["category_id"] for segment in segments] == [CAT]


def test_polygons_and_both_kinds_of_rle_paint_the_same(tmp_path):
    mask = np.asfortranarray(expected((CAT, SMALL)) == CAT, np.uint8)
    compressed = mask_util.encode(mask)
    runs = np.flatnonzero(np.diff(mask.ravel(order="F"), prepend=0, append=2)).tolist()
    kinds = [
        [rectangle(*SMALL)],
        {"size": [HEIGHT, WIDTH], "counts": compressed["counts"].decode()},
        {"size": [HEIGHT, WIDTH], "counts": np.diff([0, *runs]).tolist()},
    ]
    for segmentation in kinds:
        json_file = make_panoptic(write(tmp_path, coco(thing(CAT, *SMALL, segmentation=segmentation))))
        assert (pixel_classes(json_file)[0] == expected((CAT, SMALL))).all()


def test_background_has_the_next_id_and_the_given_name(tmp_path):
    file = read_panoptic(make_panoptic(write(tmp_path, coco()), background="grass"))
    assert list(file.categories.items()) == [(CAT, ("cat", True)), (DOG, ("dog", True)), (GROUND, ("grass", False))]


@pytest.mark.parametrize(
    ("names", "pngs"),
    [(("a.jpg", "sub/b.v2.jpg"), ["a.png", "b.v2.png"]), (("x/a.jpg", "y/a.jpg"), ["000001.png", "000002.png"])],
    ids=["images", "numbers"],
)
def test_pngs_are_named_after_their_images_or_numbered(tmp_path, names, pngs):
    images = [{"id": i, "file_name": name, "width": 4, "height": 3} for i, name in enumerate(names)]
    json_file = make_panoptic(write(tmp_path, coco(images=images)))
    assert [annotation["file_name"] for annotation in read_panoptic(json_file).annotations] == pngs
    assert sorted(path.name for path in json_file.with_suffix("").iterdir()) == pngs


corners = st.tuples(st.integers(0, 9), st.integers(0, 5), st.integers(1, 12), st.integers(1, 8)).map(
    lambda box: (box[0], box[1], min(box[0] + box[2], WIDTH), min(box[1] + box[3], HEIGHT))
)
things = st.builds(
    lambda c, box, crowd: thing(c, *box, iscrowd=crowd), st.sampled_from([CAT, DOG]), corners, st.integers(0, 1)
)


@settings(deadline=None)
@given(st.lists(things, max_size=8))
def test_segments_cover_every_pixel_once(tmp_path_factory, objects):
    folder = tmp_path_factory.mktemp("panoptic")
    json_file = make_panoptic(write(folder, coco(*objects)))
    source = PanopticSource.beside(folder / "mine.json", image_root=folder, instances="mine")
    assert source.panoptic_json == json_file
    ((record,), _) = source.read()
    annotations = read_annotations(record)
    masks = np.stack([mask_util.decode(annotation["segmentation"]) for annotation in annotations])
    assert (masks.sum(0) == 1).all()
    for mask, annotation, segment in zip(masks, annotations, record["segments_info"], strict=True):
        rows, columns = np.nonzero(mask)
        x, y = columns.min(), rows.min()
        assert annotation["bbox"] == [x, y, columns.max() + 1 - x, rows.max() + 1 - y]
        assert segment["area"] == len(rows)
    covered = np.zeros((HEIGHT, WIDTH), bool)
    for x0, y0, x1, y1 in ([x, y, x + w, y + h] for x, y, w, h in (entry["bbox"] for entry in objects)):
        covered[y0:y1, x0:x1] = True
    background = [mask for mask, a in zip(masks, annotations, strict=True) if a["category_id"] == 2]
    assert (np.any(background, axis=0) == ~covered).all()


# ---- errors and existing files


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (coco(thing(CAT, *LARGE), thing(DOG, *SMALL, segmentation=[])), r"a\.jpg: a dog \(bbox .*\) has no `segment"),
        (coco(thing(CAT, *LARGE, segmentation={"size": [8, 12], "counts": [0, 97]})), "is an RLE of 97 pixels"),
        (coco(images=[coco()["images"][0] | {"file_name": "\0.jpg"}]), "'.x00\\.png' has a name that no file can have"),
        (coco(categories=[{"id": 1, "name": "background"}]), "a category is named 'background' already.*--background"),
        (coco(images=[{"id": 1, "file_name": "a.jpg"}]), "size of every image; give .* --images"),
    ],
    ids=["no_mask", "damaged_rle", "file_name", "name_taken", "no_sizes"],
)  # fmt: skip
def test_invalid_instances_are_an_error_and_write_nothing(tmp_path, content, message):
    path = write(tmp_path, content)
    with pytest.raises(InputError, match=rf"mine\.json: .*{message}"):
        make_panoptic(path)
    assert list(tmp_path.iterdir()) == [path]


def test_missing_sizes_come_from_the_images(tmp_path):
    Image.new("RGB", (5, 3)).save(tmp_path / "a.jpg")
    path = write(tmp_path, coco(images=[{"id": 1, "file_name": "a.jpg"}]))
    for image_root in (None, tmp_path):
        classes, _ = pixel_classes(make_panoptic(path, image_root))
        assert classes.shape == (3, 5)


def test_second_run_replaces_its_own_files(tmp_path):
    images = [{"id": i, "file_name": f"{i}.jpg", "width": WIDTH, "height": HEIGHT} for i in (1, 2)]
    make_panoptic(write(tmp_path, coco(images=images)))
    json_file = make_panoptic(write(tmp_path, coco(thing(CAT, *SMALL))), background="grass")
    assert (pixel_classes(json_file)[0] == expected((CAT, SMALL))).all()
    assert read_panoptic(json_file).label_map.names[-1] == "grass"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine.json", "mine_panoptic", "mine_panoptic.json"]
    assert [path.name for path in (tmp_path / "mine_panoptic").iterdir()] == ["a.png"]


def test_interrupted_run_leaves_no_json_with_partial_pngs(tmp_path, monkeypatch):
    path = write(tmp_path, coco())
    json_file = make_panoptic(path)
    before = json_file.read_bytes(), (tmp_path / "mine_panoptic" / "a.png").read_bytes()

    def interrupt(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("d2_detr.data.formats.panoptic_from_instances.write_ids", interrupt)
        with pytest.raises(KeyboardInterrupt):
            make_panoptic(path, background="grass")
    assert (json_file.read_bytes(), (tmp_path / "mine_panoptic" / "a.png").read_bytes()) == before
    monkeypatch.setattr("d2_detr.data.formats.panoptic_from_instances.write_json", interrupt)
    with pytest.raises(KeyboardInterrupt):
        make_panoptic(path, background="grass")
    assert not json_file.exists()


@pytest.mark.parametrize("what", ["mine_panoptic.json", "mine_panoptic"])
def test_files_of_the_user_are_not_replaced(tmp_path, what):
    path = write(tmp_path, coco())
    own = tmp_path / what / "own.png" if what == "mine_panoptic" else tmp_path / what
    own.parent.mkdir(exist_ok=True)
    own.write_text('{"info": {"description": "by hand"}}')
    with pytest.raises(InputError, match=f"{what} exists already, .*remove it"):
        make_panoptic(path)
    assert own.read_text() == '{"info": {"description": "by hand"}}'
