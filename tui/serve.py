"""`kerasrobust-tui --serve`: the UI in a browser on this machine, through textual-serve.

The UI starts processes and deletes runs, so that nobody else may drive it. The server listens on 127.0.0.1 only; page,
websocket and downloads ask for the token that is printed at the start, which keeps out foreign web pages and other
people on the machine; the Host of every request must be this server (or a name that a foreign page has pointed at
127.0.0.1 would do), and the Origin of the websocket this very page.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import hmac
import html
import secrets
import shlex
import socket
import sys
from pathlib import Path
from string import Template

from aiohttp import web
from aiohttp.typedefs import Handler
from textual_serve.app_service import AppService
from textual_serve.server import Server, to_int

from kerasrobust.errors import InputError

ADDRESS = "127.0.0.1"
SHUTDOWN_SECONDS = 0.5
"""How long open pages may take to leave by themselves; then the apps behind them are asked to quit."""
QUIT_SECONDS = 3.0
"""How long an app may take to quit when its page has gone."""

# The terminal takes the keys without a click: a while after the app has drawn something, as an app takes itself for out
# of focus when it starts.
SCRIPT = """
new MutationObserver((_, observer) => {
  if (!document.body.classList.contains("-first-byte")) return;
  observer.disconnect();
  setTimeout(() => document.querySelector(".xterm-helper-textarea").focus(), 300);
}).observe(document.body, { attributeFilter: ["class"] });
"""
SCRIPT_HASH = base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()

HEADERS = {
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",  # The token is in the address.
    "X-Content-Type-Options": "nosniff",
}
POLICY = (
    f"default-src 'none'; script-src 'self' 'sha256-{SCRIPT_HASH}'; font-src 'self'; img-src 'self' data:; "
    # The terminal in the page makes style elements of its own.
    "style-src 'self' 'unsafe-inline'; connect-src 'self' ws://{host}; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


class LocalServer(Server):
    """textual-serve's server on a port of 127.0.0.1, for requests that know the token; a shell starts `command` a page.

    Example:
        >>> server = LocalServer("exec python -m tui", 8000, "s3cret")
        >>> server.address
        'http://127.0.0.1:8000/?token=s3cret'
    """

    def __init__(self, command: str, port: int, token: str) -> None:
        super().__init__(command, host=ADDRESS, port=port, title="kerasrobust")
        self.token = token
        # A browser leaves out the port of plain HTTP.
        ports = (f":{port}", "") if port == 80 else (f":{port}",)
        self._hosts = {f"{name}{end}" for name in (ADDRESS, "localhost") for end in ports}

    @property
    def address(self) -> str:
        return f"http://{ADDRESS}:{self.port}/?token={self.token}"

    async def make_app(self) -> web.Application:
        """Returns the web application; every request goes through the checks first."""
        app = web.Application(middlewares=[self._checked])
        app.add_routes(
            [
                web.get("/", self.handle_page),
                web.get("/ws/{token}", self.handle_websocket),
                web.get("/download/{key}", self.handle_download),
                web.static("/static", self.statics_path),
            ]
        )
        app.on_response_prepare.append(_add_headers)
        return app

    @web.middleware
    async def _checked(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Refuses a request that isn't from a page of this server, or doesn't know the token."""
        if request.host not in self._hosts:
            raise web.HTTPForbidden(text=f"Expected the host {ADDRESS}:{self.port}.\n")
        # textual-serve's own files are no secret.
        if not request.path.startswith("/static/"):
            # Where textual-serve's script puts it: it adds a query to the websocket's address, and to a download's
            # its `instance`.
            token = request.match_info.get("token") or request.query.get("token") or request.query.get("instance", "")
            if not hmac.compare_digest(token.encode("utf-8", "replace"), self.token.encode()):
                raise web.HTTPForbidden(text="Expected the token. Open the address that kerasrobust-tui has printed.\n")
        origin = request.headers.get("Origin", "")
        is_websocket = request.path.startswith("/ws/")
        if (is_websocket or origin) and origin != f"http://{request.host}":
            raise web.HTTPForbidden(text="Expected a request from the page of this server.\n")
        return await handler(request)

    async def handle_page(self, request: web.Request) -> web.Response:
        page = Template((Path(__file__).with_name("serve.html")).read_text(encoding="utf-8"))
        text = page.substitute(host=html.escape(request.host), token=html.escape(self.token), script=SCRIPT)
        return web.Response(text=text, content_type="text/html")

    async def handle_websocket(self, request: web.Request) -> web.WebSocketResponse:
        """Starts an app for the page, and passes on what both say until one of them ends."""
        websocket = web.WebSocketResponse(heartbeat=15)
        await websocket.prepare(request)
        await websocket.send_json(["instance_id", self.token])

        async def close() -> None:
            await websocket.close()

        service = _Service(
            self.command,
            write_bytes=websocket.send_bytes,
            write_str=websocket.send_str,
            close=close,
            download_manager=self.download_manager,
        )
        await service.start(to_int(request.query.get("width", ""), 80), to_int(request.query.get("height", ""), 24))
        try:
            await self._process_messages(websocket, service)
        finally:
            await service.stop()
        return websocket


class _Service(AppService):
    """The app of one page."""

    async def run(self) -> None:
        try:
            await super().run()
        finally:  # Also where the app died without a word: the page is to say that the session has ended.
            await self.remote_close()

    async def stop(self) -> None:
        """Asks the app to quit, and ends it if it doesn't: it may hang, or wait for a page that no longer reads."""
        process = self._process
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(QUIT_SECONDS):
                    await super().stop()
                    if process is not None:
                        await process.wait()
        finally:  # Also where the server itself is ending, and waits no longer.
            if process is not None and process.returncode is None:
                process.kill()


async def _add_headers(request: web.Request, response: web.StreamResponse) -> None:
    response.headers.update(HEADERS)
    response.headers["Content-Security-Policy"] = POLICY.format(host=request.host)


def command(runs_dir: Path, models_dir: Path) -> str:
    """Returns the shell command that starts the UI for one page.

    Example:
        >>> command(Path("my runs"), Path("saved_models"))  # doctest: +ELLIPSIS
        "exec ... -m tui --runs-dir='my runs' --models-dir=saved_models"
    """
    words = [sys.executable, "-m", "tui", f"--runs-dir={runs_dir}", f"--models-dir={models_dir}"]
    # `exec`, so that no shell stands between the server and the app.
    return f"exec {shlex.join(words)}"


def serve(runs_dir: Path, models_dir: Path, *, port: int) -> None:
    """Serves the UI on a port of 127.0.0.1, a free one for 0, until Ctrl-C or SIGTERM.

    The address is printed, not opened: other people on the machine can read the arguments of a browser that is started.

    Raises:
        InputError: where the port is taken or not allowed.
    """
    try:
        listener = socket.create_server((ADDRESS, port))
    except OSError as error:
        raise InputError(
            f"Expected a port that is free. Received: {port} ({error.strerror}). Choose another with --port."
        ) from error
    server = LocalServer(command(runs_dir, models_dir), listener.getsockname()[1], secrets.token_urlsafe(32))

    def announce(_: str) -> None:
        print(f"kerasrobust-tui is at {server.address}\nKeep the address to yourself. Ctrl-C ends it.", flush=True)

    # The access log would repeat the token.
    web.run_app(server.make_app(), sock=listener, access_log=None, print=announce, shutdown_timeout=SHUTDOWN_SECONDS)
