"""The walls of the house: who may import whom, what loads what, and what never stands in the code."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "respike"
FILES = sorted(ROOT.rglob("*.py"))
VIDEO_LIBRARIES = {"av", "decord", "torchcodec"}
LONGEST_FILE = 250
LONGEST_FUNCTION = 50
# each with the reason that its docstring gives
LONG_FILES: set[str] = set()
LONG_FUNCTIONS: set[str] = {
    "data/prepare.py:prepare",
}


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


def test_the_zoo_never_imports_the_data_nor_the_data_the_zoo():
    assert not {name for name in importers("respike.data") if name.startswith("zoo/")}
    assert not {name for name in importers("respike.zoo") if name.startswith("data/")}


def test_nobody_imports_the_command_line():
    assert {name for name in importers("respike.cli") if not name.startswith("cli/")} == {"__main__.py"}


def test_engines_know_nothing_of_video():
    allowed = ("respike.errors", "respike.memory", "respike.progress", "respike.data.engines")
    for path in (ROOT / "data" / "engines").glob("*.py"):
        ours = {module for module in imports_of(path) if module.startswith("respike")}
        assert all(module.startswith(allowed) for module in ours), path


def test_training_never_imports_scoring():
    assert not {name for name in importers("respike.zoo.scoring") if name.startswith("zoo/train")}


@pytest.mark.parametrize(
    ("package", "home"),
    [("rich", {"cli/render.py"}), ("ffmpeg", {"data/video_writer.py"}), ("av", {"data/decode.py", "data/planes.py"})],
)
def test_a_library_is_imported_in_its_home_alone(package, home):
    assert importers(package) == home


def test_video_is_decoded_in_one_place():
    # planes.py sees the decoder's frames, but opens nothing
    assert imports_of(ROOT / "data" / "planes.py") & VIDEO_LIBRARIES == set()
    for path in FILES:
        assert not imports_of(path) & VIDEO_LIBRARIES or name_of(path) == "data/decode.py"
        assert "VideoCapture" not in path.read_text()


def test_timm_backbones_are_made_in_one_place():
    makers = {name_of(path) for path in FILES if "timm.create_model" in path.read_text()}
    assert makers == {"zoo/nn/backbone.py"}


@pytest.mark.parametrize("room", ["data", "download"])
def test_every_module_stands_in_the_drawing(room):
    drawing = (ROOT.parent / "docs" / "architecture.md").read_text()
    words = set(re.findall(r"\w+", drawing.split("```")[3]))
    modules = {path.parent.name if path.stem == "__init__" else path.stem for path in (ROOT / room).rglob("*.py")}
    assert not modules - words


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
        "respike.data.prepare",
        "respike.data.building.build",
        "respike.data.engines.local",
        "respike.data.layouts",
        "respike.data.obtain",
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
    assert found == {"zoo/authors_file.py": {"load", "pickle"}}
    assert (ROOT / "zoo" / "authors_file.py").read_text().count("weights_only=True") == 1


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


def test_files_and_functions_stay_small():
    long_files = {name_of(path) for path in FILES if len(path.read_text().splitlines()) > LONGEST_FILE}
    long_functions = {
        f"{name_of(path)}:{node.name}"
        for path in FILES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef) and node.end_lineno - node.lineno >= LONGEST_FUNCTION
    }
    # equal, so that the lists name none that has become short
    assert long_files == LONG_FILES
    assert long_functions == LONG_FUNCTIONS
