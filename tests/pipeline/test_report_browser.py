"""The page in a real browser: all of it visible, readable in light and dark, and nothing is fetched."""

import json
import os
import re
import shutil
import subprocess
import sys
from html import unescape
from pathlib import Path

import pytest
from data_folders import needed
from PIL import Image
from report_sample import sample_report

from edgepress.pipeline.report.html import CONTENTS, html

BROWSER = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
)
SCHEMES = {"dark": "0", "light": "1"}  # Chromium's preferredColorScheme

# The page itself has no script and forbids any: this one goes into a copy, and writes down what it finds.
PROBE = """<script>
addEventListener('load', () => {
  const box = (node) => node.getBoundingClientRect();
  const boxes = [...document.querySelectorAll('main > section')].map((node) => ({
    id: node.id, width: box(node).width, height: box(node).height,
    seen: node.checkVisibility({checkOpacity: true, checkVisibilityCSS: true})}));
  const drawings = [...document.querySelectorAll('svg')].map((node) => ({
    width: box(node).width, height: box(node).height,
    smallest: Math.min(...[...node.querySelectorAll('text')].map((text) =>
      parseFloat(getComputedStyle(text).fontSize) * box(node).width / node.viewBox.baseVal.width)),
    uncoloured: [...node.querySelectorAll('path,text,use')].filter((part) =>
      getComputedStyle(part).stroke === 'rgb(0, 0, 0)').length}));
  const found = {boxes, drawings, wide: document.documentElement.scrollWidth - innerWidth,
    fetched: performance.getEntriesByType('resource').length,
    back: getComputedStyle(document.body).backgroundColor, ink: getComputedStyle(document.body).color};
  document.body.setAttribute('data-found', JSON.stringify(found));
});
</script>"""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(BROWSER is None, reason="no chromium on PATH and CHROMIUM is not set"),
]


def browse(page: Path, *options: str, scheme: str = "light", width: int = 1280) -> str:
    """What the browser writes to its output; page: an HTML file."""
    assert BROWSER is not None
    command = [
        BROWSER,
        *FLAGS,
        f"--user-data-dir={page.parent / 'browser'}",
        f"--blink-settings=preferredColorScheme={SCHEMES[scheme]}",
        f"--window-size={width},1400",
        *options,
        page.as_uri(),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def probed(page: Path, **options: object) -> dict[str, object]:
    text = page.read_text(encoding="utf-8")
    text = re.sub(r"<meta http-equiv=\"Content-Security-Policy\"[^>]*>", "", text)
    copy = page.with_name("probed.html")
    copy.write_text(text.replace("</body>", f"{PROBE}</body>"), encoding="utf-8")
    found = re.search(r'data-found="([^"]*)"', browse(copy, "--dump-dom", **options))  # type: ignore[arg-type]
    assert found is not None, "the probe did not run"
    result: dict[str, object] = json.loads(unescape(found[1]))
    return result


@pytest.fixture
def page(tmp_path: Path) -> Path:
    path = tmp_path / "report.html"
    path.write_text(html(sample_report(where="stand-in")), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def mnist_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a real run, cut short: the example recipe on a few images of MNIST."""
    data, out = needed("mnist/raw"), tmp_path_factory.mktemp("mnist")
    recipe = Path(__file__).resolve().parents[2] / "examples" / "mnist.yaml"
    short = ["data.limit=300", "train.epochs=2", "distill.epochs=1", "prune.epochs=1", "profile.seconds=0.5"]
    words = ["-m", "edgepress", str(recipe), "--data", f"mnist:{data}", "--out", str(out / "run")]
    words += [word for setting in short for word in ("--set", setting)]
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode in (0, 4), done.stderr  # so little training may miss the budget
    return out / "run" / "report.html"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_report_of_a_real_run_shows_every_section(mnist_page: Path, scheme: str) -> None:
    check_page(mnist_page, scheme=scheme, width=1280)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 420])
def test_every_section_and_drawing_is_visible_and_nothing_is_fetched(page: Path, scheme: str, width: int) -> None:
    check_page(page, scheme=scheme, width=width)


def check_page(page: Path, *, scheme: str, width: int) -> None:
    found = probed(page, scheme=scheme, width=width)
    boxes, drawings = found["boxes"], found["drawings"]
    assert isinstance(boxes, list)
    assert isinstance(drawings, list)
    assert [box["id"] for box in boxes] == [key for key, _ in CONTENTS]
    assert all(box["seen"] and box["height"] > 60 and box["width"] > 0.6 * min(width, 1000) for box in boxes)
    assert len(drawings) >= 10
    assert all(drawing["width"] > 150 and drawing["height"] > 90 for drawing in drawings)
    assert all(drawing["smallest"] >= 8.5 for drawing in drawings), "text of a drawing is too small to read"
    assert all(drawing["uncoloured"] == 0 for drawing in drawings), "black lines would vanish in the dark"
    assert found["wide"] == 0, "the page scrolls sideways"
    assert found["fetched"] == 0


def test_dark_and_light_change_places(page: Path) -> None:
    light, dark = probed(page, scheme="light"), probed(page, scheme="dark")
    assert light["back"] == "rgb(252, 252, 251)"
    assert dark["back"] == "rgb(19, 22, 24)"
    assert light["ink"] != dark["ink"]


@pytest.mark.parametrize(("scheme", "is_light"), [("light", True), ("dark", False)])
def test_a_screenshot_shows_ink_on_the_scheme_s_paper(page: Path, scheme: str, is_light: bool) -> None:
    picture = page.with_name("page.png")
    browse(page, f"--screenshot={picture}", scheme=scheme)
    with Image.open(picture) as image:
        grey = image.convert("L")
        corner = grey.getpixel((2, 2))
        low, high = grey.getextrema()
    assert isinstance(corner, int)
    assert (corner > 200) == is_light
    assert low < 60
    assert high > 200


def test_it_prints(page: Path) -> None:
    paper = page.with_name("report.pdf")
    browse(page, f"--print-to-pdf={paper}", "--no-pdf-header-footer")
    data = paper.read_bytes()
    assert data.startswith(b"%PDF")
    pages = max(int(count) for count in re.findall(rb"/Count (\d+)", data))
    assert 3 <= pages <= 9
