"""`report` on a planted run: what stands on the page, that it loads nothing, and what it makes of damaged runs."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from contextlib import nullcontext
from html.parser import HTMLParser
from pathlib import Path

import pytest

from svdtrain.cli import main
from svdtrain.commands.report import LARGEST, run
from svdtrain.commands.report_pictures import within
from svdtrain.config.reporting import ReportConfig
from svdtrain.foundation.errors import UsageError
from svdtrain.reporting.page import Film, Screening, Section
from svdtrain.reporting.run_files import read_run
from tests.commands.planted_run import RECORD, plant, plant_choice, plant_evaluation
from tests.reporting.pages import ReadPage

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
EVIL = "</title></script><script>alert(1)</script><img src=x onerror=alert(1)>{{ 7*7 }}"
SECTIONS = {
    "before-after", "timeline", "losses", "changes", "health", "dataset", "cost", "reproduce", "use", "terms",
}  # fmt: skip


class Media(HTMLParser):
    """Videos by chapter: the label and whether it plays."""

    def __init__(self, page: bytes) -> None:
        super().__init__()
        self.chapter, self.videos, self.scripts = "", dict[str, list[str]](), 0
        self.feed(page.decode())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.chapter = values["id"] if tag == "section" else self.chapter
        self.scripts += tag == "script"
        if tag == "video":
            assert values["src"].startswith("data:video/mp4;base64,")
            assert values["poster"].startswith("data:image/jpeg;base64,")
            self.videos.setdefault(self.chapter, []).append(values["aria-label"])


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return plant(tmp_path_factory.mktemp("runs") / "run")


@pytest.fixture
def copied(planted: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(planted, tmp_path / "run"))


@pytest.fixture(scope="module")
def whole(planted: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    out = tmp_path_factory.mktemp("pages") / "page.html"
    assert main(["report", str(planted), f"out={out}", "price=0.5"]) == 0
    return out.read_bytes()


def test_a_report_shows_what_the_run_holds(whole: bytes) -> None:
    page = ReadPage(whole)
    assert set(page.texts) - {"head", "foot"} == SECTIONS
    assert "It learnt: clips it never saw are predicted better than by the base." in page.text("head")
    assert "While it trained: held-out loss is 20% below the base's." in page.text("head")
    assert Media(whole).videos == {
        "before-after": [f"Input {place}: {label}" for place in (1, 2) for label in ("base", "step 2,000")]
    }
    assert page.text("timeline").splitlines()[2:] == [
        *("Input 1", "base", "step 1,000", "step 2,000"),
        *("Input 2", "base", "step 1,000", "step 2,000"),
    ]
    assert "noise 0.1\nnoise 2\nnoise 50" in page.text("losses")
    assert re.search(r"spatial [\d.]+, temporal [\d.]+", page.text("changes"))
    for told in ("Steps left out\n2, the last 9", "Loss spikes\n4", "Clips replaced\n3", "damaged"):
        assert told in page.text("health")
    assert "96 of 40 sources" in page.text("dataset")
    assert "3.6 s (2 s foretold)" in page.text("cost")
    assert "11.0 GiB (12.0 GiB foretold)" in page.text("cost")
    assert "NVIDIA H100" in page.text("cost")
    assert "Cost at 0.5 an hour\n2.00" in page.text("cost")  # two GPUs for the two hours that 2,000 steps take
    assert re.search("Energy\n1 kWh by the card's own .*, 2 times that of the first", page.text("cost"))
    assert "generate adapter=run image=PICTURE prompt=TEXT" in page.text("use")
    assert "SomePipeline.from_pretrained" in page.text("use")
    assert "apache-2.0" in page.text("terms")


def test_it_loads_nothing_and_tells_no_folder(whole: bytes) -> None:
    page = ReadPage(whole)
    links = [link for link in page.links if not link.startswith(("#", "data:image/jpeg;", "data:video/mp4;"))]
    assert links == ["https://github.com/comfyanonymous/ComfyUI"]
    assert len(whole) < LARGEST
    assert Media(whole).scripts == 1
    assert "default-src 'none'" in whole.decode()
    assert not {"link", "iframe", "object", "base", "form"} & page.tags
    assert not page.handlers
    assert "someone" not in whole.decode()
    assert "data.source=…/clips" in page.text("reproduce")


def test_curves_are_thinned_but_keep_their_spikes(whole: bytes) -> None:
    lines = re.findall(r'<polyline class="curve"[^>]* points="([^"]*)"', whole.decode())
    assert max(len(line.split()) for line in lines) <= 300
    assert all(line.split()[-1].startswith("392.0,") for line in lines)  # the last step, at the right end
    norm = [float(point.split(",")[1]) for point in lines[-2].split()]
    assert max(norm) - min(norm) > 100  # one step of 2,000


def test_what_a_run_that_went_on_did_again_counts_once(planted: Path) -> None:
    assert [step for step, _ in read_run(planted).curves["loss"]] == list(range(2001))


def test_an_evaluation_is_said_first(copied: Path, tmp_path: Path) -> None:
    plant_evaluation(copied / "evaluation")
    out = tmp_path / "page.html"
    assert main(["report", str(copied), f"out={out}"]) == 0
    page = ReadPage(out.read_bytes())
    assert "It learns its training clips by heart" in page.text("head")
    assert "Evaluated, adapter: 9% above.\nEvaluated, adapter: motion is lost" in page.text("head")
    assert "Motion\nlost\n50% of the base's, 25% of the clips'" in page.text("head")
    assert "clips: it may have seen them" in page.text("head")
    assert "The least loss on held-out clips was at step 500." in page.text("head")
    assert "flicker\n0.75 (0.5 to 1)\n0.75 (0.5 to 1)\n0.75 (0.5 to 1) worse\n%\nas the clips\n8" in page.text(
        "metrics"
    )
    assert len(Media(out.read_bytes()).videos["evaluated"]) == 3


def test_a_choice_is_shown(copied: Path, tmp_path: Path) -> None:
    plant_choice(copied)
    out = tmp_path / "page.html"
    assert main(["report", str(copied), f"out={out}"]) == 0
    page = ReadPage(out.read_bytes())
    assert "Motion\nkept\n75% of the base's, 150% of the clips'" in page.text("head")
    assert "Use\nstep 1,500\nat strength 0.75/0.5 (spatial/temporal)" in page.text("head")
    for told in (
        "Use step 1,500 at strength 0.75/0.5: its loss is less.",
        "2,000\n0.75 (0.5 to 1)\nmotion is lost: 60% below",
        "1.5\n0.75 (0.5 to 1)\ncopies training frames: very near",
        "0.75/0.5\n0.75 (0.5 to 1)\n0.75 (0.5 to 1)\n1.5 (1.2 to 1)\nchosen",
    ):
        assert told in page.text("choice")
    assert "generate adapter=run/best strength=0.75/0.5 image=PICTURE" in page.text("use")


def test_nothing_from_a_file_runs_or_leads_outside(copied: Path, tmp_path: Path) -> None:
    record = RECORD | {
        "name": EVIL,
        "overrides": [EVIL],
        "verdict": {"kind": "flat", "sentence": EVIL},
        "hardware": EVIL,
    }
    (copied / "run.json").write_text(json.dumps(record | {"use": {"pipeline": EVIL}, "bad_samples": {EVIL: 2}}))
    plant_evaluation(copied / "evaluation")
    told = json.loads((copied / "evaluation" / "evaluation.json").read_text())
    (copied / "choice.json").write_text(
        json.dumps({"step": 1, "sentence": EVIL, "steps": [{"step": 1, "chosen": EVIL}]})
    )
    told["videos"] = {EVIL: "../../outside", "base": "samples/base"}
    told["samples"][0]["clip"] = EVIL
    (copied / "evaluation" / "evaluation.json").write_text(json.dumps(told))
    (tmp_path / "outside").mkdir()
    shutil.copy(copied / "samples" / "step-000000" / "input-0.mp4", tmp_path / "outside" / "0003-0.mp4")
    (copied / "samples" / "step-001000" / "input-1.mp4").unlink()
    (copied / "samples" / "step-001000" / "input-1.mp4").symlink_to(tmp_path / "outside" / "0003-0.mp4")
    out = tmp_path / "page.html"
    assert main(["report", str(copied), f"out={out}"]) == 0
    page = ReadPage(out.read_bytes())
    assert Media(out.read_bytes()).scripts == 1
    assert not page.handlers
    assert page.text("head").count(EVIL) >= 2
    assert page.text("head").count("it lies outside the folder") == 2
    assert [len(labels) for labels in Media(out.read_bytes()).videos.values()] == [4, 1]


def _without(*names: str) -> Callable[[Path], None]:
    def remove(folder: Path) -> None:
        for name in names:
            shutil.rmtree(folder / name) if (folder / name).is_dir() else (folder / name).unlink()

    return remove


def _with(name: str, content: str) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        (folder / name).write_text(content)

    return write


def _state(**changes: object) -> Callable[[Path], None]:
    gone = ("step", "speed", "verdict", "dataset")
    early = {name: value for name, value in RECORD.items() if name not in gone} | changes
    return _with("run.json", json.dumps(early))


def _linked(folder: Path) -> None:
    (folder / "config.yaml").rename(folder.parent / "secret.yaml")
    (folder / "config.yaml").symlink_to(folder.parent / "secret.yaml")


METRICS, TORN = (
    "metrics.jsonl",
    '{"step": 1, "loss": "x"}\n\x00,2\n[1]\n{"step": 1e999}\n{"step": 3, "loss": 1e99}\n{"st',
)
SAMPLE = "samples/step-002000/input-0.mp4"
CASES: list[tuple[str, Callable[[Path], None], int, str]] = [
    ("unfinished", _state(state="running"), 0, "Unfinished (running): seen up to step 2,000 of 2,000."),
    ("no videos", _without("samples"), 0, "There are no sample videos"),
    ("a sample is missing", _without(SAMPLE), 0, "A sample is missing: samples/step-002000/input-0.mp4."),
    ("a sample is damaged", _with(SAMPLE, "no video"), 0, "A sample cannot be shown: samples/step-002000/input-0.mp4"),
    ("no metrics", _without(METRICS), 0, "There are no metrics"),
    ("no adapter", _without("adapter"), 0, "There is no adapter yet."),
    ("no held-out clips", _with(METRICS, '{"step": 1, "loss": 1}\n'), 0, ""),
    ("no record", _without("run.json"), 2, "Damaged: run.json is missing"),
    ("half a record", _with("run.json", '{"name": "ink", '), 2, "Damaged: run.json cannot be read"),
    ("a list", _with("run.json", "[1]"), 2, "Damaged: run.json cannot be read: it holds no table"),
    ("deep", _with("run.json", "[" * 200_000), 2, "Damaged: run.json cannot be read"),
    ("wrong kinds", _with("run.json", json.dumps(dict.fromkeys(RECORD, [{"a": 10**400}, None, True]))), 0, ""),
    ("texts for tables", _with("run.json", json.dumps(dict.fromkeys(RECORD, "x"))), 0, "Unfinished (x)"),
    ("no config", _without("config.yaml"), 2, "Damaged: config.yaml is missing"),
    ("a config from elsewhere", _linked, 2, "Damaged: config.yaml cannot be read: it is a link that leads elsewhere"),
    ("a config that lies", _with("config.yaml", "a: !!python/object:os.system {}"), 2, "Damaged: config.yaml cannot be"),
    ("config of other kinds", _with("config.yaml", "model: [1]\ndata: 3\ntrainer: {devices: .nan}\n1: 2"), 0, ""),
    ("torn metrics", _with(METRICS, TORN), 2, "5 of its lines or numbers are none"),
    ("a torn adapter", _with("adapter/adapter_model.safetensors", "torn"), 2, "Damaged: the adapter cannot be read"),
    ("a torn choice", _with("choice.json", '{"step": '), 2, "Damaged: choice.json cannot be read"),
    ("a choice of other kinds", _with("choice.json", '{"step": "x", "steps": [1], "sweep": {}, "strength": [2]}'), 0, ""),
    ("an endless choice", _with("choice.json", '{"step": 1e999, "sentence": 3, "strength": {"spatial": "1"}}'), 0, ""),
    ("nothing else", _without("samples", METRICS, "adapter", "config.yaml"), 2, "Damaged: config.yaml is missing"),
]  # fmt: skip


@pytest.mark.parametrize(("damage", "code", "mark"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_what_can_be_shown_is_shown_and_marked(
    damage: Callable[[Path], None], code: int, mark: str, copied: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    if "sample" not in mark:
        shutil.rmtree(copied / "samples")  # nothing to decode: that takes a process of its own
        (copied / "samples").mkdir()
    damage(copied)
    given = ReportConfig(run=[str(copied)], out=None, evaluation=None, price=None)
    with pytest.raises(UsageError, match="damaged, ") if code else nullcontext():
        run(given, [])
    page = ReadPage((copied / "report.html").read_bytes())
    assert mark in page.text("head")
    assert mark in capfd.readouterr().err
    assert {"health", "terms"} <= set(page.texts)


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["{tmp}/nothing"], 2, "nothing: it is no run folder"),
        (["{run}", "out={run}/page.txt"], 2, "the page is an html file"),
        (["{run}", "out={run}/run.json/page.html"], 5, "cannot be written"),
        (["{run}", "price=-1"], 2, "price"),
        (["{run}", "evaluation={tmp}/gone.json"], 2, "gone.json is missing"),
    ],
)
def test_mistakes_are_one_line(
    words: list[str], code: int, said: str, copied: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(copied / "samples")
    assert main(["report", *(word.format(run=copied, tmp=tmp_path) for word in words)]) == code
    errors = [line for line in capfd.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert said in errors[0]


def test_the_largest_videos_are_left_out_first() -> None:
    def row(size: int) -> Screening:
        return Screening(f"{size}", (Film("base", "p", 1, 1, "x" * size), Film("adapter", "p", 1, 1, "x" * size)))

    sections = [Section("a", "", "", screenings=(row(10), row(40))), Section("b", "", "", screenings=(row(30),))]
    for most, left in ((160, ["10", "40", "30"]), (159, ["10", "30"]), (79, ["10"]), (19, [])):
        found = [one for section in within(sections, most) for one in section.screenings]
        assert [one.title for one in found if one.films[0].video] == left
        assert all(("Left out" in one.note) == (one.title not in left) for one in found)
        assert all(film.poster for one in found for film in one.films)


@pytest.mark.skipif(not CHROMIUM, reason="there is no Chromium")
def test_a_browser_plays_it_without_a_complaint(whole: bytes, tmp_path: Path) -> None:
    (tmp_path / "page.html").write_bytes(whole)
    flags = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}", "--enable-logging=stderr"]
    watch = ["--host-resolver-rules=MAP * ~NOTFOUND", "--virtual-time-budget=2000", "--dump-dom"]
    done = subprocess.run(
        [str(CHROMIUM), *flags, *watch, f"file://{tmp_path}/page.html"], capture_output=True, text=True, timeout=120
    )
    assert "CONSOLE" not in done.stderr
    assert done.stdout.count('class="controls"><button') == 2  # no longer hidden: the script ran
    assert done.stdout.count('src="blob:') == 4
