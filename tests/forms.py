"""Models and data as people have them, each attacked from the command line and from Python, beside a plain PGD.

    python tests/forms.py [NAME ...] [--processes] [--list]

Not a part of the suite, as it takes some minutes. It makes the models in a temporary folder, and prints a row for each
form: what the command line and Python said, what an independent PGD on the model's own `predict` says, and the verdict:
"right"; "one line", of advice, which was followed and led to the right figure; WRONG; REFUSED, by a line that leads
nowhere; or TRACEBACK. A row whose package isn't installed says so and doesn't count as right. The exit status is 1 for
WRONG, REFUSED and TRACEBACK, and where no form has such a name.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import sys
import tempfile
import time
import warnings
from collections import Counter
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")  # As the package has it, where TensorFlow is imported later.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import keras
from table import data, files, layers, models, objects, outputs  # noqa: F401
from table.measure import FORMS, GOOD, Row, measured


def chosen(names: list[str]) -> list[str]:
    """Returns the names of the forms that hold one of the words; all without words."""
    return [name for name in FORMS if not names or any(word in name for word in names)]


def row(name: str, processes: bool) -> Row:
    form = FORMS[name]
    missing = [package for package in form.needs if importlib.util.find_spec(package) is None]
    if missing:
        return Row(verdict=f"needs {missing[0]}")
    keras.backend.clear_session()
    keras.utils.set_random_seed(1)
    with tempfile.TemporaryDirectory(prefix="form-") as folder:
        return measured(form, Path(folder), processes or form.process)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="words in the names of the forms; all without")
    parser.add_argument("--processes", action="store_true", help="start each command as a process of its own")
    parser.add_argument("--list", action="store_true", help="list the forms")
    options = parser.parse_args()
    names = chosen(options.names)
    if options.list:
        print(*names, sep="\n")
        return 0
    warnings.simplefilter("ignore")
    counts: Counter[str] = Counter()
    print(f"{'form':44} {'clean':>6} {'plain PGD':>18} {'CLI':>15} {'Python':>15}  verdict", flush=True)
    for name in names:
        began = time.monotonic()
        found = row(name, options.processes)
        counts[found.verdict] += 1
        print(
            f"{name:44} {found.clean:>6} {found.plain:>18} {found.cli:>15} {found.python:>15}  "
            f"{found.verdict}  ({time.monotonic() - began:.0f} s)",
            flush=True,
        )
        for line in found.lines:
            print(f"    {line}", flush=True)
    print(f"{len(names)} forms: " + ", ".join(f"{count} {verdict}" for verdict, count in counts.most_common()))
    return int(not names or any(verdict not in GOOD and not verdict.startswith("needs ") for verdict in counts))


if __name__ == "__main__":
    sys.exit(main())
