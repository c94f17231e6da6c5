"""Which `detectron2` is used: an installed one, or the subset that d2_detr carries."""

from __future__ import annotations

import importlib.util
import logging
import sys
from pathlib import Path

EMBEDDED = Path(__file__).parent / "_embedded"


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
