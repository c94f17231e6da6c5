"""Every config key that d2_detr adds to Detectron2's, and the defaults that it changes.

A concept has one name from the paper to the loss. Where published configs and checkpoints fix the key, the better word
is the Python argument:

| paper                                | config key                    | argument         | logged as            |
|--------------------------------------|-------------------------------|------------------|----------------------|
| N object queries                     | MODEL.DETR.NUM_OBJECT_QUERIES | num_queries      |                      |
| number of classes, without no-object | MODEL.DETR.NUM_CLASSES        | num_classes      |                      |
| class term of cost and loss          | (1)                           | class_weight     | loss_ce              |
| lambda_L1, L1 term of both           | MODEL.DETR.L1_WEIGHT          | l1_weight        | loss_bbox            |
| lambda_iou, generalized IoU of both  | MODEL.DETR.GIOU_WEIGHT        | giou_weight      | loss_giou            |
| down-weighting of no-object          | MODEL.DETR.NO_OBJECT_WEIGHT   | no_object_weight |                      |
| auxiliary decoding losses            | MODEL.DETR.DEEP_SUPERVISION   | deep_supervision | loss_*_0 .. _{L-2}   |
| d, width of the transformer          | MODEL.DETR.HIDDEN_DIM         | hidden_dim       |                      |
| focal loss and DICE of the masks     | (1)                           |                  | loss_mask, loss_dice |
"""

from __future__ import annotations

from fvcore.common.config import CfgNode

# Datasets of DATASETS.CUSTOM, by split. With the suffix they are the panoptic version of the same images.
CUSTOM_TRAIN, CUSTOM_VAL, CUSTOM_TEST = "custom_train", "custom_val", "custom_test"
PANOPTIC_SUFFIX = "_panoptic"


def add_detr_config(cfg: CfgNode) -> None:
    """Add the keys of DETR to a Detectron2 config, in place.

    Keys that the official wrapper has keep its names and defaults, so that its YAML files load.
    """
    node = type(cfg)  # the CfgNode class of the Detectron2 that made cfg
    detr = cfg.MODEL.DETR = node()

    # Foreground classes, with contiguous ids 0..K-1; -1 counts the categories of the training set.
    detr.NUM_CLASSES = 80
    # A trained detector, frozen while only a mask head is trained (MODEL.MASK_ON). It accepts what MODEL.WEIGHTS does,
    # is read when a training begins, and overrides MODEL.WEIGHTS for the tensors it contains. "" trains everything.
    detr.FROZEN_WEIGHTS = ""

    # Weights of both the matching cost and the loss, as in the paper (section 3.1); that of the class term is 1.
    detr.GIOU_WEIGHT = 2.0
    detr.L1_WEIGHT = 5.0
    # Weight of the no-object class in the cross entropy, in (0, 1].
    detr.NO_OBJECT_WEIGHT = 0.1
    # Compute the loss for the output of every decoder layer, not only of the last one.
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
    # Maximum number of detections in an image. Keep that of a pretrained model.
    detr.NUM_OBJECT_QUERIES = 100

    # Minimum score of a detection. 0 returns all queries, as COCO's AP requires, but computes a mask for each of them.
    detr.SCORE_THRESH_TEST = 0.0
    # Panoptic segmentation, for a dataset with panoptic annotations; requires MODEL.MASK_ON.
    detr.PANOPTIC_ON = False
    # Minimum score of a query that takes part in it.
    detr.PANOPTIC_SCORE_THRESH = 0.85
    # Contiguous ids of the stuff classes; () takes those of the training set.
    detr.STUFF_CLASSES = ()

    # "off", "bf16", or "auto": bf16 if the processor computes in it natively. Heads and losses stay in float32.
    # For fp16 use Detectron2's SOLVER.AMP instead; both at once is an error.
    detr.AUTOCAST = "off"
    # Compute activations again in the backward pass instead of keeping them: less memory, more time, same gradients.
    detr.CHECKPOINT_ACTIVATIONS = False

    # Folder of a custom dataset with the splits custom_train, custom_val and custom_test (data/datasets/layouts.py).
    cfg.DATASETS.CUSTOM = ""
    # Make annotations that cannot be trained on (zero area, outside the image) an error instead of dropping them.
    cfg.DATASETS.STRICT = False

    # "ADAMW" or "SGD".
    cfg.SOLVER.OPTIMIZER = "ADAMW"
    # Learning rate of the backbone, as a multiple of BASE_LR; 0 freezes the backbone.
    cfg.SOLVER.BACKBONE_MULTIPLIER = 0.1
    # Length of the training in epochs; STEPS are then fractions of it in (0, 1), and MAX_ITER is computed. 0: MAX_ITER.
    cfg.SOLVER.MAX_EPOCHS = 0
    # Stop after this many evaluations without a better AP; 0 never stops early.
    cfg.SOLVER.PATIENCE = 0
    # Decay of an exponential moving average of the weights, such as 0.999, that is evaluated and saved; 0 disables it.
    cfg.SOLVER.EMA_DECAY = 0.0

    # Minutes of training that a crash can cost: after so many, a checkpoint is saved.
    cfg.SOLVER.CHECKPOINT_MINUTES = 15.0
    # How many of the latest checkpoints are kept, as model_last.pth, model_last_2.pth, ... until the training ends.
    cfg.SOLVER.CHECKPOINTS_KEPT = 2
    # Steps with a loss or gradient that is not finite that are skipped in a row before the training stops.
    cfg.SOLVER.MAX_BAD_STEPS = 0

    # Fraction of images that may turn out to be missing or damaged during a training; 0 stops at the first one.
    cfg.DATALOADER.MAX_BAD_IMAGES = 0.01
    # Seconds that a worker may take for a batch before the training stops; 0 waits forever.
    cfg.DATALOADER.TIMEOUT = 600.0

    # Results that do not depend on the number of workers, the load of the machine, or on the order in which a GPU adds:
    # deterministic algorithms, and a fixed number of threads. Slower on a GPU.
    cfg.DETERMINISTIC = False

    # Epochs between evaluations, used if EVAL_PERIOD (in iterations) is 0.
    cfg.TEST.EVAL_EPOCHS = 0
    # Write report.html at the end of a training or an evaluation.
    cfg.TEST.REPORT = True

    # The official wrapper's files name no builder: they mean the ResNet that DETR was trained with.
    cfg.MODEL.BACKBONE.NAME = "build_torchvision_resnet_backbone"
    cfg.MODEL.RESNETS.STRIDE_IN_1X1 = False
