"""The map is true: paths of ARCHITECTURE.md exist, imports go one way, files stay small."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src" / "pixcloud"
MAP = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")

# A module imports what stands before it, or in its own group. The command line, the public names
# and the doctor reach everything: they are the outside.
ORDER = [
    ("_version", "errors", "types", "atomic", "signals", "machine"),
    ("ranges", "method_settings", "config", "config_files"),
    ("distributed", "heartbeat", "launch"),
    ("data",),
    ("ops",),
    ("encoders",),
    ("heads",),
    ("losses",),
    ("averaged", "earlier_pairs", "objective"),
    ("hub", "export", "export_tower", "optimizer", "schedule"),
    ("weight_files", "import_weights", "import_pictures"),
    ("checkpoint",),
    ("store",),
    ("cross_modal",),
    ("evaluate",),
    ("import_classifiers", "import_segmenter"),
    ("precision", "run_folder", "progress", "selection"),
    ("loggers",),
    ("machine_settings", "building", "held_out", "data_parallel", "step", "loss_sums"),
    ("trainer",),
    ("report",),
    ("share",),
    ("demo", "doctor"),
    ("commands", "cli", "launched", "__init__"),
]
RANK = {name: place for place, group in enumerate(ORDER) for name in group}
MODULES = sorted(SOURCE.rglob("*.py"))


def group_of(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


def imports_of(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            if node.module == "pixcloud":
                found |= {f"pixcloud.{alias.name}" for alias in node.names}
            else:
                found.add(node.module)
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return {name for name in found if name.split(".")[0] == "pixcloud"}


def own_group(path: Path) -> str:
    relative = path.relative_to(SOURCE)
    return relative.parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_imports_go_one_way(path: Path) -> None:
    own = own_group(path)
    assert own in RANK, f"{own} has no place in the order"
    for module in imports_of(path):
        group = group_of(module)
        assert group == own or RANK[group] <= RANK[own], f"{path.name} imports {module}"


def test_reading_needs_no_torch() -> None:
    program = (
        "import sys; import pixcloud.data.files, pixcloud.data.make, pixcloud.data.sources, "
        "pixcloud.data.synthetic, pixcloud.config, pixcloud.types; "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0


def test_imports_give_no_warnings() -> None:
    program = "import pixcloud; [getattr(pixcloud, name) for name in pixcloud.__all__]"
    done = subprocess.run([sys.executable, "-W", "error", "-c", program], capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")


def test_every_path_of_the_map_exists() -> None:
    paths = re.findall(r"`((?:src|tests|docs|benchmarks|examples)/[^`\s]*)`", MAP)
    assert len(paths) > 30
    missing = [path for path in paths if not (ROOT / path).exists()]
    assert not missing


def test_every_module_is_on_the_map() -> None:
    folders = set(re.findall(r"`(src/pixcloud/[^`]*/)`", MAP))
    missing = []
    for path in MODULES:
        name = path.relative_to(ROOT).as_posix()
        in_folder = any(name.startswith(folder) for folder in folders)
        if name not in MAP and not in_folder and not name.endswith("data/__init__.py"):
            missing.append(name)
    assert not missing


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_files_and_functions_stay_small(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.count("\n") <= 400
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            first = node.body[1] if ast.get_docstring(node) and len(node.body) > 1 else node.body[0]
            assert node.end_lineno is not None
            assert node.end_lineno - first.lineno + 1 <= 60, f"{node.name} is long"


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_every_module_says_what_it_is(path: Path) -> None:
    assert (
        ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or path.stat().st_size < 60
    )
