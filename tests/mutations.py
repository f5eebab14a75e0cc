"""Plants 25 faults, one at a time, in a copy of the checkout, and shows that the suite catches each.

    python tests/mutations.py [NAME ...]

A fault is caught if one of the tests that it names fails with it, and that test passes without it. Not a part of the
suite, as it takes some minutes. The exit status is 1 if a fault is not caught.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LEFT_OUT = shutil.ignore_patterns(".*", "__pycache__", "shared", "runs")
PASSED, FAILED = 0, 1
"""Exit statuses of pytest; any other one means that tests were not found or could not be read."""


@dataclass(frozen=True)
class Mutation:
    """A fault.

    Attributes:
        name: what goes wrong.
        file: where, from the root of the checkout.
        tests: files or tests in one folder under `tests/`, with spaces between; one of them has to fail.
        old: text that the file holds exactly once.
        new: what replaces it.
    """

    name: str
    file: str
    tests: str
    old: str
    new: str


# fmt: off
MUTATIONS = (
    Mutation("gradient-sign", "kerasrobust/attacks/gradient.py", "test_attacks_exact.py",
             'moved = state.x_adv + numbers["step_size"]', 'moved = state.x_adv - numbers["step_size"]'),
    Mutation("no-projection", "kerasrobust/attacks/gradient.py", "test_attacks_exact.py",
             'moved = balls.project(moved, images.x, numbers["epsilon"], self.norm)', "pass"),
    Mutation("box-ignored", "kerasrobust/ops/balls.py", "test_threat.py",
             "return tf.maximum(x - epsilon, 0.0), tf.minimum(x + epsilon, 1.0)", "return x - epsilon, x + epsilon"),
    Mutation("best-keeps-last", "kerasrobust/attacks/best.py",
             "test_attacks.py::test_the_best_iterate_is_never_worse_than_the_last",
             "better = (inner.score < before.score) & ~self.done(before, numbers)",
             "better = ~self.done(before, numbers)"),
    Mutation("result-believed", "kerasrobust/attacks/driver.py", "test_verdict.py",
             "success = after.prediction == goal if attack.targeted else after.wrong", "success = reached"),
    Mutation("early-stop-on-a-lucky-pass", "kerasrobust/attacks/driver.py", "test_eot.py",
             "leave = self.early_stop and not randomized", "leave = self.early_stop"),
    Mutation("noise-repeats-in-each-pass", "kerasrobust/attacks/network.py", "test_eot.py",
             "half.slope(lambda images: self.forward(images, noise), signed, images)",
             "half.slope(lambda images: self.forward(images, self._key(0)), signed, images)"),
    Mutation("apgd-never-halves", "kerasrobust/attacks/ascent.py", "test_apgd.py",
             "size=tf.where(halve, state.size / 2, state.size)", "size=state.size"),
    Mutation("square-counts-no-queries", "kerasrobust/attacks/network.py", "test_square.py",
             'attack succeeds."""\n        self.cost.forwards += 1',
             'attack succeeds."""\n        self.cost.forwards += 0'),
    Mutation("checkpoint-loses-its-last-part", "kerasrobust/attacks/checkpoint.py", "test_resume.py",
             'parts = int(saved.pop("parts"))', 'parts = max(int(saved.pop("parts")) - 1, 0)'),
    Mutation("survivors-are-lost", "kerasrobust/evaluation/chain.py", "test_autoattack.py",
             "attacked = left > 0 if chained", "attacked = left < 0 if chained"),
    Mutation("interval-of-90-percent", "kerasrobust/stats.py", "test_evaluation.py",
             "_Z = 1.959963984540054", "_Z = 1.6448536269514722"),
    Mutation("verdict-from-a-stale-graph", "kerasrobust/networks/classifier.py", "test_changes.py",
             "if apart(self(*few).numpy(), kept(*few).numpy()) <= ROUNDING:", "if kept:"),
    Mutation("softmax-through-its-probabilities", "kerasrobust/networks/logits.py", "test_classifier.py",
             "if not nested and (activation is None or quantization(last) is not None):", "if not nested:"),
    Mutation("stale-twin", "kerasrobust/twins/precision.py",
             "test_attacks.py::test_bfloat16_follows_weights_that_change",
             "    made[precision].refresh()\n", "    made[precision].refresh.traces or made[precision].refresh()\n"),
    Mutation("twin-without-the-bias", "kerasrobust/twins/folding.py", "test_folding.py",
             "self.made.bias.assign(bias)", "pass"),
    Mutation("attack-moves-the-statistics", "kerasrobust/training/adversarial.py", "test_training.py",
             "return self._reading.logits(_outputs(self.network if self._twin is None else self._twin.model, x, key))",
             "return self._reading.logits(_outputs(self.network, x, key, training=True))"),
    Mutation("labels-shifted", "kerasrobust/data/files.py", "test_data.py",
             "images=np.concatenate(images), labels=np.concatenate(chosen)",
             "images=np.concatenate(images), labels=np.roll(np.concatenate(chosen), 1)"),
    Mutation("model-replaced-unasked", "kerasrobust/jobs/train.py",
             "test_engine_training.py::test_a_model_is_replaced_only_when_asked_and_before_anything_is_trained",
             "if target.exists() and not overwrite:", "if not target.parent.exists():"),
    Mutation("events-stay-in-the-buffer", "kerasrobust/runs.py", "test_runs.py",
             "        self._events.flush()\n", ""),
    Mutation("resumed-under-other-settings", "kerasrobust/runs.py", "test_runs.py",
             "    if then != now:\n", "    if not then:\n"),
    Mutation("bad-input-exits-0", "kerasrobust/run.py", "test_cli.py",
             "file=people)\n        return 2", "file=people)\n        return 0"),
    Mutation("report-not-escaped", "kerasrobust/show/report.py", "test_report.py",
             "autoescape=True", "autoescape=False"),
    Mutation("form-loses-a-value", "tui/form.py", "tui/test_form.py",
             "for item in fields(type(config))}", "for item in fields(type(config))[:-1]}"),
    Mutation("log-of-the-ui-says-otherwise", "tui/read/state.py", "tui/test_state.py",
             "_log(state, event, text, severity(event))", "_log(state, event, text)"),
)
# fmt: on


def main(names: Sequence[str] = (), mutations: Sequence[Mutation] = MUTATIONS, checkout: Path = ROOT) -> int:
    """Plants the faults of these names, or all, prints a line for each, and returns the exit status."""
    unknown = set(names) - {fault.name for fault in mutations}
    if unknown:
        print(f"Expected names of mutations. Received: {', '.join(sorted(unknown))}. See the table in this file.")
        return 1
    chosen = [fault for fault in mutations if not names or fault.name in names]
    with tempfile.TemporaryDirectory(prefix="mutations-") as place:
        copy = Path(place) / "checkout"
        shutil.copytree(checkout, copy, ignore=LEFT_OUT)
        caught: dict[str, str] = {}
        for fault in chosen:
            began = time.monotonic()
            test, outcome = plant(fault, copy)
            if test:
                caught[fault.name] = test
            print(f"{fault.name:36} {time.monotonic() - began:4.0f} s  {outcome}", flush=True)
        by_folder: dict[Path, set[str]] = {}
        for test in caught.values():
            by_folder.setdefault(Path(test.partition("::")[0]).parent, set()).add(test)
        # A call for each folder: pytest imports the conftest.py of all that it is given, under one name.
        sound = [run(copy, sorted(tests)) for tests in by_folder.values()]
    for status, failed in sound:
        if status != PASSED:
            print(f"Without any fault: {failed or 'pytest'} fails (exit status {status}).")
    passes = all(status == PASSED for status, _ in sound)
    print(f"{len(caught)} of {len(chosen)} faults caught; without them these tests {'pass' if passes else 'fail'}.")
    return int(len(caught) < len(chosen) or not passes)


def plant(fault: Mutation, copy: Path) -> tuple[str, str]:
    """Returns the test that catches a fault in the copy, empty if none does, and what to say of it."""
    path = copy / fault.file
    before = path.read_text() if path.is_file() else ""
    if (count := before.count(fault.old)) != 1:
        return "", f"NOT PLANTED: expected its text once in {fault.file}, found it {count} times"
    path.write_text(before.replace(fault.old, fault.new))
    try:
        status, failed = run(copy, [f"tests/{test}" for test in fault.tests.split()])
    finally:
        path.write_text(before)
    if status == FAILED and failed:
        return failed, f"caught by {failed}"
    reason = "all pass" if status == PASSED else f"could not be run (pytest's exit status {status})"
    return "", f"NOT CAUGHT: {fault.tests}: {reason}"


def run(copy: Path, tests: Sequence[str]) -> tuple[int, str]:
    """Runs tests up to the first that fails; returns pytest's exit status and that test."""
    # No bytecode: a fault of the same length, planted in the same second, would be taken for the file before it.
    settings = {"PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "pytest", "-n0", "-q", "-x", "-rfE", "--tb=no", "-p", "no:cacheprovider", *tests]
    done = subprocess.run(
        command, cwd=copy, env=os.environ | settings, stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    failed = [line.split(" ", 1)[1] for line in done.stdout.splitlines() if line.startswith(("FAILED ", "ERROR "))]
    return done.returncode, failed[0].split(" - ")[0] if failed else ""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
