"""Checkpoints with damaged bytes and with metadata of any content: they are read, or refused in one line."""

import argparse
import io
import json
import random
import resource
import time
import zipfile

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save as safetensors_bytes

from d2_detr.checkpoint.convert import convert
from d2_detr.checkpoint.hugging_face import CONFIG, PROCESSOR
from d2_detr.checkpoint.inspection import describe_checkpoint
from d2_detr.checkpoint.layouts import Format, from_canonical
from d2_detr.checkpoint.model_config import model_config
from d2_detr.checkpoint.read import read_checkpoint
from d2_detr.config import load_config
from d2_detr.utils.errors import InputError
from tests.checkpoint.states import architecture, canonical_state

CANONICAL = canonical_state(architecture(depth=18, rows=4, enc=1, dec=1))
NAMES = {"ids": [3, 7, 20], "names": ["disc", "square", "triangle"]}
OPTIONS = (
    "MODEL.DETR.HIDDEN_DIM 8 MODEL.DETR.NHEADS 4 MODEL.DETR.DIM_FEEDFORWARD 12 MODEL.DETR.ENC_LAYERS 1 "
    "MODEL.DETR.DEC_LAYERS 1 MODEL.DETR.NUM_CLASSES 3 MODEL.DETR.NUM_OBJECT_QUERIES 6 MODEL.RESNETS.DEPTH 18 "
    "MODEL.DEVICE cpu"
).split()
PLUGIN_CONFIG = load_config("Base-DETR.yaml", OPTIONS)
MAX_SECONDS, MAX_GROWTH = 20, 2 << 30  # for one input; for all inputs of a test


def torch_bytes(content, **options):
    file = io.BytesIO()
    torch.save(content, file, **options)
    return file.getvalue()


def plugin_content():
    return {
        "model": from_canonical(CANONICAL, Format.PLUGIN), "label_map": NAMES, "config": PLUGIN_CONFIG.dump(),
        "threshold": 0.4, "iteration": 7,
    }  # fmt: skip


def native_content():
    return {"model": from_canonical(CANONICAL, Format.NATIVE), "args": argparse.Namespace(nheads=4, dilation=False)}


# Name -> content of each layout. Large tensors repeat one value, so that the files are small.
LAYOUTS = {
    "native.pth": lambda: torch_bytes(native_content()),
    "native_legacy.pth": lambda: torch_bytes(native_content(), _use_new_zipfile_serialization=False),
    "wrapper.pth": lambda: torch_bytes({"model": from_canonical(CANONICAL, Format.WRAPPER)}),
    "plugin.pth": lambda: torch_bytes(plugin_content()),
    "model.safetensors": lambda: safetensors_bytes(
        {name: tensor.clone() for name, tensor in plugin_content()["model"].items() if tensor.numel() < 1000},
        {"config": json.dumps(PLUGIN_CONFIG.dump()), "label_map": json.dumps(NAMES), "threshold": "0.4"},
    ),
    "pytorch_model.bin": lambda: torch_bytes(from_canonical(CANONICAL, Format.HUGGING_FACE)),
}


def use(path):
    """Read a checkpoint and do with it what the commands do, without writing."""
    checkpoint = read_checkpoint(path)
    for action in (
        describe_checkpoint,
        model_config,
        lambda source: convert(source.state_dict, Format.NATIVE, label_map=source.metadata.label_map),
        lambda source: convert(source.state_dict, Format.HUGGING_FACE, label_map=source.metadata.label_map),
    ):
        try:
            action(checkpoint)
        except InputError as error:
            assert_is_one_line(error)


def assert_is_one_line(error):
    assert "\n" not in str(error) and 0 < len(str(error)) < 1500, str(error)


def use_or_refuse(path):
    start = time.monotonic()
    try:
        use(path)
    except (InputError, FileNotFoundError) as error:
        assert_is_one_line(error)
    assert time.monotonic() - start < MAX_SECONDS


def damaged(content, rng):
    """Change some bytes, cut the file, insert bytes, or change the pickle in a zip file and its checksum."""
    kind = rng.choice(["bytes", "bits", "cut", "insert", "pickle", "pickle"])
    if kind == "pickle" and content.startswith(b"PK"):
        result = io.BytesIO()
        with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(result, "w") as new:
            for name in old.namelist():
                data = old.read(name)
                new.writestr(name, damaged_bytes(data, rng) if name.endswith("data.pkl") else data)
        return result.getvalue()
    if kind == "cut":
        return content[: rng.randrange(len(content))]
    if kind == "insert":
        position = rng.randrange(len(content))
        return content[:position] + rng.randbytes(rng.randrange(1, 9)) + content[position:]
    return damaged_bytes(content, rng, bits=kind == "bits")


def damaged_bytes(content, rng, *, bits=False):
    changed = bytearray(content)
    for _ in range(rng.randrange(1, 5)):
        position = rng.randrange(len(changed)) if rng.random() < 0.5 else rng.randrange(min(len(changed), 4000))
        changed[position] = changed[position] ^ (1 << rng.randrange(8)) if bits else rng.randrange(256)
    return bytes(changed)


def peak_memory():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def check_damaged(folder, name, number):
    content, before = LAYOUTS[name](), peak_memory()
    (folder / CONFIG).write_text('{"model_type": "detr", "encoder_attention_heads": 4}')
    (folder / name).write_bytes(content)
    use(folder / name)
    for seed in range(number):
        (folder / name).write_bytes(damaged(content, random.Random(seed)))
        try:
            use_or_refuse(folder / name)
        except Exception as error:
            raise AssertionError(f"{name}, seed {seed}") from error
    assert peak_memory() - before < MAX_GROWTH


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", LAYOUTS)
def test_a_damaged_file_is_read_or_refused(tmp_path, name):
    check_damaged(tmp_path, name, 15)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", LAYOUTS)
def test_thousands_of_damaged_files_are_read_or_refused(tmp_path, name):
    check_damaged(tmp_path, name, 1000)


# ---- metadata

scalars = st.one_of(
    st.none(), st.booleans(), st.integers(), st.sampled_from([-1, 0, 1, 2, 3, 10**9, 10**30]), st.floats(),
    st.text(max_size=8), st.sampled_from(["", "[", "(", "*a", "1e999", "0x", "None", "Detr"]),
)  # fmt: skip
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(scalars, inner, max_size=4), max_leaves=8
)
json_values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=8,
)  # fmt: skip
KEYS = [
    *(f"MODEL.DETR.{key}" for key in PLUGIN_CONFIG.MODEL.DETR), *(f"INPUT.{key}" for key in PLUGIN_CONFIG.INPUT),
    *(f"MODEL.RESNETS.{key}" for key in PLUGIN_CONFIG.MODEL.RESNETS), *(f"MODEL.{key}" for key in PLUGIN_CONFIG.MODEL),
    "MODEL", "INPUT", "MODEL.BACKBONE.NAME", "MODEL.BACKBONE.FREEZE_AT",
]  # fmt: skip
HUGGING_FACE_FIELDS = (
    "model_type", "encoder_attention_heads", "dilation", "auxiliary_loss", "id2label", "category_ids", "size",
    "max_size", "do_resize",
)  # fmt: skip


def config_with(key, value):
    config = json.loads(json.dumps(PLUGIN_CONFIG))
    node = config
    *sections, name = key.split(".")
    for section in sections:
        node = node[section]
    node[name] = value
    return json.dumps(config)  # is YAML


plugin_metadata = st.one_of(
    st.fixed_dictionaries({"config": st.builds(config_with, st.sampled_from(KEYS), json_values)}),
    st.fixed_dictionaries({"label_map": values}),
    st.fixed_dictionaries({"label_map": st.fixed_dictionaries({"ids": values, "names": values})}),
    st.fixed_dictionaries({"threshold": values}),
    st.fixed_dictionaries({"config": values | st.text()}),
    st.fixed_dictionaries({"args": st.builds(argparse.Namespace, nheads=values, dilation=values)}),
    st.dictionaries(scalars, values, max_size=3),
)
hugging_face_metadata = st.dictionaries(
    st.sampled_from(HUGGING_FACE_FIELDS),
    json_values
    | st.dictionaries(st.sampled_from(["0", "1", "2", "7", "shortest_edge", "longest_edge"]), json_values, max_size=3),
    max_size=4,
)


def check_plugin_metadata(path, content):
    file = plugin_content()
    if "args" in content:
        del file["config"]
    torch.save(file | content, path)
    use_or_refuse(path)


def check_hugging_face_metadata(folder, content):
    path = folder / "pytorch_model.bin"
    if not path.is_file():
        path.write_bytes(LAYOUTS["pytorch_model.bin"]())
    (folder / CONFIG).write_text(json.dumps({"model_type": "detr"} | content))
    (folder / PROCESSOR).write_text(json.dumps(content))
    use_or_refuse(folder)


def examples(number):
    return settings(max_examples=number, suppress_health_check=list(HealthCheck), derandomize=True)


@examples(25)
@given(content=plugin_metadata)
def test_any_metadata_is_read_or_refused(tmp_path_factory, content):
    check_plugin_metadata(tmp_path_factory.getbasetemp() / "model.pth", content)


@examples(25)
@given(content=hugging_face_metadata)
def test_any_config_of_hugging_face_is_read_or_refused(tmp_path_factory, content):
    check_hugging_face_metadata(tmp_path_factory.getbasetemp(), content)


@pytest.mark.slow
@examples(1500)
@given(content=plugin_metadata)
def test_many_metadata_are_read_or_refused(tmp_path_factory, content):
    check_plugin_metadata(tmp_path_factory.getbasetemp() / "model.pth", content)


@pytest.mark.slow
@examples(3000)
@given(content=hugging_face_metadata)
def test_thousands_of_configs_of_hugging_face_are_read_or_refused(tmp_path_factory, content):
    check_hugging_face_metadata(tmp_path_factory.getbasetemp(), content)
