"""Recipes by name: `--config=NAME` means the file configs/NAME.py, in a checkout and in an installed package.

A recipe is a Python file with `get_config() -> Config`. One that starts from another one asks for it by name:

    config = recipes.get("solov2_r50_fpn_3x")
    config.name = "mine"
"""

import importlib.util
import re
from pathlib import Path

from solo_dist.config import Config
from solo_dist.errors import ConfigError

_HERE = Path(__file__).parent
# A wheel holds the recipes as solo_dist/configs (setup.py); in a checkout they are beside the package.
FOLDER = next(folder for folder in (_HERE / "configs", _HERE.parent / "configs") if folder.is_dir())
"""The folder with the recipes of this installation."""


def names() -> list[str]:
    """The names of all recipes, sorted."""
    return sorted(file.stem for file in FOLDER.glob("*.py") if file.stem != "__init__")


def find(recipe: str) -> str:
    """The path of the file that a value of --config means.

    Args:
      recipe: a name, `configs/NAME.py` from any folder, or the path of another recipe file, which is returned as it is.

    Raises:
      ConfigError: if it is the name of no recipe.
    """
    name = re.fullmatch(r"(?:configs/)?(\w+)(?:\.py)?", recipe)
    if name is None or Path(recipe).is_file():
        return recipe
    if name[1] not in names():
        raise ConfigError(f"--config={recipe}: there is no such file or recipe; the recipes are {', '.join(names())}.")
    return str(FOLDER / f"{name[1]}.py")


def get(recipe: str) -> Config:
    """The config of a recipe; for the argument and errors see `find`."""
    path = find(recipe)
    spec = importlib.util.spec_from_file_location(f"recipe_{Path(path).stem}", path)
    if spec is None or spec.loader is None:
        raise ConfigError(f"{path} is not a Python file.")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config()
