"""Rules about the code as a whole, read from its syntax trees: who may import whom, and how user paths are opened."""

import ast
import functools
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("solo_dist", "configs", "tools", "launch")
HEAVY = ("tensorflow", "keras", "tensorflow_io")

# The one table of the architecture: each room of solo_dist, from the top down, with the rooms it may import. A room
# is a folder, or a module at the top of the package. `table_as_text` is the form that docs/architecture.md shows.
ROOMS: dict[str, set[str]] = {
    "__main__": {"distributed"},
    "train": {"training", "data", "run", "cli", "distributed", "recipes", "config", "errors"},
    "evaluate": {"reporting", "inference", "data", "run", "cli"},
    "predict": {"inference", "weights", "data", "cli", "recipes", "errors"},
    "export": {"exporting", "inference", "cli", "config"},
    "commands": {
        "diagnosis",
        "benchmarks",
        "quickstart",
        "suggesting",
        "importing",
        "reporting",
        "inference",
        "weights",
        "data",
        "run",
        "cli",
        "solo",
        "storage",
        "models",
        "distributed",
        "recipes",
        "config",
        "errors",
    },
    "diagnosis": {"storage", "distributed", "stack", "errors"},
    "benchmarks": {
        "reporting",
        "exporting",
        "training",
        "inference",
        "data",
        "run",
        "solo",
        "storage",
        "models",
        "distributed",
        "recipes",
        "masks",
        "config",
        "errors",
    },
    "quickstart": {"importing", "inference", "run", "storage", "distributed", "recipes", "errors"},
    "suggesting": {
        "training",
        "inference",
        "weights",
        "data",
        "solo",
        "storage",
        "models",
        "recipes",
        "config",
        "errors",
    },
    "reporting": {"importing", "inference", "data", "run", "storage", "viz", "masks", "config", "errors"},
    "importing": {"data", "coco_values", "json_text", "storage", "masks", "errors"},
    "exporting": {"inference", "data", "solo", "storage", "masks", "config", "stack", "errors"},
    "training": {"inference", "weights", "data", "run", "solo", "storage", "distributed", "viz", "config", "errors"},
    "inference": {
        "data",
        "run",
        "solo",
        "storage",
        "distributed",
        "json_text",
        "viz",
        "masks",
        "config",
        "stack",
        "errors",
    },
    "weights": {"run", "storage", "models", "config", "errors"},
    "data": {"coco_values", "json_text", "solo", "storage", "distributed", "viz", "masks", "config", "errors"},
    "run": {"storage", "distributed", "config", "errors"},
    "cli": {"storage", "distributed", "recipes", "config", "errors"},
    "solo": {"models", "masks", "config", "errors"},
    "storage": {"stack", "errors"},
    "models": {"masks", "config", "errors"},
    "distributed": {"errors"},
    "recipes": {"config", "errors"},
    "coco_values": {"errors"},
    "json_text": set(),
    "viz": set(),
    "masks": {"config"},
    "config": {"options", "errors"},
    "options": {"errors"},
    "stack": set(),
    "errors": set(),
}

# Modules that run where TensorFlow is not installed (a login node, a launcher), or that must start at once.
WITHOUT_TENSORFLOW = (
    "solo_dist.config",
    "solo_dist.errors",
    "solo_dist.options",
    "solo_dist.stack",
    "solo_dist.distributed.cluster",
    "solo_dist.distributed.exit_codes",
    "solo_dist.distributed.job",
    "solo_dist.distributed.launcher",
    "solo_dist.distributed.data_processes",
    "solo_dist.commands.launch",
    "solo_dist.recipes",
    "solo_dist.__main__",
    "configs",
    "launch",
    "tools",
)


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def source_files(*packages: str) -> list[Path]:
    return sorted(path for package in packages for path in (ROOT / package).rglob("*.py"))


TREES = {module_name(path): ast.parse(path.read_text(encoding="utf-8")) for path in source_files(*PACKAGES)}


def imported(name: str) -> Iterator[tuple[str, int]]:
    """Every module that the module `name` imports, at its top or inside a function, with the line."""
    for node in ast.walk(TREES[name]):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name}:{node.lineno} is a relative import; absolute ones can be checked"
            for alias in node.names:
                submodule = f"{node.module}.{alias.name}"
                yield (submodule if submodule in TREES else str(node.module)), node.lineno


def is_in(module: str, package: str) -> bool:
    return module == package or module.startswith(package + ".")


def room(module: str) -> str:
    """The room of a module of solo_dist; "" for the package itself."""
    return (module.split(".") + [""])[1]


@functools.cache
def arrows() -> dict[tuple[str, str], list[str]]:
    """Every pair of rooms of which the first imports the second, with the places where it does."""
    found: dict[tuple[str, str], list[str]] = {}
    for name in TREES:
        for module, line in imported(name):
            if is_in(name, "solo_dist") and is_in(module, "solo_dist") and "" not in (room(name), room(module)):
                found.setdefault((room(name), room(module)), []).append(f"{name}:{line} imports {module}")
    return {pair: places for pair, places in found.items() if pair[0] != pair[1]}


def table_as_text() -> str:
    """The table as text: a line a room, from the top down, with what it imports."""
    width = max(map(len, ROOMS))
    order = list(ROOMS)
    lines = [f"    {name:<{width}}  ->  {', '.join(sorted(uses, key=order.index))}" for name, uses in ROOMS.items()]
    return "\n".join(line.replace("->  ", "-").rstrip() if line.endswith("->  ") else line for line in lines)


def test_there_is_something_to_check():
    assert "solo_dist.config" in TREES and "solo_dist.solo.network" in TREES
    assert {"solo_dist.config", "keras"} <= {module for module, _ in imported("solo_dist.solo.network")}


@pytest.mark.parametrize("name", ROOMS)
def test_a_room_imports_only_what_the_table_allows(name):
    wrong = [
        place
        for (user, used), places in arrows().items()
        if user == name and used not in ROOMS[name]
        for place in places
    ]
    assert not wrong, "not in ROOMS:\n" + "\n".join(wrong)


def test_the_table_has_every_room_and_no_arrow_that_the_code_has_not():
    assert {room(name) for name in TREES if is_in(name, "solo_dist")} - {""} == set(ROOMS)
    unused = {(user, used) for user, uses in ROOMS.items() for used in uses} - set(arrows())
    assert not unused, f"remove from ROOMS: {sorted(unused)}"


def test_rooms_import_downwards_only():
    order = list(ROOMS)
    upwards = [(user, used) for user, uses in ROOMS.items() for used in uses if order.index(used) < order.index(user)]
    assert not upwards


def test_the_page_on_the_architecture_shows_the_table():
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    assert table_as_text() in page, f"put this into docs/architecture.md:\n{table_as_text()}"


def test_every_quirk_that_a_comment_mentions_is_listed():
    page = (ROOT / "docs" / "numerics.md").read_text(encoding="utf-8")
    listed = set(re.findall(r"^- \*\*(\d+)\.\*\*", page, re.MULTILINE))
    for path in source_files("solo_dist", "tests"):
        text = path.read_text(encoding="utf-8")
        for numbers in re.findall(r"quirks? (\d+(?:(?:, | and | to )\d+)*)", text, re.IGNORECASE):
            assert set(re.findall(r"\d+", numbers)) <= listed, f"{path}: quirk {numbers} is not in docs/numerics.md"


@pytest.mark.parametrize("part", WITHOUT_TENSORFLOW)
def test_some_modules_do_without_tensorflow(part):
    wrong = [
        f"{name}:{line} imports {module}"
        for name in TREES
        if is_in(name, part)
        for module, line in imported(name)
        if any(is_in(module, heavy) for heavy in HEAVY)
    ]
    assert not wrong, "\n".join(wrong)


def test_the_package_imports_neither_tools_nor_launch_nor_configs():
    wrong = [
        f"{name}:{line} imports {module}"
        for name in TREES
        if is_in(name, "solo_dist")
        for module, line in imported(name)
        if any(is_in(module, package) for package in ("tools", "launch", "configs"))
    ]
    assert not wrong, "\n".join(wrong)


def test_no_module_is_part_of_a_cycle_of_imports():
    uses = {name: {module for module, _ in imported(name) if module in TREES and module != name} for name in TREES}
    state: dict[str, str] = {}

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert state.get(name) != "open", f"cycle of imports: {' -> '.join((*trail, name))}"
        if name in state:
            return
        state[name] = "open"
        for module in sorted(uses[name]):
            visit(module, (*trail, name))
        state[name] = "done"

    for name in TREES:
        visit(name, ())


def test_the_trainer_stays_readable():
    """At most 15 methods, and fit() on one screen; what more there is belongs into files of its own."""
    tree = TREES["solo_dist.training.trainer"]
    (trainer,) = [node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "Trainer"]
    lines = {m.name: m.end_lineno - m.lineno + 1 for m in trainer.body if isinstance(m, ast.FunctionDef)}
    assert len(lines) <= 15 and lines["fit"] <= 40, lines


def test_files_are_named_after_a_concept():
    vague = {"utils", "util", "helpers", "helper", "common", "misc"}
    assert not [name for name in TREES if name.rsplit(".", 1)[-1] in vague]


# User paths can be gs:// and s3:// addresses, which only tf.io.gfile understands. These files touch the local disk for
# something else; the reason is beside each.
LOCAL_FILES = {
    "solo_dist.storage.host_lock": "locks of files are a matter of one host",
    "solo_dist.storage.lease": "links a file on a local disk, reads /proc to see whether a process lives",
    "solo_dist.distributed.stop_signals": "reads the machine's product name in /sys",
    "solo_dist.storage.atomic": "brings the content of a local file to the disk before its rename",
    "solo_dist.storage.file_io": "a temporary folder of its own for what is on its way to a store",
    "solo_dist.storage.urls": "the temporary folder of this machine",
    "solo_dist.storage.s3": "uploads local files",
    "solo_dist.diagnosis.machine": "looks at the disk and at /proc of this machine",
    "solo_dist.diagnosis.software": "asks /proc for the driver of this machine",
    "solo_dist.distributed.job": "progress of a worker for the launcher on the same host",
    "solo_dist.data.input.cache": "copies of shards on a local disk are what it is for",
    "solo_dist.distributed.launcher": "logs of the processes that it starts on this machine",
    "solo_dist.recipes": "recipes are Python files of this machine",
    "solo_dist.__main__": "reads the docstrings of the commands",
    "solo_dist.weights.download": "downloads are kept in a folder of this machine",
    "solo_dist.benchmarks.input": "a temporary folder of its own",
    "solo_dist.benchmarks.scaling": "trainings in a temporary folder of its own",
    "solo_dist.benchmarks.sharding": "shards in a temporary folder of its own",
    "solo_dist.benchmarks.evaluation": "a run in a temporary folder of its own",
    "solo_dist.exporting.shipped.detect": "runs beside a model on a machine without solo_dist",
    "solo_dist.benchmarks.timing": "reads the peak of its memory in /proc",
}
LOCAL_MODULES = {"os.path", "shutil", "glob", "tempfile"}
LOCAL_CALLS = {
    "makedirs",
    "mkdir",
    "listdir",
    "scandir",
    "walk",
    "remove",
    "unlink",
    "rename",
    "replace",
    "rmdir",
    "stat",
}
OWN_FILES = {"__file__", "sys.executable"}


def local_file_access(tree: ast.Module) -> list[str]:
    """What in a module works on the local disk only: open(), os.path.*, os.remove() and the like, Path(path)."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in {"open", "Path", "pathlib.Path", "PurePath"}:
            if not (node.args and ast.unparse(node.args[0]) in OWN_FILES):
                found.append(f"line {node.lineno}: {ast.unparse(node)}")
        elif isinstance(node, ast.Attribute) and ast.unparse(node.value) == "os":
            if node.attr == "path" or node.attr in LOCAL_CALLS:
                found.append(f"line {node.lineno}: os.{node.attr}")
        elif isinstance(node, ast.Import):
            found += [f"line {node.lineno}: {alias.name}" for alias in node.names if alias.name in LOCAL_MODULES]
        elif isinstance(node, ast.ImportFrom) and node.module in LOCAL_MODULES:
            found.append(f"line {node.lineno}: {node.module}")
    return found


def test_user_paths_are_opened_through_gfile():
    wrong = [
        f"{name}, {access}"
        for name, tree in TREES.items()
        if is_in(name, "solo_dist") and name not in LOCAL_FILES
        for access in local_file_access(tree)
    ]
    assert not wrong, "use solo_dist.storage for user paths, or give a reason in LOCAL_FILES:\n" + "\n".join(wrong)


def test_the_exceptions_are_still_needed():
    assert not [name for name in LOCAL_FILES if name not in TREES or not local_file_access(TREES[name])]


@pytest.mark.parametrize(
    "code", ["open(path)", "import os.path", "Path(workdir) / name", "x = os.path.join(a, b)", "os.remove(path)"]
)
def test_local_file_access_is_recognised(code):
    assert local_file_access(ast.parse(code))


@pytest.mark.parametrize(
    "code",
    [
        "tf.io.gfile.GFile(path)",
        "Path(__file__).parent",
        "PIL.Image.open(file)",
        "text.replace('a', 'b')",
        "os.getpid()",
    ],
)
def test_other_calls_are_not_taken_for_it(code):
    assert not local_file_access(ast.parse(code))
