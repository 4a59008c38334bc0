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

from solo_dist import recipes
from solo_dist.__main__ import COMMANDS
from solo_dist.errors import ConfigError

ROOT = Path(__file__).resolve().parent.parent
MODULES = {name: module for group in COMMANDS.values() for name, module in group.items()}
CHECKOUT_SCRIPTS = sorted(
    f"{folder}.{path.stem}" for folder in ("tools", "launch") for path in (ROOT / folder).glob("[!_]*.py")
)
STACKS = {
    "constraints-2.17.txt": ("3.10.13", "3.11.7", "3.12.1"),
    "constraints.txt": ("3.11.7", "3.12.1", "3.13.0"),
}
"""The files of exact versions, and Pythons that each is for."""


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


def test_the_help_lists_every_command_and_every_module_of_commands_is_one():
    packages, process = imported_by(["-m", "solo_dist", "--help"], cwd=ROOT)
    assert process.returncode == 0 and not packages & {"tensorflow", "keras", "numpy", "absl"}
    lines = dict(line.split(maxsplit=1) for line in process.stdout.splitlines() if line.startswith("  "))
    assert list(lines) == list(MODULES)
    unfit = [line for line in lines.values() if len(line) > 100 or not line.endswith(".")]
    assert not unfit, "the first line of a command's docstring is a sentence of at most 100 characters"
    files = {f"solo_dist.commands.{path.stem}" for path in (ROOT / "solo_dist/commands").glob("[!_]*.py")}
    assert files == {module for module in MODULES.values() if module.startswith("solo_dist.commands.")}


@pytest.mark.parametrize("command", MODULES)
def test_help_of_a_command_is_given_without_importing_tensorflow(command):
    packages, process = imported_by(["-m", "solo_dist", command, "--help"], cwd=ROOT)
    assert re.search(rf"solo-dist {command}\s", process.stdout) and "Traceback" not in process.stderr
    assert "tensorflow" not in packages and "keras" not in packages
    for recipe in re.findall(r"--config=(\w+)", process.stdout):
        assert recipe in recipes.names()


@pytest.mark.parametrize("script", CHECKOUT_SCRIPTS)
def test_scripts_of_a_checkout_are_commands(script):
    (command,) = re.findall(r'run_command\("([\w-]+)"', (ROOT / f"{script.replace('.', '/')}.py").read_text())
    assert command in MODULES
    assert f"solo-dist {command} " in run([sys.executable, "-m", script, "--help"], cwd=ROOT).stdout


def test_an_unknown_command_ends_with_one_line_that_names_the_closest():
    process = run([sys.executable, "-m", "solo_dist", "evalute", "--workdir=x"], cwd=ROOT)
    assert process.returncode == 2 and not process.stdout
    assert process.stderr == "error: there is no command 'evalute'; the closest is 'evaluate'. See solo-dist --help.\n"


def test_the_module_and_the_command_have_the_same_flags():
    command, module = (
        run([sys.executable, "-m", *which, "--helpshort"], cwd=ROOT).stdout
        for which in (["solo_dist", "predict"], ["solo_dist.predict"])
    )
    assert command == module and "--score_threshold" in command


# --- recipes by name


def test_recipes_are_found_by_name_by_file_and_by_path(tmp_path, monkeypatch):
    file = str(ROOT / "configs" / "shapes_tiny.py")
    assert recipes.find("shapes_tiny") == file
    mine = tmp_path / "mine.py"
    mine.write_text("from solo_dist import recipes\ndef get_config():\n    return recipes.get('shapes_tiny')\n")
    assert recipes.find(str(mine)) == str(mine) and recipes.get(str(mine)) == recipes.get("shapes_tiny")
    monkeypatch.chdir(tmp_path)
    assert recipes.find("configs/shapes_tiny.py") == file
    assert recipes.find("mine.py") == "mine.py"


def test_an_unknown_recipe_ends_with_one_line_that_lists_them():
    with pytest.raises(
        ConfigError, match="--config=shapes: there is no such file or recipe; the recipes are article_r"
    ):
        recipes.find("shapes")
    process = run([sys.executable, "-m", "solo_dist.train", "--config=solov2_r50"], cwd=ROOT)
    assert process.returncode == 2 and process.stderr.count("\n") == 1
    assert all(name in process.stderr for name in recipes.names())


@pytest.mark.parametrize("name", recipes.names())
def test_a_recipe_is_named_after_its_file_and_says_where_it_is_from(name):
    config = recipes.get(name).validate()
    assert config.name == name and config is not recipes.get(name)
    text = Path(recipes.find(name)).read_text(encoding="utf-8")
    assert "Source:" in text and f"solo-dist train --config={name} " in text


# --- what is installed


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in ("solo_dist", "configs", "tools", "launch", "tests/commands"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.cfg", "setup.py", "pyproject.toml", "LICENSE", "README.md"):
        shutil.copy(ROOT / name, source)
    # Without isolation pip asks no index for setuptools; it is among the requirements of the project.
    build = run([sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-w", target, source])
    if "invalid command 'bdist_wheel'" in build.stdout + build.stderr:
        pytest.skip("setuptools is older than the constraints say and cannot build a wheel on its own")
    assert build.returncode == 0, build.stderr
    (wheel,) = target.glob("*.whl")
    return wheel


def test_only_the_package_is_installed_with_all_its_files_and_the_recipes(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert {name.split("/")[0] for name in names} == {"solo_dist"}
    files = {path for folder in ("solo_dist", "configs") for path in (ROOT / folder).rglob("*") if path.is_file()}
    expected = {path.relative_to(ROOT).as_posix() for path in files if "__pycache__" not in path.parts}
    assert names == {f"solo_dist/{name}" if name.startswith("configs/") else name for name in expected}


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    """The folder of programs of a fresh virtual environment that has the wheel and sees the libraries of this one."""
    folder = tmp_path_factory.mktemp("environment")
    environment = folder / "venv"
    assert run([sys.executable, "-m", "venv", "--without-pip", environment]).returncode == 0
    python = environment / "bin" / "python"
    install = [sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index", wheel]
    done = run(install)
    assert done.returncode == 0, done.stderr
    (packages,) = environment.glob("lib/python*/site-packages")
    # A folder named in a .pth file is searched, but .pth files in it are not read: an editable solo_dist is not seen.
    (packages / "libraries.pth").write_text(f"{Path(pytest.__file__).parent.parent}\n")
    return environment / "bin"


def test_the_installed_program_helps_and_finds_recipes_from_any_folder(installed, tmp_path):
    program = installed / "solo-dist"
    options = {"cwd": tmp_path, "env": {"PATH": os.environ["PATH"]}}
    assert (
        run([program, "--help"], **options).stdout
        == run([sys.executable, "-m", "solo_dist", "--help"], cwd=ROOT).stdout
    )
    code = "from solo_dist.recipes import find, get; print(find('shapes_tiny'), get('solov2_r50_fpn_1x').train.steps)"
    path, steps = run([installed / "python", "-c", code], **options).stdout.split()
    assert Path(path).is_relative_to(installed.parent) and int(steps) == 12 * 7330
    assert path in "".join(run([program, "train", "--help"], **options).stdout.split()), "the default of --config"
    for config in ("solov2_r101_fpn_3x", "configs/solov2_r101_fpn_3x.py"):
        read = run([program, "train", f"--config={config}", "--config.train.steps=many"], **options)
        assert read.returncode == 2 and "config.train.steps=many" in read.stderr, (
            "the recipe was read, the value refused"
        )


# --- which versions


def setup_requirements(python: str) -> list[Requirement]:
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg", encoding="utf-8")
    blocks = [parser["options"]["install_requires"], *parser["options.extras_require"].values()]
    lines = [line.strip() for block in blocks for line in block.splitlines()]
    requirements = [Requirement(line) for line in lines if line and not line.startswith("#")]
    return [one for one in requirements if one.marker is None or one.marker.evaluate(linux(python))]


def linux(python: str) -> dict[str, str]:
    """What markers ask for."""
    return {
        "python_full_version": python,
        "python_version": python.rsplit(".", 1)[0],
        "sys_platform": "linux",
        "platform_system": "Linux",
        "implementation_name": "cpython",
        "platform_python_implementation": "CPython",
        "platform_machine": "x86_64",
    }


def constraints_for(file: str, python: str) -> dict[str, str]:
    """Name -> exact version, of the lines of a file of constraints that apply on Linux with this version of Python."""
    environment = linux(python)
    versions: dict[str, str] = {}
    for line in (ROOT / file).read_text(encoding="utf-8").splitlines():
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


@pytest.mark.parametrize(("file", "python"), [(file, python) for file in STACKS for python in STACKS[file]])
def test_constraints_fix_every_requirement_within_its_range(file, python):
    versions = constraints_for(file, python)
    for requirement in setup_requirements(python):
        name = requirement.name.lower().replace("_", "-")
        assert name in versions, f"{name} is missing in {file}"
        assert requirement.specifier.contains(versions[name]), f"{name} {versions[name]} is not {requirement.specifier}"


def test_the_stacks_are_what_the_guide_says():
    old = {python: constraints_for("constraints-2.17.txt", python) for python in STACKS["constraints-2.17.txt"]}
    assert {versions["tensorflow"] for versions in old.values()} == {"2.17.1"}
    assert all("tensorflow-io" in versions for versions in old.values())
    assert old["3.10.13"]["keras"].startswith("3.12."), "the last Keras for Python 3.10"
    assert old["3.12.1"]["keras"].startswith("3.15.")
    new = constraints_for("constraints.txt", "3.13.0")
    assert new["tensorflow"] == "2.21.0" and "tensorflow-io" not in new


# --- how it is set up


def stub(folder: Path, name: str, body: str) -> None:
    """Writes a program `name` into `folder`."""
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{body}\n", encoding="utf-8")
    (folder / name).chmod(0o755)


def make_venv(path: Path, folder: Path, python: str = "", stack: str = "") -> subprocess.CompletedProcess:
    return run(
        ["/bin/sh", ROOT / "tools" / "make_venv.sh", folder, python, stack], env={"PATH": f"{path}:/usr/bin:/bin"}
    )


def pretend(folder: Path, name: str, minor: int) -> None:
    """Writes a Python into `folder` that says it is 3.`minor` and makes environments without pip, which is quicker."""
    told = f"import sys; sys.version_info = (3, {minor}, 0, 'final', 0); exec(sys.argv[1])"
    special = f'*version_info*) exec "{sys.executable}" -c "{told}" "$2";; venv) set -- "$@" --without-pip;;'
    stub(folder, name, f'case "$2" in {special} esac; exec "{sys.executable}" "$@"')


@pytest.mark.parametrize(
    ("pythons", "asked", "stack"),
    [((12, 13), "", "2.17"), ((13,), "", "newest"), ((12, 13), "newest", "newest"), ((10,), "", "2.17")],
)
def test_a_stack_is_chosen_by_the_pythons_on_path(pythons, asked, stack, tmp_path):
    stub(tmp_path / "bin", "python3.11", "echo 'no such version' >&2; exit 127")
    for name in ("python3", "python", *(f"python3.{minor}" for minor in (10, 12, 13))):
        stub(tmp_path / "bin", name, "exit 127")
    for minor in pythons:
        pretend(tmp_path / "bin", f"python3.{minor}", minor)
    environment = tmp_path / "venv"
    process = make_venv(tmp_path / "bin", environment, stack=asked)
    assert process.returncode == 0, process.stderr
    assert (environment / "stack").read_text() == f"{stack}\n"
    (environment / "stack").unlink()
    (environment / "mine").write_text("")
    assert make_venv(tmp_path / "bin", environment).returncode == 0
    assert (environment / "stack").exists() and (environment / "mine").exists(), "an environment is not made again"


PYTHONS = ("python3.13", "python3.12", "python3.11", "python3.10", "python3", "python")


def test_without_a_python_that_fits_uv_fetches_one_or_the_message_says_what_to_do(tmp_path):
    for name in PYTHONS:
        stub(tmp_path / "bin", name, "exit 1")
    process = make_venv(tmp_path / "bin", tmp_path / "venv")
    assert process.returncode == 1 and not (tmp_path / "venv").exists()
    assert "3.10 to 3.13" in process.stderr and "make PYTHON=" in process.stderr
    stub(tmp_path / "bin", "uv", 'echo "$@"; for last; do :; done; mkdir -p "$last"')
    process = make_venv(tmp_path / "bin", tmp_path / "venv")
    assert process.returncode == 0 and "--python 3.12" in process.stdout and process.stderr.count("\n") == 1
    assert (tmp_path / "venv" / "stack").read_text() == "2.17\n"


def test_a_chosen_python_that_does_not_fit_is_not_replaced_in_silence(tmp_path):
    pretend(tmp_path / "bin", "python3.11", 11)
    pretend(tmp_path / "bin", "python3.13", 13)
    stub(tmp_path / "bin", "old", "exit 1")
    process = make_venv(tmp_path / "bin", tmp_path / "venv", "old")
    assert process.returncode == 1 and "PYTHON=old" in process.stderr
    process = make_venv(tmp_path / "bin", tmp_path / "venv", "python3.13", "2.17")
    assert process.returncode == 1 and "TensorFlow 2.17 needs Python 3.10 to 3.12" in process.stderr
    process = make_venv(tmp_path / "bin", tmp_path / "venv", stack="3")
    assert process.returncode == 1 and process.stderr == "STACK=3 must be 2.17 or newest.\n"


def test_a_python_without_ensurepip_is_told_which_package_it_needs(tmp_path):
    body = f'case "$2" in *ensurepip*) exit 1;; esac; exec "{sys.executable}" "$@"'
    for name in PYTHONS:
        stub(tmp_path / "bin", name, body)
    process = make_venv(tmp_path / "bin", tmp_path / "venv")
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    assert process.returncode == 1 and f"python{version}-venv" in process.stderr
