"""DetrCheckpointer saves and loads bit-exact, from every layout, and atomically."""

import argparse
import logging

import pytest
import torch
import torchvision

from d2_detr.checkpoint.adapt import adapt
from d2_detr.checkpoint.checkpointer import DetrCheckpointer
from d2_detr.checkpoint.convert import convert
from d2_detr.checkpoint.layouts import Format, from_canonical
from d2_detr.checkpoint.metadata import Metadata
from d2_detr.checkpoint.write import write_checkpoint
from d2_detr.config import load_config
from d2_detr.structures.label_map import LabelMap
from d2_detr.utils.errors import InputError
from tests.checkpoint.states import architecture, assert_same, canonical_state

from detectron2.modeling import build_model


@pytest.fixture
def build(tiny_opts):
    """Build a tiny Detr, with different parameters in each call."""

    def build(num_classes=1, opts=()):
        opts = [*tiny_opts, "MODEL.DETR.NUM_CLASSES", str(num_classes), *opts]
        return build_model(load_config("detr_compact_balloon.yaml", opts))

    return build


def copied_state(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def without_counters(model):
    """The state dict without the counters of batch norm, which other layouts do not have."""
    return {name: tensor for name, tensor in copied_state(model).items() if "num_batches" not in name}


def native_state(model):
    return {name.removeprefix("detr."): tensor for name, tensor in model.state_dict().items()}


def differing(a, b):
    assert list(a) == list(b)
    return {name for name in a if not torch.equal(a[name], b[name])}


@pytest.fixture
def messages(monkeypatch):
    """Collect the warnings of a checkpointer."""

    def collect(checkpointer):
        warnings = []
        logger = logging.getLogger("d2_detr.checkpoint.checkpointer")
        monkeypatch.setattr(logger, "warning", lambda message, *args: warnings.append(str(message) % args))
        return warnings

    return collect


def test_saved_model_loads_bit_exact(build, tmp_path):
    saved, loaded = build(), build()
    assert differing(copied_state(saved), copied_state(loaded)), "they differ before"
    DetrCheckpointer(saved, str(tmp_path)).save("model")
    DetrCheckpointer(loaded).load(str(tmp_path / "model.pth"))
    assert differing(copied_state(saved), copied_state(loaded)) == set()


def test_only_network_parameters_are_saved(build, tmp_path):
    model = build()
    DetrCheckpointer(model, str(tmp_path)).save("model")
    names = torch.load(tmp_path / "model.pth", weights_only=True)["model"]
    assert all(name.startswith("detr.") for name in names)


def test_resuming_restores_model_optimizer_and_values(build, tmp_path):
    def class_head_optimizer(model, lr):
        return torch.optim.AdamW(model.detr.class_embed.parameters(), lr=lr)

    model = build()
    optimizer = class_head_optimizer(model, lr=0.25)
    model.detr.class_embed.weight.sum().backward()
    optimizer.step()
    checkpointer = DetrCheckpointer(model, str(tmp_path), optimizer=optimizer)
    checkpointer.save("model_0000001", iteration=1)
    checkpointer.save("model_0000002", iteration=2)

    other = build()
    other_optimizer = class_head_optimizer(other, lr=1.0)
    resumed = DetrCheckpointer(other, str(tmp_path), optimizer=other_optimizer)
    assert resumed.resume_or_load("", resume=True)["iteration"] == 2
    assert differing(copied_state(model), copied_state(other)) == set()
    assert other_optimizer.param_groups[0]["lr"] == 0.25
    moments = [o.state_dict()["state"][0]["exp_avg"] for o in (optimizer, other_optimizer)]
    assert moments[0].abs().sum() > 0 and torch.equal(*moments)


def test_empty_weights_load_nothing(build):
    model = build()
    before = copied_state(model)
    assert DetrCheckpointer(model).load("") == {}
    assert differing(before, copied_state(model)) == set()


# ---- other layouts


def test_native_checkpoint_loads_directly(build, tmp_path):
    native, loaded = build(), build()
    torch.save(
        {"model": native_state(native), "args": argparse.Namespace(lr=1e-4), "epoch": 3}, tmp_path / "native.pth"
    )
    DetrCheckpointer(loaded).load(str(tmp_path / "native.pth"))
    assert differing(copied_state(native), copied_state(loaded)) == set()


def test_92_coco_rows_load_into_81(build, tmp_path):
    coco, loaded = build(91), build(80)
    torch.save({"model": native_state(coco)}, tmp_path / "native.pth")
    DetrCheckpointer(loaded).load(str(tmp_path / "native.pth"))
    source, target = (model.state_dict()["detr.class_embed.weight"] for model in (coco, loaded))
    assert torch.equal(target[0], source[1]), "person"
    assert torch.equal(target[79], source[90]), "toothbrush"
    assert torch.equal(target[80], source[91]), "no object"


def test_imagenet_weights_load_into_the_backbone_only(build, tmp_path):
    torch.manual_seed(1)
    resnet = torchvision.models.resnet18(weights=None).state_dict()
    torch.save(resnet, tmp_path / "resnet18.pth")
    model = build()
    before = copied_state(model)
    DetrCheckpointer(model).load(str(tmp_path / "resnet18.pth"))
    after = copied_state(model)
    prefix = "detr.backbone.0.body."
    assert all(name.startswith(prefix) for name in differing(before, after))
    body = {name.removeprefix(prefix): tensor for name, tensor in after.items() if name.startswith(prefix)}
    assert len(body) > 50 and all(torch.equal(tensor, resnet[name]) for name, tensor in body.items())


@pytest.mark.parametrize("layout", ["native", "plugin"])
def test_class_head_of_another_size_is_reinitialized(build, tmp_path, messages, layout):
    saved, loaded = build(3), build(1)
    before = copied_state(loaded)
    state_dict = native_state(saved) if layout == "native" else saved.state_dict()
    torch.save({"model": state_dict}, tmp_path / "model.pth")
    checkpointer = DetrCheckpointer(loaded)
    warnings = messages(checkpointer)
    checkpointer.load(str(tmp_path / "model.pth"))

    head = {"detr.class_embed.weight", "detr.class_embed.bias"}
    after = copied_state(loaded)
    assert differing(copied_state(saved) | {name: before[name] for name in head}, after) == set()
    [warning] = warnings
    assert "class head reinitialized: a class head of 4 rows does not fit 1 class" in warning


def test_evaluation_needs_a_matching_class_head(build, tmp_path):
    DetrCheckpointer(build(3), str(tmp_path)).save("model")
    loaded = build(1)
    before = copied_state(loaded)
    with pytest.raises(InputError, match=r"model\.pth: .*4 rows does not fit 1 class.*nothing trains it here"):
        DetrCheckpointer(loaded, may_reinitialize=()).load(str(tmp_path / "model.pth"))
    assert differing(before, copied_state(loaded)) == set()


@pytest.mark.parametrize("format", [Format.NATIVE, Format.WRAPPER, Format.HUGGING_FACE], ids=lambda f: f.value)
def test_every_layout_loads_directly(build, tmp_path, format):
    saved, loaded = build(3), build(3)
    state_dict, _ = convert(without_counters(saved), format)
    write_checkpoint(tmp_path / "model.pth", state_dict, Format.NATIVE, Metadata())
    DetrCheckpointer(loaded).load(str(tmp_path / "model.pth"))
    assert differing(copied_state(saved), copied_state(loaded)) == set()


def test_three_rows_load_into_one_class_and_into_two(build, tmp_path):
    native = native_state(build(2))
    torch.save({"model": native}, tmp_path / "native.pth")
    bias = native["class_embed.bias"]
    for num_classes, rows in {1: [1, 2], 2: [0, 1, 2]}.items():
        loaded = build(num_classes)
        DetrCheckpointer(loaded, may_reinitialize=()).load(str(tmp_path / "native.pth"))
        assert torch.equal(loaded.state_dict()["detr.class_embed.bias"], bias[rows])


def test_other_number_of_queries_reinitializes_them(build, tmp_path, messages):
    DetrCheckpointer(build(), str(tmp_path)).save("model")
    loaded = build(opts=("MODEL.DETR.NUM_OBJECT_QUERIES", "4"))
    before = loaded.state_dict()["detr.query_embed.weight"].clone()
    checkpointer = DetrCheckpointer(loaded)
    warnings = messages(checkpointer)
    checkpointer.load(str(tmp_path / "model.pth"))
    assert torch.equal(loaded.state_dict()["detr.query_embed.weight"], before)
    assert any(
        "queries reinitialized" in w and "15 object queries, the model 4" in w and "NUM_OBJECT_QUERIES 15" in w
        for w in warnings
    )


@pytest.mark.parametrize(
    ("opts", "message"),
    [
        (("MODEL.DETR.ENC_LAYERS", "2"), r"encoder_layers 1, here 2.*MODEL\.DETR\.ENC_LAYERS"),
        (("MODEL.DETR.HIDDEN_DIM", "16"), r"hidden_dim 32, here 16.*MODEL\.DETR\.HIDDEN_DIM"),
        (("MODEL.RESNETS.DEPTH", "34"), r"depth 18, here 34.*MODEL\.RESNETS\.DEPTH"),
        (("MODEL.DETR.PRE_NORM", "True"), r"pre_norm False, here True.*MODEL\.DETR\.PRE_NORM"),
    ],
    ids=["layers", "width", "backbone", "pre_norm"],
)
def test_other_sizes_are_refused_with_their_config_keys(build, tmp_path, opts, message):
    DetrCheckpointer(build(), str(tmp_path)).save("model")
    loaded = build(opts=opts)
    before = copied_state(loaded)
    with pytest.raises(InputError, match=message):
        DetrCheckpointer(loaded).load(str(tmp_path / "model.pth"))
    assert differing(before, copied_state(loaded)) == set()


@pytest.mark.parametrize(("depth", "missing"), [(34, 10), (50, 16)])
def test_imagenet_weights_of_another_depth_are_refused(build, tmp_path, depth, missing):
    resnet = getattr(torchvision.models, f"resnet{depth}")(weights=None).state_dict()
    if depth == 34:  # has everything but the second block of layer2
        resnet = {name: tensor for name, tensor in resnet.items() if not name.startswith("layer2.1.")}
    torch.save(resnet, tmp_path / "other.pth")
    with pytest.raises(InputError, match=rf"other\.pth: {missing} tensors of the backbone .*MODEL\.RESNETS\.DEPTH"):
        DetrCheckpointer(build()).load(str(tmp_path / "other.pth"))


def test_torchvision_names_load_into_detectron2_resnet():
    canonical = canonical_state(architecture(rows=5))
    model = from_canonical(canonical, Format.PLUGIN, detectron2_backbone=True)
    assert "detr.backbone.0.stem.conv1.norm.weight" in model and "detr.backbone.0.res4.0.shortcut.weight" in model
    for format in (Format.NATIVE, Format.WRAPPER, Format.PLUGIN, Format.HUGGING_FACE):
        assert_same(adapt(from_canonical(canonical, format), model).state_dict, model)


# ---- metadata


def test_label_map_and_config_are_saved(build, tmp_path):
    cats = LabelMap((3, 9), ("cat", "dog"))
    DetrCheckpointer(build(2), str(tmp_path), label_map=cats, config="MODEL: {}").save("model")
    saved = torch.load(tmp_path / "model.pth", weights_only=True)
    assert saved["label_map"] == {"ids": [3, 9], "names": ["cat", "dog"]} and saved["config"] == "MODEL: {}"


def test_other_class_names_are_warned_about(build, tmp_path, messages):
    DetrCheckpointer(build(2), str(tmp_path), label_map=LabelMap((0, 1), ("cat", "dog"))).save("model")
    for names, warned in {("cow", "pig"): True, ("cat", "dog"): False}.items():
        checkpointer = DetrCheckpointer(build(2), label_map=LabelMap((0, 1), names))
        warnings = messages(checkpointer)
        checkpointer.load(str(tmp_path / "model.pth"))
        assert any("trained for the classes" in warning for warning in warnings) == warned


# ---- errors and interruptions


def test_missing_file_is_named(build, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"missing\.pth: no such checkpoint"):
        DetrCheckpointer(build()).load(str(tmp_path / "missing.pth"))
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError, match=r"folder: neither model\.safetensors nor"):
        DetrCheckpointer(build()).load(str(tmp_path / "folder"))


def test_load_works_after_a_failed_load(build, tmp_path):
    saved, loaded = build(), build()
    DetrCheckpointer(saved, str(tmp_path)).save("model")
    (tmp_path / "bad.pth").write_bytes(b"bad")
    checkpointer = DetrCheckpointer(loaded)
    before = copied_state(loaded)
    with pytest.raises(InputError, match=r"bad\.pth"):
        checkpointer.load(str(tmp_path / "bad.pth"))
    assert differing(before, copied_state(loaded)) == set()
    checkpointer.load(str(tmp_path / "model.pth"))
    assert differing(copied_state(saved), copied_state(loaded)) == set()


def test_checkpoint_of_another_model_is_refused(build, tmp_path):
    torch.save({"model": {"linear.weight": torch.zeros(2)}}, tmp_path / "other.pth")
    with pytest.raises(InputError, match=r"not a checkpoint of DETR.*linear\.weight"):
        DetrCheckpointer(build()).load(str(tmp_path / "other.pth"))


@pytest.mark.parametrize("error", [OSError("no space left"), KeyboardInterrupt()], ids=["disk_full", "interrupted"])
def test_interrupted_save_keeps_the_old_files(build, tmp_path, monkeypatch, error):
    folder = tmp_path / "run"
    checkpointer = DetrCheckpointer(build(), str(folder))
    checkpointer.save("model_0000001")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    def save(content, file):
        file.write(b"half a file")
        raise error

    monkeypatch.setattr(torch, "save", save)
    for name in ("model_0000001", "model_0000002"):
        with pytest.raises(type(error)):
            checkpointer.save(name)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert checkpointer.get_checkpoint_file() == str(folder / "model_0000001.pth")


@pytest.mark.parametrize("kwargs", [{"save_dir": ""}, {"save_to_disk": False}], ids=["no_folder", "not_to_disk"])
def test_saving_to_disk_can_be_disabled(build, tmp_path, monkeypatch, kwargs):
    monkeypatch.chdir(tmp_path)
    DetrCheckpointer(build(), **({"save_dir": str(tmp_path)} | kwargs)).save("model")
    assert list(tmp_path.iterdir()) == []


# ---- mask heads


MASKS = ("MODEL.MASK_ON", "True", "MODEL.DETR.HIDDEN_DIM", "128", "MODEL.DETR.NHEADS", "8")
BOXES = ("MODEL.DETR.HIDDEN_DIM", "128", "MODEL.DETR.NHEADS", "8")


@pytest.mark.parametrize(
    "format", [Format.PLUGIN, Format.NATIVE, Format.WRAPPER, Format.HUGGING_FACE], ids=lambda f: f.value
)
def test_mask_head_loads_from_every_layout(build, tmp_path, format):
    saved, loaded = build(opts=MASKS), build(opts=MASKS)
    state_dict, _ = convert(without_counters(saved), format)
    torch.save({"model": state_dict}, tmp_path / "model.pth")
    DetrCheckpointer(loaded, may_reinitialize=()).load(str(tmp_path / "model.pth"))
    assert differing(copied_state(saved), copied_state(loaded)) == set()


def test_missing_mask_head_is_reinitialized_with_a_warning(build, tmp_path, messages):
    DetrCheckpointer(build(opts=BOXES), str(tmp_path)).save("model")
    loaded = build(opts=MASKS)
    before = copied_state(loaded)
    checkpointer = DetrCheckpointer(loaded)
    warnings = messages(checkpointer)
    checkpointer.load(str(tmp_path / "model.pth"))
    after = copied_state(loaded)
    parts = ("detr.mask_head.", "detr.bbox_attention.")
    assert not any(name.startswith(parts) for name in differing(before, after))
    assert any("mask head reinitialized" in warning for warning in warnings)
    with pytest.raises(InputError, match="mask head: the checkpoint has none; nothing trains it here"):
        DetrCheckpointer(loaded, may_reinitialize=()).load(str(tmp_path / "model.pth"))


def test_box_model_drops_the_mask_head(build, tmp_path):
    saved, loaded = build(opts=MASKS), build(opts=BOXES)
    DetrCheckpointer(saved, str(tmp_path)).save("model")
    DetrCheckpointer(loaded, may_reinitialize=()).load(str(tmp_path / "model.pth"))
    expected = {name: saved.state_dict()[name] for name in loaded.state_dict()}
    assert differing(expected, copied_state(loaded)) == set()
    notes = adapt(saved.state_dict(), loaded.state_dict()).notes
    assert any("mask head dropped: MODEL.MASK_ON is False" in note for note in notes)


def test_mask_head_of_other_sizes_is_refused_with_its_key(build, tmp_path):
    DetrCheckpointer(build(opts=MASKS), str(tmp_path)).save("model")
    loaded = build(opts=(*MASKS, "MODEL.DETR.NHEADS", "16"))
    with pytest.raises(InputError, match=r"num_heads 8, here 16.*MODEL\.DETR\.NHEADS"):
        DetrCheckpointer(loaded).load(str(tmp_path / "model.pth"))
