"""Predictor: a checkpoint alone suffices to reproduce the predictions of its model."""

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
from d2_detr.checkpoint.metadata import Metadata
from d2_detr.checkpoint.model_config import converted_metadata, default_threshold, load_trained_config, model_config
from d2_detr.checkpoint.read import read_checkpoint
from d2_detr.checkpoint.write import write_checkpoint
from d2_detr.config import load_config
from d2_detr.data.mapper import DetrDatasetMapper
from d2_detr.structures.label_map import LabelMap
from d2_detr.utils.errors import InputError
from tests.checkpoint.states import architecture, canonical_state
from tests.inference.untrained import CLASSES, MASKS, PANOPTIC, save_untrained, untrained_model
from tests.shapes import draw_shapes

WIDTH, HEIGHT = 60, 44


@pytest.fixture
def save(tmp_path):
    """Write a plugin checkpoint; return its path, the model and its config."""
    return partial(save_untrained, tmp_path)


def pixels(seed=0, size_hw=(HEIGHT, WIDTH)):
    return np.random.default_rng(seed).integers(0, 256, (*size_hw, 3), dtype=np.uint8)


@pytest.fixture
def image_path(tmp_path):
    path = tmp_path / "cat.png"
    Image.fromarray(pixels()).save(path)
    return path


def evaluation_predictions(model, cfg, path):
    """Return the predictions of an evaluation, highest score first."""
    with torch.no_grad():
        instances = model([DetrDatasetMapper(cfg, is_train=False)({"file_name": str(path)})])[0]["instances"]
    return instances[instances.scores.argsort(descending=True)]


def assert_same(prediction, expected):
    for name in ("boxes_xyxy", "classes", "scores", "masks"):
        assert np.array_equal(getattr(prediction, name), getattr(expected, name)), name


def test_predictions_equal_those_of_an_evaluation(save, image_path):
    path, model, cfg = save()
    prediction, expected = Predictor(path, threshold=0)(image_path), evaluation_predictions(model, cfg, image_path)
    assert len(set(expected.scores.tolist())) > 5 and len(set(expected.pred_classes.tolist())) > 1
    assert prediction.boxes_xyxy.shape == (len(expected), 4)
    assert prediction.boxes_xyxy.max() > 30, "in pixels of the image"
    assert np.array_equal(prediction.boxes_xyxy, expected.pred_boxes.tensor.numpy())
    assert np.array_equal(prediction.scores, expected.scores.numpy())
    assert prediction.names == [CLASSES.names[label] for label in expected.pred_classes]
    assert prediction.masks is None and prediction.segments is None


def test_a_model_trained_on_bgr_images_is_given_bgr_images(save, image_path):
    path, model, cfg = save("INPUT.FORMAT", "BGR")
    assert np.array_equal(
        Predictor(path, threshold=0)(image_path).scores, evaluation_predictions(model, cfg, image_path).scores
    )


def test_no_masks_are_computed_below_the_threshold(save, image_path, monkeypatch):
    path, *_ = save(*MASKS)
    unfiltered = Predictor(path, threshold=0)(image_path)
    threshold = float(unfiltered.scores[3])
    predictor = Predictor(path, threshold=threshold)
    computed = []
    masks = predictor.model.detr.predict_masks
    monkeypatch.setattr(
        predictor.model.detr, "predict_masks", lambda inputs, images, queries: computed.append(len(queries))
        or masks(inputs, images, queries),
    )  # fmt: skip
    prediction = predictor(image_path)
    assert len(unfiltered.scores) > 4 and prediction.scores.tolist() == unfiltered.scores[:4].tolist()
    assert sum(computed) == 4 == len(prediction.masks)


def test_masks_have_the_size_of_the_image(save, image_path):
    path, model, cfg = save(*MASKS)
    prediction, expected = Predictor(path, threshold=0)(image_path), evaluation_predictions(model, cfg, image_path)
    assert prediction.masks.dtype == bool and prediction.masks.shape == (len(expected), HEIGHT, WIDTH)
    assert 0 < prediction.masks.mean() < 1 and np.array_equal(prediction.masks, expected.pred_masks.numpy())


def test_a_panoptic_model_needs_no_dataset_to_predict_segments(save, image_path):
    path, *_ = save(*PANOPTIC, "DATASETS.TRAIN", "('not_registered',)")
    prediction = Predictor(path, threshold=0)(image_path)
    assert 2 not in prediction.classes and prediction.segments.masks.sum(0).max() == 1, "segments do not overlap"
    assert (np.isnan(prediction.segments.boxes_xyxy[:, 0]) == (prediction.segments.classes == 2)).all()
    assert 2 in prediction.segments.classes and len(set(prediction.segments.classes.tolist())) > 1


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK", "RGBA", "P"])
def test_a_path_a_pillow_image_and_an_array_are_equivalent(save, tmp_path, mode):
    path = tmp_path / "cat.tiff"
    Image.fromarray(pixels()).convert(mode).save(path)
    predictor = Predictor(save()[0], threshold=0)
    from_path = predictor(path)
    with Image.open(path) as opened:
        assert opened.mode == mode
        from_image, from_array = predictor(opened), predictor(np.asarray(opened.convert("RGB")))
    assert_same(from_path, predictor(str(path)))
    assert_same(from_path, from_image)
    assert_same(from_path, from_array)


def test_16_bit_images_are_scaled_to_8_bits(save, tmp_path):
    gray = pixels()[:, :, 0].astype(np.uint16) * 257
    Image.fromarray(gray).save(tmp_path / "deep.png")
    predictor = Predictor(save()[0], threshold=0)
    from_array = predictor(np.repeat(pixels()[:, :, :1], 3, axis=2))
    assert_same(predictor(tmp_path / "deep.png"), from_array)
    with Image.open(tmp_path / "deep.png") as opened:
        assert opened.mode == "I;16"
        assert_same(predictor(opened), from_array)


def test_exif_orientation_is_applied(save, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate clockwise
    Image.fromarray(pixels()).save(tmp_path / "turned.png", exif=exif)
    predictor = Predictor(save()[0], threshold=0)
    upright = predictor(np.rot90(pixels(), -1))
    assert_same(predictor(tmp_path / "turned.png"), upright)
    with Image.open(tmp_path / "turned.png") as opened:
        assert_same(predictor(opened), upright)
    assert upright.scores.tolist() != predictor(pixels()).scores.tolist()


def test_gray_and_rgba_arrays_are_read_like_files(save, tmp_path):
    predictor = Predictor(save()[0], threshold=0)
    gray, rgba = pixels()[:, :, 0], np.dstack((pixels(), pixels(1)[:, :, 0]))
    Image.fromarray(gray).save(tmp_path / "gray.png")
    Image.fromarray(rgba).save(tmp_path / "rgba.png")
    assert_same(predictor(gray), predictor(tmp_path / "gray.png"))
    assert_same(predictor(gray[:, :, None]), predictor(tmp_path / "gray.png"))
    assert_same(predictor(rgba), predictor(tmp_path / "rgba.png"))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (pixels().astype(np.float32), r"\(44, 60, 3\) of float32: expected uint8, RGB \(H, W, 3\)"),
        (pixels()[:, :, :2], r"\(44, 60, 2\) of uint8: expected uint8, RGB \(H, W, 3\), RGBA"),
        (pixels()[None], r"\(1, 44, 60, 3\) of uint8"),
        (pixels()[:0], r"\(0, 60, 3\)"),
        (["cat.png"], "type list: expected a path"),
        (Image.new("F", (8, 8)), "Pillow image: pixels are floating-point numbers"),
        ("missing.png", "missing.png: no such image"),
    ],
    ids=["float", "two_channels", "batch", "empty", "list", "float_image", "missing"],
)
def test_errors_explain_invalid_images(save, wrong, message):
    with pytest.raises((InputError, FileNotFoundError), match=message):
        Predictor(save()[0])(wrong)


def test_the_checkpoint_is_read_once(save, monkeypatch):
    path, *_ = save()
    read, load = [], torch.load
    monkeypatch.setattr(torch, "load", lambda file, **kwargs: read.append(file) or load(file, **kwargs))
    Predictor(path)
    assert read == [path]


# ---- several images


@pytest.mark.parametrize("batch_size", [2, 5, 9])
def test_batched_predictions_equal_single_ones_in_order(save, batch_size):
    path, *_ = save(*MASKS)
    images = [pixels(seed) for seed in range(5)]
    one_by_one = list(map(Predictor(path, threshold=0.3), images))
    together = list(Predictor(path, threshold=0.3, batch_size=batch_size).all(images))
    assert len(together) == 5 and len({tuple(prediction.scores.tolist()) for prediction in one_by_one}) == 5
    for prediction, single, image in zip(together, one_by_one, images, strict=True):
        assert prediction.image is image
        np.testing.assert_allclose(prediction.scores, single.scores, atol=1e-5)
        np.testing.assert_allclose(prediction.boxes_xyxy, single.boxes_xyxy, atol=1e-3)
        assert (prediction.masks == single.masks).mean() > 0.999


def test_images_of_different_sizes_share_a_batch(save):
    path, *_ = save(*MASKS)
    sizes_hw = [(44, 60), (90, 30), (20, 50)]
    predictions = list(Predictor(path, threshold=0, batch_size=3).all(pixels(1, size_hw) for size_hw in sizes_hw))
    for prediction, (height, width) in zip(predictions, sizes_hw, strict=True):
        assert prediction.masks.shape[1:] == (height, width)
        right, bottom = prediction.boxes_xyxy[:, 2:].max(0)
        assert 0.5 * width < right <= width and 0.5 * height < bottom <= height


def test_images_are_read_a_batch_at_a_time(save):
    read = []
    predictions = Predictor(save()[0], batch_size=2).all(read.append(seed) or pixels(seed) for seed in range(100))
    assert read == []
    next(predictions)
    assert read == [0, 1]
    next(predictions)
    assert read == [0, 1]
    next(predictions)
    assert read == [0, 1, 2, 3]


def test_an_unreadable_image_raises_or_is_skipped(save, image_path, tmp_path):
    (tmp_path / "broken.png").write_bytes(image_path.read_bytes()[:100])
    images = [image_path, tmp_path / "broken.png", image_path, tmp_path / "missing.png"]
    predictor, errors = Predictor(save()[0], batch_size=2), []
    predictions = list(predictor.all(images, on_error=lambda *error: errors.append(error)))
    assert [prediction.image for prediction in predictions] == [image_path, image_path]
    assert [name for name, _ in errors] == [images[1], images[3]] and "damaged or truncated" in str(errors[0][1])
    with pytest.raises(InputError, match=r"broken\.png"):
        list(predictor.all(images))


def test_images_may_be_a_folder_a_file_or_a_pattern(save, image_path, tmp_path, monkeypatch):
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("b.png", "a.png"):
        image_path.rename(folder / name) if name == "b.png" else Image.fromarray(pixels(1)).save(folder / name)
    predictor = Predictor(save()[0])
    for images, names in ((str(folder), "ab"), (folder, "ab"), (folder / "b.png", "b"), (f"{folder}/a*", "a")):
        assert [p.image for p in predictor.all(images)] == [folder / f"{name}.png" for name in names]
    with pytest.raises(InputError, match="no such file or folder"):
        predictor.all(f"{folder}/*.gif")


def test_a_call_can_override_the_threshold(save, image_path):
    predictor = Predictor(save(*MASKS)[0], threshold=1)
    unfiltered = predictor(image_path, threshold=0)
    minimum = float(unfiltered.scores[3])
    assert predictor(image_path, threshold=minimum).scores.tolist() == unfiltered.scores[:4].tolist()
    assert len(predictor(image_path)) == 0 and predictor.threshold == 1, "the threshold of the predictor is unchanged"
    low, high = predictor.all([image_path] * 2, threshold=0), predictor.all([image_path] * 2, threshold=minimum)
    for _ in range(2):
        assert (len(next(low)), len(next(high))) == (len(unfiltered), 4), "also in two concurrent iterations"
    with pytest.raises(InputError, match="threshold 70"):
        predictor(image_path, threshold=70)


# ---- contents of a checkpoint


def update_checkpoint(path, **content):
    torch.save(torch.load(path, weights_only=True) | content, path)


def write_converted(model, format, tmp_path, label_map=CLASSES, num_heads=4):
    """Write the model in a layout, with the metadata that the layout supports."""
    state_dict, report = convert(model.state_dict(), format, label_map=label_map)
    if format is Format.NATIVE:
        namespace = argparse.Namespace(nheads=num_heads, dilation=False)
        torch.save({"model": state_dict, "args": namespace}, tmp_path / "converted.pth")
        return tmp_path / "converted.pth", report
    path = tmp_path / ("folder" if format is Format.HUGGING_FACE else "converted.safetensors")
    write_checkpoint(path, state_dict, format, Metadata(report.label_map, num_heads=num_heads))
    return path, report


FORMATS = [Format.NATIVE, Format.WRAPPER, Format.HUGGING_FACE, Format.PLUGIN]
FULL_BACKBONE = "MODEL.RESNETS.OUT_FEATURES ['res5'] MODEL.RESNETS.NORM FrozenBN".split()
IMAGE_SIZE = ("INPUT.MIN_SIZE_TEST", "64", "INPUT.MAX_SIZE_TEST", "100")


@pytest.mark.parametrize("format", FORMATS, ids=lambda format: format.value)
@pytest.mark.parametrize("masks", [False, True], ids=["boxes", "masks"])
def test_checkpoints_of_all_layouts_predict_the_same(tmp_path, image_path, format, masks):
    model, cfg = untrained_model(*FULL_BACKBONE, *(MASKS if masks else []))
    path, _ = write_converted(model, format, tmp_path, num_heads=cfg.MODEL.DETR.NHEADS)
    # A state dict does not contain the image size, and only a Namespace and a folder contain the number of heads.
    heads = [] if format in (Format.NATIVE, Format.HUGGING_FACE) else ["MODEL.DETR.NHEADS", str(cfg.MODEL.DETR.NHEADS)]
    prediction = Predictor(path, threshold=0, opts=[*IMAGE_SIZE, *heads])(image_path)
    expected = evaluation_predictions(model, cfg, image_path)
    np.testing.assert_allclose(prediction.scores, expected.scores, atol=1e-6)
    np.testing.assert_allclose(prediction.boxes_xyxy, expected.pred_boxes.tensor, atol=1e-4)
    assert (prediction.masks is not None) == masks
    if format is not Format.NATIVE:
        assert prediction.names == [CLASSES.names[label] for label in expected.pred_classes]


@pytest.mark.parametrize("format", FORMATS, ids=lambda format: format.value)
@pytest.mark.parametrize("options", [[], MASKS], ids=["boxes", "masks"])
def test_conversion_to_a_layout_and_back_keeps_predictions(save, tmp_path, image_path, format, options):
    source, _, _ = save(*FULL_BACKBONE, *options)
    written = tmp_path / ("folder" if format is Format.HUGGING_FACE else "converted.safetensors")
    convert_file(source, written, format)
    from_written, restored = Predictor(written, threshold=0)(image_path), tmp_path / "restored.pth"
    convert_file(written, restored, Format.PLUGIN)
    expected = Predictor(source, threshold=0)(image_path)
    for prediction in (from_written, Predictor(restored, threshold=0)(image_path)):
        assert_same(prediction, expected)
        assert prediction.names == expected.names


@pytest.mark.parametrize(
    ("name", "how", "threshold"),
    [("a.safetensors", {}, 0.42), ("a.pth", {}, 0.42), ("a.pth", {"new_classes": 3}, 0.7)],
    ids=["safetensors", "torch", "other_classes"],
)
def test_the_threshold_is_kept_only_if_the_classes_are_kept(save, tmp_path, name, how, threshold):
    source, _, _ = save(*FULL_BACKBONE)
    torch.save(torch.load(source, weights_only=True) | {"threshold": 0.42}, source)
    convert_file(source, tmp_path / name, Format.WRAPPER, **how)
    assert default_threshold(read_checkpoint(source)) == 0.42
    assert default_threshold(read_checkpoint(tmp_path / name)) == threshold


def test_a_conversion_keeps_the_stuff_classes(save, tmp_path, image_path):
    source, _, _ = save(*PANOPTIC)
    convert_file(source, tmp_path / "native.pth", Format.NATIVE)
    prediction, expected = (Predictor(path, threshold=0)(image_path) for path in (tmp_path / "native.pth", source))
    assert_same(prediction, expected)
    assert len(expected.segments.classes) and np.array_equal(prediction.segments.classes, expected.segments.classes)


@pytest.mark.parametrize(
    "how", [{"remove_class_head": True}, {"new_classes": 2}, {"keep_classes": [CLASSES.names[1]]}], ids="-".join
)
def test_a_conversion_to_other_classes_keeps_the_model_config(save, tmp_path, how):
    source, _, cfg = save(*PANOPTIC)
    convert_file(source, tmp_path / "converted.pth", Format.PLUGIN, **how)
    class_keys = {"NUM_CLASSES", "STUFF_CLASSES", "PANOPTIC_ON"}
    converted, _ = model_config(read_checkpoint(tmp_path / "converted.pth"), to_train=True)
    assert converted.INPUT == cfg.INPUT and converted.MODEL.RESNETS == cfg.MODEL.RESNETS
    assert {key for key, value in converted.MODEL.DETR.items() if value != cfg.MODEL.DETR[key]} <= class_keys
    assert not converted.MODEL.DETR.PANOPTIC_ON and converted.MODEL.MASK_ON


def test_reordering_the_classes_removes_the_stuff_classes(save, tmp_path):
    source, _, _ = save(*PANOPTIC)
    update_checkpoint(source, label_map=LabelMap((0, 1, 2), CLASSES.names).to_dict())
    convert_file(source, tmp_path / "converted.pth", Format.PLUGIN, keep_classes=list(CLASSES.names[::-1]))
    cfg, label_map = model_config(read_checkpoint(tmp_path / "converted.pth"))
    assert label_map.names == CLASSES.names[::-1]
    assert not cfg.MODEL.DETR.PANOPTIC_ON and not cfg.MODEL.DETR.STUFF_CLASSES


def test_a_checkpoint_of_unknown_architecture_can_be_converted(tmp_path):
    state_dict = canonical_state(architecture(rows=4))
    unusual = {name: tensor for name, tensor in state_dict.items() if ".layer3.1." not in name}
    torch.save({"model": from_canonical(unusual, Format.NATIVE)}, tmp_path / "unusual.pth")
    convert_file(tmp_path / "unusual.pth", tmp_path / "converted.pth", Format.PLUGIN, first_class_id=0)
    assert "config" not in torch.load(tmp_path / "converted.pth", weights_only=True)


def convert_file(source, target, format, **how):
    """Convert a checkpoint like `tools/converter.py`."""
    checkpoint = read_checkpoint(source)
    state_dict, report = convert(checkpoint.state_dict, format, label_map=checkpoint.metadata.label_map, **how)
    write_checkpoint(target, state_dict, format, converted_metadata(checkpoint, report.label_map))


# ---- the config of a trained model for a dataset


def test_config_comes_from_weights_and_options_override_it(save, tmp_path):
    weights, _, cfg = save(*PANOPTIC)
    root = draw_shapes(tmp_path / "coco")
    weights_opts = ["MODEL.WEIGHTS", str(weights)]
    loaded = load_trained_config("", [*weights_opts, "INPUT.MIN_SIZE_TEST", "48"], str(root))
    assert loaded.DATASETS.TEST == ("custom_val_panoptic",) and loaded.MODEL.DETR.NUM_CLASSES == -1
    assert (loaded.INPUT.MIN_SIZE_TEST, loaded.INPUT.MAX_SIZE_TEST) == (48, cfg.INPUT.MAX_SIZE_TEST)
    loaded = load_trained_config("", [*weights_opts, "MODEL.DETR.PANOPTIC_ON", "False"], str(root))
    assert loaded.DATASETS.TEST == ("custom_val",) and not loaded.MODEL.DETR.PANOPTIC_ON
    loaded = load_trained_config("", [*weights_opts, "DATASETS.CUSTOM", str(root), "DATASETS.TEST", "('custom_val',)"])
    assert loaded.MODEL.DETR.NUM_CLASSES == 3
    assert loaded.MODEL.DEVICE == load_config("", []).MODEL.DEVICE


def test_config_yaml_of_a_training_selects_its_best_model(save, tmp_path):
    _, _, cfg = save()
    cfg.MODEL.WEIGHTS = "initial.pth"
    for name in ("config.yaml", "my.yaml"):
        (tmp_path / name).write_text(cfg.dump())
    for stem in ("model_final", "model_best"):
        (tmp_path / f"{stem}.pth").touch()
        loaded = load_trained_config(str(tmp_path / "config.yaml"), [])
        assert str(tmp_path / f"{stem}.pth") == loaded.MODEL.WEIGHTS
    assert load_trained_config(str(tmp_path / "my.yaml"), []).MODEL.WEIGHTS == "initial.pth"
    weights_opts = ["MODEL.WEIGHTS", "other.pth"]
    assert load_trained_config(str(tmp_path / "config.yaml"), weights_opts).MODEL.WEIGHTS == "other.pth"


def test_default_image_size_is_that_of_the_published_models(tmp_path):
    path, _ = write_converted(untrained_model(*FULL_BACKBONE)[0], Format.NATIVE, tmp_path)
    cfg, _ = model_config(read_checkpoint(path))
    assert (cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST, cfg.INPUT.FORMAT) == (800, 1333, "RGB")
    assert cfg.MODEL.DETR.NHEADS == 4 and cfg.MODEL.RESNETS.OUT_FEATURES == ["res5"]


def test_a_checkpoint_does_not_need_the_training_files(save):
    path, _, cfg = save(*PANOPTIC)
    cfg.DATASETS.TRAIN, cfg.DATASETS.CUSTOM = ("not_registered",), "gone"
    cfg.MODEL.WEIGHTS, cfg.MODEL.DETR.FROZEN_WEIGHTS, cfg.MODEL.DEVICE = "gone.pth", "gone.pth", "cuda:77"
    cfg.MODEL.DETR.NUM_CLASSES, cfg.MODEL.DETR.STUFF_CLASSES = -1, ()
    update_checkpoint(path, config=cfg.dump())
    predictor = Predictor(path)
    assert predictor.class_names == CLASSES.names and not predictor.model.detr.frozen


def test_options_override_the_checkpoint(save, image_path):
    path, *_ = save(*MASKS)
    assert Predictor(path, opts=["MODEL.MASK_ON", "False"])(image_path).masks is None


def write_published(tmp_path, *, name="model.pth", extra=(), **sizes):
    """Write a weights-only checkpoint such as those published for native DETR."""
    path = tmp_path / name
    torch.save({"model": from_canonical(canonical_state(architecture(**sizes)), Format.NATIVE)} | dict(extra), path)
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
def test_unnamed_classes_are_coco_classes_or_numbered(tmp_path, rows, ids, names):
    cfg, label_map = model_config(read_checkpoint(write_published(tmp_path, depth=18, rows=rows)))
    assert (label_map.ids, label_map.names) == (ids, names)
    assert len(ids) == cfg.MODEL.DETR.NUM_CLASSES


def test_the_coco_panoptic_model_has_its_stuff_classes(tmp_path):
    cfg, _ = model_config(read_checkpoint(write_published(tmp_path, depth=18, rows=251, masks=True)))
    assert cfg.MODEL.MASK_ON and cfg.MODEL.DETR.PANOPTIC_ON
    assert tuple(range(80, 133)) == cfg.MODEL.DETR.STUFF_CLASSES
    assert not model_config(read_checkpoint(write_published(tmp_path, depth=18, rows=92, masks=True)))[
        0
    ].MODEL.DETR.PANOPTIC_ON


@pytest.mark.parametrize(("name", "dilation"), [("detr-r50-dc5-f0fb7ef5.pth", 2), ("detr-r50-e632da11.pth", 1)])
def test_a_published_dc5_model_is_recognized_by_its_file_name(tmp_path, name, dilation):
    cfg, _ = model_config(read_checkpoint(write_published(tmp_path, name=name, depth=50)))
    assert (dilation, 8) == (cfg.MODEL.RESNETS.RES5_DILATION, cfg.MODEL.DETR.NHEADS)
    other = argparse.Namespace(dilation=dilation == 1, nheads=4)
    cfg, _ = model_config(read_checkpoint(write_published(tmp_path, name=name, depth=50, extra={"args": other})))
    assert (3 - dilation, 4) == (cfg.MODEL.RESNETS.RES5_DILATION, cfg.MODEL.DETR.NHEADS)


@pytest.mark.parametrize(
    ("depth", "stages", "enc", "dec", "pre_norm"), [(18, 3, 1, 2, True), (34, 4, 2, 1, False), (101, 4, 3, 2, False)]
)
def test_the_model_config_is_inferred_from_tensor_shapes(tmp_path, depth, stages, enc, dec, pre_norm):
    weights = write_published(tmp_path, depth=depth, stages=stages, enc=enc, dec=dec, pre_norm=pre_norm)
    cfg = Predictor(weights, device="cpu").cfg  # loads every tensor of the model
    detr, resnets = cfg.MODEL.DETR, cfg.MODEL.RESNETS
    assert (depth, [f"res{stages + 1}"]) == (resnets.DEPTH, resnets.OUT_FEATURES)
    assert (enc, dec, pre_norm) == (detr.ENC_LAYERS, detr.DEC_LAYERS, detr.PRE_NORM)
    assert (detr.HIDDEN_DIM, detr.DIM_FEEDFORWARD, detr.NUM_OBJECT_QUERIES) == (8, 12, 6)


# ---- invalid input


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"threshold": 70}, "threshold 70: expected a score from 0 to 1"),
        ({"batch_size": 0}, "batch size 0"),
        ({"device": "graphics"}, "device 'graphics': "),
        ({"device": "cuda:99"}, "device 'cuda:99': "),
        (
            {"opts": ["MODEL.DETR.NHEAD", "4"]},
            r"model\.pth: MODEL.DETR.NHEAD: no such config key.*NHEADS",
        ),
        ({"opts": ["MODEL.DETR.NHEADS"]}, r"model\.pth: options MODEL.DETR.NHEADS: the last one has no value"),
    ],
    ids=["threshold", "batch_size", "device", "device_number", "key", "pairs"],
)
def test_errors_explain_invalid_arguments(save, arguments, message):
    with pytest.raises(InputError, match=message):
        Predictor(save()[0], **arguments)


def test_errors_explain_missing_and_incomplete_checkpoints(save, tmp_path):
    path, model, _ = save()
    with pytest.raises(FileNotFoundError, match=r"gone\.pth: no such checkpoint"):
        Predictor(tmp_path / "gone.pth")
    for name in ("class_embed.bias", "query_embed.weight"):
        state = model.state_dict()
        del state[f"detr.{name}"]
        update_checkpoint(path, model=state)
        with pytest.raises(InputError, match=rf"model\.pth: {name} is missing: train the model"):
            Predictor(path)
    update_checkpoint(path, model={"layer1.0.conv1.weight": torch.zeros(1), "conv1.weight": torch.zeros(1)})
    with pytest.raises(InputError, match=r"model\.pth: .*not a complete DETR"):
        Predictor(path)


def test_the_error_names_an_unknown_key_of_the_stored_config(save):
    path, _, cfg = save()
    update_checkpoint(path, config=cfg.dump().replace("NHEADS: 4", "NHEADS: 4\n    FUTURE_KEY: 3"))
    with pytest.raises(InputError, match=r"model\.pth: config of the checkpoint: .*MODEL.DETR.FUTURE_KEY"):
        Predictor(path)


# ---- predictions


def test_repr_lists_the_objects(save, image_path):
    prediction = Predictor(save()[0], threshold=0)(image_path)
    assert repr(prediction).startswith(
        f"Prediction({prediction.names[0]} {prediction.scores[0]:.2f}, {prediction.names[1]} "
    )
    assert repr(Predictor(save()[0], threshold=1)(image_path)) == "Prediction(nothing)"


@pytest.mark.parametrize("opts", [(), MASKS], ids=["boxes", "masks"])
def test_a_prediction_is_a_sequence_of_objects(save, image_path, opts):
    prediction = Predictor(save(*opts)[0], threshold=0)(image_path)
    objects = list(prediction)
    assert len(prediction) == len(objects) == len(prediction.scores) > 0
    assert [(o.name, o.class_id, o.score) for o in objects] == [
        (CLASSES.names[label], label, score)
        for label, score in zip(prediction.classes.tolist(), prediction.scores.tolist(), strict=True)
    ]
    for i, detected in enumerate(objects):
        assert np.array_equal(detected.box_xyxy, prediction.boxes_xyxy[i])
        assert detected.mask is None if not opts else np.array_equal(detected.mask, prediction.masks[i])


def test_drawings_have_the_image_size_or_are_enlarged(save, image_path, tmp_path):
    predictor = Predictor(save()[0], threshold=0)
    predictor(image_path).draw(tmp_path / "small.png")
    predictor(pixels(0, (480, 731))).draw(tmp_path / "large.jpg")
    with Image.open(tmp_path / "small.png") as small, Image.open(tmp_path / "large.jpg") as large:
        assert small.size == (640, 469) and large.size == (731, 480)
        assert (small.format, large.format) == ("PNG", "JPEG")
    with pytest.raises(InputError, match=r"out\.pdf: .*use one of \.png, \.jpg"):
        predictor(image_path).draw(tmp_path / "out.pdf")


def test_coco_results_have_the_category_ids_of_the_dataset(save, image_path):
    prediction = Predictor(save(*MASKS)[0], threshold=0)(image_path)
    entries = prediction.coco_results(17)
    assert len(entries) == len(prediction.scores)
    for entry, box, name, mask in zip(entries, prediction.boxes_xyxy, prediction.names, prediction.masks, strict=True):
        assert entry["image_id"] == 17 and entry["category_name"] == name
        assert entry["category_id"] == dict(zip(CLASSES.names, CLASSES.ids, strict=True))[name]
        np.testing.assert_allclose(entry["bbox"], [*box[:2], *(box[2:] - box[:2])], rtol=0, atol=0.0051)
        assert np.array_equal(mask_util.decode(entry["segmentation"]).astype(bool), mask)


def test_coco_results_of_a_panoptic_model_are_its_segments(save, image_path, tmp_path):
    prediction = Predictor(save(*PANOPTIC)[0], threshold=0)(image_path)
    entries = prediction.coco_results(1)
    assert [entry["category_id"] for entry in entries] == [CLASSES.ids[label] for label in prediction.segments.classes]
    stuff = next(entry for entry in entries if entry["category_id"] == 20)
    assert stuff["bbox"] == mask_util.toBbox(stuff["segmentation"]).tolist() and stuff["bbox"][2] > 0
    prediction.draw(tmp_path / "out.png")
    assert (tmp_path / "out.png").stat().st_size > 1000
