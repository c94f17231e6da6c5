import json

from PIL import Image

from d2_detr.visualization.curves import read_metrics, save_curves


def write(path, lines):
    path.write_text("".join(line if isinstance(line, str) else json.dumps(line) + "\n" for line in lines))
    return path


def loss(iteration, value=1.0):
    return {"iteration": iteration, "total_loss": value}


def test_a_resumed_run_replaces_what_was_written_behind_its_checkpoint(tmp_path):
    ap = {"iteration": 12, "bbox/AP": 3.0}
    metrics = write(
        tmp_path / "metrics.json", [loss(9), loss(19, 2), ap | {"iteration": 15}, loss(14, 5), loss(19, 6), ap]
    )
    assert read_metrics(metrics) == [loss(9), loss(14, 5), loss(19, 6), ap]


def test_a_line_that_was_cut_short_is_left_out(tmp_path):
    assert read_metrics(write(tmp_path / "metrics.json", [loss(9), '{"iteration": 19, "total'])) == [loss(9)]


def test_curves_are_drawn_from_whatever_metrics_there_are(tmp_path):
    save_curves([loss(9), loss(19, 0.5), {"iteration": 19, "bbox/AP": 3.0}], tmp_path / "curves.png")
    with Image.open(tmp_path / "curves.png") as picture:
        assert len(picture.convert("RGB").getcolors(1 << 24)) > 10
