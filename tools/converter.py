"""`d2_detr convert` in a clone: d2_detr/cli/convert.py has its options."""

from d2_detr.cli import run

if __name__ == "__main__":
    run("convert")
