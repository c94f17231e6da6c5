"""Predictor: a checkpoint alone is enough to find what its model finds."""

import argparse
from functools import partial

import numpy as np
import pycocotools.mask as mask_util
import pytest
import torch
from PIL import Image

from d2_detr import Predictor
from d2_detr.checkpoint.convert import Format, convert
from d2_detr.checkpoint.layouts import from_canonical
from d2_detr.checkpoint.metadata import Metadata, checkpoint_metadata
from d2_detr.checkpoint.model_config import config_of, converted_metadata, default_threshold, load_trained_config
from d2_detr.checkpoint.read import read_checkpoint
from d2_detr.checkpoint.write import write_checkpoint
from d2_detr.data.datasets.classes import dataset_classes
from d2_detr.data.mapper import DetrDatasetMapper
from d2_detr.structures.label_map import LabelMap
from d2_detr.utils.errors import InputError
from d2_detr.workflows.setup import load_config
from tests.checkpoint.states import architecture, common_state
from tests.engine.seeing import CLASSES, MASKS, PANOPTIC, save_seeing, seeing
from tests.shapes import draw_shapes

WIDTH, HEIGHT = 60, 44


@pytest.fixture
def save(tmp_path):
    """Write a model as a checkpoint of this plugin; gives its path, the model and its config."""
    return partial(save_seeing, tmp_path)


def pixels(seed=0, size_hw=(HEIGHT, WIDTH)):
    return np.random.default_rng(seed).integers(0, 256, (*size_hw, 3), dtype=np.uint8)


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / "cat.png"
    Image.fromarray(pixels()).save(path)
    return path


def by_mapper(model, cfg, path):
    """What the model gives by the way of an evaluation, the surest first."""
    with torch.no_grad():
        instances = model([DetrDatasetMapper(cfg, is_train=False)({"file_name": str(path)})])[0]["instances"]
    return instances[instances.scores.argsort(descending=True)]


def assert_same(found, other):
    for name in ("boxes_xyxy", "classes", "scores", "masks"):
        assert np.array_equal(getattr(found, name), getattr(other, name)), name


def test_it_finds_what_the_model_finds_by_the_way_of_an_evaluation(save, picture):
    path, model, cfg = save()
    found, expected = Predictor(path, threshold=0)(picture), by_mapper(model, cfg, picture)
    assert len(set(expected.scores.tolist())) > 5 and len(set(expected.pred_classes.tolist())) > 1
    assert found.boxes_xyxy.shape == (len(expected), 4) and found.boxes_xyxy.max() > 30, "in pixels of the picture"
    assert np.array_equal(found.boxes_xyxy, expected.pred_boxes.tensor.numpy())
    assert np.array_equal(found.scores, expected.scores.numpy())
    assert found.names == [CLASSES.names[label] for label in expected.pred_classes]
    assert found.masks is None and found.segments is None


def test_a_model_that_learned_from_bgr_gets_bgr(save, picture):
    path, model, cfg = save("INPUT.FORMAT", "BGR")
    assert np.array_equal(Predictor(path, threshold=0)(picture).scores, by_mapper(model, cfg, picture).scores)


def test_what_scores_less_than_the_threshold_is_not_found_and_its_masks_are_not_computed(save, picture, monkeypatch):
    path, *_ = save(*MASKS)
    everything = Predictor(path, threshold=0)(picture)
    threshold = float(everything.scores[3])
    predictor = Predictor(path, threshold=threshold)
    computed = []
    masks = predictor.model.detr.masks
    monkeypatch.setattr(
        predictor.model.detr, "masks", lambda inputs, pictures, queries: computed.append(len(queries))
        or masks(inputs, pictures, queries),
    )  # fmt: skip
    found = predictor(picture)
    assert len(everything.scores) > 4 and found.scores.tolist() == everything.scores[:4].tolist()
    assert sum(computed) == 4 == len(found.masks)


def test_masks_are_of_the_size_of_the_picture(save, picture):
    path, model, cfg = save(*MASKS)
    found, expected = Predictor(path, threshold=0)(picture), by_mapper(model, cfg, picture)
    assert found.masks.dtype == bool and found.masks.shape == (len(expected), HEIGHT, WIDTH)
    assert 0 < found.masks.mean() < 1 and np.array_equal(found.masks, expected.pred_masks.numpy())


def test_a_panoptic_model_has_its_segments_besides_and_needs_no_data_for_its_stuff(save, picture):
    path, *_ = save(*PANOPTIC, "DATASETS.TRAIN", "('of_another_machine',)")
    found = Predictor(path, threshold=0)(picture)
    assert 2 not in found.classes and found.segments.masks.sum(0).max() == 1, "segments do not overlap"
    assert (np.isnan(found.segments.boxes_xyxy[:, 0]) == (found.segments.classes == 2)).all()
    assert 2 in found.segments.classes and len(set(found.segments.classes.tolist())) > 1


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK", "RGBA", "P"])
def test_a_path_a_picture_and_an_array_are_alike(save, tmp_path, mode):
    path = tmp_path / "cat.tiff"
    Image.fromarray(pixels()).convert(mode).save(path)
    predictor = Predictor(save()[0], threshold=0)
    of_path = predictor(path)
    with Image.open(path) as opened:
        assert opened.mode == mode
        of_picture, of_array = predictor(opened), predictor(np.asarray(opened.convert("RGB")))
    assert_same(of_path, predictor(str(path)))
    assert_same(of_path, of_picture)
    assert_same(of_path, of_array)


def test_sixteen_bits_are_scaled_alike_from_a_path_and_a_picture(save, tmp_path):
    grey = pixels()[:, :, 0].astype(np.uint16) * 257
    Image.fromarray(grey).save(tmp_path / "deep.png")
    predictor = Predictor(save()[0], threshold=0)
    of_array = predictor(np.repeat(pixels()[:, :, :1], 3, axis=2))
    assert_same(predictor(tmp_path / "deep.png"), of_array)
    with Image.open(tmp_path / "deep.png") as opened:
        assert opened.mode == "I;16"
        assert_same(predictor(opened), of_array)


def test_the_exif_orientation_is_applied_to_paths_and_pictures(save, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise
    Image.fromarray(pixels()).save(tmp_path / "turned.png", exif=exif)
    predictor = Predictor(save()[0], threshold=0)
    upright = predictor(np.rot90(pixels(), -1))
    assert_same(predictor(tmp_path / "turned.png"), upright)
    with Image.open(tmp_path / "turned.png") as opened:
        assert_same(predictor(opened), upright)
    assert upright.scores.tolist() != predictor(pixels()).scores.tolist()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (pixels().astype(np.float32), r"\(44, 60, 3\) of float32, expected \(H, W, 3\), uint8"),
        (pixels()[:, :, 0], r"\(44, 60\) of uint8"),
        (pixels()[:0], r"\(0, 60, 3\)"),
        (["cat.png"], "a list, expected a path"),
        (Image.new("F", (8, 8)), "a picture of Pillow's: pixels are floating point"),
        ("missing.png", "missing.png: no such picture"),
    ],
    ids=["float", "grey_array", "empty", "list", "float_picture", "missing"],
)
def test_what_is_no_picture_is_told(save, wrong, message):
    with pytest.raises((InputError, FileNotFoundError), match=message):
        Predictor(save()[0])(wrong)


# ---- many pictures


@pytest.mark.parametrize("batch_size", [2, 5, 9])
def test_batches_of_one_size_give_what_single_pictures_give_in_their_order(save, batch_size):
    path, *_ = save(*MASKS)
    pictures = [pixels(seed) for seed in range(5)]
    one_by_one = list(map(Predictor(path, threshold=0.3), pictures))
    together = list(Predictor(path, threshold=0.3, batch_size=batch_size).all(pictures))
    assert len(together) == 5 and len({tuple(found.scores.tolist()) for found in one_by_one}) == 5
    for found, single, picture in zip(together, one_by_one, pictures, strict=True):
        assert found.picture is picture
        np.testing.assert_allclose(found.scores, single.scores, atol=1e-5)
        np.testing.assert_allclose(found.boxes_xyxy, single.boxes_xyxy, atol=1e-3)
        assert (found.masks == single.masks).mean() > 0.999


def test_a_batch_of_unequal_sizes_gives_boxes_and_masks_of_each(save):
    path, *_ = save(*MASKS)
    sizes_hw = [(44, 60), (90, 30), (20, 50)]
    found = list(Predictor(path, threshold=0, batch_size=3).all(pixels(1, size_hw) for size_hw in sizes_hw))
    for prediction, (height, width) in zip(found, sizes_hw, strict=True):
        assert prediction.masks.shape[1:] == (height, width)
        right, bottom = prediction.boxes_xyxy[:, 2:].max(0)
        assert 0.5 * width < right <= width and 0.5 * height < bottom <= height


def test_pictures_are_read_a_batch_at_a_time(save):
    read = []
    predictions = Predictor(save()[0], batch_size=2).all(read.append(seed) or pixels(seed) for seed in range(100))
    assert read == []
    next(predictions)
    assert read == [0, 1]
    next(predictions)
    assert read == [0, 1]
    next(predictions)
    assert read == [0, 1, 2, 3]


def test_a_picture_that_cannot_be_read_ends_it_or_is_left_out_and_told(save, picture, tmp_path):
    (tmp_path / "broken.png").write_bytes(picture.read_bytes()[:100])
    pictures = [picture, tmp_path / "broken.png", picture, tmp_path / "missing.png"]
    predictor, told = Predictor(save()[0], batch_size=2), []
    found = list(predictor.all(pictures, on_error=lambda *error: told.append(error)))
    assert [prediction.picture for prediction in found] == [picture, picture]
    assert [name for name, _ in told] == [pictures[1], pictures[3]] and "damaged or cut short" in str(told[0][1])
    with pytest.raises(InputError, match=r"broken\.png"):
        list(predictor.all(pictures))


# ---- what a checkpoint tells


def change(path, **content):
    torch.save(torch.load(path, weights_only=True) | content, path)


def converted(model, format, tmp_path, label_map=CLASSES, num_heads=4):
    """The model as a checkpoint of another layout, as far as its writers tell what it is."""
    state_dict, report = convert(model.state_dict(), format, label_map=label_map)
    if format is Format.NATIVE:
        namespace = argparse.Namespace(nheads=num_heads, dilation=False)
        torch.save({"model": state_dict, "args": namespace}, tmp_path / "converted.pth")
        return tmp_path / "converted.pth", report
    path = tmp_path / ("folder" if format is Format.HUGGING_FACE else "converted.safetensors")
    write_checkpoint(path, state_dict, format, Metadata(report.label_map, num_heads=num_heads))
    return path, report


OTHERS = [Format.NATIVE, Format.WRAPPER, Format.HUGGING_FACE, Format.PLUGIN]
WHOLE = "MODEL.RESNETS.OUT_FEATURES ['res5'] MODEL.RESNETS.NORM FrozenBN".split()
ASKED = ("INPUT.MIN_SIZE_TEST", "64", "INPUT.MAX_SIZE_TEST", "100")


@pytest.mark.parametrize("format", OTHERS, ids=lambda format: format.value)
@pytest.mark.parametrize("masks", [False, True], ids=["boxes", "masks"])
def test_a_checkpoint_of_any_layout_finds_the_same_without_a_config(tmp_path, picture, format, masks):
    model, cfg = seeing(*WHOLE, *(MASKS if masks else []))
    path, _ = converted(model, format, tmp_path, num_heads=cfg.MODEL.DETR.NHEADS)
    # Neither a state dict alone nor a Namespace has room for the size of pictures; the latter and a folder have heads.
    heads = [] if format in (Format.NATIVE, Format.HUGGING_FACE) else ["MODEL.DETR.NHEADS", str(cfg.MODEL.DETR.NHEADS)]
    found = Predictor(path, threshold=0, opts=[*ASKED, *heads])(picture)
    expected = by_mapper(model, cfg, picture)
    np.testing.assert_allclose(found.scores, expected.scores, atol=1e-6)
    np.testing.assert_allclose(found.boxes_xyxy, expected.pred_boxes.tensor, atol=1e-4)
    assert (found.masks is not None) == masks
    if format is not Format.NATIVE:
        assert found.names == [CLASSES.names[label] for label in expected.pred_classes]


@pytest.mark.parametrize("format", OTHERS, ids=lambda format: format.value)
@pytest.mark.parametrize("options", [[], MASKS], ids=["boxes", "masks"])
def test_a_conversion_keeps_all_that_the_source_told_of_its_model(save, tmp_path, picture, format, options):
    source, _, _ = save(*WHOLE, *options)
    written = tmp_path / ("folder" if format is Format.HUGGING_FACE else "converted.safetensors")
    rewritten(source, written, format)
    there, back = Predictor(written, threshold=0)(picture), tmp_path / "back.pth"
    rewritten(written, back, Format.PLUGIN)
    expected = Predictor(source, threshold=0)(picture)
    for found in (there, Predictor(back, threshold=0)(picture)):
        assert_same(found, expected)
        assert found.names == expected.names


@pytest.mark.parametrize(
    ("name", "how", "threshold"),
    [("a.safetensors", {}, 0.42), ("a.pth", {}, 0.42), ("a.pth", {"new_classes": 3}, 0.7)],
    ids=["safetensors", "torch", "other_classes"],
)
def test_a_conversion_keeps_the_best_threshold_of_the_same_classes(save, tmp_path, name, how, threshold):
    source, _, _ = save(*WHOLE)
    torch.save(torch.load(source, weights_only=True) | {"threshold": 0.42}, source)
    rewritten(source, tmp_path / name, Format.WRAPPER, **how)
    assert default_threshold(str(source)) == 0.42 and default_threshold(str(tmp_path / name)) == threshold


def test_a_conversion_keeps_what_is_stuff(save, tmp_path, picture):
    source, _, _ = save(*PANOPTIC)
    rewritten(source, tmp_path / "native.pth", Format.NATIVE)
    found, expected = (Predictor(path, threshold=0)(picture) for path in (tmp_path / "native.pth", source))
    assert_same(found, expected)
    assert len(expected.segments.classes) and np.array_equal(found.segments.classes, expected.segments.classes)


@pytest.mark.parametrize(
    "how", [{"remove_class_head": True}, {"new_classes": 2}, {"keep_classes": [CLASSES.names[1]]}], ids="-".join
)
def test_a_conversion_without_the_old_classes_keeps_the_model_and_the_size_of_pictures(save, tmp_path, how):
    source, _, cfg = save(*PANOPTIC)
    rewritten(source, tmp_path / "converted.pth", Format.PLUGIN, **how)
    of_task = {"NUM_CLASSES", "STUFF_CLASSES", "PANOPTIC_ON"}
    found, _ = config_of(str(tmp_path / "converted.pth"), to_train=True)
    assert found.INPUT == cfg.INPUT and found.MODEL.RESNETS == cfg.MODEL.RESNETS
    assert {key for key, value in found.MODEL.DETR.items() if value != cfg.MODEL.DETR[key]} <= of_task
    assert not found.MODEL.DETR.PANOPTIC_ON and found.MODEL.MASK_ON


def test_classes_that_are_kept_in_another_order_are_others(save, tmp_path):
    source, _, _ = save(*PANOPTIC)
    change(source, label_map=LabelMap((0, 1, 2), CLASSES.names).to_dict())
    rewritten(source, tmp_path / "converted.pth", Format.PLUGIN, keep_classes=list(CLASSES.names[::-1]))
    cfg, label_map = config_of(str(tmp_path / "converted.pth"))
    assert label_map.names == CLASSES.names[::-1]
    assert not cfg.MODEL.DETR.PANOPTIC_ON and not cfg.MODEL.DETR.STUFF_CLASSES


def test_a_backbone_of_no_config_is_converted_all_the_same(tmp_path):
    common = common_state(architecture(rows=4))
    strange = {name: tensor for name, tensor in common.items() if ".layer3.1." not in name}
    torch.save({"model": from_canonical(strange, Format.NATIVE)}, tmp_path / "strange.pth")
    rewritten(tmp_path / "strange.pth", tmp_path / "converted.pth", Format.PLUGIN, first_class_id=0)
    assert "config" not in torch.load(tmp_path / "converted.pth", weights_only=True)


def rewritten(source, target, format, **how):
    """As tools/converter.py does it."""
    checkpoint = read_checkpoint(source)
    state_dict, report = convert(
        checkpoint["model"], format, label_map=checkpoint_metadata(checkpoint).label_map, **how
    )
    write_checkpoint(target, state_dict, format, converted_metadata(checkpoint, source, report.label_map))


# ---- the config of a trained model for data


def test_the_weights_alone_give_the_config_and_options_win_over_it(save, tmp_path):
    weights, _, cfg = save(*PANOPTIC)
    root = draw_shapes(tmp_path / "coco")
    named = ["MODEL.WEIGHTS", str(weights)]
    found = load_trained_config("", [*named, "INPUT.MIN_SIZE_TEST", "48"], str(root))
    assert found.DATASETS.TEST == ("custom_val_panoptic",) and found.MODEL.DETR.NUM_CLASSES == -1
    assert (found.INPUT.MIN_SIZE_TEST, found.INPUT.MAX_SIZE_TEST) == (48, cfg.INPUT.MAX_SIZE_TEST)
    found = load_trained_config("", [*named, "MODEL.DETR.PANOPTIC_ON", "False"], str(root))
    assert found.DATASETS.TEST == ("custom_val",) and not found.MODEL.DETR.PANOPTIC_ON
    found = load_trained_config("", [*named, "DATASETS.CUSTOM", str(root), "DATASETS.TEST", "('custom_val',)"])
    assert found.MODEL.DETR.NUM_CLASSES == 3 and dataset_classes("custom_val") == list(CLASSES.names)
    assert found.MODEL.DEVICE == load_config("", []).MODEL.DEVICE


def test_the_config_of_a_training_means_its_best_model_or_its_last_and_another_file_what_it_says(save, tmp_path):
    _, _, cfg = save()
    cfg.MODEL.WEIGHTS = "began_with.pth"
    for name in ("config.yaml", "my.yaml"):
        (tmp_path / name).write_text(cfg.dump())
    for there in ("model_final", "model_best"):
        (tmp_path / f"{there}.pth").touch()
        found = load_trained_config(str(tmp_path / "config.yaml"), [])
        assert str(tmp_path / f"{there}.pth") == found.MODEL.WEIGHTS
    assert load_trained_config(str(tmp_path / "my.yaml"), []).MODEL.WEIGHTS == "began_with.pth"
    named = ["MODEL.WEIGHTS", "other.pth"]
    assert load_trained_config(str(tmp_path / "config.yaml"), named).MODEL.WEIGHTS == "other.pth"


def test_the_size_of_pictures_is_the_published_one_where_nothing_says_another(tmp_path):
    path, _ = converted(seeing(*WHOLE)[0], Format.NATIVE, tmp_path)
    cfg, _ = config_of(str(path))
    assert (cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST, cfg.INPUT.FORMAT) == (800, 1333, "RGB")
    assert cfg.MODEL.DETR.NHEADS == 4 and cfg.MODEL.RESNETS.OUT_FEATURES == ["res5"]


def test_the_config_of_a_training_on_another_machine_needs_none_of_its_data_and_files(save):
    path, _, cfg = save(*PANOPTIC)
    cfg.DATASETS.TRAIN, cfg.DATASETS.CUSTOM = ("of_another_machine",), "gone"
    cfg.MODEL.WEIGHTS, cfg.MODEL.DETR.FROZEN_WEIGHTS, cfg.MODEL.DEVICE = "gone.pth", "gone.pth", "cuda:77"
    cfg.MODEL.DETR.NUM_CLASSES, cfg.MODEL.DETR.STUFF_CLASSES = -1, ()
    change(path, config=cfg.dump())
    predictor = Predictor(path)
    assert predictor.class_names == CLASSES.names and not predictor.model.detr.frozen


def test_options_win_over_the_checkpoint(save, picture):
    path, *_ = save(*MASKS)
    assert Predictor(path, opts=["MODEL.MASK_ON", "False"])(picture).masks is None


def published(tmp_path, *, name="model.pth", beside=(), **sizes):
    """A checkpoint of native DETR, as the published ones with nothing beside the weights."""
    path = tmp_path / name
    torch.save({"model": from_canonical(common_state(architecture(**sizes)), Format.NATIVE)} | dict(beside), path)
    return str(path)


@pytest.mark.parametrize(
    ("rows", "ids", "names"),
    [
        (92, LabelMap.coco().ids, LabelMap.coco().names),
        (91, LabelMap.coco().ids, LabelMap.coco().names),
        (251, LabelMap.coco_panoptic().ids, LabelMap.coco_panoptic().names),
        (4, (0, 1, 2), ("class 0", "class 1", "class 2")),
    ],
)
def test_classes_nobody_names_are_coco_s_in_coco_s_head_and_else_called_by_their_id(tmp_path, rows, ids, names):
    cfg, label_map = config_of(published(tmp_path, depth=18, rows=rows))
    assert (label_map.ids, label_map.names) == (ids, names)
    assert len(ids) == cfg.MODEL.DETR.NUM_CLASSES


def test_coco_s_panoptic_model_has_its_stuff(tmp_path):
    cfg, _ = config_of(published(tmp_path, depth=18, rows=251, masks=True))
    assert cfg.MODEL.MASK_ON and cfg.MODEL.DETR.PANOPTIC_ON
    assert tuple(range(80, 133)) == cfg.MODEL.DETR.STUFF_CLASSES
    assert not config_of(published(tmp_path, depth=18, rows=92, masks=True))[0].MODEL.DETR.PANOPTIC_ON


@pytest.mark.parametrize(("name", "dilation"), [("detr-r50-dc5-f0fb7ef5.pth", 2), ("detr-r50-e632da11.pth", 1)])
def test_a_published_dc5_model_is_known_by_its_name_unless_it_tells_itself(tmp_path, name, dilation):
    cfg, _ = config_of(published(tmp_path, name=name, depth=50))
    assert (dilation, 8) == (cfg.MODEL.RESNETS.RES5_DILATION, cfg.MODEL.DETR.NHEADS)
    other = argparse.Namespace(dilation=dilation == 1, nheads=4)
    cfg, _ = config_of(published(tmp_path, name=name, depth=50, beside={"args": other}))
    assert (3 - dilation, 4) == (cfg.MODEL.RESNETS.RES5_DILATION, cfg.MODEL.DETR.NHEADS)


@pytest.mark.parametrize(
    ("depth", "stages", "enc", "dec", "pre_norm"), [(18, 3, 1, 2, True), (34, 4, 2, 1, False), (101, 4, 3, 2, False)]
)
def test_the_sizes_of_a_model_are_those_of_its_tensors(tmp_path, depth, stages, enc, dec, pre_norm):
    weights = published(tmp_path, depth=depth, stages=stages, enc=enc, dec=dec, pre_norm=pre_norm)
    cfg = Predictor(weights, device="cpu").cfg  # which fills every tensor of the model
    detr, resnets = cfg.MODEL.DETR, cfg.MODEL.RESNETS
    assert (depth, [f"res{stages + 1}"]) == (resnets.DEPTH, resnets.OUT_FEATURES)
    assert (enc, dec, pre_norm) == (detr.ENC_LAYERS, detr.DEC_LAYERS, detr.PRE_NORM)
    assert (detr.HIDDEN_DIM, detr.DIM_FEEDFORWARD, detr.NUM_OBJECT_QUERIES) == (8, 12, 6)


# ---- mistakes


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"threshold": 70}, "threshold 70: expected a score, from 0 to 1"),
        ({"batch_size": 0}, "batch size 0"),
        ({"device": "graphics"}, "device 'graphics': "),
        ({"device": "cuda:99"}, "device 'cuda:99': "),
        ({"opts": ["MODEL.DETR.NHEAD", "4"]}, r"model\.pth: .*MODEL.DETR.NHEAD 4.*MODEL.DETR.NHEAD"),
        ({"opts": ["MODEL.DETR.NHEADS"]}, r"model\.pth: config of the checkpoint, with MODEL.DETR.NHEADS: "),
    ],
    ids=["threshold", "batch_size", "device", "device_number", "key", "pairs"],
)
def test_a_wrong_argument_is_told(save, arguments, message):
    with pytest.raises(InputError, match=message):
        Predictor(save()[0], **arguments)


def test_a_checkpoint_that_finds_nothing_is_told(save, tmp_path):
    path, model, _ = save()
    with pytest.raises(FileNotFoundError, match=r"gone\.pth: no such checkpoint"):
        Predictor(tmp_path / "gone.pth")
    for name in ("class_embed.bias", "query_embed.weight"):
        state = model.state_dict()
        del state[f"detr.{name}"]
        change(path, model=state)
        with pytest.raises(InputError, match=rf"model\.pth: {name} is missing: the model has to be trained"):
            Predictor(path)
    change(path, model={"layer1.0.conv1.weight": torch.zeros(1), "conv1.weight": torch.zeros(1)})
    with pytest.raises(InputError, match=r"model\.pth: .*not a whole DETR"):
        Predictor(path)


def test_a_config_with_keys_of_another_version_is_told(save):
    path, _, cfg = save()
    change(path, config=cfg.dump().replace("NHEADS: 4", "NHEADS: 4\n    OF_TOMORROW: 3"))
    with pytest.raises(InputError, match=r"model\.pth: config of the checkpoint, .*MODEL.DETR.OF_TOMORROW"):
        Predictor(path)


# ---- what is made of it


def test_it_says_what_was_found(save, picture):
    found = Predictor(save()[0], threshold=0)(picture)
    assert repr(found).startswith(f"Prediction({found.names[0]} {found.scores[0]:.2f}, {found.names[1]} ")
    assert repr(Predictor(save()[0], threshold=1)(picture)) == "Prediction(nothing)"


def test_it_is_drawn_at_the_size_of_the_picture_or_as_large_as_to_be_read(save, picture, tmp_path):
    predictor = Predictor(save()[0], threshold=0)
    predictor(picture).draw(tmp_path / "small.png")
    predictor(pixels(0, (480, 731))).draw(tmp_path / "large.jpg")
    with Image.open(tmp_path / "small.png") as small, Image.open(tmp_path / "large.jpg") as large:
        assert small.size == (640, 469) and large.size == (731, 480)
        assert (small.format, large.format) == ("PNG", "JPEG")
    with pytest.raises(InputError, match=r"found\.pdf: a drawing is written as \.png, \.jpg"):
        predictor(picture).draw(tmp_path / "found.pdf")


def test_results_are_coco_s_with_the_ids_of_the_annotations(save, picture):
    found = Predictor(save(*MASKS)[0], threshold=0)(picture)
    entries = found.coco_results(17)
    assert len(entries) == len(found.scores)
    for entry, box, name, mask in zip(entries, found.boxes_xyxy, found.names, found.masks, strict=True):
        assert entry["image_id"] == 17 and entry["category_name"] == name
        assert entry["category_id"] == dict(zip(CLASSES.names, CLASSES.ids, strict=True))[name]
        np.testing.assert_allclose(entry["bbox"], [*box[:2], *(box[2:] - box[:2])], rtol=0, atol=0.0051)
        assert np.array_equal(mask_util.decode(entry["segmentation"]).astype(bool), mask)


def test_results_and_drawing_of_a_panoptic_model_are_its_segments(save, picture, tmp_path):
    found = Predictor(save(*PANOPTIC)[0], threshold=0)(picture)
    entries = found.coco_results(1)
    assert [entry["category_id"] for entry in entries] == [CLASSES.ids[label] for label in found.segments.classes]
    stuff = next(entry for entry in entries if entry["category_id"] == 20)
    assert stuff["bbox"] == mask_util.toBbox(stuff["segmentation"]).tolist() and stuff["bbox"][2] > 0
    found.draw(tmp_path / "found.png")
    assert (tmp_path / "found.png").stat().st_size > 1000
