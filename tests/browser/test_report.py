"""The HTML report in a real browser: from a file, with the network off."""

from __future__ import annotations

import pytest

import accelsim as ax
from tests.strategies import random_study

pytest.importorskip("plotly", reason="plotly is not installed")


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    study = ax.sweep(
        "resnet18", ["a100-sxm", "t4"], batch=ax.pow2(1, 32), precision=["fp16", "int8", "fp8_e4m3"]
    )
    return study.report(
        tmp_path_factory.mktemp("report") / "s.html", title="Two cards", question="Which one?"
    )


class Page:
    """A page of its own context, and what went wrong on it."""

    def __init__(self, browser, path, **settings) -> None:
        self.context = browser.new_context(offline=True, **settings)
        self.page = self.context.new_page()
        self.wrong: list[str] = []
        self.fetched: list[str] = []
        self.page.on("console", lambda m: self.wrong.append(m.text) if m.type == "error" else None)
        self.page.on("pageerror", lambda e: self.wrong.append(str(e)))
        self.page.on("request", lambda r: self.fetched.append(r.url))
        self.page.goto(path.as_uri())
        self.page.wait_for_selector("html[data-ready]")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.context.close()


def brush(page, place: str = "#pareto") -> None:
    box = page.locator(f"{place} .nsewdrag").bounding_box()
    page.mouse.move(box["x"] + 5, box["y"] + 5)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.6, box["y"] + box["height"] * 0.6, steps=6)
    page.mouse.move(box["x"] + box["width"] - 5, box["y"] + box["height"] - 5, steps=6)
    page.mouse.up()


def test_brush_filter_sort_code_and_print(chromium, small):
    with Page(chromium, small, viewport={"width": 1280, "height": 900}) as held:
        page = held.page
        count = page.locator("#count")
        assert "on the front" in count.inner_text()
        page.locator("#pareto").scroll_into_view_if_needed()
        brush(page)
        page.wait_for_function("document.getElementById('count').textContent.includes('selected')")
        selected = int(count.inner_text().split()[0])
        assert selected == 24  # every feasible point with both numbers
        page.locator("#word").fill("a100")
        assert int(count.inner_text().split()[0]) == 12
        page.locator("#clear").click()
        page.wait_for_function("document.getElementById('count').textContent.includes('front')")

        page.locator("#which").select_option("all")
        page.get_by_role("button", name="latency [s]").first.click()
        column = [h.inner_text() for h in page.locator("#rows thead th").all()].index("latency [s]") + 1
        shown = [float(c.inner_text()) for c in page.locator(f"#rows tbody td:nth-child({column})").all()]
        assert shown in (sorted(shown), sorted(shown, reverse=True))

        line = page.locator("#rows tbody tr").nth(2)
        line.focus()
        page.keyboard.press("Enter")
        assert page.locator("#code").inner_text().startswith("ax.simulate('resnet18'")

        page.locator("#parallel").scroll_into_view_if_needed()
        page.wait_for_selector("#parallel .parcoords, #parallel:has-text('WebGL')", state="attached")

        pdf = page.pdf()
        assert pdf.startswith(b"%PDF")
        assert len(pdf) > 30_000
        assert held.wrong == []
        assert [url for url in held.fetched if not url.startswith(("file:", "blob:", "data:"))] == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 800])
def test_both_themes_and_widths(chromium, small, scheme, width, tmp_path):
    with Page(chromium, small, color_scheme=scheme, viewport={"width": width, "height": 900}) as held:
        page = held.page
        page.screenshot(path=str(tmp_path / "s.png"), full_page=True)
        assert (tmp_path / "s.png").stat().st_size > 50_000
        # The page never scrolls sideways; wide tables scroll in their own box.
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        ink, paper = page.evaluate(
            "(() => { const s = getComputedStyle(document.body); return [s.color, s.backgroundColor]; })()"
        )
        assert _contrast(ink, paper) > 7
        tick = page.evaluate("getComputedStyle(document.querySelector('#pareto .xtick text')).fill")
        assert _contrast(tick, paper) > 7
        assert held.wrong == []


def test_the_theme_can_change_while_the_page_is_open(chromium, small):
    with Page(chromium, small, color_scheme="light") as held:
        held.page.emulate_media(color_scheme="dark")
        held.page.wait_for_function(
            "getComputedStyle(document.querySelector('#pareto .xtick text')).fill === 'rgb(230, 233, 236)'"
        )
        held.page.emulate_media(media="print", color_scheme="dark")
        assert held.page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
        assert held.wrong == []


def test_a_large_study_opens_fast(chromium, tmp_path, capsys):
    path = random_study(100_000).report(tmp_path / "s.html")
    with Page(chromium, path, viewport={"width": 1280, "height": 900}) as held:
        session = held.context.new_cdp_session(held.page)
        session.send("Performance.enable")
        held.page.reload()
        held.page.wait_for_selector("html[data-ready]")
        numbers = {m["name"]: m["value"] for m in session.send("Performance.getMetrics")["metrics"]}
        times = held.page.evaluate("({ ...document.documentElement.dataset })")
        with capsys.disabled():
            print(
                f"\nreport of 100,000 points, {path.stat().st_size / 1e6:.2f} MB: "
                f"text after {times['open']} ms, charts after {times['ready']} ms, "
                f"{numbers['ThreadTime']:.2f} s of processor time"
            )
        assert path.stat().st_size < 8e6
        assert held.wrong == []


def _contrast(one: str, other: str) -> float:
    """Contrast ratio of WCAG 2.2."""

    def luminance(colour: str) -> float:
        parts = [float(v) / 255 for v in colour[colour.index("(") + 1 : -1].split(",")[:3]]
        linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)
