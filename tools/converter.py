"""Convert a checkpoint of DETR between this plugin, native DETR, the official Detectron2 wrapper and Hugging Face.

python tools/converter.py --source_model detr://r50 --inspect
python tools/converter.py --source_model detr-r50-e632da11.pth --output_model detr_r50.pth
python tools/converter.py --source_model outputs/mine/model_best.pth --to hf --output_model my_detr

The source is recognised by the names of its tensors: a file (.pth, .bin, .safetensors), a folder of Hugging Face's, an
https address, or the name of a published model (detr://r50). MODEL.WEIGHTS takes all of them as they are, too.
"""

from __future__ import annotations

import argparse

from d2_detr.checkpoint.convert import Format, convert
from d2_detr.checkpoint.inspection import inspect
from d2_detr.checkpoint.metadata import checkpoint_metadata
from d2_detr.checkpoint.model_config import converted_metadata
from d2_detr.checkpoint.read import read_checkpoint
from d2_detr.checkpoint.weights import local_weights
from d2_detr.checkpoint.write import write_checkpoint
from d2_detr.utils.command_line import ToolParser
from d2_detr.utils.errors import InputError, error_context, one_clear_message

TARGETS = [format.value for format in Format if format is not Format.IMAGENET]


def parse_args() -> argparse.Namespace:
    parser = ToolParser(__doc__)
    parser.add_argument("--source_model", required=True, metavar="SOURCE", help="path, address or name")
    parser.add_argument("--output_model", metavar="PATH", help="file to write (.pth, .safetensors); for hf a folder")
    parser.add_argument("--to", choices=TARGETS, default="plugin", help="layout to write (default: plugin)")
    parser.add_argument("--inspect", action="store_true", help="say what the source is, and write nothing")
    parser.add_argument(
        "--first-class-id", type=int, choices=(0, 1), help="category id of the first class, where the rows don't tell"
    )
    head = parser.add_mutually_exclusive_group()
    head.add_argument("--remove-class-head", action="store_true", help="leave out the class head")
    head.add_argument("--num-classes", type=int, metavar="N", help="put an untrained class head of N classes in place")
    head.add_argument("--keep-classes", metavar="A,B", help="keep the rows of these classes, as person,dog")
    parser.add_argument("--num-heads", type=int, metavar="N", help="attention heads, where the source does not tell")
    parser.add_argument("--dc5", action="store_true", help="the backbone is dilated, where the source does not tell")
    args = parser.parse_args()
    if not args.inspect and not args.output_model:
        parser.error("give --output_model, or --inspect")
    return args


def main() -> None:
    args = parse_args()
    if args.num_classes is not None and args.num_classes < 1:
        raise InputError(f"--num-classes {args.num_classes}: expected 1 or more")
    file = local_weights(args.source_model)
    source = read_checkpoint(file)
    with error_context(args.source_model):
        metadata = checkpoint_metadata(source)
        if args.inspect:
            print(inspect(source["model"], metadata))
            return
        state_dict, report = convert(
            source["model"],
            Format(args.to),
            label_map=metadata.label_map,
            first_class_id=args.first_class_id,
            remove_class_head=args.remove_class_head,
            new_classes=args.num_classes,
            keep_classes=[name.strip() for name in args.keep_classes.split(",")] if args.keep_classes else None,
        )
        opts = ["MODEL.DETR.NHEADS", str(args.num_heads)] if args.num_heads else []
        opts += ["MODEL.RESNETS.RES5_DILATION", "2"] if args.dc5 else []
        known = converted_metadata(source, file, report.label_map, opts)
    write_checkpoint(args.output_model, state_dict, Format(args.to), known)
    print("; ".join([f"{args.source_model}: {report}", *filter(None, [metadata.warning])]))
    print(f"{args.output_model}: written in the layout of {Format(args.to).title}")


if __name__ == "__main__":
    with one_clear_message():
        main()
