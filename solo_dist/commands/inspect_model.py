r"""Prints the parameters and multiply-adds of each part of a recipe's model.

    solo-dist inspect-model --config=solov2_r50_fpn_3x
    solo-dist inspect-model --config=solov2_light_448_r18_fpn_3x --config.data.canvas=448,768

The multiply-adds are those of one image of the recipe's canvas, with 80 categories if the recipe does not say how many.
"""

from absl import flags
from ml_collections import config_flags

from solo_dist import cli

_CONFIG = config_flags.DEFINE_config_file("config", None, "The recipe.", lock_config=True)
flags.mark_flag_as_required("config")


def main(arguments: list[str]) -> None:
    """Builds the model without weights and prints its table."""
    del arguments
    from solo_dist.models.description import describe
    from solo_dist.solo.network import build_model

    config = _CONFIG.value
    config.model.num_categories = config.model.num_categories or 80
    canvas = config.data.canvas
    parts = describe(build_model(config.model, canvas), canvas)
    print(f"{config.name}: {canvas[0]} x {canvas[1]} pixels, {config.model.num_categories} categories")
    print(f"{'part':12}{'parameters':>14}{'trainable':>14}{'multiply-adds':>18}")
    for name, *numbers in parts:
        print(
            f"{name:12}" + "".join(f"{number:>{width},}" for number, width in zip(numbers, (14, 14, 18), strict=True))
        )
    totals = [sum(column) for column in zip(*(part[1:] for part in parts), strict=True)]
    print(f"{'total':12}{totals[0]:>14,}{totals[1]:>14,}{totals[2]:>18,}")


if __name__ == "__main__":
    cli.run(main)
