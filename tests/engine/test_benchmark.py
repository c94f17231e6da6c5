"""The benchmark: what it compares, measures and writes. How fast anything is does not matter here."""

import json
from importlib.util import find_spec

import pytest
import torch

from d2_detr.config import load_config
from d2_detr.engine.benchmark.arithmetic import CONVOLUTIONS, MATRIX_PRODUCTS, count_flop
from d2_detr.engine.benchmark.batch import draw_batch, to_tensors
from d2_detr.engine.benchmark.compare import check_agreement, figures
from d2_detr.engine.benchmark.contestants import OURS, Ours, freeze_backbone, seeded_model
from d2_detr.engine.benchmark.evaluation import measure_evaluation
from d2_detr.engine.benchmark.lineup import build_contestants, contestant_names, reasons_to_leave_out
from d2_detr.engine.benchmark.loading import measure_loader
from d2_detr.engine.benchmark.measure import Timing, time_alternately
from d2_detr.engine.benchmark.memory import peak_rss
from d2_detr.engine.benchmark.profile import KINDS, OTHER, OUTSIDE, operator_kind, profile_step
from d2_detr.engine.benchmark.results import Results, Row
from d2_detr.engine.benchmark.run import Options, run_benchmark
from d2_detr.modeling.detr import padding_mask
from d2_detr.utils.errors import InputError
from tests.cli.processes import run

CPU = torch.device("cpu")
COMPLETE = (
    "MODEL.RESNETS.NORM FrozenBN MODEL.BACKBONE.FREEZE_AT 2 MODEL.RESNETS.OUT_FEATURES ['res5'] MODEL.DETR.DROPOUT 0.1"
).split()
needs_transformers = pytest.mark.skipif(
    not (find_spec("transformers") and find_spec("timm")), reason="transformers and timm are not installed"
)
needs_native = pytest.mark.skipif(
    not (find_spec("models") and find_spec("util")), reason="no clone of native DETR on the path"
)


@pytest.fixture
def cfg(tiny_opts):
    """A tiny DETR that other implementations can express."""
    return load_config("detr_compact_balloon.yaml", [*tiny_opts, *COMPLETE, "MODEL.DETR.NUM_CLASSES", "3"])


@pytest.fixture
def batch():
    return draw_batch(2, (64, 96), num_classes=3, padded=True)


def test_same_arguments_draw_the_same_batch(batch):
    again = draw_batch(2, (64, 96), num_classes=3, padded=True)
    for first, second in zip(batch, again, strict=True):
        assert torch.equal(first["image"], second["image"])
        assert torch.equal(first["instances"].gt_boxes.tensor, second["instances"].gt_boxes.tensor)
    assert batch[0]["image"].shape == (3, 64, 96) and batch[1]["image"].shape != (3, 64, 96)


def test_tensors_of_a_batch_are_those_of_the_model(cfg, batch):
    model = seeded_model(cfg, "float32")
    tensors, images = to_tensors(model, batch), model.preprocess(batch)
    assert torch.equal(tensors.images, images.tensor) and torch.equal(tensors.padding_mask, padding_mask(images))
    assert tensors.padding_mask[1].any() and not tensors.padding_mask[0].any()
    assert tensors.sizes_hw.tolist() == [list(size) for size in images.image_sizes]


def test_weights_depend_on_the_config_alone(cfg):
    first, second = (seeded_model(cfg, precision).state_dict() for precision in ("float32", "bf16"))
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize(("freeze_at", "trained"), [(0, 5), (1, 4), (2, 3), (5, 0)])
def test_freezing_counts_stem_and_layers(cfg, freeze_at, trained):
    model = seeded_model(cfg, "float32")
    freeze_backbone(model, freeze_at)
    body = model.detr.backbone[0].body
    parts = ("conv1", "layer1", "layer2", "layer3", "layer4")
    assert [all(p.requires_grad for p in body[part].parameters()) for part in parts] == (
        [False] * (5 - trained) + [True] * trained
    )


def test_figures_are_free_of_dropout_which_is_then_restored(cfg, batch):
    ours = Ours(cfg, batch, "float32")
    first, second = figures(ours), figures(ours)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert any(module.p == 0.1 for module in ours.model.modules() if isinstance(module, torch.nn.Dropout))


def change_weights(contestant):
    contestant.model.detr.transformer.encoder.layers[0].linear2.weight.data *= 1.1


def freeze_more(contestant):
    contestant.model.detr.input_proj.requires_grad_(False)


def change_loss(contestant):
    contestant.model.criterion.weights["loss_giou"] *= 1.01


def scale_gradients(contestant):
    next(p for p in contestant.model.detr.backbone.parameters() if p.requires_grad).register_hook(lambda g: 2 * g)


@pytest.mark.parametrize(
    ("change", "figure"),
    [
        (change_weights, "logits"),
        (freeze_more, "trainable parameters"),
        (change_loss, "loss_giou"),
        (scale_gradients, "gradient norm of the backbone"),
    ],
)
def test_contestants_that_differ_are_refused_by_figure(cfg, batch, change, figure):
    ours, other = (Ours(cfg, batch, "float32") for _ in range(2))
    assert max(check_agreement([ours, other])[OURS].values()) < 1e-6
    change(other)
    with pytest.raises(InputError, match=f"does not compute the same as d2_detr: {figure} with a difference"):
        check_agreement([ours, other])


def test_calls_are_timed_in_turn_after_a_warm_up():
    order = []
    timings = time_alternately({name: lambda name=name: order.append(name) for name in "ab"}, 2, CPU)
    assert "".join(order) == "abbaab"
    assert all(t.minimum <= t.median <= t.maximum for t in timings.values())


def test_operations_are_counted_also_in_fused_attention():
    q = torch.rand(1, 2, 8, 4)
    count = count_flop(lambda: torch.nn.functional.scaled_dot_product_attention(q, q, q))
    assert count[MATRIX_PRODUCTS] == 2 * (2 * 2 * 8 * 8 * 4), "two products of (8, 4) and (4, 8) in two heads"


def test_convolutions_are_counted_apart():
    x, weight = torch.rand(1, 3, 8, 8), torch.rand(4, 3, 3, 3, requires_grad=True)
    count = count_flop(lambda: torch.nn.functional.conv2d(x, weight, padding=1))
    assert count == {CONVOLUTIONS: 2 * 3 * 9 * 4 * 64, MATRIX_PRODUCTS: 0}


def test_peak_memory_counts_what_is_freed_again():
    assert peak_rss(lambda: torch.ones(64 * 2**20, dtype=torch.uint8).sum()) >= 60 * 2**20


def test_profile_adds_up_by_kind(cfg, batch):
    seconds = profile_step(Ours(cfg, batch, "float32"), CPU)
    assert list(seconds) == [*KINDS, OTHER, OUTSIDE]
    assert seconds["convolution"] > 0 and seconds["matrix products"] > 0


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("aten::convolution_backward", "convolution"),
        ("aten::_scaled_dot_product_flash_attention_for_cpu", "attention"),
        ("aten::addmm", "matrix products"),
        ("aten::native_layer_norm", "normalization"),
        ("aten::_foreach_lerp_", "optimizer and clipping"),
        ("aten::copy_", "copies and conversions"),
        ("aten::relu", "elementwise"),
        ("aten::roll", "other operators"),
    ],
)
def test_operators_are_grouped_by_name(name, kind):
    assert operator_kind(name) == kind


def test_loader_and_evaluation_are_measured(cfg, batch):
    loader = measure_loader(cfg, num_images=2, side=64)
    assert loader["decoding"] > 0 and loader["loading"] > 0
    speeds = measure_evaluation(cfg, [Ours(cfg, batch, "float32")], 2, side=64)
    assert speeds.keys() == {OURS} and speeds[OURS] > 0


@pytest.mark.parametrize(
    ("opts", "reason"),
    [
        ("MODEL.RESNETS.NORM BN MODEL.BACKBONE.FREEZE_AT 0", "trains it (MODEL.RESNETS.NORM BN)"),
        ("MODEL.RESNETS.OUT_FEATURES ['res4']", "this one at res4"),
        ("MODEL.MASK_ON True", "mask head"),
    ],
)
def test_model_without_peers_is_explained(tiny_opts, opts, reason):
    cfg = load_config("detr_compact_balloon.yaml", [*tiny_opts, *COMPLETE, *opts.split()])
    assert contestant_names(cfg, "bf16", peers=True) == [OURS]
    assert all(reason in explanation for explanation in reasons_to_leave_out(cfg).values())


def test_summary_names_the_fastest_peer_with_the_same_work():
    rows = [
        Row(OURS, "float32", train=Timing(2.0, 1.9, 2.1), memory=2**20),
        Row("slow", "float32", train=Timing(5.0, 5.0, 5.0)),
        Row("peer", "float32", train=Timing(3.0, 3.0, 3.0)),
        Row("cheat", "float32", same_work=False, train=Timing(1.0, 1.0, 1.0)),
    ]
    results = Results(
        {}, rows, {"other": "not installed"}, flop={"train": {"x": 10**9}}, limits={"float32": {"x": 1e9}}
    )
    assert results.speedup("float32", "train") == ("peer", 1.5)
    assert results.share_of_limit(rows[0], "train") == 0.5
    text = results.as_markdown()
    for part in ("2.000 (1.900 to 2.100)", "1.50 times as fast as the fastest peer, peer", "other is left out"):
        assert part in text
    assert "inference" not in text.split("Operations")[0], "what was not measured has no column"


@pytest.mark.parametrize(("wrong"), [{"repeats": 0}, {"batch_size": 0}, {"size_hw": (0, 64)}, {"evaluation": -1}])
def test_wrong_numbers_are_refused(cfg, wrong):
    with pytest.raises(InputError, match="expected positive numbers"):
        run_benchmark(cfg, Options(**wrong))


def test_command_writes_table_json_and_plot_without_peers(tiny_opts, tmp_path):
    status, output = run(
        tmp_path, "benchmark.py", "--config", "detr_compact_balloon.yaml", "--batch", 2, "--size", 64, 64, "--repeats",
        1, "--precision", "float32", "--memory", "--profile", "--output", tmp_path / "out", *tiny_opts,
    )  # fmt: skip
    assert status == 0, output
    table = (tmp_path / "out/results.md").read_text()
    assert table in output and "transformers is left out" in table
    results = json.loads((tmp_path / "out/results.json").read_text())
    [row] = results["rows"]
    assert (row["name"], row["precision"]) == (OURS, "float32")
    assert row["train"]["median"] > 0 and row["inference"]["median"] > 0 and row["profile"]
    flop = {name: sum(counts.values()) for name, counts in results["flop"].items()}
    assert row["memory"] is not None and flop["train"] > flop["inference"] > 0
    assert (tmp_path / "out/results.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("transformers", marks=needs_transformers),
        pytest.param("transformers, its dropout", marks=needs_transformers),
        pytest.param("native DETR", marks=needs_native),
    ],
)
def test_peer_computes_the_same_and_trains(cfg, batch, name):
    contestants = build_contestants(cfg, batch, "float32", [OURS, name])
    assert max(check_agreement(list(contestants.values()))[name].values()) < 1e-4
    peer = contestants[name]
    before = peer.losses()["loss_ce"].item()
    peer.train_step()
    assert peer.losses()["loss_ce"].item() != before
    assert len(peer.infer()) == 2


@needs_transformers
def test_peers_are_in_the_results_and_the_plot(cfg, tmp_path):
    options = Options(batch_size=1, size_hw=(64, 64), repeats=1, precisions=["bf16"])
    results = run_benchmark(cfg, options)
    results.save(tmp_path)
    rows = {row.name: row for row in results.rows}
    assert rows["transformers"].train and rows["transformers"].inference
    assert rows["transformers, its dropout"].inference is None
    assert rows["transformers, cast weights"].train is None
    assert "transformers" in results.differences and results.speedup("bf16", "train")


@needs_transformers
def test_evaluation_of_transformers_is_measured(cfg, batch):
    contestants = build_contestants(cfg, batch, "float32", [OURS, "transformers"])
    speeds = measure_evaluation(cfg, contestants.values(), 1, side=64)
    assert speeds.keys() == {OURS, "transformers"}
