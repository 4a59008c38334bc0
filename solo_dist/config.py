"""The schema of a recipe: nested dataclasses, one docstring line a field, and the checks that need no data.

A recipe in `configs/` returns a `Config`; the command line overrides single fields (`--config.train.steps=500`).
Shape legend used across the project: B images, HxW canvas, hxw = H/4 x W/4 mask features, M instances (padded),
L levels with S_l x S_l grids, N = sum of S_l^2 cells, K positives (padded), C categories, E kernel channels.

This module imports no TensorFlow.
"""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from solo_dist.errors import ConfigError

CANVAS_MULTIPLE = 32
MASK_STRIDE = 4
PYRAMID_LEVELS = ("p2", "p3", "p4", "p5", "p6")


@dataclasses.dataclass
class GridConfig:
    """The grids of SOLO: which pyramid levels predict, with how many cells, for instances of which size."""

    levels: tuple[str, ...] = PYRAMID_LEVELS
    """Pyramid levels that carry a grid, finest first; any subset of p2..p6."""
    sizes: tuple[int, ...] = (40, 36, 24, 16, 12)
    """S_l, cells along each side of a level's grid."""
    scale_ranges: tuple[tuple[int, int], ...] = ((1, 96), (48, 192), (96, 384), (192, 768), (384, 2048))
    """Inclusive bounds of sqrt(box width * box height) in canvas pixels that a level is responsible for."""
    center_sigma: float = 0.2
    """Side of the central region relative to the box; its cells are the positives."""

    @property
    def num_cells(self) -> int:
        """N, the number of cells of all levels together."""
        return sum(size * size for size in self.sizes)

    def validate(self) -> None:
        """Raises ConfigError where the three tuples do not describe the same levels."""
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
    """Random changes of a training picture. Geometry other than the flip makes the pipeline recompute targets."""

    flip: bool = True
    """Uploader left and right with probability 1/2."""
    brightness: float = 0.0
    """Largest change of brightness, as a share of the full range."""
    contrast: float = 0.0
    """Contrast factor drawn from [1 - c, 1 + c]."""
    saturation: float = 0.0
    """Saturation factor drawn from [1 - s, 1 + s]."""
    hue: float = 0.0
    """Largest change of hue, as a share of the colour circle."""
    scale: tuple[float, float] = (1.0, 1.0)
    """Random scale relative to the picture fitted into the canvas; (0.1, 2.0) is large-scale jitter."""
    crop: float = 0.0
    """Largest share cut off at each side; what then exceeds the canvas is cropped to it at a random place."""
    short_sides: tuple[int, ...] = ()
    """Official multi-scale training: the short side is drawn from these, the long side bounded by the canvas."""

    @property
    def changes_geometry(self) -> bool:
        """Whether anything but a flip moves pixels, so that precomputed targets do not apply."""
        return tuple(self.scale) != (1.0, 1.0) or self.crop > 0 or bool(self.short_sides)


@dataclasses.dataclass
class DataConfig:
    """Where the shards are and how a batch is made of them."""

    train: str = ""
    """Folder of training shards, with its manifest.json."""
    validation: str = ""
    """Folder of validation shards; empty: no evaluation during training."""
    shapes_folder: str = ""
    """Where set, the embedded data set of shapes is made here when it is missing; for the demo."""
    canvas: tuple[int, int] = (800, 1344)
    """H, W of the fixed training canvas, multiples of 32; pictures are fitted into it, top left."""
    max_instances: int = 100
    """M, instances an image in a batch."""
    max_positives: int = 256
    """K, positives an image in a batch; a random subset is kept where there are more, and the rest is counted."""
    augment: AugmentConfig = dataclasses.field(default_factory=AugmentConfig)
    shuffle: bool = True
    """Visit the images of each epoch in a new random order, drawn from (seed, epoch)."""
    max_bad_records: int = 0
    """Records that may be unreadable before the run stops; each one is reported by file and position."""
    service: str = ""
    """tf.data service dispatcher, grpc://host:port; empty: read in this process."""
    cache_dir: str = ""
    """Folder on a local disk that shards are copied to when they are first read, for shards in an object store."""
    cache_bytes: int = 100_000_000_000
    """Bytes that the files in data.cache_dir may have together; what does not fit is read from the store each time."""


@dataclasses.dataclass
class BackboneConfig:
    """The feature extractor; the input normalisation that its weights expect belongs to it."""

    name: str = "resnet50"
    """resnet18|34|50|101, resnet_tiny, efficientnet_lite0, or keras:NAME for a keras.applications model."""
    weights: str = ""
    """'' for random, 'imagenet', or a weight file or checkpoint folder (see solo-dist import-weights)."""
    width: int = 64
    """Channels of the stem of the resnets."""
    norm: str = "frozen_batch"
    """frozen_batch (stored statistics, trainable scale and shift), batch, sync_batch or group."""
    frozen_stages: int = 1
    """Stages whose parameters do not train: -1 none, 0 the stem, 1 the stem and stage 1, ..., 4 everything."""
    stride_in_1x1: bool = False
    """Bottlenecks step in their first 1x1 convolution, as in detectron2's weights, not in the 3x3 (torchvision)."""
    learning_rate_scale: float = 1.0
    """Multiplies the learning rate of the backbone's parameters."""


@dataclasses.dataclass
class ModelConfig:
    """The network."""

    head: str = "solov2"
    """Member of the SOLO family: a name in solo/family.py."""
    num_categories: int = 0
    """C; 0: as many as the training shards have."""
    weights: str = ""
    """Checkpoint that the whole model starts from: a path, a URL, or mmdet:NAME (solo-dist models lists them)."""
    backbone: BackboneConfig = dataclasses.field(default_factory=BackboneConfig)
    grid: GridConfig = dataclasses.field(default_factory=GridConfig)
    fpn_channels: int = 256
    """Channels of the pyramid."""
    head_channels: int = 512
    """Channels of the category and kernel branches."""
    head_convs: int = 4
    """Stacked convolutions in each of the two branches, 1 to 7."""
    kernel_channels: int = 256
    """E, channels of the mask features and length of a dynamic 1x1 kernel."""
    mask_channels: int = 128
    """Channels inside the mask-feature branch."""
    mask_features: str = "unified"
    """unified: one mask-feature map from all levels; separate: one a level (SOLOv2 paper, table 3)."""
    coordinates: bool = True
    """Give x, y coordinate channels to the kernel branch and the mask-feature branch."""
    norm_groups: int = 32
    """Groups of GroupNorm in the heads."""


@dataclasses.dataclass
class LossConfig:
    """Focal loss over the category grid and dice loss over the masks of the positives."""

    category_weight: float = 1.0
    mask_weight: float = 3.0
    focal_alpha: float = 0.25
    focal_gamma: float = 2.0


@dataclasses.dataclass
class OptimizerConfig:
    """Optimizer, schedule and clipping. Everything counts optimizer steps, not micro-batches."""

    name: str = "sgd"
    """sgd (momentum with the learning rate outside, as in the official code) or adamw."""
    learning_rate: float = 0.01
    """Peak learning rate at the recipe's global batch."""
    reference_batch: int = 0
    """Where set, the learning rate is multiplied by train.global_batch / reference_batch."""
    momentum: float = 0.9
    weight_decay: float = 1e-4
    decay_norms_and_biases: bool = True
    """Whether weight decay touches normalisation parameters and biases (the official code: yes)."""
    clip_norm: float = 0.0
    """Largest global norm of the gradient; 0: no clipping."""
    schedule: str = "step"
    """step, cosine or constant, after the warm-up."""
    warmup_steps: int = 500
    warmup_factor: float = 0.01
    """The first step's share of the learning rate; it rises linearly to 1."""
    milestones: tuple[int, ...] = ()
    """Steps at which the step schedule multiplies the rate by decay_factor."""
    decay_factor: float = 0.1
    ema_decay: float = 0.0
    """Decay of the moving average of the weights that is evaluated and exported; 0: none."""


@dataclasses.dataclass
class TrainConfig:
    """How long, how large, how often."""

    steps: int = 90_000
    """Optimizer steps."""
    global_batch: int = 16
    """Images an optimizer step, over all replicas and accumulated micro-batches."""
    micro_batch: str = "auto"
    """Images a replica holds at a time; a number, or auto for the largest that fits."""
    log_every: int = 50
    """Steps between progress lines and points of the curves."""
    save_every: int = 1000
    """Steps between checkpoints."""
    save_minutes: float = 0.0
    """Where set, also a checkpoint when this many minutes have passed since the last."""
    keep_checkpoints: int = 3
    """Newest checkpoints kept; the best one by mask AP is kept besides."""
    eval_every: int = 0
    """Steps between evaluations; 0: only at the end."""
    eval_images: int = 0
    """Images of an evaluation during training; 0: all. The last one always takes all, so best/ is then its step."""
    panel_every: int = 500
    """Steps between panels of a training image in TensorBoard; 0: none."""
    steps_per_call: int = 1
    """Steps run by one call into TensorFlow; raise it where steps are very short."""
    max_nonfinite_steps: int = 10
    """Steps in a row with a loss or gradient that is not finite after which the run stops."""
    recompute: str = "none"
    """none, heads or all: activations computed again in the backward pass to save memory."""


@dataclasses.dataclass
class RuntimeConfig:
    """What depends on the machine and not on the experiment."""

    precision: str = "float32"
    """float32, bfloat16 or float16 (with dynamic loss scaling)."""
    deterministic: bool = False
    """Give the same bits on the same hardware every time, at some cost in speed."""
    compile: str = "auto"
    """XLA for: none, loss, step (forward and backward); auto: step on a GPU, none on a CPU."""
    communication: str = "auto"
    """Collectives of multi_worker: auto, ring or nccl."""
    watchdog_minutes: float = 15.0
    """Without a finished step for this long the process prints its stacks and exits; 0: never."""


@dataclasses.dataclass
class PostprocessConfig:
    """From logits to instances (official test_cfg)."""

    score_threshold: float = 0.1
    mask_threshold: float = 0.5
    max_candidates: int = 500
    """Highest scoring cells that enter Matrix NMS."""
    nms_kernel: str = "gaussian"
    """gaussian or linear decay in Matrix NMS."""
    nms_sigma: float = 2.0
    update_threshold: float = 0.05
    """Least score after the decay."""
    max_detections: int = 100


@dataclasses.dataclass
class Config:
    """A recipe."""

    name: str = ""
    seed: int = 0
    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
    loss: LossConfig = dataclasses.field(default_factory=LossConfig)
    optimizer: OptimizerConfig = dataclasses.field(default_factory=OptimizerConfig)
    train: TrainConfig = dataclasses.field(default_factory=TrainConfig)
    runtime: RuntimeConfig = dataclasses.field(default_factory=RuntimeConfig)
    postprocess: PostprocessConfig = dataclasses.field(default_factory=PostprocessConfig)

    def validate(self) -> "Config":
        """Checks everything that can be checked without data or devices.

        Returns:
          The config itself.
        Raises:
          ConfigError: naming the option and a value that would work.
        """
        self.model.grid.validate()
        _check_canvas(self.data.canvas)
        _check_choices(self)
        _check_bounds(self)
        return self

    def to_json(self) -> str:
        """The recipe as indented JSON, fields in the order of the schema."""
        return json.dumps(dataclasses.asdict(self), indent=2)

    @classmethod
    def from_json(cls, text: str) -> "Config":
        """Rebuilds what `to_json` wrote. Raises ConfigError where a field is unknown."""
        return _build(cls, json.loads(text), "config")


def _check_canvas(canvas: tuple[int, int]) -> None:
    if len(canvas) != 2 or not all(isinstance(side, int) for side in canvas):
        raise ConfigError(f"data.canvas={canvas} must be height, width, for example 448,768.")
    if any(side <= 0 or side % CANVAS_MULTIPLE for side in canvas):
        rounded = tuple(max(CANVAS_MULTIPLE, round(side / CANVAS_MULTIPLE) * CANVAS_MULTIPLE) for side in canvas)
        raise ConfigError(f"data.canvas={canvas} must be height, width in multiples of 32, for example {rounded}.")


_CHOICES = {
    "model.backbone.norm": ("frozen_batch", "batch", "sync_batch", "group"),
    "model.mask_features": ("unified", "separate"),
    "optimizer.name": ("sgd", "adamw"),
    "optimizer.schedule": ("step", "cosine", "constant"),
    "train.recompute": ("none", "heads", "all"),
    "runtime.precision": ("float32", "bfloat16", "float16"),
    "runtime.compile": ("auto", "none", "loss", "step"),
    "runtime.communication": ("auto", "ring", "nccl"),
    "postprocess.nms_kernel": ("gaussian", "linear"),
}

_AT_LEAST = {
    "data.max_instances": 1,
    "data.max_positives": 1,
    "data.max_bad_records": 0,
    "data.cache_bytes": 1,
    "model.num_categories": 0,
    "model.head_convs": 1,
    "model.kernel_channels": 1,
    "optimizer.learning_rate": 0,
    "optimizer.warmup_steps": 0,
    "train.steps": 1,
    "train.global_batch": 1,
    "train.log_every": 1,
    "train.save_every": 1,
    "train.keep_checkpoints": 1,
    "train.eval_every": 0,
    "train.eval_images": 0,
    "train.panel_every": 0,
    "train.save_minutes": 0,
    "train.steps_per_call": 1,
    "train.max_nonfinite_steps": 1,
    "postprocess.max_candidates": 1,
    "postprocess.max_detections": 1,
}


def _lookup(config: Config, option: str) -> Any:
    value: Any = config
    for part in option.split("."):
        value = getattr(value, part)
    return value


def _check_choices(config: Config) -> None:
    for option, choices in _CHOICES.items():
        if _lookup(config, option) not in choices:
            raise ConfigError(f"{option}={_lookup(config, option)!r} is not one of {', '.join(choices)}.")
    micro = config.train.micro_batch
    if micro != "auto" and not (str(micro).isdigit() and int(micro) > 0):
        raise ConfigError(f"train.micro_batch={micro!r} must be auto or a positive number of images.")


def _check_bounds(config: Config) -> None:
    for option, least in _AT_LEAST.items():
        if _lookup(config, option) < least:
            raise ConfigError(f"{option}={_lookup(config, option)} must be at least {least}.")
    if config.model.head_convs > 7:
        raise ConfigError(f"model.head_convs={config.model.head_convs} must be 1 to 7.")
    augment = config.data.augment
    if len(augment.scale) != 2 or not 0 < augment.scale[0] <= augment.scale[1]:
        raise ConfigError(f"data.augment.scale={augment.scale} must be 0 < smallest <= largest, for example 0.8,1.2.")
    if not all(isinstance(side, int) and side > 0 for side in augment.short_sides):
        raise ConfigError(
            f"data.augment.short_sides={augment.short_sides} must be lengths, for example 640,800; () for none."
        )
    if "://" in config.data.cache_dir:
        raise ConfigError(f"data.cache_dir={config.data.cache_dir} must be a folder on a local disk.")
    if config.data.cache_dir and config.data.service:
        raise ConfigError("data.cache_dir has no effect where data.service reads the shards; give one of the two.")
    if not 0 <= augment.crop < 0.5:
        raise ConfigError(f"data.augment.crop={augment.crop} must be in [0, 0.5).")


_RENAMED = {"config.train.picture_every": "panel_every"}
"""Fields of config.json files that earlier versions wrote."""


def _build(kind: type, values: Mapping[str, Any], where: str) -> Any:
    fields = {field.name: field for field in dataclasses.fields(kind)}
    values = {_RENAMED.get(f"{where}.{name}", name): value for name, value in values.items()}
    unknown = sorted(set(values) - set(fields))
    if unknown:
        raise ConfigError(f"{where} has unknown fields {unknown}; known are {sorted(fields)}.")
    arguments = {}
    for name, value in values.items():
        if dataclasses.is_dataclass(fields[name].type):
            value = _build(fields[name].type, value, f"{where}.{name}")  # type: ignore[arg-type]
        elif isinstance(value, list):
            value = tuple(tuple(item) if isinstance(item, list) else item for item in value)
        arguments[name] = value
    return kind(**arguments)
