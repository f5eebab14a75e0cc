"""Attacks on linear models, where their results have a closed form. Images keep away from the edges of the box."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import PIXELS, images, linear_model, soft

from kerasrobust.attacks import BIM, FGSM, FGSMRS, MIFGSM, PGD, RFGSM

EPSILON = {"linf": 0.05, "l2": 0.5}
MIDDLE = images(40)


def closed_form(kernel: np.ndarray, bias: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Returns the gradient of the cross-entropy of softmax(x W + b), W (p - onehot), in float64 (N, 192)."""
    logits = x.reshape(len(x), -1).astype(np.float64) @ kernel + bias
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    return (p - np.eye(kernel.shape[1])[y]) @ kernel.T.astype(np.float64)


@pytest.mark.parametrize("targeted", [False, True])
def test_fgsm_is_its_formula(weights: tuple[np.ndarray, np.ndarray], targeted: bool) -> None:
    kernel, bias = soft(weights)
    y = np.arange(40) % 4
    slope = closed_form(kernel, bias, MIDDLE, y).reshape(MIDDLE.shape) * (-1 if targeted else 1)
    sure = np.abs(slope) > 1e-5
    assert sure.mean() > 0.99
    target = {"target": y} if targeted else {}
    model = linear_model(kernel, bias)
    found = FGSM(epsilon=0.1, targeted=targeted)(model, MIDDLE, y, early_stop=False, **target).x_adv
    np.testing.assert_allclose(found[sure], (MIDDLE + 0.1 * np.sign(slope))[sure], atol=1e-6)
    attack = FGSM(epsilon=0.7, norm="l2", targeted=targeted)
    found = attack(model, MIDDLE, y, early_stop=False, **target).x_adv
    length = np.linalg.norm(slope.reshape(40, -1), axis=1).reshape(-1, 1, 1, 1)
    np.testing.assert_allclose(found, MIDDLE + 0.7 * slope / length, atol=1e-6)


@pytest.mark.parametrize(("norm", "dual"), [("linf", 1), ("l2", 2)])
def test_of_two_classes_the_worst_margin_is_reached(norm: str, dual: int) -> None:
    """min over the ball of (w_y - w_o) x + b_y - b_o is the clean margin less epsilon times the dual norm."""
    draw = np.random.default_rng(7)
    kernel, bias = draw.normal(size=(PIXELS, 2)).astype(np.float32) / 10, np.zeros(2, np.float32)
    model = linear_model(kernel, bias)
    logits = np.asarray(model(MIDDLE), np.float64)
    y = logits.argmax(axis=1)
    sign = 1 - 2 * y
    clean = (logits[:, 0] - logits[:, 1]) * sign
    speed = np.linalg.norm(kernel[:, 0] - kernel[:, 1], ord=dual)
    epsilon = float(np.quantile(clean, 0.6) / speed)  # About 6 in 10 can be reached.
    worst = clean - epsilon * speed
    for attack in (
        FGSM(norm=norm, epsilon=epsilon),
        BIM(norm=norm, epsilon=epsilon, steps=5),
        MIFGSM(norm=norm, epsilon=epsilon, steps=5),
        PGD(norm=norm, epsilon=epsilon, steps=30, step_size=epsilon, keep_best=False),
    ):
        result = attack(model, MIDDLE, y, early_stop=False)
        found = np.asarray(model(result.x_adv), np.float64)
        np.testing.assert_allclose((found[:, 0] - found[:, 1]) * sign, worst, atol=1e-3)
        np.testing.assert_array_equal(result.success, worst < 0)
        assert result.success.mean() == pytest.approx(0.6, abs=0.05)
        assert result.median_distance == pytest.approx(epsilon, rel=1e-4)


def test_rfgsm_goes_half_the_budget_twice(weights: tuple[np.ndarray, np.ndarray]) -> None:
    """A random sign step of epsilon / 2, then epsilon / 2 along the gradient: entries end at 0 or at +- epsilon."""
    kernel, bias = soft(weights)
    y = np.arange(40) % 4
    slope = closed_form(kernel, bias, MIDDLE, y).reshape(MIDDLE.shape)
    found = (RFGSM(epsilon=0.02)(linear_model(kernel, bias), MIDDLE, y, early_stop=False).x_adv - MIDDLE) / 0.02
    along = found * np.sign(slope)
    assert np.all((np.abs(along) < 1e-4) | (np.abs(along - 1) < 1e-4) | (np.abs(slope) < 1e-2))
    assert (np.abs(along) < 1e-4).mean() == pytest.approx(0.5, abs=0.03)


def test_fgsm_rs_starts_uniform_and_steps_by_one_and_a_quarter(weights: tuple[np.ndarray, np.ndarray]) -> None:
    """u + 1.25 clipped to 1, u uniform in [-1, 1]: 5/8 end at 1 (in units of epsilon), the rest between 1/4 and 1."""
    kernel, bias = soft(weights)
    y = np.arange(40) % 4
    slope = closed_form(kernel, bias, MIDDLE, y).reshape(MIDDLE.shape)
    found = (FGSMRS(epsilon=0.02)(linear_model(kernel, bias), MIDDLE, y, early_stop=False).x_adv - MIDDLE) / 0.02
    along = (found * np.sign(slope))[np.abs(slope) > 1e-2]
    assert (np.abs(along - 1) < 1e-4).mean() == pytest.approx(5 / 8, abs=0.02)
    assert along.min() == pytest.approx(0.25, abs=0.01)


def test_mifgsm_by_hand(weights: tuple[np.ndarray, np.ndarray]) -> None:
    """g <- decay g + grad / mean|grad|; x <- clip(x + alpha sign(g)): done in NumPy, in float64."""
    kernel, bias = soft(weights)
    y = np.arange(40) % 4
    x, velocity = MIDDLE.astype(np.float64), np.zeros((40, PIXELS))
    unsure = np.zeros((40, PIXELS), bool)
    for _ in range(4):
        slope = closed_form(kernel, bias, x, y)
        velocity = 0.6 * velocity + slope / np.abs(slope).mean(axis=1, keepdims=True)
        unsure |= np.abs(velocity) < 1e-3
        x = np.clip(x + 0.03 * np.sign(velocity).reshape(x.shape), MIDDLE - 0.07, MIDDLE + 0.07)
    attack = MIFGSM(epsilon=0.07, step_size=0.03, steps=4, momentum_decay=0.6, keep_best=False)
    found = attack(linear_model(kernel, bias), MIDDLE, y, early_stop=False).x_adv
    assert unsure.mean() < 0.01
    np.testing.assert_allclose(found.reshape(40, -1)[~unsure], x.reshape(40, -1)[~unsure], atol=1e-6)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_bim_by_hand(weights: tuple[np.ndarray, np.ndarray], norm: str) -> None:
    """x <- Proj(x + alpha direction), the default alpha being 2.5 epsilon / steps."""
    kernel, bias = soft(weights)
    y = np.arange(40) % 4
    x, epsilon = MIDDLE.astype(np.float64), EPSILON[norm]
    for _ in range(4):
        slope = closed_form(kernel, bias, x, y)
        step = np.sign(slope) if norm == "linf" else slope / np.linalg.norm(slope, axis=1, keepdims=True)
        shift = (x - MIDDLE).reshape(40, -1) + 2.5 * epsilon / 4 * step
        if norm == "linf":
            shift = np.clip(shift, -epsilon, epsilon)
        else:
            shift /= np.maximum(1, np.linalg.norm(shift, axis=1, keepdims=True) / epsilon)
        x = MIDDLE + shift.reshape(x.shape)
    attack = BIM(norm=norm, epsilon=epsilon, steps=4, keep_best=False)
    found = attack(linear_model(kernel, bias), MIDDLE, y, early_stop=False).x_adv
    assert (np.abs(found - x) < 1e-5).mean() > 0.999
