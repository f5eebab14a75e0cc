"""What a benchmark's reader must know of the machine: what it is, what it runs, and who else used it meanwhile."""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path

FLAGS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")
TICKS = os.sysconf("SC_CLK_TCK")


def describe(root: Path) -> dict[str, str]:
    """Returns facts of the machine and of the commit in `root`, by name."""
    cpu = Path("/proc/cpuinfo").read_text()
    model = next((line.split(":")[1].strip() for line in cpu.splitlines() if line.startswith("model name")), "unknown")
    flags = {word for line in cpu.splitlines() if line.startswith("flags") for word in line.split()}
    memory = int(Path("/proc/meminfo").read_text().split()[1]) / 2**20
    changed = git(root, "status", "--porcelain", "--untracked-files=no")
    count = len(changed.splitlines())
    return {
        "CPU": f"{model}, {os.cpu_count()} cores ({', '.join(flag for flag in FLAGS if flag in flags)})",
        "memory": f"{memory:.0f} GiB",
        "system": platform.platform(),
        "commit": git(root, "rev-parse", "HEAD") + (f", and {count} files changed since" if count else ""),
    }


def git(root: Path, *words: str) -> str:
    return subprocess.run(["git", "-C", str(root), *words], capture_output=True, text=True, check=True).stdout.strip()


def busy() -> float:
    """Returns the seconds that all processors together have worked since the start of the machine."""
    words = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    user, nice, system, _idle, _wait, irq, soft, steal = (int(word) for word in words[:8])
    return (user + nice + system + irq + soft + steal) / TICKS


def used(pid: int) -> float:
    """Returns the seconds of processor time that a process has used, with children it has waited for."""
    # The second field, the name, may hold spaces; it ends at the last bracket.
    words = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return sum(int(word) for word in words[11:15]) / TICKS
