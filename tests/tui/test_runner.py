from __future__ import annotations

import errno
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from cli import read_events
from fake_engine import ENGINE

from kerasrobust.config import AttackConfig, DemoConfig, TrainConfig
from kerasrobust.errors import InputError
from kerasrobust.runs import is_locked, state
from tui import runner as runner_module
from tui.runner import Child, Runner, named


def wait(true: Callable[[], object], seconds: float = 15.0) -> None:
    limit = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < limit
        time.sleep(0.02)


@pytest.fixture
def runner(runs_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Runner:
    monkeypatch.setenv("FAKE_STOP_AT", "3")
    return Runner(ENGINE)


def begun(child: Child) -> bool:
    return is_locked(child.path) and (child.path / "events.jsonl").exists()


def test_a_started_run_is_the_command_that_is_shown(runner: Runner, runs_dir: Path) -> None:
    config = TrainConfig(model="lenet", epochs=2, runs_dir=runs_dir)
    child = runner.start(config)
    wait(lambda: begun(child))
    running = Path(f"/proc/{child.process.pid}/cmdline").read_bytes().split(b"\0")
    words = shlex.split(child.command)
    assert [word.decode() for word in running if word][2:] == words[3:]
    assert words[:4] == ["python", "-m", "kerasrobust.run", "train"]
    assert f"--name {child.path.name}" in child.command
    runner.cancel(child.path)
    wait(lambda: child.ended)


def test_cancelling_ends_a_run_that_says_so(runner: Runner, runs_dir: Path) -> None:
    child = runner.start(DemoConfig(runs_dir=runs_dir))
    wait(lambda: begun(child))
    assert "asked to stop" in runner.cancel(child.path)
    wait(lambda: child.ended)
    assert state(child.path) == "cancelled" and child.exit_words() == "exit status 130"


def test_a_run_has_a_session_of_its_own_and_outlives_its_starter(runs_dir: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "from tui.runner import Runner; from kerasrobust.config import DemoConfig\n"
        "print(Runner(sys.argv[2:]).start(DemoConfig(name='mine', runs_dir=Path(sys.argv[1]))).process.pid)"
    )
    environment = os.environ | {"FAKE_STOP_AT": "3"}
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code, str(runs_dir), *ENGINE],
        capture_output=True, text=True, check=True, env=environment, cwd=root,
    )  # fmt: skip
    pid = int(done.stdout)
    wait(lambda: is_locked(runs_dir / "mine"))
    assert os.getsid(pid) == pid
    # Another UI, which hasn't started it, may stop it too, but signals the process alone.
    assert "started elsewhere" in Runner(ENGINE).cancel(runs_dir / "mine")
    wait(lambda: state(runs_dir / "mine") == "cancelled")


def test_what_does_not_stop_is_asked_more_sternly(
    runs_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deaf = tmp_path / "deaf.py"
    deaf.write_text(
        "import signal, time\n"
        "signal.signal(signal.SIGINT, signal.SIG_IGN); signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        f"open({str(tmp_path / 'ready')!r}, 'w'); time.sleep(60)"
    )
    monkeypatch.setattr(runner_module, "GRACE_SECONDS", 0.1)
    runner = Runner([sys.executable, str(deaf)])
    child = runner.start(DemoConfig(runs_dir=runs_dir))
    wait((tmp_path / "ready").exists)
    runner.cancel(child.path)
    sent = []
    while not child.ended:
        sent += [name for _, name in runner.escalate()]
        time.sleep(0.02)
    assert sent == ["SIGTERM", "SIGKILL"] and child.exit_words() == "killed by SIGKILL"


def test_a_killed_run_says_how_it_ended(runner: Runner, runs_dir: Path) -> None:
    child = runner.start(DemoConfig(runs_dir=runs_dir))
    wait(lambda: begun(child) and len(read_events(child.path / "events.jsonl")[0]) == 3)
    os.kill(child.process.pid, signal.SIGKILL)
    wait(lambda: child.ended)
    assert child.exit_words() == "killed by SIGKILL" and state(child.path) == "died"
    events, _ = read_events(child.path / "events.jsonl")
    assert len(events) == 3


def test_a_refused_run_tells_its_line(runs_dir: Path, models_dir: Path) -> None:
    runs_dir.parent.mkdir(exist_ok=True)
    runs_dir.write_text("a file where the folder should be")
    child = Runner(ENGINE).start(AttackConfig(model="m", runs_dir=runs_dir))
    wait(lambda: child.ended)
    child.settle()
    assert child.refused and child.exit_words() == "exit status 2"
    assert child.message().startswith("kerasrobust: Expected a folder for runs")


def test_an_ended_run_is_not_signalled(runner: Runner, add_run: Callable[..., Path]) -> None:
    with pytest.raises(InputError, match="has ended"):
        runner.cancel(add_run("attack"))


def test_an_engine_that_is_not_there_is_one_line(runs_dir: Path) -> None:
    with pytest.raises(InputError, match="No such file"):
        Runner(["/nonexistent/python"]).start(DemoConfig(runs_dir=runs_dir))


def test_a_full_disk_is_one_line(runs_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full() -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("tui.runner.tempfile.TemporaryFile", full)
    with pytest.raises(InputError, match="No space left on device"):
        Runner(ENGINE).start(DemoConfig(runs_dir=runs_dir))


def test_a_name_is_made_where_there_is_none_and_is_free(runs_dir: Path) -> None:
    first = named(DemoConfig(runs_dir=runs_dir))
    assert first.name is not None and first.name.startswith("demo-")
    (runs_dir / first.name).mkdir(parents=True)
    assert named(DemoConfig(runs_dir=runs_dir)).name != first.name
    assert named(DemoConfig(name="mine", runs_dir=runs_dir)).name == "mine"
