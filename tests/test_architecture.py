"""Rules about the code as a whole, read from its syntax trees: who may import whom, and how user paths are opened."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("solo_dist", "configs", "tools", "launch")
ENTRY_POINTS = {f"solo_dist.{name}" for name in ("train", "evaluate", "predict", "export")}
HEAVY = ("tensorflow", "keras", "tensorflow_io")

# What a part must not import, by prefix. Everything below the trainer also shares BELOW_TRAINER.
BELOW_TRAINER = ("solo_dist.trainer", *sorted(ENTRY_POINTS), "tools", "launch", "configs")
FORBIDDEN = {
    "solo_dist.config": ("solo_dist", *HEAVY),
    "solo_dist.models": ("solo_dist.runtime", "solo_dist.data", "solo_dist.evaluation", "solo_dist.observability"),
    "solo_dist.losses": ("solo_dist.runtime", "solo_dist.data.pipeline"),
    "solo_dist.data": ("solo_dist.models", "solo_dist.losses"),
    "solo_dist.runtime": ("solo_dist.models", "solo_dist.data", "solo_dist.losses", "solo_dist.evaluation"),
    # Pure Python: a launcher and a login node have no TensorFlow.
    "solo_dist.runtime.cluster": HEAVY,
    "launch": (*HEAVY, "solo_dist.trainer", "solo_dist.models", "tools"),
    "configs": (*HEAVY, "tools", "launch"),
}


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


# Every part may open files.
ANY_PART = {"solo_dist.runtime.storage"}


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


def test_there_is_something_to_check():
    assert "solo_dist.config" in TREES and "solo_dist.models.solov2" in TREES
    assert {"solo_dist.config", "keras"} <= {module for module, _ in imported("solo_dist.models.solov2")}


@pytest.mark.parametrize("part", FORBIDDEN)
def test_parts_do_not_import_what_is_above_or_beside_them(part):
    wrong = [
        f"{name}:{line} imports {module}"
        for name in TREES
        if is_in(name, part)
        for module, line in imported(name)
        for forbidden in FORBIDDEN[part]
        if is_in(module, forbidden) and module not in ANY_PART
    ]
    assert not wrong, "\n".join(wrong)


def test_nothing_below_the_trainer_imports_it():
    wrong = [
        f"{name}:{line} imports {module}"
        for name in TREES
        if is_in(name, "solo_dist") and name not in {"solo_dist.trainer", *ENTRY_POINTS}
        for module, line in imported(name)
        for above in BELOW_TRAINER
        if is_in(module, above)
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


def test_files_are_named_after_a_concept():
    vague = {"utils", "util", "helpers", "helper", "common", "misc"}
    assert not [name for name in TREES if name.rsplit(".", 1)[-1] in vague]


# User paths can be gs:// and s3:// addresses, which only tf.io.gfile understands. These files touch the local disk for
# something else; the reason is beside each.
LOCAL_FILES = {
    "solo_dist.runtime.host_lock": "locks of files are a matter of one host",
    "solo_dist.runtime.lock": "reads /proc to see whether a process lives",
    "solo_dist.runtime.preemption": "reads the machine's product name in /sys",
    "solo_dist.runtime.storage": "a temporary folder of its own for what is on its way to a store",
    "solo_dist.runtime.launcher": "progress of a worker for the launcher on the same host",
    "solo_dist.data.cache": "copies of shards on a local disk are what it is for",
    "solo_dist.models.weights": "downloads, into Keras's folder in the home",
    "tools.benchmarks.input": "a temporary folder of its own",
    "tools.benchmarks.scaling": "trainings in a temporary folder of its own",
    "tools.benchmarks.sharding": "shards in a temporary folder of its own",
    "tools.benchmarks.timing": "reads the peak of its memory in /proc",
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
        if (is_in(name, "solo_dist") or is_in(name, "tools")) and name not in LOCAL_FILES
        for access in local_file_access(tree)
    ]
    assert not wrong, "use tf.io.gfile for user paths, or give a reason in LOCAL_FILES:\n" + "\n".join(wrong)


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
