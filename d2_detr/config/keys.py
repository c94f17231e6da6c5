"""Every config key that d2_detr adds to Detectron2's, and where its defaults differ.

One concept has one name from the paper to the loss. Where a published config or checkpoint fixes the key, the better
word is the Python argument:

| paper                              | config key                     | argument               | logged as            |
|------------------------------------|--------------------------------|------------------------|----------------------|
| N object queries                   | MODEL.DETR.NUM_OBJECT_QUERIES  | num_queries            |                      |
| classes, without no-object         | MODEL.DETR.NUM_CLASSES         | num_classes            |                      |
| class term of cost and loss        | (1)                            | class_weight           | loss_ce              |
| lambda_L1, L1 term of both         | MODEL.DETR.L1_WEIGHT           | l1_weight              | loss_bbox            |
| lambda_iou, generalised IoU of both| MODEL.DETR.GIOU_WEIGHT         | giou_weight            | loss_giou            |
| down-weight of no-object           | MODEL.DETR.NO_OBJECT_WEIGHT    | no_object_weight       |                      |
| auxiliary decoding losses          | MODEL.DETR.DEEP_SUPERVISION    | deep_supervision       | loss_*_0 .. _{L-2}   |
| d, width of the transformer        | MODEL.DETR.HIDDEN_DIM          | hidden_dim             |                      |
| focal loss and DICE of the masks   | (1)                            |                        | loss_mask, loss_dice |
"""

from __future__ import annotations

from pathlib import Path

from fvcore.common.config import CfgNode


def add_detr_config(cfg: CfgNode) -> None:
    """Add the keys of DETR to a Detectron2 config, in place.

    Names and defaults of the keys that the official wrapper has are the wrapper's, so that its YAML files load.
    """
    node = type(cfg)  # the CfgNode class of the Detectron2 that made cfg
    detr = cfg.MODEL.DETR = node()

    # Foreground classes, with contiguous ids 0..K-1; -1 counts the categories of the training set.
    detr.NUM_CLASSES = 80
    # Trained detector to freeze under a mask head that is trained (MODEL.MASK_ON): whatever MODEL.WEIGHTS takes, and it
    # wins over that for the parts that it holds. It is read where a training begins. "" trains all parameters.
    detr.FROZEN_WEIGHTS = ""

    # Weights of the matching cost and of the loss alike, as in the paper (section 3.1); the class term has 1.
    detr.GIOU_WEIGHT = 2.0
    detr.L1_WEIGHT = 5.0
    # Weight of the no-object class in the cross entropy, in (0, 1].
    detr.NO_OBJECT_WEIGHT = 0.1
    # A loss on the output of every decoder layer, not only of the last.
    detr.DEEP_SUPERVISION = True

    # The transformer. HIDDEN_DIM is divisible by NHEADS and by 4 (sine encoding of x and y).
    detr.NHEADS = 8
    detr.DROPOUT = 0.1
    detr.DIM_FEEDFORWARD = 2048
    detr.ENC_LAYERS = 6
    detr.DEC_LAYERS = 6
    # Layer norm before (True) or after (False) each attention and feed-forward block.
    detr.PRE_NORM = False
    detr.HIDDEN_DIM = 256
    # The most objects that can be found in one picture. A pretrained model keeps its number.
    detr.NUM_OBJECT_QUERIES = 100

    # Least score of what is found. 0 gives all queries, as COCO's AP is defined on; each of them costs a mask, though.
    detr.SCORE_THRESH_TEST = 0.0
    # Panoptic segmentation, of a dataset with panoptic annotations; it needs MODEL.MASK_ON.
    detr.PANOPTIC_ON = False
    # Least score of a query that takes part in it.
    detr.PANOPTIC_SCORE_THRESH = 0.85
    # Contiguous ids of the classes that are not countable; () takes them from the training set.
    detr.STUFF_CLASSES = ()

    # "off", "bf16", or "auto": bf16 where the processor computes in it natively. Heads and losses stay float32.
    # For fp16 use Detectron2's SOLVER.AMP instead; both at once is an error.
    detr.AUTOCAST = "off"

    # Folder of a dataset of one's own, registered as custom_train and custom_val (see data/layouts.py); "" for none.
    cfg.DATASETS.CUSTOM = ""

    # "ADAMW" or "SGD".
    cfg.SOLVER.OPTIMIZER = "ADAMW"
    # The backbone's learning rate is BASE_LR times this; 0 freezes the backbone.
    cfg.SOLVER.BACKBONE_MULTIPLIER = 0.1
    # Length of the training in epochs; 0 uses MAX_ITER. When it is set, STEPS are fractions of the whole in (0, 1).
    cfg.SOLVER.MAX_EPOCHS = 0

    # Epochs from one evaluation to the next, where EVAL_PERIOD, which counts iterations, is 0.
    cfg.TEST.EVAL_EPOCHS = 0
    # A training, and an evaluation, ends with report.html in OUTPUT_DIR.
    cfg.TEST.REPORT = True

    # Evaluations without a better AP after which the training ends; 0 for never.
    cfg.SOLVER.PATIENCE = 0
    # Decay of a moving average of the weights, which is evaluated and saved in place of them, as 0.999; 0 for none.
    cfg.SOLVER.EMA_DECAY = 0.0

    # The wrapper's files do not name a builder: they mean the ResNet that DETR was trained with.
    cfg.MODEL.BACKBONE.NAME = "build_torchvision_resnet_backbone"
    cfg.MODEL.RESNETS.STRIDE_IN_1X1 = False


def config_path(name: str) -> Path:
    """The config file that `name` means: a path, or the bare name of a file somewhere below the shipped `configs/`.

    Raises:
        FileNotFoundError: no such file; the message lists the shipped names.
    """
    if Path(name).is_file():
        return Path(name)
    shipped = {path.name: path for path in sorted(configs_folder().rglob("*.yaml"))}
    if name in shipped:
        return shipped[name]
    raise FileNotFoundError(f"config file {name!r} not found; give a path or one of: {', '.join(sorted(shipped))}")


def configs_folder() -> Path:
    """`configs/`: inside the package when installed from a wheel, beside it in a checkout."""
    package = Path(__file__).parents[1]
    installed = package / "configs"
    return installed if installed.is_dir() else package.parent / "configs"
