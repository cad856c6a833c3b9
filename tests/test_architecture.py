"""The architecture: which floor may import which, what loads what, and what the code never contains."""

import ast
import graphlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "respike"
FILES = sorted(ROOT.rglob("*.py"))
# imports go to the same package or to a lower floor; data and zoo are one floor and never see each other
FLOORS = {"cli": 4, "workflows": 3, "data": 2, "zoo": 2, "types": 1, "common": 0}
VIDEO_LIBRARIES = {"av", "decord", "torchcodec"}


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def imports_of(path: Path) -> set[str]:
    """Every module that a file imports, at its head or later, but not for types alone."""
    tree = ast.parse(path.read_text())
    typing_only = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        for inner in ast.walk(node)
    }
    found = set()
    for node in ast.walk(tree):
        if id(node) in typing_only:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def importers(package: str) -> set[str]:
    """Files that import a package or something in it."""
    return {
        name_of(path)
        for path in FILES
        if any(module == package or module.startswith(package + ".") for module in imports_of(path))
    }


def modules_of(path: Path) -> set[str]:
    """The modules of respike that a file imports, at its head or later."""
    known = {module_name(file) for file in FILES}
    return {module for module in imports_of(path) & known if module != module_name(path)}


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def test_imports_go_down_only():
    for path in FILES:
        package, _, _ = name_of(path).removesuffix(".py").partition("/")
        for module in modules_of(path):
            _, _, inner = module.partition(".")
            other = inner.partition(".")[0]
            if package in FLOORS and other in FLOORS and package != other:
                assert FLOORS[other] < FLOORS[package], f"{name_of(path)} imports {module}"


def test_no_imports_go_round_in_a_circle():
    packages = {module_name(path) for path in FILES if path.name == "__init__.py"}
    graph = {module_name(path): modules_of(path) - packages for path in FILES}
    graphlib.TopologicalSorter(graph).prepare()


def test_executors_know_nothing_of_video():
    allowed = ("respike.common.errors", "respike.common.processes", "respike.common.progress", "respike.data.executors")
    for path in (ROOT / "data" / "executors").glob("*.py"):
        ours = {module for module in imports_of(path) if module.startswith("respike")}
        assert all(module.startswith(allowed) for module in ours), path


def test_training_never_imports_scoring():
    assert "zoo/trainer.py" not in importers("respike.zoo.scoring")


@pytest.mark.parametrize(
    ("package", "home"),
    [("rich", {"cli/console.py"}), ("ffmpeg", {"data/video_writer.py"}), ("av", {"data/video_reader.py"})],
)
def test_a_library_is_imported_in_its_home_alone(package, home):
    assert importers(package) == home


def test_video_is_decoded_in_one_place():
    for path in FILES:
        assert not imports_of(path) & VIDEO_LIBRARIES or name_of(path) == "data/video_reader.py"
        assert "VideoCapture" not in path.read_text()


def test_processors_are_counted_in_one_place():
    counts = re.compile(r"cpu_count\b|sched_getaffinity")
    assert {name_of(path) for path in FILES if counts.search(path.read_text())} == {"common/processes.py"}


def test_timm_backbones_are_made_in_one_place():
    makers = {name_of(path) for path in FILES if "timm.create_model" in path.read_text()}
    assert makers == {"zoo/nn/backbone.py"}


def loaded_by(code: str) -> set[str]:
    """Top-level modules that stand loaded after `code` in a fresh process."""
    script = f"import sys\n{code}\nprint(' '.join(sorted({{name.partition('.')[0] for name in sys.modules}})))"
    answer = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(answer.stdout.splitlines()[-1].split())


def test_importing_respike_loads_nothing_heavy():
    assert not loaded_by("import respike") & {"torch", "cv2", "numpy", "av"}


def test_help_loads_nothing_heavy():
    code = "from respike.cli.main import cli\ncli.main(['--help'], standalone_mode=False)"
    assert not loaded_by(code) & {"torch", "cv2", "numpy", "av", "rich"}


@pytest.mark.parametrize(
    "module",
    [
        "respike.data.preparation",
        "respike.data.shard_worker",
        "respike.data.executors.local",
        "respike.data.datasets",
        "respike.data.acquire",
    ],
)
def test_prepare_and_its_workers_never_load_torch(module):
    assert not loaded_by(f"import {module}") & {"torch", "webdataset", "timm"}


# what runs foreign code: calls by plain name, calls of a module's, and keywords with the value that alone is allowed
RUNS_CODE = {"eval", "exec", "compile", "__import__"}
RUNS_CODE_OF = {"os": {"system", "popen"}, "torch": {"load"}, "subprocess": {"getoutput", "getstatusoutput"}}
SAFE_KEYWORDS = {"allow_pickle": False, "shell": False, "weights_only": True}
PICKLERS = {"pickle", "_pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}


def dangers_of(code: str) -> set[str]:
    """What in the code could run code from elsewhere or write where an archive says."""
    found = set()
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = {alias.name for alias in node.names} | {getattr(node, "module", None)}
            found |= {name for name in names if name and name.partition(".")[0] in PICKLERS}
        if not isinstance(node, ast.Call):
            continue
        if isinstance(node.func, ast.Name) and node.func.id in RUNS_CODE:
            found.add(node.func.id)
        if isinstance(node.func, ast.Attribute):
            owner = node.func.value.id if isinstance(node.func.value, ast.Name) else ""
            if node.func.attr == "extractall" or node.func.attr in RUNS_CODE_OF.get(owner, ()):
                found.add(node.func.attr)
        for keyword in node.keywords:
            if keyword.arg in SAFE_KEYWORDS and ast.unparse(keyword.value) != str(SAFE_KEYWORDS[keyword.arg]):
                found.add(keyword.arg)
    return found


def test_what_runs_foreign_code_never_stands_in_the_code():
    found = {name_of(path): dangers for path in FILES if (dangers := dangers_of(path.read_text()))}
    # one file reads pickles, tensors and plain values of them: `weights_only` would be named if it were not so
    assert found == {"zoo/published_code.py": {"load", "pickle"}}
    assert (ROOT / "zoo" / "published_code.py").read_text().count("weights_only=True") == 1


@pytest.mark.parametrize(
    "code",
    [
        "import pickle",
        "from pickle import loads as read",
        "import numpy as np; np.load(path, allow_pickle=True)",
        "import numpy as np; np.load(path, allow_pickle=anything)",
        "torch.load(path)",
        "f(path, weights_only=False)",
        "tar.extractall(path)",
        "import subprocess; subprocess.run(line, shell=True)",
        "os.system(line)",
        "eval(text)",
        "exec(text)",
    ],
)
def test_what_runs_foreign_code_would_be_found(code):
    assert dangers_of(code)


def test_what_only_looks_like_it_is_left_alone():
    assert not dangers_of("model.eval(); re.compile(x); f(path, weights_only=True, shell=False, allow_pickle=False)")


def test_the_library_neither_prints_nor_exits():
    for path in FILES:
        if name_of(path).startswith("cli/"):
            continue
        calls = {node.func.id for node in ast.walk(ast.parse(path.read_text())) if is_plain_call(node)}
        assert not calls & {"print", "exit", "quit"}, path


def is_plain_call(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name)


def test_every_file_says_what_lives_there():
    assert not [name_of(path) for path in FILES if not ast.get_docstring(ast.parse(path.read_text()))]
