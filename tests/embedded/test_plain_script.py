"""A plain training script with the model, mapper and data of the plugin.

It runs with the embedded and with the real Detectron2.
"""

import json

import pytest
import torch

from d2_detr import add_detr_config
from d2_detr.config import config_path
from d2_detr.data.datasets import register_dataset
from d2_detr.data.mapper import DetrDatasetMapper

from detectron2.checkpoint import DetectionCheckpointer, PeriodicCheckpointer
from detectron2.config import get_cfg
from detectron2.data import build_detection_test_loader, build_detection_train_loader
from detectron2.engine import default_argument_parser, default_setup, default_writers
from detectron2.evaluation import COCOEvaluator, inference_on_dataset, print_csv_format
from detectron2.modeling import build_model
from detectron2.solver import build_lr_scheduler
from detectron2.utils import comm
from detectron2.utils.events import EventStorage


def train(cfg, model):
    optimizer = torch.optim.AdamW(model.parameters(), lr=cfg.SOLVER.BASE_LR)
    scheduler = build_lr_scheduler(cfg, optimizer)
    checkpointer = DetectionCheckpointer(model, cfg.OUTPUT_DIR, optimizer=optimizer, scheduler=scheduler)
    periodic = PeriodicCheckpointer(checkpointer, cfg.SOLVER.CHECKPOINT_PERIOD, max_iter=cfg.SOLVER.MAX_ITER)
    writers = default_writers(cfg.OUTPUT_DIR, cfg.SOLVER.MAX_ITER)
    loader = build_detection_train_loader(cfg, mapper=DetrDatasetMapper(cfg, is_train=True))
    with EventStorage() as storage:
        for batch, iteration in zip(loader, range(cfg.SOLVER.MAX_ITER), strict=False):
            losses = model(batch)
            optimizer.zero_grad()
            total_loss = sum(losses.values())
            total_loss.backward()
            optimizer.step()
            storage.put_scalars(**{name: loss.item() for name, loss in losses.items()}, total_loss=total_loss.item())
            storage.put_scalar("lr", optimizer.param_groups[0]["lr"], smoothing_hint=False)
            scheduler.step()
            for writer in writers:
                writer.write()
            periodic.step(iteration)
            storage.step()


@pytest.mark.usefixtures("drawn_balloons")
def test_a_plain_script_trains_writes_and_evaluates(tiny_opts, tmp_path):
    file = str(config_path("detr_compact_balloon_drawn.yaml"))
    args = default_argument_parser().parse_args(["--config-file", file, *tiny_opts])
    cfg = get_cfg()
    add_detr_config(cfg)
    cfg.merge_from_file(args.config_file)
    cfg.merge_from_list([*args.opts, "MODEL.DETR.NUM_CLASSES", "1"])
    default_setup(cfg, args)
    for name in (*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST):
        register_dataset(name)
    model = build_model(cfg)
    train(cfg, model)

    assert comm.is_main_process()
    lines = [json.loads(line) for line in (tmp_path / "metrics.json").read_text().splitlines()]
    assert [line["iteration"] for line in lines] == list(range(6))
    assert (tmp_path / "last_checkpoint").read_text() == "model_final.pth"
    state = DetectionCheckpointer(model).load(str(tmp_path / "model_final.pth"))
    assert state["iteration"] == 5 and state["scheduler"]["last_epoch"] == 6
    loader = build_detection_test_loader(cfg, cfg.DATASETS.TEST[0], mapper=DetrDatasetMapper(cfg, is_train=False))
    results = inference_on_dataset(model, loader, COCOEvaluator(cfg.DATASETS.TEST[0], output_dir=str(tmp_path)))
    print_csv_format(results)
    assert {"AP", "AP50", "AP75"} <= set(results["bbox"])
