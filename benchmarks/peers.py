"""The project beside CleverHans, Foolbox, ART and torchattacks: how long attacks take, and how strong they are.

    python benchmarks/peers.py                              # everything
    python benchmarks/peers.py --tasks pgd,deepfool --rounds 5
    python benchmarks/peers.py --examples 32 --rounds 1 --output /tmp/RESULTS.md  # tries the program itself

Each peer runs in an environment of its own, which this program makes with `venv` and `pip` in a cache folder, in a
process that stays. The contenders of a task take turns, round by round. The result is `benchmarks/RESULTS.md`; after
each task its section there is replaced. The exit status is 0 also where targets are missed: those are in the tables.
"""

from __future__ import annotations

import argparse
import datetime
import os
import signal
import sys
import tempfile
import time
from pathlib import Path

import machine
from environments import make_environment
from measuring import Bench, Caller, Failed, NewProcess
from protocol import PeerError, Worker
from results import Section, document
from tasks import TASKS, Sizes, Task

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
PEERS = ("cleverhans", "foolbox", "art", "torch")


def tell(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def start(peer: str, args: argparse.Namespace, folder: Path) -> Worker | Failed:
    """Returns the worker of a peer, or what stands for it where its environment can't be made."""
    try:
        if peer == "torch" and args.torch_env:
            python = args.torch_env / "bin" / "python"
        else:
            python = make_environment(peer, args.envs, tell)
    except (RuntimeError, OSError) as error:
        tell(f"{peer}: {error}")
        return Failed(f"its environment could not be made: {error}")
    if peer == "torch":
        return Worker(peer, python, HERE / "worker_torch.py", [str(folder)], folder / f"{peer}.log")
    return Worker(peer, python, HERE / "worker_tensorflow.py", [peer, str(folder)], folder / f"{peer}.log")


def stated(name: str, worker: Worker | Failed) -> tuple[str, Worker | Failed]:
    """Returns a worker's versions in words, and the worker, or what stands for it where it doesn't start."""
    try:
        found = worker.call("versions", {}).figures
    except PeerError as error:
        tell(f"{name}: {error}")
        if isinstance(worker, Worker):
            worker.close()
        return "failed, see below", Failed(str(error))
    return ", ".join(f"{key} {value}" for key, value in found.items()), worker


def now() -> str:
    return datetime.datetime.now().astimezone().isoformat(" ", "minutes")


def measure(tasks: list[Task], args: argparse.Namespace, sizes: Sizes, folder: Path) -> None:
    """Runs the tasks and writes the results after each."""
    before = args.output.read_text() if args.output.exists() else ""
    ours = Worker("ours", sys.executable, HERE / "worker_ours.py", [], folder / "ours.log")
    workers: dict[str, Worker | Failed] = {"ours": ours}
    try:
        facts = {"date": now(), **machine.describe(ROOT)}
        facts["kerasrobust"], _ = stated("ours", ours)
        exported = {
            "folder": str(folder),
            "models": list(sizes.models),
            "count": max(16, sizes.examples, sizes.autoattack),
        }
        tell("writing images and weights for the peers")
        ours.call("export", exported)
        needed = {contender.worker for task in tasks for contender in task.contenders}
        for peer in PEERS:
            if peer in needed:
                facts[peer], workers[peer] = stated(peer, start(peer, args, folder))
        facts["load of the machine before"] = ", ".join(f"{load:.1f}" for load in os.getloadavg())
        callers: dict[str, Caller] = {**workers, "new": NewProcess(ROOT, folder)}
        bench = Bench(callers, folder, tell, args.disturbed)
        sections: list[Section] = []
        for task in tasks:
            outcomes = bench.run(task, args.rounds)
            sections.append(Section(task, outcomes, task.rounds or args.rounds, now()))
            args.output.write_text(document(facts, sections, before))
            tell(f"wrote {args.output}")
    finally:
        for worker in workers.values():
            if isinstance(worker, Worker):
                worker.close()


def main() -> int:
    parser = argparse.ArgumentParser(
        usage=argparse.SUPPRESS, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tasks", default=",".join(TASKS), help="which, separated by commas (default: %(default)s)")
    shown = " (default: %(default)s)"
    parser.add_argument(
        "--rounds", type=int, default=5, help="measurements of each contender, at least 5 for a figure" + shown
    )
    parser.add_argument(
        "--rounds-autoattack", type=int, default=1, help="the same for AutoAttack, of minutes each" + shown
    )
    parser.add_argument("--examples", type=int, default=512, help="images of PGD and DeepFool" + shown)
    parser.add_argument(
        "--autoattack-examples", type=int, help="images of AutoAttack (default: 500, or --examples where that is less)"
    )
    parser.add_argument("--train-steps", type=int, default=40, help="training steps of a round" + shown)
    parser.add_argument(
        "--envs",
        type=Path,
        default=Path("~/.cache/kerasrobust-benchmarks").expanduser(),
        help="the peers' environments, made where they aren't there: 8 GB" + shown,
    )
    parser.add_argument(
        "--torch-env", type=Path, help="an environment with torch and torchattacks, instead of making it"
    )
    parser.add_argument(
        "--disturbed", type=float, default=0.1,
        help="make a measurement again where other processes took more than this share of the machine; 1: never",
    )  # fmt: skip
    parser.add_argument("--output", type=Path, default=HERE / "RESULTS.md", help="where the tables go")
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # So that the workers end too.
    names = args.tasks.split(",")
    if unknown := [name for name in names if name not in TASKS]:
        parser.error(f"unknown tasks: {', '.join(unknown)}; there are {', '.join(TASKS)}")
    if args.rounds < 1 or args.rounds_autoattack < 1 or args.examples < 4 or args.train_steps < 1:
        parser.error("rounds and steps are at least 1, examples at least 4")
    attacked = args.autoattack_examples or min(500, args.examples)
    sizes = Sizes(args.examples, attacked, args.rounds_autoattack, args.train_steps)
    args.envs = args.envs.expanduser().absolute()
    args.envs.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="kerasrobust-benchmarks-") as folder:
        try:
            measure([task for name in names for task in TASKS[name](sizes)], args, sizes, Path(folder))
        except KeyboardInterrupt:
            tell(f"interrupted; the tasks that were finished are in {args.output}")
            return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
