"""A training that was stopped, or killed, goes on from its last whole epoch and ends as if nothing had been."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from kerasrobust.config import TrainConfig
from kerasrobust.data.load import load_dataset
from kerasrobust.errors import Cancelled
from kerasrobust.jobs import train
from kerasrobust.training import AdversarialModel

CONFIG = TrainConfig(
    widths=(4, 8), training="adr", average=0.9, epochs=5, steps=2, steps_by_epoch=("0:1", "2:2"), schedule="one-cycle",
    batch_size=32, precision="float32", warmup_epochs=2.0, label_smoothing=0.1,
)  # fmt: skip


def data() -> train.TrainData:
    parts = [load_dataset("shapes", split) for split in ("train[:96]", "train[96:128]")]
    small = [dataclasses.replace(part, images=np.ascontiguousarray(part.images[:, ::4, ::4])) for part in parts]
    return train.TrainData(small[0], small[1], small[1])


def ran(folder: Path, should_stop: Callable[[], bool] = lambda: False) -> dict[str, list[np.ndarray]]:
    """Trains, and returns all that training has changed."""
    made: list[AdversarialModel] = []

    class Kept(AdversarialModel):
        def compile(self, *arguments: Any, **settings: Any) -> None:
            made.append(self)
            super().compile(*arguments, **settings, jit_compile=False)  # XLA takes longer than the training.

    context: Any = SimpleNamespace(emit=lambda event: None, should_stop=should_stop)
    sets = data()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "AdversarialModel", Kept)
        train.fit(context, CONFIG, sets, train.make_network(CONFIG, sets.train), folder)
    (model,) = made
    assert model.averaged is not None and int(model.steps_done) == 15
    return {
        "best": model.network.get_weights(),
        "average": model.averaged.get_weights(),
        "optimizer": [np.array(variable) for variable in model.optimizer.variables],
    }


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[np.ndarray]]:
    return ran(tmp_path_factory.mktemp("whole"))


def same(one: dict[str, list[np.ndarray]], other: dict[str, list[np.ndarray]]) -> None:
    for name, values in one.items():
        for mine, right in zip(values, other[name], strict=True):
            np.testing.assert_array_equal(mine, right, err_msg=name)


@pytest.mark.parametrize("moments", [(2,), (4,), (6,), (11, 3), (18,)])
def test_a_stopped_training_ends_as_one_that_ran_through(
    moments: tuple[int, ...], whole: dict[str, list[np.ndarray]], tmp_path: Path
) -> None:
    """Stopped after so many batches, of three to learn from and one of validation an epoch; once twice."""
    for moment in moments:
        seen = 0

        def stop(moment: int = moment) -> bool:
            nonlocal seen
            seen += 1
            return seen == moment

        with pytest.raises(Cancelled):
            ran(tmp_path, stop)
    same(ran(tmp_path), whole)


def test_a_killed_training_ends_as_one_that_ran_through(whole: dict[str, list[np.ndarray]], tmp_path: Path) -> None:
    child = subprocess.run([sys.executable, __file__, str(tmp_path)], check=False, env=dict(os.environ))
    assert child.returncode == -signal.SIGKILL
    assert (tmp_path / "backup").exists()
    same(ran(tmp_path), whole)


def killed(folder: Path) -> None:
    """Trains until the 14th batch, and dies."""
    left = 14

    def die() -> bool:
        nonlocal left
        left -= 1
        if not left:
            os.kill(os.getpid(), signal.SIGKILL)
        return False

    ran(folder, die)


if __name__ == "__main__":
    killed(Path(sys.argv[1]))
