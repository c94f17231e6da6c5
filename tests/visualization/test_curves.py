"""Training curves from metrics.json."""

import json

import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from d2_detr.visualization.curves import VALIDATION, plot_panel, read_metrics, save_curves


def write(path, lines):
    path.write_text("".join(line if isinstance(line, str) else json.dumps(line) + "\n" for line in lines))
    return path


def loss(iteration, value=1.0):
    return {"iteration": iteration, "total_loss": value}


def test_a_resumed_run_replaces_lines_after_its_checkpoint(tmp_path):
    ap = {"iteration": 12, "bbox/AP": 3.0}
    metrics = write(
        tmp_path / "metrics.json", [loss(9), loss(19, 2), ap | {"iteration": 15}, loss(14, 5), loss(19, 6), ap]
    )
    assert read_metrics(metrics) == [loss(9), loss(14, 5), loss(19, 6), ap]


def test_an_incomplete_line_is_skipped(tmp_path):
    assert read_metrics(write(tmp_path / "metrics.json", [loss(9), '{"iteration": 19, "total'])) == [loss(9)]


def test_curves_are_drawn_with_some_or_no_metrics(tmp_path):
    save_curves({"run": [loss(9), loss(19, 0.5), {"iteration": 19, "bbox/AP": 3.0}]}, tmp_path / "curves.png")
    save_curves({"nothing yet": []}, tmp_path / "none.png")
    assert num_colors(tmp_path / "curves.png") > 10 and num_colors(tmp_path / "none.png") == 1


def num_colors(path):
    with Image.open(path) as image:
        return len(image.convert("RGB").getcolors(1 << 24))


def test_each_run_has_a_color_and_validation_is_dashed(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(Axes, "plot", lambda self, *points, **style: drawn.append((points, style)))
    validation = {"iteration": 19, "validation/total_loss": 0.7}
    save_curves({"a": [loss(9), validation], "b": [loss(9, 3.0)]}, tmp_path / "curves.png")
    shown = [(style["label"], style["color"], style["linestyle"]) for _, style in drawn]
    assert shown == [("a", "C0", "-"), ("a, validation", "C0", VALIDATION), ("b", "C1", "-")]
    assert drawn[1][0] == ((19,), (0.7,))


@pytest.mark.parametrize(
    ("other", "unit", "x"),
    [([], "epoch", (0.5, 1.0)), ([loss(4)], "iteration", (9, 19))],
    ids=["all_runs", "some_runs"],
)
def test_the_axis_shows_epochs_if_all_runs_recorded_them(other, unit, x):
    axes = Figure().subplots()
    run = [loss(9) | {"epoch": 0.5}, loss(19) | {"epoch": 1.0}]
    plot_panel(axes, "total loss", {"run": run, "other": other})
    assert axes.get_xlabel() == unit and tuple(axes.lines[0].get_xdata()) == x


def test_a_missing_epoch_is_interpolated_from_the_iteration():
    axes = Figure().subplots()
    run = [loss(9) | {"epoch": 0.5}, {"iteration": 13, "class_error": 100.0}, loss(19) | {"epoch": 1.0}]
    plot_panel(axes, "class error (%)", {"run": run})
    assert axes.get_xlabel() == "epoch" and axes.lines[0].get_xdata().tolist() == [0.7]


def test_each_line_of_several_runs_has_its_own_label():
    axes = Figure().subplots()
    run = [{"iteration": 9, "bbox/AP": 1, "bbox/AP50": 2}]
    plot_panel(axes, "AP, AP50 of boxes", {"a": run, "b": run})
    assert [line.get_label() for line in axes.lines] == ["a", "a, AP50", "b", "b, AP50"]
    assert len({(line.get_color(), line.get_linestyle(), str(line._dash_pattern)) for line in axes.lines}) == 4
