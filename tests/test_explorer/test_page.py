"""The page in a headless Chromium."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import browser as chromium
import numpy as np
import pytest
from PIL import Image

from omh_mmseg.explorer import ReportOptions, write_report

pytestmark = pytest.mark.skipif(bool(chromium.missing()), reason=chromium.missing() or 'there is a browser')
SIZES = ((1280, 900), (400, 800))
OUTSIDE = """
const inside = element => element.closest('.tree-scroll, .table-scroll, .reel, .skip, .quiet-live');
return [...document.querySelectorAll('body *')].filter(element => {
  const box = element.getBoundingClientRect();
  return box.width && !inside(element) && (box.right > innerWidth + 0.5 || box.left < -0.5);
}).map(element => element.outerHTML.slice(0, 120));
"""
CUT = """
return [...document.querySelectorAll('h1, h2, p, button, label, td, th, dt, dd, .figure b, .figure span, text')]
  .filter(element => element.scrollWidth > element.clientWidth + 1 && element.clientWidth
                     && getComputedStyle(element).display !== 'inline' && !element.closest('.quiet-live, .skip'))
  .map(element => element.outerHTML.slice(0, 120));
"""


@pytest.fixture(scope='module')
def window() -> Iterator[chromium.Browser]:
    with chromium.browser() as opened:
        yield opened


@pytest.fixture
def page(window, report) -> chromium.Browser:
    return opened(window, report.folder)


def opened(window: chromium.Browser, folder: Path, view: str = '', width: int = 1280, height: int = 900,
           colours: str = 'light') -> chromium.Browser:  # fmt: skip
    window.open('about:blank')
    window.size(width, height)
    window.colours(colours)
    window.log('browser')
    window.log('performance')
    window.open(f'file://{folder / "index.html"}{view}')
    return window


def until(condition: Callable[[], object]) -> None:
    """Wait for it; transitions and pictures take a moment."""
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end, 'it never came'
        time.sleep(0.05)


def settled(window: chromium.Browser) -> np.ndarray:
    """The picture of the window once no picture or transition is under way."""
    until(lambda: window.run(
        'return [...document.querySelectorAll(".card img[src]")]'
        '.filter(image => image.getBoundingClientRect().top < innerHeight)'
        '.every(image => image.complete) && !document.getAnimations().length'
    ))  # fmt: skip
    return window.picture().astype(int)


def place(window: chromium.Browser, selector: str) -> dict:
    return window.run(
        'const box = document.querySelector(arguments[0]).getBoundingClientRect();'
        'return {x: box.x, y: box.y, width: box.width, height: box.height}', selector,
    )  # fmt: skip


def click(window: chromium.Browser, selector: str) -> None:
    window.run('document.querySelector(arguments[0]).scrollIntoView({block: "nearest"})', selector)
    box = place(window, selector)
    window.click(box['x'] + box['width'] / 2, box['y'] + box['height'] / 2)


def leaf_of(folder: Path) -> int:
    """A finest cluster that has a good part of the first image, and not all of it."""
    labels = np.array(Image.open(folder / 'masks/0000/level3.png'))
    shares = np.bincount(labels.ravel()) / labels.size
    return int(np.flatnonzero((shares > 0.1) & (shares < 0.9))[0])


def test_loads_from_disk_without_errors_or_requests(page, report) -> None:
    settled(page)
    assert page.log('browser') == []
    asked = {event['params']['request']['url'] for event in page.log('performance')
             if event['method'] == 'Network.requestWillBeSent'}  # fmt: skip
    assert len(asked) > 3 and all(address.startswith(('file:///', 'data:')) for address in asked)
    assert page.run('return [...document.querySelectorAll(".card .photo")].every(image => image.naturalWidth > 0)')
    assert page.run('return document.title') == 'Hierarchy of omh'


def test_slider_changes_the_masks(page) -> None:
    shown = 'return [...document.querySelectorAll(".card .stack > .mask.on")].map(mask => mask.getAttribute("src"))'
    assert page.run(shown) == [f'masks/{n:04d}/level1.png' for n in range(3)]
    before = settled(page)
    page.run('document.getElementById("level").focus()')
    page.press('ArrowRight')
    assert page.run(shown) == [f'masks/{n:04d}/level2.png' for n in range(3)]
    box = place(page, '.card .stack')
    part = np.s_[int(box['y']) : int(box['y'] + box['height']), int(box['x']) : int(box['x'] + box['width'])]
    assert np.abs(settled(page)[part] - before[part]).max() > 30
    assert page.run('return location.hash') == '#level=2'


def test_click_on_a_leaf_lights_its_pixels(page, report) -> None:
    leaf = leaf_of(report.folder)
    opened(page, report.folder, '#level=3')
    before, box = settled(page), place(page, '.card .stack')
    click(page, f'.node[data-cluster="3-{leaf}"]')
    until(lambda: page.run('return Boolean(document.querySelector(".card .shade.on"))'))
    after = settled(page)
    chosen = 'return [...document.querySelectorAll("[aria-selected=true]")].map(node => node.dataset.cluster)'
    assert page.run(chosen) == [f'3-{leaf}']
    assert place(page, '.card .stack') == box, 'the images jump'
    labels = Image.open(report.folder / 'masks/0000/level3.png')
    top, left, height, width = (round(box[key]) for key in ('y', 'x', 'height', 'width'))
    inside = np.array(labels.resize((width, height), Image.Resampling.NEAREST)) == leaf
    # Pixels at the border of the cluster and of the picture are mixed.
    deep = np.ones_like(inside)
    for shift in range(-5, 6):
        for axis in (0, 1):
            deep &= np.roll(inside, shift, axis) == inside
    deep[[*range(8), *range(-8, 0)]] = deep[:, [*range(8), *range(-8, 0)]] = False
    change = np.abs(after - before)[top : top + height, left : left + width].sum(-1)
    assert (inside & deep).sum() > 30 and (~inside & deep).sum() > 30
    assert change[inside & deep].max() <= 6 < 40 < np.median(change[~inside & deep])
    assert f'cluster {leaf}' in page.run('return document.getElementById("detail-title").textContent')
    click(page, '.tree-panel h2')
    page.press('Escape')
    assert page.run(chosen) == []


def test_pointer_over_an_image_lights_the_tree(page, report) -> None:
    labels = np.array(Image.open(report.folder / 'masks/0000/level1.png'))
    box = place(page, '.card .stack')
    y, x = (side // 3 for side in labels.shape)
    right, down = (x + 0.5) / labels.shape[1], (y + 0.5) / labels.shape[0]
    page.move(box['x'] + right * box['width'], box['y'] + down * box['height'])
    until(lambda: page.run('return document.querySelectorAll(".node.lit").length'))
    assert page.run('return document.querySelector(".node.lit").dataset.cluster') == f'1-{labels[y, x]}'
    family = page.run('return [...document.querySelectorAll(".node.kin")].map(node => node.dataset.cluster)')
    sizes = [len(level['clusters']) for level in report.summary['levels']]
    finer = {f'{level + 1}-{n}' for level in (1, 2) for n in range(sizes[level])
             if _root(report.summary, level, n) == labels[y, x]}  # fmt: skip
    assert set(family) == {f'1-{labels[y, x]}', *finer}


def _root(summary: dict, level: int, cluster: int) -> int:
    for above in range(level, 0, -1):
        cluster = summary['levels'][above]['clusters'][cluster]['parent']
    return cluster


def test_keyboard_goes_through_tree_and_clusters_of_an_image(page, report) -> None:
    focused = 'return document.activeElement.dataset.cluster'
    page.run('document.querySelector(".node[tabindex=\'0\']").focus()')
    first = page.run(focused)
    page.press('ArrowDown')
    below = page.run(focused)
    assert first.startswith('1-') and below.startswith('1-') and below != first
    page.press('ArrowUp')
    page.press('ArrowRight')
    child = page.run(focused)
    number = int(child.partition('-')[2])
    assert child.startswith('2-') and f'1-{report.summary["levels"][1]["clusters"][number]["parent"]}' == first
    page.press('Enter')
    assert page.run('return location.hash') == f'#level=2&cluster={child}'
    page.press('ArrowLeft')
    assert page.run(focused) == first
    page.run('document.querySelector(".card").focus()')
    page.press('Escape')
    page.press('ArrowRight')
    shares = page.run('return JSON.parse(document.getElementById("data").textContent).images[0].levels[1].clusters')
    largest = max(shares, key=shares.get)
    assert page.run('return location.hash') == f'#level=2&cluster=2-{largest}'
    assert re.match(rf'level 2, cluster {largest}: \S+ % of the pixels', page.run(
        'return document.getElementById("live").textContent'
    ))  # fmt: skip


@pytest.mark.parametrize(('width', 'height'), SIZES)
def test_text_fits_and_themes_differ(window, report, width: int, height: int) -> None:
    grounds = {}
    for colours, view in (('light', ''), ('dark', f'&cluster=3-{leaf_of(report.folder)}')):
        opened(window, report.folder, f'#level=3{view}', width, height, colours)
        assert window.log('browser') == [] and window.run('return document.querySelectorAll("#table tr").length') == 25
        assert window.run('return document.documentElement.scrollWidth') <= width
        assert window.run(OUTSIDE) == [] and window.run(CUT) == []
        grounds[colours] = window.run('return getComputedStyle(document.body).backgroundColor')
    assert grounds['light'] != grounds['dark']
    click(window, '#theme')
    assert window.run('return getComputedStyle(document.body).backgroundColor') == grounds['light']
    window.run('localStorage.clear()')


def test_host_without_omh_has_no_slider(window, models, images, tmp_path: Path) -> None:
    write_report(models.host, images[:1], tmp_path / 'report', options=ReportOptions(measure=False, progress=False))
    opened(window, tmp_path / 'report', width=400, height=800)
    settled(window)
    assert window.log('browser') == []
    for part in ('levels', 'plans-panel', 'figures-panel'):
        assert window.run('return document.getElementById(arguments[0]).hidden', part)
    assert window.run('return document.querySelectorAll(".node").length') == 6
