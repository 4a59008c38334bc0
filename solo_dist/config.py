"""The schema of a config: nested dataclasses, with a line of text and the check of its values beside each field.

A recipe, a file in `configs/`, makes a `Config`; the command line overrides single fields (`--config.train.steps=500`).
Shape legend used across the project: B images, HxW canvas, hxw = H/4 x W/4 mask features, M instances (padded),
L levels with S_l x S_l grids, N = sum of S_l^2 cells, K positives (padded), C categories, E kernel channels.

This module imports no TensorFlow.
"""

import dataclasses
import json
import re
from collections.abc import Mapping
from typing import Any

from solo_dist import options
from solo_dist.errors import ConfigError
from solo_dist.options import bounded, checked, choice

CANVAS_MULTIPLE = 32
MASK_STRIDE = 4
PYRAMID_LEVELS = ("p2", "p3", "p4", "p5", "p6")


def parse_size(text: str) -> tuple[int, int] | None:
    """Height and width of a text HEIGHTxWIDTH, such as 512x768; None if it is of another form."""
    match = re.fullmatch(r"(\d+)x(\d+)", text, re.ASCII)
    return (int(match[1]), int(match[2])) if match else None


def parse_canvas(text: str) -> tuple[int, int]:
    """Height and width of the flag --canvas=HEIGHTxWIDTH. Raises ConfigError."""
    size = parse_size(text)
    if size is None or any(not side or side % CANVAS_MULTIPLE for side in size):
        raise ConfigError(f"--canvas={text} must be HEIGHTxWIDTH in multiples of 32, for example 512x768.")
    return size


def check_canvas(option: str, canvas: Any) -> None:
    """Raises ConfigError unless the canvas is two multiples of 32. The option is named in its message."""
    if len(canvas) != 2 or not all(isinstance(side, int) for side in canvas):
        raise ConfigError(f"{option}={canvas} must be height, width, for example 448,768.")
    if any(side <= 0 or side % CANVAS_MULTIPLE for side in canvas):
        rounded = tuple(max(CANVAS_MULTIPLE, round(side / CANVAS_MULTIPLE) * CANVAS_MULTIPLE) for side in canvas)
        raise ConfigError(f"{option}={canvas} must be height, width in multiples of 32, for example {rounded}.")


def _check_scale(option: str, scale: Any) -> None:
    if len(scale) != 2 or not 0 < scale[0] <= scale[1]:
        raise ConfigError(f"{option}={scale} must be 0 < smallest <= largest, for example 0.8,1.2.")


def _check_short_sides(option: str, sides: Any) -> None:
    if not all(isinstance(side, int) and side > 0 for side in sides):
        raise ConfigError(f"{option}={sides} must be lengths, for example 640,800; () for none.")


def _check_stages(option: str, numbers: Any) -> None:
    if numbers and not (len(numbers) == 4 and all(isinstance(number, int) and number > 0 for number in numbers)):
        raise ConfigError(f"{option}={numbers} must be four positive numbers, for example 1,2,2,1; () for none.")


def _check_cache_dir(option: str, folder: str) -> None:
    if "://" in folder:
        raise ConfigError(f"{option}={folder} must be a folder on a local disk.")


def _check_micro_batch(option: str, images: str) -> None:
    if images != "auto" and not (str(images).isdigit() and int(images) > 0):
        raise ConfigError(f"{option}={images!r} must be auto or a positive number of images.")


@dataclasses.dataclass
class GridConfig:
    """The grids of SOLO: which pyramid levels predict, with how many cells, for instances of which size."""

    levels: tuple[str, ...] = PYRAMID_LEVELS
    """Pyramid levels that carry a grid, finest first; any subset of p2..p6."""
    sizes: tuple[int, ...] = (40, 36, 24, 16, 12)
    """S_l, cells along each side of a level's grid."""
    scale_ranges: tuple[tuple[int, int], ...] = ((1, 96), (48, 192), (96, 384), (192, 768), (384, 2048))
    """Inclusive bounds of sqrt(box width * box height) in canvas pixels that a level is responsible for."""
    center_sigma: float = bounded(0.2, above=0)
    """Side of the central region relative to the box; its cells are the positives."""

    @property
    def num_cells(self) -> int:
        """N, the number of cells of all levels together."""
        return sum(size * size for size in self.sizes)

    @property
    def first_cells(self) -> list[int]:
        """The index of each level's first cell among the N cells."""
        return [sum(size * size for size in self.sizes[:level]) for level in range(len(self.sizes))]

    def validate(self) -> None:
        """Raises ConfigError if the three tuples do not describe the same levels."""
        if not self.levels:
            raise ConfigError("model.grid.levels is empty; name at least one of p2, p3, p4, p5, p6.")
        unknown = [name for name in self.levels if name not in PYRAMID_LEVELS]
        if unknown or list(self.levels) != sorted(set(self.levels)):
            raise ConfigError(
                f"model.grid.levels={self.levels} must be distinct names out of {PYRAMID_LEVELS}, in order."
            )
        if not len(self.levels) == len(self.sizes) == len(self.scale_ranges):
            raise ConfigError(
                f"model.grid has {len(self.levels)} levels, {len(self.sizes)} sizes and {len(self.scale_ranges)} "
                "scale_ranges; give one of each for every level."
            )
        if any(size < 1 for size in self.sizes):
            raise ConfigError(f"model.grid.sizes={self.sizes} must all be at least 1.")
        if any(len(bounds) != 2 or bounds[0] > bounds[1] for bounds in self.scale_ranges):
            raise ConfigError(f"model.grid.scale_ranges={self.scale_ranges} must be pairs (smallest, largest).")


@dataclasses.dataclass
class AugmentConfig:
    """Random changes of a training image. If any moves pixels, except the flip, targets are computed again."""

    flip: bool = True
    """Exchange left and right with probability 1/2."""
    turn: bool = False
    """Turn by 0, 90, 180 or 270 degrees at random; with flip, all symmetries of a square. Needs a square canvas."""
    brightness: float = bounded(0.0, at_least=0)
    """Largest change of brightness, as a share of the full range."""
    contrast: float = bounded(0.0, at_least=0)
    """Contrast factor drawn from [1 - c, 1 + c]."""
    saturation: float = bounded(0.0, at_least=0)
    """Saturation factor drawn from [1 - s, 1 + s]."""
    hue: float = bounded(0.0, at_least=0, at_most=0.5)
    """Largest change of hue, as a share of the colour circle."""
    scale: tuple[float, float] = checked((1.0, 1.0), _check_scale)
    """Random scale relative to the image fitted into the canvas; (0.1, 2.0) is large-scale jitter."""
    crop: float = bounded(0.0, at_least=0, below=0.5)
    """Largest share cut off at each side; an image still larger than the canvas is cropped to it at random."""
    short_sides: tuple[int, ...] = checked((), _check_short_sides)
    """Short sides to draw from at random, the long side bounded by the canvas: the official multi-scale training."""
    mosaic: float = bounded(0.0, at_least=0, at_most=1)
    """Probability that four images, windows of them if they are large, share a canvas."""
    mosaic_scale: tuple[float, float] = checked((0.5, 1.0), _check_scale)
    """Random scale of each image of a mosaic, in place of data.augment.scale; 1: as large as fits into the canvas."""
    paste: float = bounded(0.0, at_least=0, at_most=1)
    """Probability that some instances of another image are pasted over the image, or over the mosaic."""
    off_for_last: float = bounded(0.0, at_least=0, at_most=1)
    """Share of the schedule, at its end, without mosaic and paste, so that training ends on images as they are."""

    @property
    def changes_geometry(self) -> bool:
        """Whether images are scaled or cut at random; flips and turns keep every pixel."""
        return self.scale != (1.0, 1.0) or self.crop > 0 or bool(self.short_sides)

    @property
    def composes(self) -> bool:
        """Whether a canvas can hold parts of several images."""
        return self.mosaic > 0 or self.paste > 0

    @property
    def largest_scale(self) -> float:
        """The largest scale that is drawn, relative to the image fitted into the canvas."""
        return max(self.scale[1], self.mosaic_scale[1] if self.mosaic else 0.0)


@dataclasses.dataclass
class DataConfig:
    """Where the shards are and how a batch is made of them."""

    train: str = ""
    """Folder of training shards, with its manifest.json."""
    validation: str = ""
    """Folder of validation shards; empty: no evaluation during training."""
    mix: tuple[str, ...] = ()
    """Further folders of training shards with the same categories, from which a share of the images comes."""
    mix_weights: tuple[float, ...] = ()
    """Shares of data.train and of each of data.mix, in any unit; (): in proportion to their numbers of images."""
    shapes_folder: str = ""
    """Folder of the demo's data set, which is drawn there if it is missing; empty: none."""
    canvas: tuple[int, int] = checked((800, 1344), check_canvas)
    """H, W of the fixed training canvas, multiples of 32; images are fitted into it, top left."""
    max_instances: int = bounded(100, at_least=1)
    """M, instances an image in a batch."""
    max_positives: int = bounded(256, at_least=1)
    """K, positives an image in a batch; a random subset is kept if there are more, and the rest is counted."""
    augment: AugmentConfig = dataclasses.field(default_factory=AugmentConfig)
    shuffle: bool = True
    """Visit the images of each epoch in a new random order, drawn from (seed, epoch)."""
    repeat_threshold: float = bounded(0.0, at_least=0, at_most=1)
    """Images with a category that is in a smaller share of the images than this come more than once an epoch: sqrt of
    this over the share, on average (Gupta et al. 2019, who take 0.001 for LVIS); 0: every image comes once."""
    max_bad_records: int = bounded(0, at_least=0)
    """Unreadable records that a run tolerates; each is reported by file and position."""
    service: str = ""
    """tf.data service dispatcher, grpc://host:port; empty: read in this process."""
    cache_dir: str = checked("", _check_cache_dir)
    """Folder on a local disk for copies of shards, made when they are first read; for shards in an object store."""
    cache_bytes: int = bounded(100_000_000_000, at_least=1)
    """Bytes that the files in data.cache_dir may have together; what does not fit is read from the store each time."""

    def validate(self) -> None:
        """Raises ConfigError for options that do not go together."""
        if self.augment.turn and self.canvas[0] != self.canvas[1]:
            raise ConfigError(
                f"data.augment.turn needs a square canvas, not data.canvas={self.canvas}: set "
                f"data.canvas={max(self.canvas)},{max(self.canvas)} or data.augment.turn=False."
            )
        if self.mix_weights and (len(self.mix_weights) != 1 + len(self.mix) or min(self.mix_weights) <= 0):
            raise ConfigError(
                f"data.mix_weights={self.mix_weights} must be {1 + len(self.mix)} numbers above 0: for data.train and "
                "each of data.mix."
            )
        if self.mix and self.max_bad_records:
            raise ConfigError("data.max_bad_records counts the records of one folder; set it to 0 with data.mix.")
        if self.cache_dir and self.service:
            raise ConfigError("data.cache_dir has no effect if data.service reads the shards; give one of the two.")


@dataclasses.dataclass
class BackboneConfig:
    """The feature extractor; the input normalisation that its weights expect belongs to it."""

    name: str = "resnet50"
    """resnet18|34|50|101, resnext101_64x4d, resnet_tiny, efficientnet_lite0, or keras:NAME of keras.applications."""
    weights: str = ""
    """Empty for random weights, imagenet, or a weight file or checkpoint folder (see solo-dist import-weights)."""
    width: int = bounded(64, at_least=1)
    """Channels of the stem of the resnets."""
    widths: tuple[int, ...] = checked((), _check_stages)
    """Channels of the four stages of a resnet; (): width, and twice as many from each stage to the next."""
    blocks: tuple[int, ...] = checked((), _check_stages)
    """Residual blocks of the four stages of a resnet; (): as many as its name says."""
    avg_down: bool = False
    """Shortcuts of a resnet with stride 2 average 2x2 pixels instead of taking every other one (ResNet-D)."""
    zero_init_residual: bool = True
    """The last normalisation of each residual branch of a resnet starts with scale 0, which helps deep networks."""
    deformable: str = choice("none", "v1", "v2")
    """Deformable 3x3 convolutions in the bottlenecks of stages 2 to 4: none, v1, or v2, which also weights its taps."""
    norm: str = choice("frozen_batch", "batch", "sync_batch", "group")
    """frozen_batch (stored statistics, trainable scale and shift), batch, sync_batch or group."""
    frozen_stages: int = bounded(1, at_least=-1, at_most=4)
    """Stages whose parameters do not train: -1 none, 0 the stem, 1 the stem and stage 1, ..., 4 everything."""
    stride_in_1x1: bool = False
    """Bottlenecks have stride 2 in the first 1x1 convolution (detectron2's weights), not in the 3x3 (torchvision)."""
    learning_rate_scale: float = bounded(1.0, at_least=0)
    """Multiplies the learning rate of the backbone's parameters."""


@dataclasses.dataclass
class ModelConfig:
    """The network."""

    head: str = "solov2"
    """Member of the SOLO family: a name in solo/family.py."""
    num_categories: int = bounded(0, at_least=0)
    """C; 0: as many as the training shards have."""
    weights: str = ""
    """Checkpoint that the whole model starts from: a path, a URL, or mmdet:NAME (solo-dist models lists them)."""
    backbone: BackboneConfig = dataclasses.field(default_factory=BackboneConfig)
    grid: GridConfig = dataclasses.field(default_factory=GridConfig)
    fpn_channels: int = bounded(256, at_least=1)
    """Channels of the pyramid."""
    fpn_p2_conv: bool = True
    """P2 has an output convolution like the other levels of the pyramid; it is the most expensive of them."""
    head_channels: int = bounded(512, at_least=1)
    """Channels of the category branch and of the kernel or mask branches."""
    head_convs: int = bounded(4, at_least=1, at_most=7)
    """Stacked convolutions in each of the two branches, 1 to 7."""
    kernel_channels: int = bounded(256, at_least=1)
    """E, channels of the mask features and length of a dynamic 1x1 kernel."""
    kernel_groups: int = bounded(2, at_least=2)
    """A, kernels of a cell and factors of its mask (decoupled_dynamic_solo only)."""
    mask_channels: int = bounded(128, at_least=1)
    """Channels inside the mask-feature branch."""
    mask_features: str = choice("unified", "separate")
    """unified: one mask-feature map from all levels; separate: one a level (SOLOv2 paper, table 3)."""
    coordinates: bool = True
    """Give x, y coordinate channels to the branches that predict kernels or masks."""
    head_deformable: str = choice("none", "v1", "v2")
    """Deformable 3x3 convolutions in the heads: none, v1 or v2."""
    head_deformable_convs: str = choice("all", "last")
    """all: in every convolution of towers and mask-feature branch, its last 1x1 included; last: the last of towers."""
    norm_groups: int = bounded(32, at_least=1)
    """Groups of GroupNorm in the heads."""
    shared_tower: bool = False
    """The category is predicted from the convolutions of the kernel branch, which halves the time of the head."""
    head_init: str = choice("normal", "he")
    """Initial weights of the heads' hidden convolutions: normal, with deviation 0.01 (official), or he."""

    def validate(self) -> None:
        """Raises ConfigError for options that do not go together."""
        if self.head_deformable == "none" and self.head_deformable_convs != "all":
            raise ConfigError(
                f"model.head_deformable_convs={self.head_deformable_convs} has no effect with "
                "model.head_deformable=none; set that to v1 or v2, or leave this out."
            )


@dataclasses.dataclass
class LossConfig:
    """Focal loss over the category grid and dice loss over the masks of the positives."""

    category_weight: float = bounded(1.0, at_least=0)
    """Factor of the focal loss."""
    mask_weight: float = bounded(3.0, at_least=0)
    """Factor of the dice loss."""
    focal_alpha: float = bounded(0.25, at_least=0, at_most=1)
    """Weight of positive cells in the focal loss; that of the others is 1 - focal_alpha."""
    focal_gamma: float = bounded(2.0, at_least=0)
    """Exponent by which the focal loss lowers the weight of cells that are already predicted well; 0: not at all."""
    score_target: str = choice("one", "dice", "iou")
    """Target of the score at a positive: one (official), or dice or iou of its predicted mask (quality focal loss)."""
    mask_target: str = choice("bits", "coverage")
    """Target of a mask's pixel, at a quarter of the canvas: bits, 0 or 1 (official); or coverage, the share of its area
    that the instance covers, from which finer outlines can be learned."""
    federated: bool = False
    """No category loss for the absence of categories of which an image says nothing, as LVIS's lists describe."""


@dataclasses.dataclass
class OptimizerConfig:
    """Optimizer, schedule and clipping. All steps are optimizer steps, not micro-batches."""

    name: str = choice("sgd", "adamw")
    """sgd (the learning rate multiplies the sum of gradients, as in PyTorch, not each gradient) or adamw."""
    learning_rate: float = bounded(0.01, at_least=0)
    """Peak learning rate; if reference_batch is above 0, the one for a batch of that many images."""
    reference_batch: int = bounded(0, at_least=0)
    """Batch that learning_rate is meant for: it is multiplied by train.global_batch / reference_batch. 0: it is not."""
    momentum: float = bounded(0.9, at_least=0, below=1)
    """Momentum of sgd."""
    weight_decay: float = bounded(1e-4, at_least=0)
    """Decay of the weights: added to the gradient by sgd, decoupled from it in adamw."""
    decay_norms_and_biases: bool = True
    """Whether weight decay touches normalisation parameters and biases (the official code: yes)."""
    clip_norm: float = bounded(0.0, at_least=0)
    """Largest global norm of the gradient; 0: no clipping."""
    schedule: str = choice("step", "cosine", "constant")
    """step, cosine or constant, after the warm-up."""
    warmup_steps: int = bounded(500, at_least=0)
    """Steps in which the learning rate rises to its peak; 0: it starts there."""
    warmup_factor: float = bounded(0.01, at_least=0, at_most=1)
    """The learning rate of the first step as a share of the peak; the share rises linearly to 1."""
    milestones: tuple[int, ...] = ()
    """Steps at which the step schedule multiplies the rate by decay_factor."""
    decay_factor: float = bounded(0.1, at_least=0)
    """Factor of the learning rate at each milestone."""
    ema_decay: float = bounded(0.0, at_least=0, below=1)
    """Decay of the moving average of the weights that is evaluated and exported; 0: none."""


@dataclasses.dataclass
class TrainConfig:
    """How long, how large, how often."""

    steps: int = bounded(90_000, at_least=0)
    """Optimizer steps; 0: as many as train.minutes have room for."""
    minutes: float = bounded(0.0, at_least=0)
    """Minutes that the steps may take; 0: train.steps says how many there are.

    The speed is measured when the run begins. The number of steps that follows from it is kept in each checkpoint, so
    that the schedule stays the same after an interruption. Start, evaluations and checkpoints take more time."""
    global_batch: int = bounded(16, at_least=1)
    """Images an optimizer step, over all replicas and accumulated micro-batches."""
    micro_batch: str = checked("auto", _check_micro_batch)
    """Images a replica holds at a time; a number, or auto for the largest that fits."""
    log_every: int = bounded(50, at_least=1)
    """Steps between progress lines and points of the curves."""
    save_every: int = bounded(1000, at_least=1)
    """Steps between checkpoints."""
    save_minutes: float = bounded(0.0, at_least=0)
    """Also a checkpoint when this many minutes have passed since the last; 0: no."""
    keep_checkpoints: int = bounded(3, at_least=1)
    """Newest checkpoints kept; the best one by mask AP is kept besides."""
    eval_every: int = bounded(0, at_least=0)
    """Steps between evaluations; 0: only at the end."""
    eval_images: int = bounded(0, at_least=0)
    """Validation images in each evaluation during training; 0: all.

    The evaluation after the last step uses all, and its AP replaces one measured on fewer images even if it is lower:
    best/ then holds the last step."""
    panel_every: int = bounded(500, at_least=0)
    """Steps between panels of a training image in TensorBoard, which has panels of four validation images after each
    evaluation besides; 0: no panels."""
    steps_per_call: int = bounded(1, at_least=1)
    """Steps that one call into TensorFlow runs; a larger number saves time if steps are very short."""
    max_nonfinite_steps: int = bounded(10, at_least=1)
    """Consecutive steps with a loss or gradient that is not finite after which the run stops."""
    recompute: str = choice("none", "heads", "all")
    """none, heads or all: activations computed again in the backward pass to save memory."""

    def validate(self) -> None:
        """Raises ConfigError unless either steps or minutes says how long the run is."""
        if self.steps and self.minutes:
            raise ConfigError(
                f"train.steps={self.steps} and train.minutes={self.minutes:g} both say how long the run is; set "
                "train.steps=0 to train by time, or train.minutes=0 to train by steps."
            )
        if not self.steps and not self.minutes:
            raise ConfigError("train.steps=0 needs a time: set train.minutes, for example train.minutes=15.")


@dataclasses.dataclass
class RuntimeConfig:
    """Options that depend on the machine, not on the experiment."""

    precision: str = choice("float32", "bfloat16", "float16")
    """float32, bfloat16 or float16 (with dynamic loss scaling)."""
    deterministic: bool = False
    """Give the same bits on the same hardware every time, at some cost in speed."""
    compile: str = choice("auto", "none", "loss", "step")
    """XLA for: none, loss, step (forward and backward); auto: step on a GPU, none on a CPU."""
    communication: str = choice("auto", "ring", "nccl")
    """Collectives of multi_worker: auto, ring or nccl."""
    watchdog_minutes: float = bounded(15.0, at_least=0)
    """If no step finishes for this long, the process prints its stacks and exits; 0: never."""


@dataclasses.dataclass
class PostprocessConfig:
    """From logits to instances (official test_cfg)."""

    score_threshold: float = bounded(0.1, at_least=0, at_most=1)
    """Least category score of a cell that becomes a candidate."""
    mask_threshold: float = bounded(0.5, at_least=0, at_most=1)
    """Mask probability above which a pixel belongs to the instance."""
    max_candidates: int = bounded(500, at_least=1)
    """Highest scoring cells that enter Matrix NMS."""
    nms_kernel: str = choice("gaussian", "linear")
    """Decay in Matrix NMS: gaussian or linear (1 - IoU)."""
    nms_sigma: float = bounded(2.0, above=0)
    """Sigma of the gaussian decay, exp(-sigma * IoU^2)."""
    update_threshold: float = bounded(0.05, at_least=0, at_most=1)
    """Least score of an instance after the decay."""
    one_category: bool = False
    """Of two masks of different categories with an IoU above 0.5, the one with the lower score is dropped."""
    max_detections: int = bounded(100, at_least=1)
    """Instances an image, the ones with the highest scores."""


_RENAMED = {"train.picture_every": "panel_every"}
"""Options of earlier versions, in the config.json of their runs."""


@dataclasses.dataclass
class Config:
    """All settings of a run that are not flags of a command."""

    name: str = ""
    """Name of the recipe; by default the run directory is runs/NAME."""
    seed: int = 0
    """Seed of the initial weights, the order of images and their augmentation."""
    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
    loss: LossConfig = dataclasses.field(default_factory=LossConfig)
    optimizer: OptimizerConfig = dataclasses.field(default_factory=OptimizerConfig)
    train: TrainConfig = dataclasses.field(default_factory=TrainConfig)
    runtime: RuntimeConfig = dataclasses.field(default_factory=RuntimeConfig)
    postprocess: PostprocessConfig = dataclasses.field(default_factory=PostprocessConfig)

    def validate(self) -> "Config":
        """Checks everything that can be checked without data or devices; makes tuples of lists.

        Returns:
          The config itself.
        Raises:
          ConfigError: names the option and a value that would work.
        """
        options.check(self)
        if self.train.minutes and self.optimizer.schedule == "step":
            raise ConfigError(
                "train.minutes leaves the number of steps open, so optimizer.milestones cannot fit it; set "
                "optimizer.schedule=cosine or constant."
            )
        return self

    def to_json(self) -> str:
        """Indented JSON, fields in the order of the schema."""
        return json.dumps(dataclasses.asdict(self), indent=2)

    @classmethod
    def from_json(cls, text: str) -> "Config":
        """Rebuilds what `to_json` wrote, also that of an earlier version. Raises ConfigError if a field is unknown."""
        return options.from_values(cls, json.loads(text), _RENAMED)


def flat_options(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The fields of a config's dictionary by full name, such as train.steps."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat |= flat_options(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return flat
