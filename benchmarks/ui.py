"""How quick the terminal UI is, measured from outside: it runs in a pseudo-terminal, and this program types and reads.

    python benchmarks/ui.py            # all of it, about three minutes
    python benchmarks/ui.py --no-demo  # without the demo beside it

It prints: seconds to the first paint (of 5 starts, the imports' share beside), seconds until a run of 1,000,000 events
stands on the screen and the memory that the UI then holds, milliseconds in which the curves of 10 runs of 100,000 steps
are drawn anew, milliseconds from key press to repaint over 200 presses while the demo trains on the same cores, and the
share of a core that the UI takes meanwhile, and when nothing happens.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import pty
import select
import shutil
import signal
import statistics
import struct
import subprocess
import sys
import tempfile
import termios
import time
from pathlib import Path

from kerasrobust.config import DemoConfig, TrainConfig
from kerasrobust.events import Event, Metrics, Progress, RunFinished, RunStarted, StageFinished, StageStarted, to_json
from kerasrobust.runs import write_json
from kerasrobust.settings import to_dict

ROOT = Path(__file__).resolve().parents[1]
SIZE = (30, 100)  # Rows and columns: the charts are drawn all three.
PRESSES = 200

# Keys of the monitor, and a word that only the place they lead to shows.
KEYS = {"l": "events of the run", "i": "devices", "t": "publ.", "a": "gradients", "m": "learning rate"}


class Terminal:
    """The UI in a pseudo-terminal."""

    def __init__(self, runs_dir: Path, size: tuple[int, int] = SIZE) -> None:
        self.began = time.perf_counter()
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.chdir(ROOT)
            environment = os.environ | {"TERM": "xterm-256color", "COLORTERM": "truecolor"}
            words = [sys.executable, "-m", "tui", "--runs-dir", str(runs_dir)]
            os.execve(sys.executable, words, environment)
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", *size, 0, 0))

    def read(self, seconds: float) -> bytes:
        """Returns what is painted within some time, or b"" where nothing is."""
        ready, _, _ = select.select([self.fd], [], [], seconds)
        return os.read(self.fd, 2**16) if ready else b""

    def wait_for(self, word: str, seconds: float = 30.0) -> float:
        """Returns the seconds until a word is painted."""
        began, painted = time.perf_counter(), b""
        while word.encode() not in painted:
            left = seconds - (time.perf_counter() - began)
            if left <= 0:
                raise TimeoutError(f"{word!r} was not painted within {seconds:g} s: {painted[-500:]!r}")
            painted += self.read(left)
        return time.perf_counter() - began

    def idle(self, seconds: float) -> None:
        """Reads on for some time, so that the UI never waits for us."""
        until = time.perf_counter() + seconds
        while (left := until - time.perf_counter()) > 0:
            self.read(left)

    def press(self, key: str) -> None:
        os.write(self.fd, key.encode())

    def cpu_seconds(self) -> float:
        """Returns the processor time that the UI itself has taken, without its children."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def memory(self) -> float:
        """Returns the bytes of memory that the UI holds."""
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def close(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        os.close(self.fd)


def share_of_core(terminal: Terminal, seconds: float) -> float:
    """Returns the share of one core that the UI takes over some time."""
    before, began = terminal.cpu_seconds(), time.perf_counter()
    terminal.idle(seconds)
    return (terminal.cpu_seconds() - before) / (time.perf_counter() - began)


def long_run(runs_dir: Path, count: int) -> Path:
    """Writes a finished run of many events, as a training of half a day leaves: five of progress to one of metrics."""
    folder = runs_dir / "long"
    folder.mkdir(parents=True)
    config = to_dict(DemoConfig(name="long"))
    write_json(folder / "config.json", config)
    began = time.time() - 0.2 * count
    started = RunStarted(time=began, run="long", kind="demo", config=config, command="", versions={}, devices=[], pid=1)
    lines: list[Event] = [started, StageStarted(time=began, stage="train", title="Training long")]
    while len(lines) < count - 2:
        step, now = len(lines), began + 0.2 * len(lines)
        if step % 6:
            lines.append(
                Progress(time=now, stage="train", unit="step", done=step, total=count, rate=5.0, seconds_left=9.0)
            )
        else:
            values = {"loss": 2.0 - step / count, "accuracy": step / count, "robust_accuracy": step / count / 2}
            lines.append(
                Metrics(time=now, stage="train", step=step, epoch=1 + step // 1000, values=values, split="train")
            )
    lines.append(StageFinished(time=now, stage="train", status="done", seconds=0.2 * count))
    lines.append(RunFinished(time=now, status="done", seconds=0.2 * count, message="the very end"))
    (folder / "events.jsonl").write_text("".join(f"{to_json(line)}\n" for line in lines))
    return folder


def trainings(runs_dir: Path, count: int, steps: int) -> None:
    """Writes finished trainings, with metrics at each of their steps."""
    for number in range(count):
        folder = runs_dir / f"train-{number}"
        folder.mkdir(parents=True)
        config = to_dict(TrainConfig(name=folder.name, seed=number, model="lenet"))
        write_json(folder / "config.json", config)
        write_json(folder / "result.json", {"schema": 1, "kind": "train", "clean_accuracy": 0.5})
        run = RunStarted(
            time=0.0, run=folder.name, kind="train", config=config, command="", versions={}, devices=[], pid=1
        )
        lines: list[Event] = [run, StageStarted(time=0.0, stage="train", title="Training")]
        for step in range(1, steps + 1):
            values = {"loss": 2.0 - step / steps + number / 10, "accuracy": step / steps * (1 - number / 20)}
            lines.append(Metrics(time=step, stage="train", step=step, epoch=1, values=values, split="train"))
        lines.append(RunFinished(time=steps, status="done", seconds=steps, message="the very end"))
        (folder / "events.jsonl").write_text("".join(f"{to_json(line)}\n" for line in lines))


def curves_of_ten(runs_dir: Path) -> list[float]:
    """Returns the milliseconds from a key that smooths the curves of ten runs to the charts that are drawn anew."""
    terminal = Terminal(runs_dir, (48, 160))
    terminal.wait_for("train-0")
    terminal.press("4")
    terminal.wait_for("train-9")
    terminal.idle(2)
    for number in range(10):
        terminal.press(" ")
        terminal.wait_for(f"{number + 1} of ")
        terminal.press("\x1b[B")
        terminal.idle(0.3)
    terminal.press("m")
    terminal.wait_for("loss, training", 120)
    terminal.idle(2)
    while share_of_core(terminal, 1) > 0.5:  # It still reads.
        pass
    waits = []
    for _ in range(10):
        for word in ("smoothing 0.6", "smoothing 0.9"):
            terminal.press("s")
            waits.append(1000 * terminal.wait_for(word, 5))
            terminal.idle(0.3)
        terminal.press("s")
        terminal.idle(0.5)
    terminal.close()
    return sorted(waits)


def first_paint(runs_dir: Path, starts: int = 5) -> list[float]:
    """Returns the seconds from the start of the process to the first line on the screen."""
    seconds = []
    for _ in range(starts):
        terminal = Terminal(runs_dir)
        seconds.append(terminal.wait_for("1 Runs"))
        terminal.close()
    return seconds


def import_seconds() -> float:
    """Returns what Python and the imports take of a start, the least of five."""
    words = [sys.executable, "-c", "import tui.app"]
    seconds = []
    for _ in range(5):
        began = time.perf_counter()
        subprocess.run(words, cwd=ROOT, check=True)
        seconds.append(time.perf_counter() - began)
    return min(seconds)


def with_demo(runs_dir: Path) -> None:
    """Starts the demo by its key, and measures presses and load while it trains."""
    terminal = Terminal(runs_dir)
    terminal.wait_for("1 Runs")
    terminal.press("d")
    terminal.wait_for("Run it (y)")
    terminal.press("y")
    terminal.wait_for("Training lenet", 60)
    terminal.idle(5)
    load = share_of_core(terminal, 30)
    waits = []
    keys = list(KEYS)
    for number in range(PRESSES):
        key = keys[number % len(keys)]
        terminal.idle(0.15)
        terminal.press(key)
        waits.append(1000 * terminal.wait_for(KEYS[key], 5))
    waits.sort()
    middle, most, longest = statistics.median(waits), waits[int(0.95 * len(waits))], waits[-1]
    print(f"key press to repaint while the demo trains, of {len(waits)} presses: median {middle:.0f} ms, "
          f"p95 {most:.0f} ms, longest {longest:.0f} ms")  # fmt: skip
    print(f"the UI's share of a core meanwhile, curves on the screen: {load:.1%}")
    terminal.press("x")
    terminal.idle(6)
    terminal.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--no-demo", action="store_true", help="leave out what is measured beside the demo")
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp())
    try:
        paints = first_paint(folder / "none")
        print(f"first paint: {statistics.median(paints):.2f} s (longest of 5: {max(paints):.2f} s), "
              f"of which Python and imports {import_seconds():.2f} s")  # fmt: skip
        terminal = Terminal(folder / "none")
        terminal.wait_for("1 Runs")
        terminal.idle(3)
        print(f"idle on an empty list: {share_of_core(terminal, 20):.1%} of a core")
        terminal.close()
        long_run(folder / "runs", 1_000_000)
        terminal = Terminal(folder / "runs")
        terminal.wait_for("long")
        terminal.idle(2)
        terminal.press("\r")
        opened = terminal.wait_for("the very end")
        began = time.perf_counter()
        terminal.idle(0.5)
        while share_of_core(terminal, 0.5) > 0.5:
            pass
        print(
            f"a run of 1,000,000 events stands on the screen after {opened:.2f} s; whole curves come "
            f"{time.perf_counter() - began - 0.5:.1f} s later, the UI holds {terminal.memory() / 2**20:.0f} MiB then"
        )
        print(f"idle on that run: {share_of_core(terminal, 20):.1%} of a core")
        terminal.close()
        trainings(folder / "ten", 10, 100_000)
        waits = curves_of_ten(folder / "ten")
        print(f"curves of 10 runs of 100,000 steps are drawn anew in {statistics.median(waits):.0f} ms (median of "
              f"{len(waits)}; longest {waits[-1]:.0f} ms)")  # fmt: skip
        if not arguments.no_demo:
            with_demo(folder / "demo")
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
