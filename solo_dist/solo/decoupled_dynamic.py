"""Decoupled Dynamic SOLO: the mask of a cell is the product of several sigmoids, each with a kernel of its own.

It joins Decoupled SOLO and Dynamic SOLO (SOLOv2): the kernel of a cell is divided into A groups, which are all
multiplied with the same mask features, and these have fewer channels. Shape legend: config.py.

Source: SOLO: A Simple Framework for Instance Segmentation (Wang et al., TPAMI 2021, arXiv:2106.15947). The authors have
published no code for it, so what the paper leaves open is as in SOLOv2: both branches, targets, losses and starts.
"""

from collections.abc import Mapping

import keras
import tensorflow as tf

from solo_dist.config import GridConfig, ModelConfig
from solo_dist.solo.heads import GridHead, MaskHead
from solo_dist.solo.mask_map import MaskMap
from solo_dist.solo.solov2 import SOLOv2


class DecoupledDynamicSOLO(SOLOv2):
    """Decoupled Dynamic SOLO; with one group it would be SOLOv2.

    Outputs as those of SOLOv2, but kernels are float32 [B,N,A * E], A = `model.kernel_groups`.
    """

    options: frozenset[str] = SOLOv2.options | {"kernel_groups"}

    def heads(self, config: ModelConfig, recompute: bool) -> dict[str, keras.layers.Layer]:
        """See `family.Member`."""
        return {
            "head": GridHead(config, recompute, config.kernel_groups, name="head"),
            "mask_head": MaskHead(config, recompute, name="mask_head"),
        }

    def mask_maps(self, outputs: Mapping[str, tf.Tensor], grid: GridConfig) -> list[MaskMap]:
        """See `family.Member`: the maps of SOLOv2, with A factors."""
        return [_divided(mask_map) for mask_map in super().mask_maps(outputs, grid)]


def _divided(mask_map: MaskMap) -> MaskMap:
    (features,), (kernels,) = mask_map.features, mask_map.kernels
    groups = kernels.shape[-1] // features.shape[-1]
    return mask_map._replace(features=(features,) * groups, kernels=tuple(tf.split(kernels, groups, axis=-1)))
