"""A headless Chromium for tests of pages, driven through its own chromedriver by the WebDriver protocol."""

from __future__ import annotations

import base64
import io
import json
import shutil
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from PIL import Image

PROGRAMS = ('chromium', 'chromedriver')
FLAGS = ('--headless=new', '--no-sandbox', '--disable-gpu', '--hide-scrollbars', '--disable-dev-shm-usage',
         '--disable-background-networking', '--no-first-run')  # fmt: skip


def missing() -> str:
    """Why there is no browser; empty where there is one."""
    absent = [name for name in PROGRAMS if shutil.which(name) is None]
    return f'no {" and no ".join(absent)}: apt-get install chromium chromium-driver' if absent else ''


class Browser:
    """One window.

    Args:
        session: Address of the session.
    """

    def __init__(self, session: str) -> None:
        self.session = session

    def open(self, address: str) -> None:
        """Load a page, and wait until it has been."""
        _ask(f'{self.session}/url', dict(url=address))

    def run(self, script: str, *arguments: Any) -> Any:
        """What a script's ``return`` gives, or its promise comes to."""
        return _ask(f'{self.session}/execute/sync', dict(script=script, args=list(arguments)))

    def command(self, name: str, **parameters: Any) -> Any:
        """A command of the DevTools protocol."""
        return _ask(f'{self.session}/goog/cdp/execute', dict(cmd=name, params=parameters))

    def size(self, width: int, height: int, scale: float = 1) -> None:
        """Give the page a size in CSS pixels, also below the smallest of a window."""
        self.command('Emulation.setDeviceMetricsOverride', width=width, height=height, deviceScaleFactor=scale,
                     mobile=False)  # fmt: skip

    def colours(self, scheme: str) -> None:
        """Prefer ``'light'`` or ``'dark'`` colours."""
        self.command('Emulation.setEmulatedMedia', features=[dict(name='prefers-color-scheme', value=scheme)])

    def move(self, x: float, y: float) -> None:
        """Move the mouse."""
        self.command('Input.dispatchMouseEvent', type='mouseMoved', x=x, y=y)

    def click(self, x: float, y: float) -> None:
        """Click with the left button."""
        self.move(x, y)
        for kind in ('mousePressed', 'mouseReleased'):
            self.command('Input.dispatchMouseEvent', type=kind, x=x, y=y, button='left', clickCount=1)

    def press(self, key: str) -> None:
        """Press a key by its name, such as ``'ArrowDown'``."""
        codes = dict(ArrowLeft=37, ArrowUp=38, ArrowRight=39, ArrowDown=40, Enter=13, Escape=27, Tab=9)
        text = dict(text='\r') if key == 'Enter' else {}
        common = dict(key=key, code=key, windowsVirtualKeyCode=codes[key])
        self.command('Input.dispatchKeyEvent', type='keyDown', **common, **text)
        self.command('Input.dispatchKeyEvent', type='keyUp', **common)

    def picture(self, whole: bool = False) -> np.ndarray:
        """What the window shows, or the ``whole`` page: RGB uint8 (H, W, 3)."""
        data = self.command('Page.captureScreenshot', format='png', captureBeyondViewport=whole)['data']
        return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert('RGB'))

    def log(self, kind: str) -> list[dict[str, Any]]:
        """New entries of ``'browser'`` (messages of the console) or ``'performance'`` (events of the network)."""
        entries = _ask(f'{self.session}/se/log', dict(type=kind))
        return [json.loads(entry['message'])['message'] if kind == 'performance' else entry for entry in entries]


@contextmanager
def browser() -> Iterator[Browser]:
    """A browser that ends with the block."""
    driver = subprocess.Popen(
        [str(shutil.which('chromedriver')), '--port=0'], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert driver.stdout is not None
    try:
        line = next(line for line in driver.stdout if 'successfully on port' in line)
        address = f'http://127.0.0.1:{line.rsplit("port", 1)[1].strip().rstrip(".")}'
        wanted = {
            'browserName': 'chrome',
            'goog:chromeOptions': dict(binary=shutil.which('chromium'), args=list(FLAGS)),
            'goog:loggingPrefs': dict(browser='ALL', performance='ALL'),
        }
        made = _ask(f'{address}/session', dict(capabilities=dict(alwaysMatch=wanted)))
        session = f'{address}/session/{made["sessionId"]}'
        try:
            yield Browser(session)
        finally:
            _ask(session, None)
    finally:
        driver.terminate()
        driver.wait()
        driver.stdout.close()


def _ask(address: str, content: dict[str, Any] | None) -> Any:
    """Post to an address, or delete what is there; the value of the answer."""
    body = None if content is None else json.dumps(content).encode()
    request = urllib.request.Request(address, body, {'Content-Type': 'application/json'},
                                     method='DELETE' if content is None else 'POST')  # fmt: skip
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=300) as answer:
            return json.loads(answer.read())['value']
    except urllib.error.HTTPError as error:
        raise RuntimeError(error.read().decode()) from error
