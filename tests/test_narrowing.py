"""AutoAttack's adaptive version: costly attacks run on the images where they can find something."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import pytest
import tensorflow as tf
from conftest import PIXELS, images, labels_of, linear_model, same

from kerasrobust.attacks import FGSM, PGD, Attack, AutoAttack
from kerasrobust.attacks.checkpoint import Checkpoints
from kerasrobust.attacks.driver import as_emit
from kerasrobust.attacks.registry import make_attack
from kerasrobust.attacks.task import Task
from kerasrobust.errors import Cancelled, InputError
from kerasrobust.evaluation.chain import part_of, run_chain, without_gradients
from kerasrobust.evaluation.evaluate import evaluate
from kerasrobust.evaluation.narrowing import groups, narrowed, nearness
from kerasrobust.events import AttackFinished, AttackProgress, AttackStarted
from kerasrobust.networks.making import as_classifier
from kerasrobust.networks.noise import RandomDropout

X = images(96, seed=3)
RNG = np.random.default_rng(0)
KERNEL = RNG.normal(size=(PIXELS, 4)).astype(np.float32)
MODEL = linear_model(KERNEL, -KERNEL.sum(axis=0) / 2)
Y = labels_of(MODEL, X, 0)


def distances() -> np.ndarray:
    """Returns how far each image is from the nearest boundary in Linf: the margin over the L1 norm of its slope."""
    logits = X.reshape(len(X), -1).astype(np.float64) @ KERNEL - KERNEL.sum(axis=0) / 2
    found = np.full((len(X), 4), np.inf)
    for rival in range(4):
        slope = np.abs(KERNEL[:, Y] - KERNEL[:, [rival]]).sum(axis=0)
        gap = logits[np.arange(len(X)), Y] - logits[:, rival]
        found[:, rival] = np.where(rival == Y, np.inf, gap / np.maximum(slope, 1e-9))
    return found.min(axis=1)


class Marked(NamedTuple):
    x_adv: tf.Tensor
    score: tf.Tensor


@dataclass(frozen=True, kw_only=True)
class TurnMarked(Attack[Marked]):
    """Finds adversarial examples of the images whose first value is above a half, wherever the boundary is."""

    name: ClassVar[str] = "turn-marked"
    epsilon: float = 1.0

    def step_count(self) -> int:
        return 1

    def radius(self) -> float:
        return self.epsilon

    def begin(self, network: Any, images: Any, numbers: Any) -> Marked:
        return Marked(images.x, tf.fill(tf.shape(images.y), float("inf")))

    def step(self, network: Any, images: Any, state: Marked, numbers: Any) -> Marked:
        marked = images.x[:, 0, 0, 0] > 0.5
        turned = tf.where(marked[:, None, None, None], 1 - images.x, images.x)
        return Marked(turned, network.score(turned, images.y))

    def found(self, state: Marked, numbers: Any) -> tuple[tf.Tensor, tf.Tensor]:
        return state.x_adv, state.score


def test_groups_hold_each_image_once_and_begin_with_the_nearest() -> None:
    margin = RNG.permutation(240).astype(float)
    left = np.arange(240) % 2 == 0
    found = list(groups(margin, left, seed=0))
    np.testing.assert_array_equal(np.sort(np.concatenate(found)), np.flatnonzero(left))
    # Of 120 a twelfth, and a twenty-fourth at random; then twice as many each time.
    assert [len(group) for group in found] == [15, 30, 60, 15]
    order = np.flatnonzero(left)[np.argsort(margin[left])]
    np.testing.assert_array_equal(found[0][:10], order[:10])
    assert not np.array_equal(found[0][10:], order[10:15])
    assert all((np.diff(margin[group]) > 0).all() for group in found)
    assert [len(group) for group in groups(margin, margin < 5, seed=0)] == [5]
    assert list(groups(margin, margin < 0, seed=0)) == []


def test_nearness_is_the_lowest_margin_of_all_places() -> None:
    task = Task.checked(MODEL, X, Y, precision="float32")
    other = 1 - X
    logits = [np.asarray(MODEL(place), np.float64) for place in (X, other)]
    lead = [part[np.arange(96), Y] - np.sort(np.where(np.eye(4)[Y] > 0, -np.inf, part))[:, -1] for part in logits]
    left = np.arange(96) < 50
    found = nearness(task, [X, other], left)
    np.testing.assert_allclose(found[left], np.minimum(*lead)[left], rtol=1e-4, atol=1e-4)
    assert np.isinf(found[~left]).all()


def test_a_narrowed_attack_breaks_what_it_can_where_the_margin_says_where() -> None:
    far = np.sort(distances())
    epsilon = float(far[30] + far[31]) / 2
    task = Task.checked(MODEL, X, Y, precision="float32")
    weak = part_of(FGSM(epsilon=epsilon / 10), epsilon, True)
    strong = part_of(FGSM(epsilon=epsilon), epsilon, True, narrowed=True)
    found = run_chain([weak, strong], task)
    exact = run_chain([part_of(FGSM(epsilon=epsilon), epsilon, True)], task)
    np.testing.assert_array_equal(found.rates, exact.rates)
    # FGSM follows the gradient of all rivals, so it finds at most the exact number.
    assert found.rates.sum() >= 96 - 31
    assert found.reports[1].attacked.sum() < (found.reports[0].rates > 0).sum()
    np.testing.assert_array_equal(found.reports[1].attacked & (found.reports[0].rates == 0), False)


def test_where_the_margin_says_nothing_all_are_attacked() -> None:
    task = Task.checked(MODEL, X, Y, precision="float32")
    found = run_chain([part_of(TurnMarked(), 1.0, True, narrowed=True)], task)
    assert found.reports[0].attacked.all()
    np.testing.assert_array_equal(found.rates == 1, np.asarray(MODEL(found.worst.x_adv)).argmax(axis=1) == Y)
    assert 20 < (found.rates == 0).sum() < 76


def test_it_ends_with_the_first_group_that_nothing_of_falls_in() -> None:
    task = Task.checked(MODEL, X, Y, precision="float32")
    clean = task.judge(X, 1)
    blind = FGSM(epsilon=1e-7)
    result, attacked = narrowed(blind, task, 1e-7, clean, clean.correct_rate, [], Checkpoints())
    assert attacked.sum() == 12 and not result.success.any()
    # The forward pass that told how near each image is counts.
    assert result.forwards >= 96


def test_adaptive_says_what_it_left_out_and_confirms_on_demand() -> None:
    far = np.sort(distances())
    epsilon = float(far[30] + far[31]) / 2
    quick = evaluate(MODEL, X, Y, attacks=AutoAttack(version="adaptive", epsilon=epsilon), audit=False)
    assert quick.robust_accuracy == 65 / 96  # A linear network hides nothing.
    [text] = [text for code, text in quick.warnings if code == "adaptive-version"]
    assert "apgd-t 11 of 65, fab-t 11 of 65, square with 1,000 queries 11 of 65, " in text
    assert "square with 5,000 queries none of 65:" in text
    with pytest.raises(InputError, match="confirm with version 'adaptive' only"):
        AutoAttack(version="standard", confirm=True)


def test_what_confirms_says_so_and_whether_it_found_more(monkeypatch: pytest.MonkeyPatch) -> None:
    far = np.sort(distances()[:24])
    epsilon, x, y = float(far[8] + far[9]) / 2, X[:24], Y[:24]
    attack = AutoAttack(version="adaptive", epsilon=epsilon, confirm=True)
    told: list[Any] = []
    found = evaluate(MODEL, x, y, attacks=attack, audit=False, emit=told.append)
    names = [item.entry()["name"] for item in found.attacks]
    for kind in (AttackStarted, AttackFinished):
        assert [event.attack for event in told if isinstance(event, kind)] == names
    assert {event.attack for event in told if isinstance(event, AttackProgress)} <= set(names)
    assert names[6:] == [f"{name} (confirming)" for name in ("apgd-ce", "apgd-t", "fab-t", "square")]
    assert not [name for name in names[:6] if "confirming" in name]
    assert {item.attack.name for item in found.attacks} == {"apgd-ce", "apgd-t", "fab-t", "square"}
    assert found.robust_accuracy == 15 / 24
    [text] = [text for code, text in found.warnings if code == "adaptive-confirmed"]
    assert text == "The whole of 'standard' ran on the 15 images that 'adaptive' had left, and broke no more."

    # A blind one leaves all that is right.
    blind = [part_of(FGSM(epsilon=1e-7), epsilon, True), part_of(FGSM(epsilon=0.5), 0.5, True, confirming=True)]
    monkeypatch.setattr(AutoAttack, "parts_of_chain", lambda *_: blind)
    found = evaluate(MODEL, x, y, attacks=attack, audit=False)
    count = round(24 * (found.attacks[0].robust_accuracy - found.attacks[1].robust_accuracy))
    assert count > 9 and found.attacks[1].entry()["name"] == "fgsm (confirming)"
    [text] = [text for code, text in found.warnings if code == "adaptive-confirmed"]
    assert text == f"The whole of 'standard' ran on the 24 images that 'adaptive' had left, and broke {count} more."
    # On a randomized network means over passes differ by chance, too.
    noisy = evaluate(
        linear_model(KERNEL, -KERNEL.sum(axis=0) / 2, RandomDropout(0.3)), x, y, attacks=attack, audit=False
    )
    [text] = [text for code, text in noisy.warnings if code == "adaptive-confirmed"]
    assert "had left." in text and "broke" not in text
    evaluation = evaluate(MODEL, x, (y + 1) % 4, attacks=attack, audit=False)
    [text] = [text for code, text in evaluation.warnings if code == "adaptive-confirmed"]
    assert "left no image" in text


@pytest.mark.parametrize("restarts", [1, 3])
def test_progress_is_that_of_the_whole_attack_and_never_falls(restarts: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kerasrobust.attacks.batch.EMIT_SECONDS", 0.0)
    seen: list[AttackProgress] = []
    task = Task.checked(MODEL, X, Y, precision="float32", batch_size=8, emit=as_emit(seen.append))
    clean = task.judge(X, 1)
    left = np.where(np.arange(96) < 40, 0.0, clean.correct_rate)
    epsilon = float(np.sort(distances()[40:])[30])
    attack = PGD(epsilon=epsilon, steps=3, restarts=restarts)
    result, attacked = narrowed(attack, task, epsilon, clean, left, [], Checkpoints())
    done = [event.done for event in seen]
    assert done == sorted(done) and done[0] < 40 + 12 and done[-1] == 40 + attacked.sum()
    assert seen[-1].survivors == int(((left > 0) & ~result.success).sum())


def test_a_narrowed_chain_resumes(tmp_path: Path) -> None:
    parts = AutoAttack(attacks=[FGSM(epsilon=0.002)]).parts_of_chain
    task = Task.checked(MODEL, X, Y, precision="float32", batch_size=8)
    chain = [*parts(task.classifier), part_of(TurnMarked(), 1.0, True, narrowed=True)]
    asked = 0

    def stop_at(last: int) -> Task:
        nonlocal asked
        asked = 0

        def stop() -> bool:
            nonlocal asked
            asked += 1
            return asked == last

        return replace(task, should_stop=stop)

    whole = run_chain(chain, stop_at(10**9))
    with pytest.raises(Cancelled):
        run_chain(chain, stop_at(asked - 3), checkpoints=Checkpoints(tmp_path))
    assert (tmp_path / "1-turn-marked" / "group-1").is_dir()
    same(run_chain(chain, task, checkpoints=Checkpoints(tmp_path)).worst, whole.worst)


def test_the_finding_is_there_beside_other_attacks_and_gone_where_standard_followed() -> None:
    epsilon, x, y = 0.004, X[:12], Y[:12]
    for attacks, said in (
        ([AutoAttack(version="adaptive", epsilon=epsilon), FGSM(epsilon=epsilon)], True),
        ([AutoAttack(version="adaptive", epsilon=epsilon, confirm=True)], False),
    ):
        found = evaluate(MODEL, x, y, attacks=attacks, audit=False)
        assert ("adaptive-version" in [code for code, _ in found.warnings]) is said


def test_any_seed_will_do() -> None:
    margin = np.arange(60.0)
    assert sum(map(len, groups(margin, margin >= 0, seed=-1))) == 60


def without_slope(x: tf.Tensor) -> tf.Tensor:
    return MODEL(tf.round(x * 255) / 255)


def test_without_gradients_confirming_leaves_nothing_out() -> None:
    attack = AutoAttack(version="adaptive", epsilon=0.004, confirm=True)
    parts, _ = without_gradients(
        attack.parts_of_chain(as_classifier(without_slope, image_shape=X.shape[1:])), task_of()
    )
    assert [(part.attack.name, part.narrowed) for part in parts] == [
        ("square", True), ("square", True), ("square", False), ("hopskipjump", False),
    ]  # fmt: skip


@pytest.mark.parametrize("names", [("pgd", "patch"), ("patch", "pgd")])
def test_without_gradients_nothing_stands_for_a_patch(names: tuple[str, str]) -> None:
    parts, [finding] = without_gradients([part_of(make_attack(name), 8 / 255) for name in names], task_of())
    assert [part.attack.name for part in parts] == ["square", "hopskipjump"]
    assert finding.message.endswith("Nothing stands for patch.")
    with pytest.raises(InputError, match=r"at 8x8 pixels.* Take square, sparse-rs or spatial\.$"):
        without_gradients([part_of(make_attack("patch"), None)], task_of())


def task_of() -> Task:
    return Task.checked(as_classifier(without_slope, image_shape=X.shape[1:]), X, Y, precision="float32")
