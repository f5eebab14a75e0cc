"""Objects of other libraries by `as_classifier(predict=...)`: their range, layout, dtype, and what they give."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from kerasrobust.attacks import FGSM, PGD, Attack
from kerasrobust.attacks.deepfool import DeepFool
from kerasrobust.attacks.square import Square
from kerasrobust.errors import InputError
from kerasrobust.evaluation.evaluate import evaluate
from kerasrobust.networks.making import as_classifier

SHAPE = (4, 4, 1)
MATRIX = np.random.default_rng(1).normal(size=(16, 3))
X = np.random.default_rng(2).random((6, *SHAPE), np.float32)


def scores(rows: np.ndarray) -> np.ndarray:
    return np.asarray(rows, np.float64) @ MATRIX


class Forest:
    """As an estimator of scikit-learn: rows of numbers in 0..16, with names of classes."""

    n_features_in_ = 16
    classes_ = np.array(["cat", "dog", "owl"])

    def predict_proba(self, x: np.ndarray) -> np.ndarray:
        if x.ndim != 2:
            raise ValueError(f"Found array with dim {x.ndim}. Forest expected 2.")
        powers = np.exp(scores(x))
        return powers / powers.sum(axis=1, keepdims=True)

    def predict(self, x: np.ndarray) -> np.ndarray:
        return self.classes_[self.predict_proba(x).argmax(axis=1)]


class Tensor:
    """As a tensor of PyTorch that has a gradient: it becomes an array after `detach` only."""

    def __init__(self, values: np.ndarray, attached: bool = True) -> None:
        self.values, self.attached = values, attached

    def __array__(self, *args: Any) -> np.ndarray:
        raise RuntimeError("Can't call numpy() on Tensor that requires grad. Use tensor.detach().numpy() instead.")

    def detach(self) -> Tensor:
        return Tensor(self.values, False)

    def cpu(self) -> Tensor:
        return self

    def numpy(self) -> np.ndarray:
        return self.__array__() if self.attached else self.values


def test_an_estimators_rows_and_range() -> None:
    classifier = as_classifier(predict=Forest().predict_proba, input_range=(0, 16))
    assert (classifier.image_shape, classifier.classes, classifier.arrays) == (SHAPE, 3, True)
    assert classifier.notes == ["'Forest.predict_proba' takes pixels in [0, 16], takes images as 16."]
    logits = scores(16 * X.reshape(6, -1))
    shifted = logits - logits.max(axis=1, keepdims=True)
    expected = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    # Probabilities below what float32 holds give no difference.
    seen = expected > -30
    np.testing.assert_allclose(classifier.run(X)[seen], expected[seen], rtol=1e-4, atol=1e-4)


def test_rows_are_found_out_for_a_function_too() -> None:
    forest = Forest()
    classifier = as_classifier(predict=lambda x: forest.predict_proba(x), image_shape=SHAPE)
    np.testing.assert_allclose(np.exp(classifier.run(X)), forest.predict_proba(X.reshape(6, -1)), rtol=1e-4)


def test_rows_with_channels_first() -> None:
    x = np.random.default_rng(3).random((2, 2, 2, 3), np.float32)
    matrix = np.random.default_rng(4).normal(size=(12, 3))

    def rows(x: np.ndarray) -> np.ndarray:
        if x.ndim != 2:
            raise ValueError("rows")
        return x @ matrix

    classifier = as_classifier(predict=rows, image_shape=(2, 2, 3), channels="first")
    np.testing.assert_allclose(classifier.run(x), x.transpose(0, 3, 1, 2).reshape(2, -1) @ matrix, rtol=1e-4, atol=1e-5)


def test_tensors_with_channels_first() -> None:
    shapes = set()

    def predict(x: np.ndarray) -> Tensor:
        shapes.add(x.shape[1:])
        return Tensor(x[:, :, 0, 0] - x[:, :, 1, 1])

    classifier = as_classifier(predict=predict, image_shape=(5, 6, 3), channels="first", input_range="-1,1")
    x = np.random.default_rng(3).random((2, 5, 6, 3), np.float32)
    np.testing.assert_allclose(classifier.run(x), 2 * (x[:, 0, 0] - x[:, 1, 1]), atol=1e-5)
    assert shapes == {(3, 5, 6)}


@pytest.mark.parametrize(
    ("dtype", "largest"), [("uint8", 255), ("int32", 255), ("float64", 1), ("float32", 1), (None, 1)]
)
def test_the_dtype_is_what_was_said(dtype: str | None, largest: int) -> None:
    seen: list[np.ndarray] = []

    def predict(x: np.ndarray) -> np.ndarray:
        seen.append(x)
        return scores(x.reshape(len(x), -1))

    classifier = as_classifier(predict=predict, image_shape=SHAPE, dtype=dtype)
    found = classifier.run(X)
    assert {x.dtype for x in seen} == {np.dtype(dtype or "float32")}
    expected = X if largest == 1 else np.rint(X * np.float32(255))
    np.testing.assert_allclose(seen[-1], expected, rtol=1e-6)
    np.testing.assert_allclose(found, scores(expected.reshape(6, -1)), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("count", [None, 3])
def test_class_numbers_are_decisions(count: int | None) -> None:
    forest = Forest()
    # Names of classes are known to the object; numbers need their count.
    predict = forest.predict if count is None else lambda x: scores(x).argmax(axis=1)
    classifier = as_classifier(predict=predict, image_shape=SHAPE, classes=count)
    assert classifier.classes == 3
    np.testing.assert_array_equal(classifier.run(X).argmax(axis=1), scores(X.reshape(6, -1)).argmax(axis=1))
    ((code, message),) = classifier.warnings
    assert code == "decisions-only"
    assert "hopskipjump" in message


def test_class_numbers_alone_are_refused() -> None:
    with pytest.raises(InputError, match="Give classes= to as_classifier"):
        as_classifier(predict=lambda x: x.reshape(len(x), -1).argmax(axis=1), image_shape=SHAPE)
    with pytest.raises(InputError, match="Expected classes from 0 to 1"):
        as_classifier(predict=lambda x: x.reshape(len(x), -1).argmax(axis=1), image_shape=SHAPE, classes=2)


@pytest.mark.parametrize("dtype", ["uint9", "bool", "complex64"])
def test_an_unknown_dtype_is_refused(dtype: str) -> None:
    with pytest.raises(InputError, match="Expected dtype to be one of uint8"):
        as_classifier(predict=scores, image_shape=SHAPE, dtype=dtype)


class Machine:
    """As a support vector machine: scores without probabilities."""

    n_features_in_ = 16

    def decision_function(self, x: np.ndarray) -> np.ndarray:
        return scores(x)


class Neighbours:
    """As an estimator that says class numbers alone."""

    n_features_in_ = 16
    classes_ = np.arange(3)

    def predict(self, x: np.ndarray) -> np.ndarray:
        return scores(x).argmax(axis=1)


@pytest.mark.parametrize(
    ("kind", "method"), [(Forest, "predict_proba"), (Machine, "decision_function"), (Neighbours, "predict")]
)
def test_objects_are_answered_with_the_call_to_make(kind: Any, method: str) -> None:
    with pytest.raises(InputError) as caught:
        as_classifier(kind(), image_shape=SHAPE)
    call = f"as_classifier(predict=model.{method}, image_shape=(4, 4, 1), input_range=(LOW, HIGH))"
    assert call in str(caught.value) and "\n" not in str(caught.value)
    found = eval(call, {"as_classifier": as_classifier, "model": kind(), "LOW": 0, "HIGH": 16})
    assert found.classes == 3
    np.testing.assert_array_equal(found.run(X).argmax(axis=1), scores(16 * X.reshape(6, -1)).argmax(axis=1))


def test_modules_of_pytorch_are_answered_with_the_call_to_make() -> None:
    """They are callable, and told by their module."""
    module = type("Module", (), {"__module__": "torch.nn.modules.module", "__call__": lambda self, x: x})()
    with pytest.raises(InputError, match=r"model\.eval\(\)\(torch\.from_numpy\(x\)\), channels='first'"):
        as_classifier(module, image_shape=SHAPE)


def test_modules_of_pytorch_as_functions_are_told_that_they_take_tensors() -> None:
    def call(self: Any, x: Any) -> Any:
        if isinstance(x, np.ndarray):
            raise TypeError("flatten() takes from 0 to 1 positional arguments but 2 were given")
        return np.asarray(x).reshape(len(x), -1) @ MATRIX

    known = {"__module__": "torch.nn.modules.module", "__call__": call, "eval": lambda self: self}
    module = type("Sequential", (), known)()
    with pytest.raises(InputError, match="Received: Sequential of PyTorch, which takes tensors") as caught:
        as_classifier(predict=module, image_shape=SHAPE, input_range=(0, 1))
    line = str(caught.value)
    assert "predict=lambda x: model.eval()(torch.from_numpy(x)), channels='first'" in line and "\n" not in line
    # One that takes arrays stays a function of arrays.
    own = type(
        "Own", (), {"__module__": "torch.nn.modules.module", "__call__": lambda self, x: scores(x.reshape(-1, 16))}
    )()
    assert as_classifier(predict=own, image_shape=SHAPE, input_range=(0, 1)).classes == 3


def test_one_of_model_and_predict_is_needed() -> None:
    with pytest.raises(InputError, match="Received: neither"):
        as_classifier()
    with pytest.raises(InputError, match="Received: both"):
        as_classifier(scores, predict=scores)


def test_square_attacks_it() -> None:
    classifier = as_classifier(predict=Forest().predict_proba)
    y = Forest().predict_proba(X.reshape(6, -1)).argmax(axis=1)
    result = Square(epsilon=0.4, queries=100)(classifier, X, y, seed=0)
    again = scores(result.x_adv.reshape(6, -1)).argmax(axis=1) == y
    np.testing.assert_array_equal(~result.success, again)
    assert abs(result.x_adv - X).max() <= 0.4 + 1e-6
    assert not again.all()


@pytest.mark.parametrize("attack", [PGD(epsilon=0.1), DeepFool(), FGSM(epsilon=0.1)])
def test_attacks_on_gradients_say_that_there_are_none(attack: Attack[Any]) -> None:
    """Silently they would find nothing, and the model would look robust."""
    classifier = as_classifier(predict=lambda x: x.reshape(len(x), -1)[:, :3], image_shape=(8, 8, 3))
    with pytest.raises(InputError, match=f"gradients for {attack.name}.*square or hopskipjump") as caught:
        attack(classifier, np.full((4, 8, 8, 3), 0.5, np.float32), np.zeros(4, np.int64))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("sorted_by_class", [True, False])
def test_decisions_alike_for_the_first_images_are_no_network_without_a_gradient(sorted_by_class: bool) -> None:
    """Gradient attacks would find nothing on such data, which are sorted by class as folders are."""
    y = np.repeat(np.arange(3), 20)
    x = np.full((60, *SHAPE), 0.1, np.float32) + y[:, None, None, None] / 4
    if not sorted_by_class:
        x, y = x[::7], y[::7]
    classifier = as_classifier(
        predict=lambda given: np.clip((given.mean(axis=(1, 2, 3)) * 4).astype(int), 0, 2), classes=3, image_shape=SHAPE
    )
    found = evaluate(classifier, x, y, attacks=PGD(epsilon=0.3), audit=False)
    assert "black-box-only" in [finding.code for finding in found.findings]


def test_whole_floats_of_several_classes_are_decisions() -> None:
    classifier = as_classifier(
        predict=lambda x: scores(x.reshape(len(x), -1)).argmax(axis=1) * 1.0, classes=3, image_shape=SHAPE
    )
    assert "decisions-only" in dict(classifier.warnings)
    rows = as_classifier(
        predict=lambda x: np.eye(3, dtype=int)[scores(x.reshape(len(x), -1)).argmax(axis=1)], image_shape=SHAPE
    )
    assert "decisions-only" in dict(rows.warnings)
    np.testing.assert_array_equal(rows.run(X), classifier.run(X))


@pytest.mark.parametrize("dtype", [int, float])
def test_a_column_of_class_numbers_is_one(dtype: type) -> None:
    def predict(x: np.ndarray) -> np.ndarray:
        return scores(x.reshape(len(x), -1)).argmax(axis=1).astype(dtype)[:, None]

    classifier = as_classifier(predict=predict, classes=3, image_shape=SHAPE)
    np.testing.assert_array_equal(classifier.run(X).argmax(axis=1), predict(X)[:, 0])
    assert "decisions-only" in dict(classifier.warnings)
    if dtype is int:
        with pytest.raises(InputError, match=r"gives class numbers alone.*Give classes= to as_classifier"):
            as_classifier(predict=lambda x: 2 + predict(x), image_shape=SHAPE)


def test_a_column_of_named_classes_is_one_however_its_batches_look() -> None:
    class Named(Forest):
        classes_ = np.array([1, 2])

        def predict(self, x: np.ndarray) -> np.ndarray:
            return self.classes_[(scores(x)[:, 0] > 0).astype(int)][:, None]

    classifier, second = as_classifier(predict=Named().predict), scores(X.reshape(6, -1))[:, 0] > 0
    for one in range(6):
        assert classifier.run(X[one : one + 1]).argmax(axis=1) == second[one]


def test_a_column_of_scores_in_steps_stays_one() -> None:
    """Single images may have a whole one, above 1 or below 0."""

    def predict(x: np.ndarray) -> np.ndarray:
        return np.round(2 * scores(x.reshape(len(x), -1))[:, :1]) / 2

    classifier = as_classifier(predict=predict, image_shape=SHAPE)
    x = np.random.default_rng(5).random((40, *SHAPE), np.float32)
    assert ((predict(x) % 1 == 0) & (abs(predict(x)) > 1)).any()
    for image in x:
        np.testing.assert_allclose(classifier.run(image[None])[0], [0, predict(image[None])[0, 0]], atol=1e-6)


@pytest.mark.parametrize("kind", ["rows", "0 or 1", "-1 or 1", "now and then", "saturated on noise"])
def test_rows_of_a_single_1_are_decisions(kind: str) -> None:
    """On the images themselves: what a softmax gives for noise may be whole by chance."""

    def certain(x: np.ndarray) -> np.ndarray:
        rows = np.eye(3)[scores(x.reshape(len(x), -1)).argmax(axis=1)]
        if kind == "0 or 1":
            return rows[:, :1]
        if kind == "-1 or 1":
            return 2 * rows[:, :1] - 1
        unsure = {"now and then": x[:, 0, 0, 0] > 0.5, "saturated on noise": x.mean(axis=(1, 2, 3)) > 0.7}
        return np.where(unsure.get(kind, np.zeros(len(x), bool))[:, None], 0.05 + 0.85 * rows, rows)

    x = np.clip(X + (0.4 if kind == "saturated on noise" else 0), 0, 1)
    found = evaluate(
        as_classifier(predict=certain, image_shape=SHAPE, input_range="0,1"), x, np.zeros(6, int), audit=False,
        attacks=Square(epsilon=0.1, queries=5),
    )  # fmt: skip
    told = "decisions-only" in [finding.code for finding in found.findings]
    assert told == (kind in ("rows", "0 or 1", "-1 or 1"))


def test_a_list_of_labels_is_told_how_to_be_stacked() -> None:
    def several(x: np.ndarray) -> list[np.ndarray]:
        yes = 1 / (1 + np.exp(-scores(x.reshape(len(x), -1))))
        return [np.stack([1 - part, part], axis=1) for part in yes.T]

    with pytest.raises(
        InputError, match=r"Received: 3 arrays.*np\.stack\(\[part\[:, 1\] for part in \.\.\.\], axis=1\)"
    ):
        as_classifier(predict=several, image_shape=SHAPE)
    stacked = as_classifier(
        predict=lambda x: np.stack([part[:, 1] for part in several(x)], axis=1),
        image_shape=SHAPE,
        outputs="multi-label",
    )
    assert stacked.classes == 2**3


class Halves:
    """As an estimator that was fitted on float labels."""

    n_features_in_ = 16

    def __init__(self, names: list[float]) -> None:
        self.classes_ = np.array(names)

    def predict(self, x: np.ndarray) -> np.ndarray:
        return self.classes_[(scores(x)[:, 0] > 0).astype(int)]


@pytest.mark.parametrize("names", [[0.0, 1.0], [-1.0, 1.0]])
def test_whole_floats_of_two_classes_are_decisions(names: list[float]) -> None:
    second = scores(X.reshape(6, -1))[:, 0] > 0
    assert 0 < second.sum() < 6
    own = Halves(names).predict
    found = [as_classifier(predict=own, image_shape=SHAPE)]
    if names[0] == 0:
        found.append(as_classifier(predict=lambda x: own(x.reshape(len(x), -1)), image_shape=SHAPE, classes=2))
    for classifier in found:
        assert classifier.classes == 2 and "decisions-only" in dict(classifier.warnings)
        np.testing.assert_array_equal(classifier.run(X).argmax(axis=1), second)


def test_the_call_that_a_refusal_names_is_taken() -> None:
    def predict(x: np.ndarray) -> np.ndarray:
        return (scores(x.reshape(len(x), -1))[:, 0] > 0).astype(np.float32)

    with pytest.raises(InputError, match=r"as_classifier\(predict=function, classes=K, image_shape=\.\.\.\)"):
        as_classifier(predict=predict, image_shape=SHAPE)
    assert as_classifier(predict=predict, classes=2, image_shape=SHAPE).classes == 2
    with pytest.raises(
        InputError, match=r"Expected classes from 0 to 1.*Give a function that gives scores, .*\(N, 1\)"
    ):
        as_classifier(predict=lambda x: 2 * predict(x) - 1, classes=2, image_shape=SHAPE)
    assert as_classifier(predict=lambda x: 2 * predict(x)[:, None] - 1, image_shape=SHAPE).classes == 2


@pytest.mark.parametrize("first", ["whole", "between"])
def test_a_probability_that_rounds_to_0_or_1_stays_one(first: str) -> None:
    """Whatever the first images show: a batch may have nothing else, and the next one has."""

    def predict(x: np.ndarray) -> np.ndarray:
        mean = x.mean(axis=(1, 2, 3))  # Of random images near 0.5.
        return np.clip(mean - 0.2, 0, 1) if first == "between" else np.clip(100 * (mean - 0.9), 0, 1)

    classifier = as_classifier(predict=predict, classes=2, image_shape=SHAPE, input_range="0,1")
    assert ("decisions-only" in dict(classifier.warnings)) == (first == "whole")
    for means in ([0.1, 0.0], [1.0, 0.1], [0.95, 0.9025, 0.1], [0.907]):
        x = np.ones((len(means), *SHAPE), np.float32) * np.array(means, np.float32)[:, None, None, None]
        logits = classifier.run(x)
        assert logits.shape == (len(means), 2)
        expected = predict(x)
        odds = np.exp(logits - logits.max(axis=1, keepdims=True))
        np.testing.assert_allclose(odds[:, 1] / odds.sum(axis=1), expected, atol=1e-4)


@pytest.mark.parametrize("broken", [np.nan, np.inf])
@pytest.mark.parametrize("beyond", [2.0, -1.0])
def test_a_sigmoid_that_overflows_far_from_images_stays_one(broken: float, beyond: float) -> None:
    """As attention in float16 does: its outputs on images are below 0.5, and as logits they would all be class 1."""

    def predict(x: np.ndarray) -> np.ndarray:
        far = (x > 1).any(axis=(1, 2, 3)) if beyond > 0 else (x < 0).any(axis=(1, 2, 3))
        return np.where(far, broken, 0.2 + 0.2 * np.clip(x, 0, 1).mean(axis=(1, 2, 3)))[:, None]

    x = np.random.default_rng(3).random((24, 8, 8, 3), np.float32)
    found = evaluate(as_classifier(predict, image_shape=(8, 8, 3)), x, np.zeros(24, int), attacks="square", audit=False)
    assert found.clean_accuracy == 1
