"""The project as a package: what is installed, which versions, how light it is to import, and how it is set up."""

import configparser
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("solo_dist", "configs", "tools", "launch")
PROGRAMS = sorted(
    f"{package}.{path.stem}"
    for package in ("solo_dist", "tools", "launch")
    for path in (ROOT / package).glob("*.py")
    if "__main__" in path.read_text(encoding="utf-8")
)
PYTHONS = ("3.10.13", "3.11.7", "3.12.1")


def run(arguments: list[str], **options) -> subprocess.CompletedProcess:
    return subprocess.run(arguments, capture_output=True, text=True, timeout=300, **options)


def imported_by(arguments: list[str], **options) -> tuple[set[str], subprocess.CompletedProcess]:
    """Runs python with `arguments`; the top-level packages that it imported, and the finished process."""
    process = run([sys.executable, "-X", "importtime", *arguments], **options)
    names = re.findall(r"^import time:[^|]*\|[^|]*\| *(\S+)$", process.stderr, flags=re.MULTILINE)
    assert names, process.stderr
    return {name.split(".")[0] for name in names}, process


# --- light to import, quick to help


def test_importing_the_package_imports_nothing_else_than_the_standard_library():
    packages, process = imported_by(["-c", "import solo_dist; print(solo_dist.__version__)"], cwd=ROOT)
    assert process.returncode == 0
    assert "solo_dist" in packages and not packages & {"tensorflow", "keras", "numpy", "absl"}


@pytest.mark.parametrize("program", PROGRAMS)
def test_help_is_given_without_importing_tensorflow(program):
    packages, process = imported_by(["-m", program, "--helpshort" if "launch" not in program else "--help"], cwd=ROOT)
    assert "python -m " + program in process.stdout + process.stderr
    assert "tensorflow" not in packages and "keras" not in packages
    assert "Traceback" not in process.stderr


@pytest.mark.skipif("solo_dist.train" not in PROGRAMS, reason="no solo_dist/train.py")
def test_help_of_the_trainer_has_three_examples_with_recipes_that_exist():
    text = run([sys.executable, "-m", "solo_dist.train", "--helpshort"], cwd=ROOT).stdout
    examples = re.findall(r"^ *python -m (\S+)", text, flags=re.MULTILINE)
    assert len(examples) >= 3 and set(examples) <= set(PROGRAMS)
    for recipe in re.findall(r"--config=(\S+\.py)", text):
        assert (ROOT / recipe).is_file(), recipe


# --- what is installed


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """A folder with what a wheel of the project contains, as pip would unpack it."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("installed")
    for name in PACKAGES:
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.cfg", "pyproject.toml", "LICENSE", "README.md"):
        if (ROOT / name).exists():
            shutil.copy(ROOT / name, source)
    # Without isolation pip asks no index for setuptools; it is among the requirements of the project.
    build = run([sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-w", target, source])
    if "invalid command 'bdist_wheel'" in build.stdout + build.stderr:
        pytest.skip("setuptools is older than constraints.txt says and cannot build a wheel on its own")
    assert build.returncode == 0, build.stderr
    (wheel,) = target.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(target)
    return target


def test_every_file_of_the_packages_is_installed(installed):
    files = {
        path.relative_to(ROOT)
        for name in PACKAGES
        for path in (ROOT / name).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    missing = sorted(str(path) for path in files if not (installed / path).is_file())
    assert files and not missing


def test_tests_and_pictures_of_the_readme_are_not_installed(installed):
    top = {path.name for path in installed.iterdir() if path.suffix != ".whl" and not path.name.endswith(".dist-info")}
    assert top == set(PACKAGES)


@pytest.mark.skipif("solo_dist.train" not in PROGRAMS, reason="no solo_dist/train.py")
def test_an_installed_trainer_finds_its_default_recipe_from_any_folder(installed, tmp_path):
    code = (
        "import configs.shapes_tiny as recipe, solo_dist, tools, launch; "
        "print(recipe.__file__, recipe.get_config().name, solo_dist.__file__)"
    )
    process = run([sys.executable, "-c", code], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(installed)})
    assert process.returncode == 0, process.stderr
    recipe, name, package = process.stdout.split()
    assert Path(recipe).parent.parent == Path(package).parent.parent == installed
    assert name == "shapes_tiny"
    options = {"cwd": tmp_path, "env": {**os.environ, "PYTHONPATH": str(installed)}}
    text = run([sys.executable, "-m", "solo_dist.train", "--helpshort"], **options).stdout
    assert recipe in "".join(text.split()), "the default of --config is not the recipe that was installed"


# --- which versions


def setup_requirements() -> list[Requirement]:
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg", encoding="utf-8")
    blocks = [parser["options"]["install_requires"], *parser["options.extras_require"].values()]
    lines = [line.strip() for block in blocks for line in block.splitlines()]
    return [Requirement(line) for line in lines if line and not line.startswith("#")]


def constraints_for(python: str) -> dict[str, str]:
    """Name -> exact version, of the lines of constraints.txt that apply on Linux with this version of Python."""
    environment = {
        "python_full_version": python,
        "python_version": python.rsplit(".", 1)[0],
        "sys_platform": "linux",
        "platform_system": "Linux",
        "implementation_name": "cpython",
        "platform_python_implementation": "CPython",
        "platform_machine": "x86_64",
    }
    versions: dict[str, str] = {}
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines():
        if line.startswith("#"):
            continue
        requirement = Requirement(line)
        if requirement.marker is None or requirement.marker.evaluate(environment):
            (specifier,) = requirement.specifier
            assert specifier.operator == "==" and requirement.url is None, line
            name = requirement.name.lower().replace("_", "-")
            assert name not in versions, f"{name} twice for Python {python}"
            versions[name] = specifier.version
    return versions


@pytest.mark.parametrize("python", PYTHONS)
def test_constraints_fix_every_requirement_within_its_range(python):
    versions = constraints_for(python)
    for requirement in setup_requirements():
        name = requirement.name.lower().replace("_", "-")
        assert name in versions, f"{name} is missing in constraints.txt"
        assert requirement.specifier.contains(versions[name]), f"{name} {versions[name]} is not {requirement.specifier}"


def test_keras_of_python_3_10_is_the_last_that_supports_it():
    assert constraints_for("3.10.13")["keras"].startswith("3.12.")
    assert constraints_for("3.12.1")["keras"].startswith("3.15.")


# --- how it is set up


def stub(folder: Path, name: str, body: str) -> None:
    """Writes a program `name` into `folder`."""
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{body}\n", encoding="utf-8")
    (folder / name).chmod(0o755)


def make_venv(path: Path, folder: Path, python: str = "") -> subprocess.CompletedProcess:
    return run(["/bin/sh", ROOT / "tools" / "make_venv.sh", folder, python], env={"PATH": str(path)})


def test_a_python_on_path_that_does_not_run_is_passed_over(tmp_path):
    stub(tmp_path / "bin", "python3.12", "echo 'no such version' >&2; exit 127")
    stub(tmp_path / "bin", "python3.11", f'exec "{sys.executable}" "$@"')
    process = make_venv(tmp_path / "bin", tmp_path / "venv")
    assert process.returncode == 0, process.stderr
    assert run([tmp_path / "venv" / "bin" / "python", "-m", "pip", "--version"]).returncode == 0


def test_without_a_python_that_fits_the_message_says_what_to_do(tmp_path):
    stub(tmp_path / "bin", "python3", "exit 1")
    process = make_venv(tmp_path / "bin", tmp_path / "venv")
    assert process.returncode == 1 and not (tmp_path / "venv").exists()
    assert "3.10, 3.11 or 3.12" in process.stderr and "make PYTHON=" in process.stderr


def test_a_chosen_python_that_does_not_fit_is_not_replaced_in_silence(tmp_path):
    stub(tmp_path / "bin", "python3.11", f'exec "{sys.executable}" "$@"')
    stub(tmp_path / "bin", "old", "exit 1")
    process = make_venv(tmp_path / "bin", tmp_path / "venv", "old")
    assert process.returncode == 1 and "PYTHON=old" in process.stderr


def test_a_python_without_ensurepip_is_told_which_package_it_needs(tmp_path):
    body = f'case "$2" in *ensurepip*) exit 1;; esac; exec "{sys.executable}" "$@"'
    stub(tmp_path / "bin", "python3.11", body)
    process = make_venv(tmp_path / "bin", tmp_path / "venv")
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    assert process.returncode == 1 and f"python{version}-venv" in process.stderr
