"""What attacks find with gradients in bfloat16, beside float32, on the same images from the same random starts.

    python benchmarks/arithmetic.py /tmp/arithmetic
    python benchmarks/arithmetic.py /tmp/arithmetic --attacks pgd --precisions bfloat16,folded,float32

PGD with 20 steps, and AutoAttack's version `standard`, in Linf at 8/255 on `convnet-pgd` and the first test images of
CIFAR-10. Verdicts are the network's own, in float32, whatever the gradients are in. What each run comes to stays in
FOLDER, and isn't run again.

robust     accuracy that each seed leaves, and the mean.
points     by how much bfloat16 leaves more than float32, seed by seed and in the mean.
seconds    of processor time, which doesn't depend on who else uses the machine, in the mean over seeds; the first run
           of a process pays for the graphs.

The exit status is 1 where bfloat16 leaves more than `POINTS` more than float32 in the mean, with either attack.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from machine import describe

import kerasrobust as kr
from kerasrobust.attacks import PGD

ROOT = Path(__file__).resolve().parents[1]
ATTACKS = {
    "pgd": lambda: PGD(epsilon=8 / 255, steps=20),
    "standard": lambda: kr.AutoAttack(epsilon=8 / 255, version="standard"),
}
POINTS = 0.05


def measured(model: Any, attack: str, precision: Any, seed: int, x: np.ndarray, y: np.ndarray) -> dict[str, Any]:
    """Runs an attack, and returns what it comes to."""
    worked = time.process_time()
    found = kr.evaluate(model, x, y, attacks=ATTACKS[attack](), audit=False, seed=seed, precision=precision)
    return {
        "robust": found.robust_accuracy,
        "kept": np.flatnonzero(found.per_example > 0.5).tolist(),
        "processor": time.process_time() - worked,
        "gradients": sum(report.result.gradients for report in found.attacks),
    }


def table(found: dict[str, dict[str, list[dict[str, Any]]]]) -> bool:
    """Prints what was found by attack, precision and seed, and returns whether bfloat16 is within its bound."""
    print("| attack | gradients in | robust, by seed | mean | points beside float32 | mean | processor s |")
    print("|---|---|---|---|---|---|---|")
    fine = True
    for attack, precisions in found.items():
        exact = [100 * run["robust"] for run in precisions["float32"]]
        for precision, runs in precisions.items():
            robust = [100 * run["robust"] for run in runs]
            apart = [own - other for own, other in zip(robust, exact, strict=True)]
            fine &= precision != "bfloat16" or float(np.mean(apart)) <= POINTS + 1e-9
            print(
                f"| {attack} | {precision} | {', '.join(f'{value:.2f}' for value in robust)} | {np.mean(robust):.3f} | "
                f"{', '.join(f'{value:+.2f}' for value in apart)} | {np.mean(apart):+.3f} | "
                f"{np.mean([run['processor'] for run in runs]):.1f} |"
            )
    return fine


def main() -> int:
    parser = argparse.ArgumentParser(
        usage=argparse.SUPPRESS, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    shown = " (default: %(default)s)"
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="where results stay")
    parser.add_argument("--attacks", default=",".join(ATTACKS), help="which, separated by commas" + shown)
    parser.add_argument("--precisions", default="bfloat16,float32", help="which, with float32" + shown)
    parser.add_argument("--images", type=int, default=2000, help="how many, from the first on" + shown)
    parser.add_argument("--seeds", type=int, default=4, help="how many, from 0 on" + shown)
    args = parser.parse_args()
    attacks, precisions = args.attacks.split(","), args.precisions.split(",")
    if unknown := [name for name in attacks if name not in ATTACKS]:
        parser.error(f"unknown attacks: {', '.join(unknown)}; there are {', '.join(ATTACKS)}")
    if "float32" not in precisions:
        parser.error("float32 is missing, which the others are beside")
    args.folder.mkdir(parents=True, exist_ok=True)
    x, y = kr.load_data("cifar10", split=f"test[:{args.images}]")
    commit = describe(ROOT)["commit"]
    model = kr.as_classifier(kr.load_model(str(ROOT / "saved_models" / "convnet-pgd")))
    found: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for attack in attacks:
        for seed in range(args.seeds):
            for precision in precisions:
                file = args.folder / f"{attack}-{precision}-{seed}-{args.images}-{commit}.json"
                if not file.exists():
                    now = time.strftime("%H:%M:%S")
                    print(f"{now} {attack}, {precision}, seed {seed}", file=sys.stderr, flush=True)
                    file.write_text(json.dumps(measured(model, attack, precision, seed, x, y)))
                found.setdefault(attack, {}).setdefault(precision, []).append(json.loads(file.read_text()))
    return int(not table(found))


if __name__ == "__main__":
    sys.exit(main())
