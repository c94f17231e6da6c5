"""A wrong value of an option, of any command, is one line that names it."""

import sys

import pytest
from PIL import Image

from d2_detr import cli
from d2_detr.config import load_config
from d2_detr.utils import command_line
from tests.shapes import draw_shapes

FINETUNE = ("finetune", "--data", "DATA", "--weights", "no.pth")
PREDICT = ("predict", "--weights", "no.pth", "--input", "IMAGE", "--output", "out")
VISUALIZE = ("visualize", "--data", "DATA", "--weights", "no.pth", "--output", "out")
TRAIN = ("train", "--config", "detr_compact_balloon.yaml")
EVALUATE = ("evaluate", "--config", "detr_compact_balloon.yaml")
CONVERT = ("convert", "--weights", "no.pth", "--output", "out.pth")
SPLIT = ("split", "FILE", "--images", "IMAGES", "--output", "out")
BENCHMARK = ("benchmark", "--config", "detr_compact_balloon.yaml")
NO_NUMBERS = ("", "x", "1.5", "nan", "9" * 5000)

WRONG = [
    *((FINETUNE, "--epochs", value) for value in ("0", "-1", "nan", "inf", "x", "", "1e300")),
    *((FINETUNE, "--batch-size", value) for value in ("0", "-1", *NO_NUMBERS, "1000000000")),
    *((FINETUNE, "--lr", value) for value in ("0", "-1", "nan", "inf", "x", "")),
    *((FINETUNE, "--lr-backbone", value) for value in ("-1", "nan", "inf", "x")),
    *((FINETUNE, "--lr-drop", value) for value in ("-1", "nan", "inf", "x")),
    *((FINETUNE, "--image-size", value) for value in ("0", "-1", "31", "x", "1000000")),
    *((FINETUNE, "--patience", value) for value in ("-1", "x", "1.5")),
    *((FINETUNE, "--num-gpus", value) for value in ("0", "-1", "x", "1000000")),
    *((FINETUNE, "--dataset_file", value) for value in ("", "x")),
    *((FINETUNE, "--num_classes", value) for value in ("0", "-2", "x", "", "1.5", "None")),
    *((FINETUNE, "--eos_coef", value) for value in ("0", "-1", "2", "x", "", "nan")),
    *((FINETUNE, "--weight_decay", value) for value in ("-1", "x", "", "nan", "1e999")),
    *((FINETUNE, "--clip_max_norm", value) for value in ("-1", "x", "", "None")),
    *((FINETUNE, "--num_workers", value) for value in ("-1", "x", "", "1000000", "1.5")),
    *((FINETUNE, "--device", value) for value in ("gpu", "", "cuda:x", "0")),
    *((FINETUNE, "--seed", value) for value in ("x", "", "1.5", str(2**32))),
    *((FINETUNE, "--dropout", value) for value in ("-1", "1", "x", "")),
    *((FINETUNE, "--giou_loss_coef", value) for value in ("-1", "x", "")),
    *((FINETUNE, "--bbox_loss_coef", value) for value in ("-1", "x", "")),
    *((PREDICT, "--threshold", value) for value in ("-1", "2", "nan", "x", "")),
    *((PREDICT, "--batch-size", value) for value in ("0", "-1", "x", "1000000")),
    *((VISUALIZE, "--num", value) for value in ("0", "-1", "x", "1000000")),
    *((VISUALIZE, "--attention", value) for value in ("-1", "x")),
    *((TRAIN, "--num-gpus", value) for value in ("0", "-1", "x", "1000000")),
    *((TRAIN, "--num-machines", value) for value in ("0", "x", "1000000")),
    *((TRAIN, "--machine-rank", value) for value in ("-1", "1", "x")),
    *((EVALUATE, "--split", value) for value in ("", "x")),
    *((CONVERT, "--to", value) for value in ("", "onnx")),
    *((CONVERT, "--first-class-id", value) for value in ("", "2", "x")),
    *((CONVERT, "--num-classes", value) for value in ("0", "-1", "x", "1000000000")),
    *((CONVERT, "--num-heads", value) for value in ("0", "-1", "x", "1000000000")),
    *((BENCHMARK, "--batch-size", value) for value in ("0", "-1", "x", "1000000000")),
    *((BENCHMARK, "--size", value) for value in ("0 5", "5 -1", "x 5", "5", "1000000 5")),
    *((BENCHMARK, "--precision", value) for value in ("", "float64")),
    *((BENCHMARK, "--repeats", value) for value in ("0", "-1", "x")),
    *((BENCHMARK, "--evaluation", value) for value in ("-1", "x")),
    *((("benchmark-data", "out"), f"--{name}", value) for name in ("images", "val-images", "annotations", "processes")
      for value in ("0", "-1", "x", "1000000000")),
    *((SPLIT, "--val-share", value) for value in ("0", "1", "-1", "nan", "x", "")),
    *((SPLIT, "--seed", value) for value in ("x", "", "1.5")),
]  # fmt: skip
# What the message says instead of the option.
NAMES = {
    "--batch-size": "batch_size|IMS_PER_BATCH|batch size", "--image-size": "image_size", "--lr": "lr",
    "--lr-backbone": "lr_backbone", "--lr-drop": "lr_drop", "--epochs": "epochs|MAX_EPOCHS", "--patience": "patience",
    "--num_classes": "NUM_CLASSES", "--eos_coef": "NO_OBJECT_WEIGHT", "--weight_decay": "WEIGHT_DECAY",
    "--clip_max_norm": "CLIP_VALUE", "--num_workers": "NUM_WORKERS", "--device": "DEVICE", "--seed": "SEED",
    "--dropout": "DROPOUT", "--giou_loss_coef": "GIOU_WEIGHT", "--bbox_loss_coef": "L1_WEIGHT",
    "--threshold": "threshold", "--val-share": "validation share",
}  # fmt: skip


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """What the names in capitals stand for."""
    folder = tmp_path_factory.mktemp("inputs")
    root = draw_shapes(folder / "coco")
    Image.new("RGB", (8, 8)).save(folder / "image.png")
    files = {"DATA": root, "IMAGE": folder / "image.png", "IMAGES": root / "train2017"}
    return {name: str(path) for name, path in files.items()} | {"FILE": f"{root}/annotations/custom_train.json"}


@pytest.fixture
def fails(inputs, tmp_path, monkeypatch, capsys):
    """Run a command that must fail; return its message."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("D2_DETR_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv(command_line.DEBUG_VARIABLE, "")

    def run(*args):
        monkeypatch.setattr(sys, "argv", ["d2_detr", *(inputs.get(arg, arg) for arg in args)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        error = capsys.readouterr().err
        assert stop.value.code in (1, 2) and error.startswith("error: ") and error.count("\n") == 1, error
        assert not any(tmp_path.glob("out*")), "nothing is written"
        return error

    return run


@pytest.mark.parametrize(
    ("command", "option", "value"), WRONG, ids=[f"{c[0]}-{o.lstrip('-')}-{v[:9]}" for c, o, v in WRONG]
)
def test_wrong_value_is_one_line_that_names_the_option(fails, command, option, value):
    error = fails(*command, option, *(value.split() if option == "--size" else [value]))
    assert any(name in error for name in (option, *NAMES.get(option, option).split("|"))), error


@pytest.mark.parametrize("opts", [["SEED"], ["SEDD", "1"], ["SEED", "x"], ["SOLVER", "1"], ["_BASE_", "x"], ["", "1"]])
@pytest.mark.parametrize(
    "command", [FINETUNE, TRAIN, EVALUATE, BENCHMARK, ("check", "--data", "DATA")], ids=lambda c: c[0]
)
def test_wrong_config_options_are_one_line(fails, command, opts):
    error = fails(*command, *opts)
    assert opts[0].split(".")[0] in error


@pytest.mark.parametrize("folder", ["~nobody", "a" * 5000, "", "/dev/null", "/proc/self/mem"], ids=lambda n: n[:6])
@pytest.mark.parametrize("command", ["finetune", "check"])
def test_unusable_folder_is_one_line(fails, command, folder):
    fails(command, "--data", folder)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda text: text[: len(text) // 3], "config.yaml"),
        (lambda text: text[: text.index("SOLVER:")], "config.yaml: its end is missing"),
        (lambda text: "", "config.yaml: empty"),
        (lambda text: text.replace("IMS_PER_BATCH: 32", "IMS_PER_BATCH: 0"), "config.yaml, line"),
        (lambda text: text.replace("OUTPUT_DIR: ", "OUTPUT_DIR: \xff").encode("latin-1"), "not UTF-8 text"),
    ],
    ids=["cut", "cut_between_sections", "empty", "value", "latin_1"],
)
def test_damaged_config_is_not_continued(fails, tmp_path, damage, message):
    text = load_config("detr_compact_balloon.yaml").dump()
    damaged = damage(text)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_bytes(damaged if isinstance(damaged, bytes) else damaged.encode())
    assert message in fails("finetune", "--continue", "--output", "run")


@pytest.mark.parametrize("epochs", ["0", "-1", "nan", "inf"])
def test_continued_epochs_are_checked(fails, tmp_path, epochs):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text(load_config("detr_r50_custom.yaml").dump())
    assert "EPOCHS" in fails("finetune", "--continue", "--output", "run", "--epochs", epochs).upper()
