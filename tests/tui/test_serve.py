from __future__ import annotations

import asyncio
import base64
import hashlib
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import aiohttp
import pytest

from tui.serve import command

ROOT = Path(__file__).parents[2]
APP = """
import os
from pathlib import Path
from textual.app import App
from textual.widgets import Label

class Small(App):
    BINDINGS = [("s", "save", "Save"), ("x", "die", "Die"), ("h", "hang", "Hang")]
    def compose(self):
        yield Label(f"process {os.getpid()}.")
    def action_save(self):
        self.deliver_screenshot()
    def action_die(self):
        os._exit(3)
    def action_hang(self):
        import time
        Path("hangs").touch()
        time.sleep(600)

Small().run()
"""
# A server as `serve` starts it, of a small app in place of the whole UI.
SERVER = """
import sys
from pathlib import Path
from tui import serve
serve.command = lambda runs_dir, models_dir: sys.argv[1]
serve.serve(Path("runs"), Path("models"), port=0)
"""


class Served:
    """A running server: its process, port, token and address."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        self.process = process
        line = process.stdout.readline()
        found = re.search(r"http://127\.0\.0\.1:(\d+)/\?token=(\S+)", line)
        assert found, line
        self.address = found[0]
        self.port, self.token = int(found[1]), found[2]
        self.site = f"http://127.0.0.1:{self.port}"
        self.socket = f"ws://127.0.0.1:{self.port}/ws"


def start(folder: Path) -> Served:
    app = folder / "app.py"
    app.write_text(APP)
    words = [sys.executable, "-c", SERVER, f"exec {shlex.join([sys.executable, str(app)])}"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(words, cwd=folder, env=environment, text=True, stdout=subprocess.PIPE)
    return Served(process)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    server = start(tmp_path_factory.mktemp("served"))
    yield server
    server.process.send_signal(signal.SIGINT)
    server.process.wait(20)


@pytest.fixture
async def browser() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


async def read_until(websocket: aiohttp.ClientWebSocketResponse, pattern: str) -> re.Match[str]:
    """Reads what the app draws until the pattern is found."""
    text = ""
    async with asyncio.timeout(20):
        async for message in websocket:
            text += message.data.decode("utf-8", "replace") if isinstance(message.data, bytes) else message.data
            if found := re.search(pattern, text):
                return found
    raise AssertionError(f"The session ended after {text!r}")


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def ended(pid: int) -> bool:
    for _ in range(100):
        if not is_alive(pid):
            return True
        await asyncio.sleep(0.1)
    return False


@pytest.mark.parametrize("query", ["", "?token=", "?token=wrong", "?token=%C3%A9", "?token=%ff", "?instance=wrong"])
async def test_a_page_without_the_right_token_is_refused(
    served: Served, browser: aiohttp.ClientSession, query: str
) -> None:
    async with browser.get(f"{served.site}/{query}") as answer:
        assert answer.status == 403
        assert served.token not in await answer.text()


async def test_the_page_with_the_token_loads_nothing_from_elsewhere(
    served: Served, browser: aiohttp.ClientSession
) -> None:
    async with browser.get(served.address) as answer:
        assert answer.status == 200
        assert answer.content_type == "text/html"
        page = await answer.text()
        headers = answer.headers
    assert set(re.findall(r"\w+://[^/\"' ]+", page)) == {f"ws://127.0.0.1:{served.port}"}
    own = re.findall(r"""(?:href|src)="(/static/[^"]+)"|url\("([^"]+)"\)""", page)
    assert len(own) == 4
    for first, second in own:
        async with browser.get(served.site + (first or second)) as answer:
            assert answer.status == 200
            if "css" in answer.content_type:
                assert not re.search(r"url\(|@import", await answer.text())
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["Cache-Control"] == "no-store"
    policy = {part.split()[0]: part.split()[1:] for part in headers["Content-Security-Policy"].split(";")}
    assert policy["default-src"] == ["'none'"]
    (script,) = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policy["script-src"] == ["'self'", f"'sha256-{digest}'"]
    assert policy["font-src"] == ["'self'"]
    assert policy["connect-src"] == ["'self'", f"ws://127.0.0.1:{served.port}"]
    assert policy["frame-ancestors"] == ["'none'"]


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:{port}", "127.0.0.1", "127.0.0.1:1", "127.0.0.1.evil:{port}"]
)
async def test_a_foreign_host_is_refused_everywhere(served: Served, browser: aiohttp.ClientSession, host: str) -> None:
    headers = {"Host": host.format(port=served.port)}
    for path in (f"/?token={served.token}", "/static/js/textual.js", f"/download/x?token={served.token}"):
        async with browser.get(served.site + path, headers=headers) as answer:
            assert answer.status == 403
    # As a page would come that has pointed its own name at this machine.
    headers["Origin"] = f"http://{headers['Host']}"
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        await browser.ws_connect(f"{served.socket}/{served.token}", headers=headers)
    assert refused.value.status == 403


@pytest.mark.parametrize(
    "origin", [None, "null", "http://evil.example", "http://127.0.0.1", "https://127.0.0.1:{port}"]
)
async def test_a_websocket_from_a_foreign_page_is_refused(
    served: Served, browser: aiohttp.ClientSession, origin: str | None
) -> None:
    headers = {} if origin is None else {"Origin": origin.format(port=served.port)}
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        await browser.ws_connect(f"{served.socket}/{served.token}", headers=headers)
    assert refused.value.status == 403


@pytest.mark.parametrize("path", ["", "/", "/wrong", "?token={token}", "/wrong?token={token}"])
async def test_a_websocket_without_the_right_token_is_refused(
    served: Served, browser: aiohttp.ClientSession, path: str
) -> None:
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        await browser.ws_connect(served.socket + path.format(token=served.token), origin=served.site)
    assert refused.value.status in (403, 404)


async def test_a_download_without_the_token_is_refused(served: Served, browser: aiohttp.ClientSession) -> None:
    async with browser.get(f"{served.site}/download/key") as answer:
        assert answer.status == 403
    async with browser.get(f"{served.site}/download/key?instance={served.token}") as answer:
        assert answer.status == 404


async def test_the_app_is_driven_downloads_and_ends_with_its_page(
    served: Served, browser: aiohttp.ClientSession
) -> None:
    async with browser.ws_connect(f"{served.socket}/{served.token}?width=80&height=24", origin=served.site) as page:
        pid = int((await read_until(page, r"process (\d+)\."))[1])
        await page.send_json(["stdin", "s"])
        key = (await read_until(page, r'"deliver_file_start", "(\w+)"'))[1]
        async with browser.get(f"{served.site}/download/{key}?instance={served.token}") as answer:
            assert answer.status == 200
            assert "<svg" in await answer.text()
    assert await ended(pid)


async def test_the_page_is_told_when_its_app_dies(served: Served, browser: aiohttp.ClientSession) -> None:
    async with browser.ws_connect(f"{served.socket}/{served.token}", origin=served.site) as page:
        await read_until(page, r"process \d+\.")
        await page.send_json(["stdin", "x"])
        async with asyncio.timeout(20):
            while (await page.receive()).type not in (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED):
                pass
    async with browser.get(served.address) as answer:
        assert answer.status == 200


def listening(port: int) -> list[str]:
    """Returns the addresses that listen on a port, in the hexadecimal of /proc."""
    found = []
    for name in ("tcp", "tcp6"):
        for line in Path("/proc/net", name).read_text().splitlines()[1:]:
            local, state = line.split()[1], line.split()[3]
            if state == "0A" and local.endswith(f":{port:04X}"):
                found.append(local.partition(":")[0])
    return found


@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="needs Linux's /proc/net")
def test_it_listens_on_this_machine_only(served: Served) -> None:
    assert listening(served.port) == ["0100007F"]


@pytest.mark.parametrize("key", [None, "h"])
async def test_ctrl_c_ends_the_server_and_its_apps(
    tmp_path: Path, browser: aiohttp.ClientSession, key: str | None
) -> None:
    served = start(tmp_path)
    async with browser.ws_connect(f"{served.socket}/{served.token}", origin=served.site) as page:
        pid = int((await read_until(page, r"process (\d+)\."))[1])
        if key:  # It no longer listens.
            await page.send_json(["stdin", key])
            while not (tmp_path / "hangs").exists():
                await asyncio.sleep(0.05)
        served.process.send_signal(signal.SIGINT)
        assert await asyncio.to_thread(served.process.wait, 20) == 0
    assert await ended(pid)


def test_a_port_in_use_is_one_line_and_status_2(served: Served) -> None:
    done = tui("--serve", "--port", str(served.port))
    assert done.returncode == 2
    assert done.stderr.startswith(f"kerasrobust-tui: Expected a port that is free. Received: {served.port}")
    assert done.stderr.count("\n") == 1


def test_the_command_survives_a_shell_whatever_the_folders_are_called(tmp_path: Path) -> None:
    words = shlex.split(command(Path("-my $(runs); 'x'"), tmp_path))
    assert words == ["exec", sys.executable, "-m", "tui", "--runs-dir=-my $(runs); 'x'", f"--models-dir={tmp_path}"]


def tui(*words: str, **options: object) -> subprocess.CompletedProcess[str]:
    """Runs the console script, without a terminal."""
    run = [sys.executable, "-m", "tui", *words]
    return subprocess.run(run, cwd=ROOT, text=True, capture_output=True, timeout=30, stdin=subprocess.DEVNULL)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "Expected a terminal."),
        (["--port", "80"], "Expected --serve beside --port."),
        (["--serve", "--port", "65536"], "Expected a port from 0 to 65535."),
        (["--serve", "--port", "x"], "invalid int value"),
        (["--runs-dir", __file__], "Expected a folder for --runs-dir."),
        (["--models-dir", __file__], "Expected a folder for --models-dir."),
        (["--sevre"], "--sevre"),
    ],
)
def test_bad_input_is_one_line_and_status_2(words: list[str], told: str) -> None:
    done = tui(*words)
    assert done.returncode == 2
    assert done.stdout == ""
    assert told in done.stderr
    assert done.stderr.count("\n") == 1


def test_help_needs_no_textual() -> None:
    check = (
        "import sys; from tui.__main__ import main\n"
        "try: main(['--help'])\n"
        "finally: assert not {'textual', 'aiohttp', 'numpy', 'tensorflow'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", check], cwd=ROOT, text=True, capture_output=True, timeout=30)
    assert done.returncode == 0, done.stderr
    assert "--serve" in done.stdout
