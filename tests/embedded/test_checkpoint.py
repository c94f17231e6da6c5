import os

import pytest
import torch
from torch import nn

import d2_detr  # noqa: F401  (selects the detectron2 to import)

import detectron2
from detectron2.checkpoint import DetectionCheckpointer

embedded_only = pytest.mark.skipif(
    "embedded" not in detectron2.__version__, reason="specific to the embedded detectron2"
)


def linear(value: float) -> nn.Linear:
    model = nn.Linear(2, 1)
    nn.init.constant_(model.weight, value)
    nn.init.constant_(model.bias, value)
    return model


def is_filled_with(model, value):
    return all(bool((param == value).all()) for param in model.parameters())


def test_checkpoint_has_model_checkpointables_and_extra_values(tmp_path):
    model = linear(1.0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    DetectionCheckpointer(model, str(tmp_path), optimizer=optimizer).save("model_0000099", iteration=99)

    assert sorted(os.listdir(tmp_path)) == ["last_checkpoint", "model_0000099.pth"]
    assert (tmp_path / "last_checkpoint").read_text() == "model_0000099.pth"
    content = torch.load(tmp_path / "model_0000099.pth", weights_only=True)
    assert list(content) == ["model", "optimizer", "iteration"]
    assert list(content["model"]) == ["weight", "bias"]
    assert content["iteration"] == 99


def test_only_resuming_restores_the_optimizer(tmp_path):
    model = linear(1.0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    DetectionCheckpointer(model, str(tmp_path), optimizer=optimizer).save("first", iteration=7)

    for resume, lr in [(True, 0.5), (False, 9.0)]:
        model = linear(0.0)
        optimizer = torch.optim.SGD(model.parameters(), lr=9.0)
        checkpointer = DetectionCheckpointer(model, str(tmp_path), optimizer=optimizer)
        rest = checkpointer.resume_or_load(str(tmp_path / "first.pth"), resume=resume)
        assert is_filled_with(model, 1.0)
        assert optimizer.param_groups[0]["lr"] == lr
        assert rest["iteration"] == 7


def test_a_bare_state_dict_can_be_loaded(tmp_path):
    torch.save(linear(1.0).state_dict(), tmp_path / "bare.pth")
    model = linear(0.0)
    DetectionCheckpointer(model).load(str(tmp_path / "bare.pth"))
    assert is_filled_with(model, 1.0)


def test_an_empty_path_loads_nothing():
    model = linear(1.0)
    assert DetectionCheckpointer(model).load("") == {}
    assert is_filled_with(model, 1.0)


def test_nothing_is_written_without_a_folder_or_save_to_disk(tmp_path):
    DetectionCheckpointer(linear(1.0)).save("a")
    DetectionCheckpointer(linear(1.0), str(tmp_path), save_to_disk=False).save("a")
    assert os.listdir(tmp_path) == []


@embedded_only
@pytest.mark.parametrize("name", ["a.pkl", "a.pth?matching_heuristics=True"])
def test_unsupported_files_are_refused_with_a_hint(tmp_path, name):
    torch.save(linear(1.0).state_dict(), tmp_path / name.partition("?")[0])
    with pytest.raises((NotImplementedError, ValueError), match="install the real Detectron2"):
        DetectionCheckpointer(linear(0.0)).load(f"{tmp_path}/{name}")


@embedded_only
def test_a_failed_save_leaves_the_last_checkpoint_intact(tmp_path):
    model = linear(1.0)
    checkpointer = DetectionCheckpointer(model, str(tmp_path))
    checkpointer.save("model")
    with pytest.raises(Exception, match="pickle"):
        checkpointer.save("model", extra=lambda: None)
    nn.init.constant_(model.weight, 0.0)
    checkpointer.resume_or_load("")
    assert is_filled_with(model, 1.0)
