"""Every command in the documents is run here, or says above itself which test runs it or why none can.

A fenced block of bash, sh or python is run as it stands, in the order of its document, in one empty folder a document. Its
`python -m svdtrain` is warm (tests/warm_python.py); tests/test_end_to_end.py and tests/test_install.py start cold ones.
Above a block, a comment may say otherwise:

    <!-- run by: tests/test_install.py::test_a_fit_runs -->    another test runs it
    <!-- not run: needs a GPU -->                              no test can, and why
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.warm_python import WarmPython, path_with

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("datasets/**/*.md")])
SHELLS = {"bash": ["bash", "-euo", "pipefail", "-c"], "sh": ["sh", "-eu", "-c"], "python": [sys.executable, "-c"]}
INERT = {"text", "yaml", "json", "toml", "mermaid", "bibtex"}
"""Languages of blocks that are there to be read."""
FENCED = re.compile(
    r"^(?P<indent> *)(?P<fence>`{3,}|~{3,})(?P<language>[^\n]*)\n(?P<code>.*?)^(?P=indent)(?P=fence) *$", re.M | re.S
)
SECONDS = 300


@dataclass(frozen=True)
class Block:
    """A fenced block, and the comment that stands right above it."""

    line: int
    language: str
    code: str
    comment: str

    @property
    def reason(self) -> str:
        """Why it is not run here, or nothing."""
        match = re.fullmatch(r"<!-- (?:not run|run by): (\S.*) -->", self.comment)
        return match[1] if match else ""


def blocks(text: str) -> list[Block]:
    found: list[Block] = []
    for match in FENCED.finditer(text):
        before = text[: match.start()].rstrip("\n").splitlines() or [""]
        line = text.count("\n", 0, match.start()) + 1
        found.append(Block(line, match["language"].strip(), textwrap.dedent(match["code"]), before[-1].strip()))
    return found


def faults(block: Block) -> list[str]:
    """What keeps a block from being checked."""
    if block.language not in SHELLS and block.language not in INERT:
        return [f"line {block.line}: a block in '{block.language}': known are {sorted({*SHELLS, *INERT})}"]
    if block.comment.startswith("<!-- run by:"):
        file, _, test = block.reason.partition("::")
        if not (ROOT / file).is_file() or f"def {test}" not in (ROOT / file).read_text():
            return [f"line {block.line}: {block.comment}: there is no such test"]
    return []


@pytest.fixture(scope="session")
def programs() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        warm = WarmPython(Path(folder))
        yield warm.programs
        warm.close()


def run(document: list[Block], folder: Path, programs: Path) -> list[str]:
    """Run a document's blocks one after the other in a folder; what went wrong, if anything."""
    environment = os.environ | {"PATH": path_with(programs), "PYTHONPATH": str(ROOT)}
    for block in document:
        if block.language not in SHELLS or block.reason:
            continue
        command = [*SHELLS[block.language], block.code]
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=SECONDS)
        if done.returncode:
            return [f"line {block.line}: exit code {done.returncode}\n{block.code}\n{done.stdout}\n{done.stderr}"]
    return []


def broken_links(path: Path) -> list[str]:
    """Relative links and pictures that lead nowhere."""
    text = FENCED.sub("", path.read_text())
    targets = re.findall(r"\]\(([^)\s#]+)[^)]*\)|<img[^>]+src=\"([^\"]+)\"", text)
    local = [a or b for a, b in targets if not re.match(r"[a-z]+:", a or b)]
    return [target for target in local if not (path.parent / target).exists()]


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
class TestDocument:
    def test_commands_work(self, path: Path, tmp_path: Path, programs: Path) -> None:
        document = blocks(path.read_text())
        assert [fault for block in document for fault in faults(block)] == []
        assert run(document, tmp_path, programs) == []

    def test_links_lead_somewhere(self, path: Path) -> None:
        assert broken_links(path) == []


def test_the_map_names_every_document() -> None:
    page = ROOT / "docs" / "README.md"
    documents = {path.relative_to(page.parent).as_posix() for path in page.parent.glob("**/*.md")} - {"README.md"}
    assert documents - set(re.findall(r"\]\(([^)]+)\)", page.read_text())) == set()


PAGE = """# A page
```bash
echo made > file
```
~~~python
assert open("file").read() == "made\\n"
~~~
- An item

  <!-- not run: needs a GPU -->
  ```sh
  exit 1
  ```
"""


def test_blocks_run_in_order_in_one_folder_unless_a_reason_is_given(tmp_path: Path, programs: Path) -> None:
    document = blocks(PAGE)
    assert [(block.line, block.language, block.reason) for block in document] == [
        (2, "bash", ""),
        (5, "python", ""),
        (11, "sh", "needs a GPU"),
    ]
    assert run(document, tmp_path, programs) == []


@pytest.mark.parametrize(
    "page",
    [
        "```bash\nfalse | cat\n```\n",
        "```sh\npython -m svdtrain fti\n```\n",
        "```python\nimport nothing_here\n```\n",
        "<!-- not run: -->\n```sh\nexit 1\n```\n",
    ],
)
def test_a_block_that_fails_is_seen(page: str, tmp_path: Path, programs: Path) -> None:
    assert run(blocks(page), tmp_path, programs)


@pytest.mark.parametrize(
    "page",
    [
        "```console\n$ ls\n```\n",
        "```\nls\n```\n",
        "<!-- run by: tests/no.py -->\n```sh\nls\n```\n",
        "<!-- run by: tests/conftest.py::test_no -->\n```sh\nls\n```\n",
    ],
)
def test_a_block_that_hides_is_seen(page: str) -> None:
    assert faults(blocks(page)[0])


def test_a_broken_link_is_seen(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text('[a](page.md) [b](gone.md#part) ![c](gone.png) <img src="gone.gif"> [d](https://example.org)')
    assert broken_links(page) == ["gone.md", "gone.png", "gone.gif"]


def test_readmes_table_of_models_is_what_the_registry_and_the_configs_say() -> None:
    from scripts.model_table import with_table

    readme = (ROOT / "README.md").read_text()
    assert readme == with_table(readme), "PYTHONPATH=. python scripts/model_table.py writes it"


def test_readmes_table_of_cards_is_what_was_foretold_and_measured() -> None:
    from scripts.card_table import with_table

    readme = (ROOT / "README.md").read_text()
    assert readme == with_table(readme), "PYTHONPATH=. python scripts/card_table.py --keep writes it"


def test_the_tables_of_faults_are_what_the_selftest_found() -> None:
    from scripts.fault_table import FAULTS, README, counts, kept_rows, table, with_faults
    from svdtrain.selftest.faults.table import TABLE

    rows = kept_rows()
    assert [(row["number"], row["name"]) for row in rows] == [(fault.number, fault.name) for fault in TABLE]
    assert FAULTS.read_text() == with_faults(FAULTS.read_text(), table(rows)), (
        "PYTHONPATH=. python scripts/fault_table.py"
    )
    assert README.read_text() == with_faults(README.read_text(), counts(rows))
