"""Write predictions beside the ground truth as pictures, the training curves, and where the model looks.

python tools/visualize.py --config detr_compact_balloon_drawn.yaml --output pictures MODEL.WEIGHTS model_final.pth
"""

from __future__ import annotations

import argparse
from pathlib import Path

from d2_detr.data.classes import dataset_classes
from d2_detr.data.pictures import read_picture
from d2_detr.engine import load_config
from d2_detr.engine.inference import load_model, look_into, predict_dataset
from d2_detr.engine.objects import objects_found, objects_in
from d2_detr.errors import one_clear_message
from d2_detr.visualization.attention import draw_attention
from d2_detr.visualization.curves import read_metrics, save_curves
from d2_detr.visualization.figures import save_png
from d2_detr.visualization.predictions import Comparison, save_comparisons


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config-file", default="", metavar="FILE")
    parser.add_argument("--data", default="", metavar="FOLDER", help="dataset of your own, as for train_net.py")
    parser.add_argument("--output", required=True, type=Path, metavar="FOLDER", help="where to write the pictures")
    parser.add_argument("--num", type=int, default=12, help="how many pictures of the test set (default 12)")
    parser.add_argument("--threshold", type=float, default=0.7, help="least score that is shown (default 0.7)")
    parser.add_argument("--attention", type=int, default=2, help="of how many pictures to show attention (default 2)")
    parser.add_argument("opts", nargs=argparse.REMAINDER, help="KEY VALUE pairs that override the config")
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    cfg = load_config(args.config_file, args.opts, args.data)
    dataset_name = cfg.DATASETS.TEST[0]
    class_names = dataset_classes(dataset_name)
    model = load_model(cfg)
    comparisons: list[Comparison] = []
    for dataset_dict, inputs, output in predict_dataset(cfg, model, dataset_name, args.num):
        path = Path(dataset_dict["file_name"])
        picture = read_picture(path, annotated_wh=(dataset_dict["width"], dataset_dict["height"]))
        truth = objects_in(dataset_dict, masks=cfg.MODEL.MASK_ON)
        comparison = Comparison(path.name, picture, truth, objects_found(output).above(args.threshold))
        save_comparisons([comparison], class_names, args.output / f"{path.stem}.png")
        if len(comparisons) < args.attention:
            instances, queries, attention = look_into(model, inputs, args.threshold)
            found = objects_found({"instances": instances})
            figure = draw_attention(picture, attention, found, queries, class_names)
            save_png(figure, args.output / f"{path.stem}_attention.png")
        comparisons.append(comparison)
    save_comparisons(comparisons, class_names, args.output / "overview.png", columns=3)
    metrics = Path(cfg.OUTPUT_DIR) / "metrics.json"
    if metrics.is_file():
        save_curves({Path(cfg.OUTPUT_DIR).name: read_metrics(metrics)}, args.output / "curves.png")
    print(f"{len(comparisons)} pictures of {dataset_name} in {args.output}, all of them in {args.output}/overview.png")


if __name__ == "__main__":
    with one_clear_message():
        main()
