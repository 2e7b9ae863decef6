"""A server on the loopback interface that a test fills, and that can be made to fail."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import torch


class Loopback:
    """Files by their path, each with how it is sent.

    Attributes:
        root: Address of the server.
        asked: Paths that were asked for, in their order.
    """

    def __init__(self, root: str) -> None:
        self.root = root
        self.asked: list[str] = []
        self.files: dict[str, tuple[bytes, int | None, bool]] = {}
        self.status: dict[str, int] = {}
        self.ready = threading.Event()
        self.ready.set()

    def add(self, path: str, content: Any, cut: int | None = None, announced: bool = True) -> str:
        """Serve bytes, or an object as torch saves it, and return the address.

        Args:
            path: Below the root.
            content: What to serve.
            cut: Break off after so many bytes.
            announced: Send the length.
        """
        if not isinstance(content, bytes):
            buffer = io.BytesIO()
            torch.save(content, buffer)
            content = buffer.getvalue()
        self.files[f'/{path}'] = (content, cut, announced)
        self.status.pop(f'/{path}', None)
        return f'{self.root}/{path}'

    def content(self, path: str) -> bytes:
        return self.files[f'/{path}'][0]

    def fail(self, path: str, status: int) -> str:
        """Answer with an error."""
        self.status[f'/{path}'] = status
        return f'{self.root}/{path}'


@contextmanager
def loopback() -> Iterator[Loopback]:
    """A running server."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            served.asked.append(self.path)
            served.ready.wait(20)
            status = served.status.get(self.path, 200 if self.path in served.files else 404)
            content, cut, announced = served.files.get(self.path, (b'', None, True))
            if status != 200:
                content = b'an error page'
            self.send_response(status)
            if announced:
                self.send_header('Content-Length', str(len(content)))
            self.end_headers()
            self.wfile.write(content[:cut])

        def log_message(self, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(('127.0.0.1', 0), Handler)
    served = Loopback(f'http://127.0.0.1:{server.server_port}')
    thread = threading.Thread(target=server.serve_forever, kwargs=dict(poll_interval=0.05), daemon=True)
    thread.start()
    try:
        yield served
    finally:
        served.ready.set()
        server.shutdown()
        server.server_close()
        thread.join()
