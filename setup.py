"""Which packages are installed: solo_dist alone, with the recipes of configs/ as solo_dist/configs in it.

All else about the project is in setup.cfg, which cannot add a folder from beside the package to those it finds.
"""

from setuptools import find_namespace_packages, setup

setup(
    packages=[*find_namespace_packages(include=["solo_dist*"]), "solo_dist.configs"],
    package_dir={"solo_dist.configs": "configs"},
)
