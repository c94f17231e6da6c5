"""`d2_detr finetune` in a clone: d2_detr/cli/finetune.py has its options."""

from d2_detr.cli import run

if __name__ == "__main__":
    run("finetune")
