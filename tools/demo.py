"""`d2_detr demo` in a clone: d2_detr/cli/demo.py has its options."""

from d2_detr.cli import run

if __name__ == "__main__":
    run("demo")
