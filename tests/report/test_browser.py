"""The page in a real browser: nothing runs over the edge, every figure is drawn, dark mode is dark."""

import html as markup
import json
import shutil
import subprocess

import numpy as np
import pytest
from PIL import Image

from mia_lightning.evaluation.assess import assess
from mia_lightning.report.contents import Report
from mia_lightning.report.figures import draw
from mia_lightning.report.files import versions
from mia_lightning.report.page import html
from mia_lightning.scores.scored_records import ScoredRecords

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
BROWSER = next((path for name in NAMES if (path := shutil.which(name))), None)
pytestmark = pytest.mark.skipif(BROWSER is None, reason=f"no browser is installed: none of {', '.join(NAMES)} is found")

MEASURE = """
<script>
addEventListener("load", () => setTimeout(() => {
  const found = [...document.querySelectorAll("iframe")].map(frame => {
    const page = frame.contentDocument, root = page.documentElement, colors = [];
    for (const name of ["body", ".muted", "figcaption", ".verdict h2", ".badge", "summary", "small"]) {
      const element = page.querySelector(name);
      let behind = element;
      const ground = () => frame.contentWindow.getComputedStyle(behind).backgroundColor;
      while (ground() === "rgba(0, 0, 0, 0)" && behind.parentElement) behind = behind.parentElement;
      colors.push([name, frame.contentWindow.getComputedStyle(element).color, ground()]);
    }
    const drawn = [...page.querySelectorAll("svg")].filter(one => !one.closest("details"));
    return {
      width: frame.width, needed: root.scrollWidth, colors,
      drawings: drawn.map(one => one.getBoundingClientRect()).map(box => [box.width, box.height]),
      images: [...page.images].map(one => one.naturalWidth),
      letters: Math.min(...drawn.flatMap(one => [...one.querySelectorAll("text")]).map(
        one => one.getBoundingClientRect().height).filter(height => height > 0)),
    };
  });
  document.body.innerHTML = "<pre id=found>" + JSON.stringify(found) + "</pre>";
}, 300));
</script>
"""


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    rng = np.random.default_rng(0)
    member = rng.integers(0, 2, 1000).astype(np.int8)
    names = ("a", "an attack with a name that does not end before the edge of a narrow screen", "c")
    scores = {name: rng.normal(size=1000) + member for name in names}
    given = ScoredRecords(np.arange(1000), member, scores, rng.integers(0, 30, 1000), f"{'long' * 20}.csv")
    pixels = rng.integers(0, 256, (1000, 3, 32, 32)).astype(np.uint8)
    report = Report(assess(given, bootstrap=100, pixels=pixels), "a", "named", versions(), pixels=pixels)
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(html(report, draw(report)))
    return path


def browse(*options):
    command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout


def luminance(color):
    parts = [float(part) / 255 for part in color[color.index("(") + 1 : -1].split(",")[:3]]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return float(np.dot(linear, [0.2126, 0.7152, 0.0722]))


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_layout_and_contrast(page, tmp_path, dark):
    frames = "".join(
        f'<iframe width="{width}" height="2000" srcdoc="{markup.escape(page.read_text())}"></iframe>'
        for width in (1280, 390)
    )
    (tmp_path / "frames.html").write_text(f"<!DOCTYPE html><body>{frames}{MEASURE}</body>")
    scheme = f"--blink-settings=preferredColorScheme={0 if dark else 1}"
    dumped = browse(scheme, "--virtual-time-budget=8000", "--dump-dom", f"file://{tmp_path}/frames.html")
    content = json.loads(markup.unescape(dumped.split('<pre id="found">')[1].split("</pre>")[0]))
    assert [row["width"] for row in content] == ["1280", "390"]
    for row in content:
        assert row["needed"] <= int(row["width"])
        assert len(row["drawings"]) == 6
        assert min(min(box) for box in row["drawings"]) > 100
        assert len(row["images"]) == 24
        assert min(row["images"]) == 32
        assert row["letters"] >= 7
        for name, ink, ground in row["colors"]:
            bright, deep = sorted((luminance(ink), luminance(ground)), reverse=True)
            assert (bright + 0.05) / (deep + 0.05) >= 4.5, (name, ink, ground)
            assert (luminance(ground) < 0.1) == dark


def test_pictures_and_print(page, tmp_path):
    for width in (1280, 390):
        browse(f"--window-size={width},900", f"--screenshot={tmp_path}/{width}.png", f"file://{page}")
        with Image.open(tmp_path / f"{width}.png") as image:
            assert image.size == (width, 900)
            assert len(image.getcolors(1 << 24)) > 50
    browse("--no-pdf-header-footer", f"--print-to-pdf={tmp_path}/report.pdf", f"file://{page}")
    assert (tmp_path / "report.pdf").read_bytes().startswith(b"%PDF")
