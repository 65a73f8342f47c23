"""The law of the tree, executable: who may import whom, how long things may grow, and what is never done.

Each rule is a function from files to violations. It is run on the tree, where it must find nothing, and on a planted
violation, where it must find one.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LAYERS = (
    {"", "__main__"},
    {"cli"},
    {"commands"},
    {"selftest"},
    {"training"},
    {"evaluation"},
    {"generation", "planning", "preparation"},
    {"families"},
    {"acceleration", "adapters", "data", "diffusion", "config", "launching", "reporting"},
    {"foundation", "types"},
)
"""Imports point down; names on one line are strangers. "" is svdtrain/__init__.py."""
HEIGHT = {part: -row for row, parts in enumerate(LAYERS) for part in parts}
UPSTREAM = re.compile("stablevideo|spatiotemporal|temporaldecoder|cogvideox|animatediff|unet3d|i2vgen|ltxvideo")
"""Pieces of the class names of particular models in diffusers."""
LINEAR_ALGEBRA = {"svd", "svdvals", "svd_lowrank"}
VAGUE = {"utils", "util", "helpers", "helper", "common", "core", "base", "misc"}
MAX_FILE_LINES, MAX_FUNCTION_LINES = 300, 60

Files = dict[str, str]
"""Path from the root -> text."""
Rule = Callable[[Files], list[str]]


def read(*patterns: str) -> Files:
    """The files of the tree under these globs."""
    paths = sorted({path for pattern in patterns for path in ROOT.glob(pattern) if path.is_file()})
    return {path.relative_to(ROOT).as_posix(): path.read_text() for path in paths if "__pycache__" not in path.parts}


def package(files: Files) -> Files:
    return {path: text for path, text in files.items() if path.startswith("svdtrain/") and path.endswith(".py")}


def part_of(path: str) -> str:
    """The layer's name: svdtrain/data/clip.py -> data."""
    return "" if path == "svdtrain/__init__.py" else path.split("/")[1].removesuffix(".py")


def module_of(path: str) -> str:
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def imports(tree: ast.AST, *, at_import_time: bool = False) -> list[str]:
    """Dotted names that are imported; `from a import b` gives both a and a.b."""
    names: list[str] = []
    nodes = getattr(tree, "body", []) if at_import_time else ast.walk(tree)
    for node in nodes:
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: a relative import"
            module = node.module or ""
            names += [module, *(f"{module}.{alias.name}" for alias in node.names)]
    return names


def imports_point_up(files: Files) -> list[str]:
    found = []
    for path, text in package(files).items():
        here = part_of(path)
        if here not in HEIGHT:
            found.append(f"{path}: '{here}' stands on no layer")
            continue
        for name in imports(ast.parse(text)):
            there = name.split(".")[1] if name.count(".") else ""
            if not name.startswith("svdtrain.") or there in {here, "__version__"}:
                continue
            if there in HEIGHT and HEIGHT[there] >= HEIGHT[here]:
                found.append(f"{path} imports {name}: {there} is not below {here}")
    return found


def import_cycles(files: Files) -> list[str]:
    trees = {module_of(path): ast.parse(text) for path, text in package(files).items()}
    graph = {name: {i for i in imports(tree, at_import_time=True) if i in trees} for name, tree in trees.items()}

    def reached(start: str) -> set[str]:
        found, fresh = set[str](), {start}
        while fresh:
            fresh = {step for name in fresh for step in graph[name]} - found
            found |= fresh
        return found

    return [f"{name} imports itself, by way of others" for name in graph if name in reached(name)]


def long_files(files: Files) -> list[str]:
    counts = {path: text.count("\n") for path, text in files.items() if path.endswith(".py")}
    return [f"{path}: {count} lines" for path, count in counts.items() if count > MAX_FILE_LINES]


def long_functions(files: Files) -> list[str]:
    return [
        f"{path}:{node.lineno} {node.name}: {(node.end_lineno or 0) - node.lineno + 1} lines"
        for path, text in files.items()
        if path.endswith(".py")
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (node.end_lineno or 0) - node.lineno >= MAX_FUNCTION_LINES
    ]


def modules_without_docstring(files: Files) -> list[str]:
    return [p for p, text in files.items() if p.endswith(".py") and not ast.get_docstring(ast.parse(text))]


def folders_without_init(files: Files) -> list[str]:
    folders = {Path(path).parent.as_posix() for path in package(files)}
    return [f"{folder}/__init__.py is missing" for folder in folders if f"{folder}/__init__.py" not in files]


def vague_names(files: Files) -> list[str]:
    return [path for path in files if VAGUE & {part.partition(".")[0] for part in Path(path).parts}]


def identifiers(tree: ast.AST) -> list[tuple[int, str]]:
    """(line, name) of all that is named or spelled like a name; sentences are not."""
    found: list[tuple[int, str]] = []
    for node in ast.walk(tree):
        names: list[str | None] = []
        if isinstance(node, ast.Name):
            names = [node.id]
        elif isinstance(node, ast.Attribute) and node.attr not in LINEAR_ALGEBRA:
            names = [node.attr]
        elif isinstance(node, ast.arg | ast.keyword):
            names = [node.arg]
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names = [node.name]
        elif isinstance(node, ast.alias):
            names = [node.name, node.asname]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and re.fullmatch(r"\w+", node.value):
            names = [node.value]
        found += [(getattr(node, "lineno", 0), name) for name in names if name]
    return found


def families_outside_their_folder(files: Files) -> list[str]:
    known = registry_rows(files)
    found: list[str] = []
    for path, text in package(files).items():
        if path.startswith("svdtrain/families/"):
            continue
        for line, name in identifiers(ast.parse(text)):
            flat = name.lower().replace("_", "")
            words = {word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+", name)}
            if words & known.keys() or UPSTREAM.search(flat):
                found.append(f"{path}:{line} names a family: {name}")
    return found


def registry_rows(files: Files) -> dict[str, tuple[str, str]]:
    """Family -> (module, class), read from the table in families/registry.py."""
    for node in ast.walk(ast.parse(files.get("svdtrain/families/registry.py", ""))):
        if isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == "FAMILIES" and node.value:
            return ast.literal_eval(node.value)
    return {}


def families_half_registered(files: Files) -> list[str]:
    rows = registry_rows(files)
    configured = {
        match[1]
        for path, text in files.items()
        if path.startswith("configs/model/") and (match := re.search(r"^family: *(\w+)", text, re.MULTILINE))
    }
    found = [f"configs/model: no family '{name}' in the registry" for name in configured - rows.keys()]
    for name, (module, class_name) in rows.items():
        if f"class {class_name}" not in files.get(module.replace(".", "/") + ".py", ""):
            found.append(f"{name}: no class {class_name} in {module}")
        if name not in configured:
            found.append(f"{name}: no file in configs/model has it")
        if f'"{name}"' not in files.get("tests/families/cases.py", f'"{name}"'):
            found.append(f"{name}: no row in tests/families/cases.py")
        if name not in files.get("README.md", name):
            found.append(f"{name}: not in README.md")
    for path, text in files.items():
        if path.startswith("svdtrain/families/") and module_of(path) not in {module for module, _ in rows.values()}:
            classes = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.ClassDef)]
            bodies = [line for node in classes for line in node.body if isinstance(line, ast.Assign | ast.AnnAssign)]
            if any(re.match(r"spec\b.*=", ast.unparse(line)) for line in bodies):
                found.append(f"{path} holds a family that has no row in the registry")
    return found


def recipes_without_introduction(files: Files) -> list[str]:
    """A comment besides Hydra's own `# @package` must come first."""
    recipes = {p: t.splitlines() for p, t in files.items() if p.startswith("configs/config/")}
    return [path for path, lines in recipes.items() if not [x for x in lines[:2] if re.match(r"# *[^@ ]", x)]]


def code_in_configs(files: Files) -> list[str]:
    return [path for path, text in files.items() if path.startswith("configs/") and "_target_" in text]


def dangerous_calls(files: Files) -> list[str]:
    """Whatever runs code that came with data: pickle in all its forms, shells, eval."""
    found = []
    for path, text in files.items():
        if not path.endswith(".py") or path.startswith("tests/"):
            continue
        tree = ast.parse(text)
        bad = {"pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"} & {
            i.split(".")[0] for i in imports(tree)
        }
        found += [f"{path} imports {name}" for name in bad]
        for call in [node for node in ast.walk(tree) if isinstance(node, ast.Call)]:
            name = ast.unparse(call.func)
            options = {option.arg: ast.unparse(option.value) for option in call.keywords}
            if (
                name in {"eval", "exec", "os.system", "os.popen"}
                or (name == "torch.load" and options.get("weights_only") != "True")
                or options.get("shell", "False") != "False"
                or options.get("allow_pickle", "False") != "False"
            ):
                found.append(f"{path}:{call.lineno} {ast.unparse(call)}")
    return found


TREE = read("svdtrain/**/*.py", "scripts/**/*.py", "tests/**/*.py", "configs/**/*.yaml", "README.md")
REGISTRY = 'FAMILIES: dict = {"svd": ("svdtrain.families.svd", "SVD")}'
PLANTED: list[tuple[Rule, Files]] = [
    (imports_point_up, {"svdtrain/data/x.py": "from svdtrain.training import module"}),
    (imports_point_up, {"svdtrain/data/x.py": "def f():\n    import svdtrain.adapters.files"}),
    (imports_point_up, {"svdtrain/types.py": "from svdtrain import cli"}),
    (imports_point_up, {"svdtrain/helpful/x.py": ""}),
    (import_cycles, {"svdtrain/a.py": "import svdtrain.b", "svdtrain/b.py": "from svdtrain import a"}),
    (long_files, {"scripts/x.py": "\n" * 301}),
    (long_functions, {"tests/x.py": "class A:\n    def f(self):\n" + "        x = 1\n" * 60}),
    (modules_without_docstring, {"svdtrain/x.py": "import torch"}),
    (folders_without_init, {"svdtrain/data/x.py": ""}),
    (vague_names, {"svdtrain/data/utils.py": ""}),
    (vague_names, {"scripts/common/x.py": ""}),
    *(
        (families_outside_their_folder, {"svdtrain/training/x.py": line, "svdtrain/families/registry.py": REGISTRY})
        for line in (
            "from svdtrain.families import svd",
            "from svdtrain.families.svd import Conditions",
            "import svdtrain.families.svd",
            "if model.is_svd: pass",
            "kind = SVDFamily",
            "if family == 'svd': pass",
            "from diffusers import StableVideoDiffusionPipeline",
        )
    ),
    (families_half_registered, {"svdtrain/families/registry.py": REGISTRY}),
    (families_half_registered, {"svdtrain/families/wan.py": "class Wan:\n    spec = FamilySpec('wan')"}),
    (families_half_registered, {"configs/model/wan.yaml": "name: wan\nfamily: wan"}),
    (recipes_without_introduction, {"configs/config/x.yaml": "# @package _global_\ntrainer: {}"}),
    (code_in_configs, {"configs/x.yaml": "_target_: os.system"}),
    (dangerous_calls, {"svdtrain/x.py": "import pickle"}),
    (dangerous_calls, {"svdtrain/x.py": "import torch\ntorch.load(path)"}),
    (dangerous_calls, {"scripts/x.py": "subprocess.run(line, shell=True)"}),
]
RULES = list(dict.fromkeys(rule for rule, _ in PLANTED))


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_tree_keeps_the_rule(rule: Rule) -> None:
    assert "svdtrain/types.py" in TREE
    assert rule(TREE) == []


@pytest.mark.parametrize(("rule", "files"), PLANTED)
def test_the_rule_sees_a_planted_violation(rule: Rule, files: Files) -> None:
    assert rule(files)


def test_what_is_allowed_is_not_reported() -> None:
    files = {
        "svdtrain/families/registry.py": REGISTRY,
        "svdtrain/__init__.py": '"""Docs may say svd."""',
        "svdtrain/x.py": "from svdtrain.families import registry\ntorch.linalg.svd(m)\n"
        "raise SvdtrainError('a model of the svd family')",
        "svdtrain/cli.py": "from svdtrain import __version__\nfrom svdtrain.foundation.errors import SvdtrainError",
    }
    assert families_outside_their_folder(files) == []
    assert imports_point_up({path: text for path, text in files.items() if path != "svdtrain/x.py"}) == []
