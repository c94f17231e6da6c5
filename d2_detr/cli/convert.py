"""Convert a checkpoint between this plugin, native DETR, the official Detectron2 wrapper and Hugging Face.

d2_detr convert --weights detr://r50 --inspect
d2_detr convert --weights detr-r50-e632da11.pth --output detr_r50.pth
d2_detr convert --weights outputs/mine/model_best.pth --to hf --output my_detr

The source is recognized by the names of its tensors: a file (.pth, .bin, .safetensors), a Hugging Face folder, an https
address, or the name of a published model (detr://r50). MODEL.WEIGHTS accepts all of them without conversion.
"""

from __future__ import annotations

import argparse

from d2_detr.checkpoint.convert import Format, convert
from d2_detr.checkpoint.inspection import describe_checkpoint
from d2_detr.checkpoint.layouts import WRITABLE_FORMATS
from d2_detr.checkpoint.model_config import converted_metadata
from d2_detr.checkpoint.read import read_checkpoint
from d2_detr.checkpoint.write import write_checkpoint
from d2_detr.cli.options import whole_number
from d2_detr.config.checking import MAX_CLASSES
from d2_detr.utils.command_line import CommandParser
from d2_detr.utils.errors import error_context


def parse_args() -> argparse.Namespace:
    """Parse the options of `convert`."""
    parser = CommandParser("convert", __doc__)
    add = parser.add_argument
    add("--weights", "--source_model", required=True, metavar="FILE", help="source: path, address or name")
    add("--output", "--output_model", metavar="PATH", help="file to write (.pth, .safetensors); for hf a folder")
    layouts = [format.value for format in WRITABLE_FORMATS]
    add("--to", choices=layouts, default="plugin", help="layout to write (default: plugin)")
    add("--inspect", action="store_true", help="describe the source, and write nothing")
    add("--first-class-id", type=int, choices=(0, 1), help="category id of the first class, if the rows leave it open")
    head = parser.add_mutually_exclusive_group()
    head.add_argument("--remove-class-head", action="store_true", help="leave the class head out")
    help_classes = "replace the class head by an untrained one"
    head.add_argument("--num-classes", type=whole_number(1, MAX_CLASSES), metavar="N", help=help_classes)
    head.add_argument("--keep-classes", metavar="A,B", help="keep only the rows of these classes, such as person,dog")
    add(
        "--num-heads",
        type=whole_number(1, 256),
        metavar="N",
        help="attention heads, if the source does not have the number",
    )
    add("--dc5", action="store_true", help="the backbone is dilated, if the source does not say so")
    args = parser.parse_args()
    if not args.inspect and not args.output:
        parser.error("give --output, or --inspect")
    return args


def main() -> None:
    """Run `d2_detr convert`."""
    args = parse_args()
    source = read_checkpoint(args.weights)
    with error_context(args.weights):
        if args.inspect:
            print(describe_checkpoint(source))
            return
        state_dict, report = convert(
            source.state_dict,
            Format(args.to),
            label_map=source.metadata.label_map,
            first_class_id=args.first_class_id,
            remove_class_head=args.remove_class_head,
            new_classes=args.num_classes,
            keep_classes=[name.strip() for name in args.keep_classes.split(",")]
            if args.keep_classes is not None
            else None,
        )
        opts = ["MODEL.DETR.NHEADS", str(args.num_heads)] if args.num_heads else []
        opts += ["MODEL.RESNETS.RES5_DILATION", "2"] if args.dc5 else []
        metadata = converted_metadata(source, report.label_map, opts)
    write_checkpoint(args.output, state_dict, Format(args.to), metadata)
    print("; ".join([f"{args.weights}: {report}", *filter(None, [source.metadata.warning])]))
    print(f"{args.output}: written in the layout of {Format(args.to).title}")
