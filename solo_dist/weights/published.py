"""Models that mmdetection publishes, by name: mmdet:solov2_r50_fpn_3x.

Source: the metafiles of mmdetection 3 (configs/solov2 and configs/solo). All were trained on COCO train2017; the mask
AP is that of its authors on val2017.
"""

import dataclasses
import os

from solo_dist.errors import ConfigError
from solo_dist.weights import download

PREFIX = "mmdet:"
URL_VARIABLE = "SOLO_DIST_MMDET_URL"
_URL = "https://download.openmmlab.com/mmdetection/v2.0"


@dataclasses.dataclass(frozen=True)
class PublishedModel:
    """A checkpoint that can be downloaded."""

    file: str
    """Name of the file without .pth; it ends in the date and the first digits of its SHA-256."""
    recipe: str
    """Name of the recipe that describes the same network."""
    parameters: int
    """Numbers that training changes or could change; statistics of BatchNorm are not among them."""
    mask_ap: float
    """On COCO val2017, in percent."""

    @property
    def name(self) -> str:
        """The text after `mmdet:`."""
        return self.file.partition("_coco_")[0]

    @property
    def url(self) -> str:
        """The address; the environment variable SOLO_DIST_MMDET_URL can name a mirror."""
        base = os.environ.get(URL_VARIABLE, _URL).rstrip("/")
        kind = "solov2" if self.name.startswith("solov2") else "solo"
        return f"{base}/{kind}/{self.name}_coco/{self.file}.pth"

    @property
    def is_cached(self) -> bool:
        """Whether the cache holds the file."""
        return download.cached(self.url).exists()


MODELS = (
    PublishedModel(
        "solov2_light_r18_fpn_3x_coco_20220511_083717-75fa355b", "solov2_light_448_r18_fpn_3x", 18_271_760, 29.7
    ),
    PublishedModel(
        "solov2_light_r50_fpn_3x_coco_20220512_165256-c93a6074", "solov2_light_448_r50_fpn_3x", 31_340_560, 33.7
    ),
    PublishedModel("solov2_r50_fpn_1x_coco_20220512_125858-a357fa23", "solov2_r50_fpn_1x", 46_592_912, 34.8),
    PublishedModel("solov2_r50_fpn_3x_coco_20220512_125856-fed092d4", "solov2_r50_fpn_3x", 46_592_912, 37.5),
    PublishedModel("solov2_r101_dcn_fpn_3x_coco_20220513_214734-16c966cb", "solov2_r101_dcn_fpn_3x", 68_729_118, 41.2),
    PublishedModel("solov2_x101_dcn_fpn_3x_coco_20220513_214337-aef41095", "solov2_x101_dcn_fpn_3x", 113_420_574, 42.4),
    PublishedModel("solo_r50_fpn_1x_coco_20210821_035055-2290a6b8", "solo_r50_fpn_1x", 36_301_232, 33.1),
    PublishedModel("solo_r50_fpn_3x_coco_20210901_012353-11d224d7", "solo_r50_fpn_3x", 36_301_232, 35.9),
    PublishedModel(
        "decoupled_solo_r50_fpn_1x_coco_20210820_233348-6337c589", "decoupled_solo_r50_fpn_1x", 40_028_560, 33.9
    ),
    PublishedModel(
        "decoupled_solo_r50_fpn_3x_coco_20210821_042504-7b3301ec", "decoupled_solo_r50_fpn_3x", 40_028_560, 36.7
    ),
    PublishedModel(
        "decoupled_solo_light_r50_fpn_3x_coco_20210906_142703-e70e226f",
        "decoupled_solo_light_r50_fpn_3x",
        32_354_192,
        32.9,
    ),
)


def find(name: str) -> PublishedModel:
    """The model that `mmdet:NAME` means. Raises ConfigError, with the known names, if there is none."""
    for model in MODELS:
        if f"{PREFIX}{model.name}" == name:
            return model
    raise ConfigError(f"{name} is no published model; known are {', '.join(model.name for model in MODELS)}.")


def local_path(source: str) -> str:
    """The path of given weights: a published model or an http(s) URL is first fetched into the cache.

    Raises:
      ConfigError: there is no such model, or its file cannot be downloaded.
    """
    if source.startswith(PREFIX):
        return download.fetch(find(source).url)
    if source.startswith(("http://", "https://")):
        return download.fetch(source)
    return source
