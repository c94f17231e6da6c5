"""What must be settled before torch and detectron2 are imported: how threads wait, and which `detectron2` is used."""

from __future__ import annotations

import importlib.util
import logging
import os
import sys
from pathlib import Path

EMBEDDED = Path(__file__).parent / "_embedded"
# Those of OpenMP in general and of GNU's, with which torch is built. They are read once, when torch is loaded.
_WAITING_VARIABLES = {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"}


def limit_spinning() -> None:
    """Let threads that wait for each other sleep after a tenth of a millisecond, unless a variable says how they wait.

    By default they spin for 30 times as long. This is not slower alone, and leaves more to other processes on the same
    cores (docs/benchmarks.md).
    """
    if not _WAITING_VARIABLES & set(os.environ):
        os.environ["GOMP_SPINCOUNT"] = "10000"


def settle_detectron2() -> None:
    """Make `import detectron2` work; to be called before the first one.

    An installed Detectron2 (wheel or editable) always wins. A bare clone in the working folder is not an installation:
    Python sees it as a namespace package without a file of its own, which would fail later on a missing name.
    """
    spec = importlib.util.find_spec("detectron2")
    if spec is None or spec.origin is None:
        sys.modules.pop("detectron2", None)
        sys.path.append(str(EMBEDDED))

    import detectron2

    logger = logging.getLogger(__name__)
    logger.info("detectron2 %s from %s", detectron2.__version__, Path(str(detectron2.__file__)).parent)
