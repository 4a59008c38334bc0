r"""Lists the published models that can be named as weights, mmdet:NAME.

    solo-dist models
    solo-dist train --config=solov2_r50_fpn_3x --config.model.weights=mmdet:solov2_r50_fpn_3x ...

A model is downloaded when it is first used, into $SOLO_DIST_CACHE or else ~/.cache/solo_dist, and its SHA-256 is
checked each time. On a machine without network, put the file there yourself; --urls shows the addresses.
"""

from absl import flags

from solo_dist import cli, recipes

_URLS = flags.DEFINE_bool("urls", False, "Show the address of each file.")


def main(arguments: list[str]) -> None:
    """Prints one line a model."""
    del arguments
    from solo_dist.weights.download import cache_folder
    from solo_dist.weights.published import MODELS, PREFIX

    known = recipes.names()
    print(f"{'weights':39}{'recipe':33}{'parameters':>12}{'mask AP':>9}  in cache")
    for model in MODELS:
        recipe = model.recipe if model.recipe in known else "none in this version"
        cached = "yes" if model.is_cached else "no"
        print(f"{PREFIX + model.name:39}{recipe:33}{model.parameters:>12,}{model.mask_ap:>9.1f}  {cached}")
        if _URLS.value:
            print(f"  {model.url}")
    print(f"Mask AP on COCO val2017 as published by mmdetection. The cache is {cache_folder()}.")


if __name__ == "__main__":
    cli.run(main)
