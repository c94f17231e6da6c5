"""`d2_detr benchmark` in a clone: d2_detr/cli/benchmark.py has its options."""

from d2_detr.cli import run

if __name__ == "__main__":
    run("benchmark")
