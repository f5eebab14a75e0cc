"""FAB and FAB-T: the nearest adversarial example, by projections onto linearised boundaries inside the box."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np
import tensorflow as tf

from kerasrobust.attacks.algorithm import Images, Numbers
from kerasrobust.attacks.driver import Attack
from kerasrobust.attacks.network import Network, nth_rival, rivals_of
from kerasrobust.errors import InputError
from kerasrobust.ops import balls, draws, losses
from kerasrobust.ops.tracing import one_piece
from kerasrobust.settings import read_epsilon

REACH = {"linf": 0.3, "l2": 1.0, "l1": 5.0}
"""How far random restarts look around where no epsilon is given, as in the authors' program."""


def project_plane(x: tf.Tensor, w: tf.Tensor, rise: tf.Tensor, norm: balls.Norm) -> tf.Tensor:
    """Returns the shortest way from `x` to the hyperplane <w, z - x> = rise that stays inside the box [0, 1].

    Each entry moves towards the plane until the box stops it, all at one speed (Linf) or at speeds |w_i| (L2). How long
    they have to move is the root of a concave function of one number, made of straight pieces. Newton's method finds it
    from below without ever overshooting, mostly in two to five steps, and needs no sorting. In L1 the entries go one
    after the other, those with the largest |w_i| first, each as far as the box lets it.

    Args:
        x: float32 (N, D) in [0, 1].
        w: float32 (N, D), normals of the hyperplanes.
        rise: float32 (N,), by how much <w, z> has to grow on the way.
        norm: "linf", "l2" or "l1", in which the way is short.

    Returns:
        float32 (N, D), z - x. Where the box doesn't meet the hyperplane, the way to its point nearest to that: the
        corner that all entries are driven to. Where `w` is 0, 0.

    Example:
        >>> project_plane(tf.constant([[0.5, 0.9]]), tf.constant([[1.0, 1.0]]), tf.constant([0.4]), "linf")
        <tf.Tensor: shape=(1, 2), dtype=float32, numpy=array([[0.3, 0.1]], dtype=float32)>

    Reference: Croce and Hein 2020b, sections 2.2 and 3.1, and the appendix for L1.
    """
    # In units of the largest entry: the squares of small gradients are 0 in float32.
    largest = tf.reduce_max(tf.abs(w), axis=1)
    toward = tf.math.divide_no_nan(w * tf.sign(rise)[:, None], largest[:, None])
    rise = tf.math.divide_no_nan(tf.abs(rise), largest)
    rates = tf.abs(toward)
    room = tf.where(toward > 0, 1.0 - x, x)
    if norm == "l1":
        return tf.sign(toward) * _steepest_first(rates, room, rise)

    def ways(time: tf.Tensor) -> tf.Tensor:
        return time[:, None] * (rates if norm == "l2" else 1.0)

    def wait(time: tf.Tensor, going: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        way = ways(time)
        free = tf.where(way < room, rates, 0.0)
        reached = tf.reduce_sum(rates * tf.minimum(way, room), axis=1)
        growth = tf.reduce_sum(free * rates if norm == "l2" else free, axis=1)
        more = tf.math.divide_no_nan(rise - reached, growth)
        # Below this it is only rounding. An image that has arrived stays, however long others in its batch take.
        going = more > 1e-6 * time
        # Not up to infinity, which times a rate of 0 is no number.
        return tf.where(going, tf.minimum(time + more, 1e30), time), going

    start = tf.zeros_like(rise)
    time, _ = tf.while_loop(lambda _, going: tf.reduce_any(going), one_piece(wait), (start, start >= 0))
    return tf.sign(toward) * tf.minimum(ways(time), room)


def _steepest_first(rates: tf.Tensor, room: tf.Tensor, rise: tf.Tensor) -> tf.Tensor:
    """Returns how far each entry goes, (N, D), if those of the largest rates go as far as they can until `rise` is met.

    Bisection finds the rate, up to 1, down to which entries have to move, to 2**-26. That takes a third of the time of
    sorting 3,072 of them.
    """
    gains = rates * room

    def halve(number: tf.Tensor, low: tf.Tensor, high: tf.Tensor) -> tuple[tf.Tensor, ...]:
        middle = (low + high) / 2
        short = tf.reduce_sum(tf.where(rates > middle[:, None], gains, 0.0), axis=1) < rise
        return number + 1, tf.where(short, low, middle), tf.where(short, middle, high)

    start = tf.constant(0), tf.zeros_like(rise), tf.ones_like(rise)
    _, low, high = tf.while_loop(lambda number, *_: number < 26, one_piece(halve), start)
    whole = rates > high[:, None]
    last = (rates > low[:, None]) & ~whole
    missing = rise - tf.reduce_sum(tf.where(whole, gains, 0.0), axis=1)
    share = tf.math.divide_no_nan(missing, tf.reduce_sum(tf.where(last, gains, 0.0), axis=1))
    return tf.where(whole, room, tf.where(last, room * tf.clip_by_value(share, 0.0, 1.0)[:, None], 0.0))


class Approach(NamedTuple):
    """Where the search of each example is.

    Attributes:
        rivals: int (N, K), the classes whose boundaries are looked at.
        x_adv: (N, H, W, C), the iterate x_t.
        found: the nearest adversarial example so far; the image itself before there is one.
        distance: (N,), its distance; infinite before.
        idle: bool (N,), whether this run has nothing to do.
    """

    rivals: tf.Tensor
    x_adv: tf.Tensor
    found: tf.Tensor
    distance: tf.Tensor
    idle: tf.Tensor


@dataclass(frozen=True, kw_only=True)
class FAB(Attack[Approach]):
    """Fast adaptive boundary attack: looks for the smallest perturbation, and needs no step size.

        d_1 = Proj(x_t) - x_t,   d_0 = Proj(x_0) - x_0,   a = min(|d_1| / (|d_1| + |d_0|), alpha_max)
        x_{t+1} = (1 - a) (x_t + eta d_1) + a (x_0 + eta d_0)

    with projections onto the nearest boundary of the network's linearisation at x_t, inside the box. Where x_{t+1} is
    misclassified, it is kept if it is the nearest one so far, and the search continues closer to the original, at
    x_0 + beta (x_{t+1} - x_0). All rival classes are looked at in each step; `FABT` looks at one per run.

    Attributes:
        norm: "linf", "l2" or "l1".
        steps: how many.
        restarts: how often the attack is run; the first time from the image itself, then from random points.
        alpha_max: how much of the way from the original enters a step at most.
        eta: how far a step goes, 1 being onto the boundary.
        beta: what is left of the perturbation after a success.
        epsilon: radius in which an adversarial example is looked for: one that is found there is not improved any
            further, and restarts begin there. None to look for the nearest one anywhere.

    Example:
        >>> result = FAB(norm="l2")(model, x, y)
        >>> result.median_distance

    Reference: Croce and Hein 2020b, algorithm 1.
    """

    name: ClassVar[str] = "fab"
    minimum_norm: ClassVar[bool] = True
    scores_distance: ClassVar[bool] = True
    norms: ClassVar[tuple[balls.Norm, ...]] = ("linf", "l2", "l1")

    steps: int = 100
    restarts: int = 1
    alpha_max: float = 0.1
    eta: float = 1.05
    beta: float = 0.9
    epsilon: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.epsilon is not None:
            read_epsilon(self)
        if self.steps < 1 or self.restarts < 1:
            raise InputError(
                f"Expected at least 1 step and 1 restart. Received: {self.steps} and {self.restarts}. Try 100 and 1."
            )
        if not (0 <= self.alpha_max <= 1 and self.eta >= 1 and 0 < self.beta <= 1):
            raise InputError(
                "Expected alpha_max in [0, 1], eta of at least 1, and beta above 0 and up to 1. "
                f"Received: {self.alpha_max}, {self.eta} and {self.beta}. Leave them out for the defaults."
            )

    def rivals(self, logits: tf.Tensor, y: tf.Tensor, numbers: Numbers) -> tf.Tensor:
        """Returns the classes whose boundaries this run looks at, (N, K), given the unchanged images' logits."""
        return rivals_of(y, logits.shape[1])

    def numbers(self) -> dict[str, float | int]:
        epsilon = 0.0 if self.epsilon is None else float(self.epsilon)
        return {
            "alpha_max": float(self.alpha_max),
            "eta": float(self.eta),
            "beta": float(self.beta),
            "epsilon": epsilon,
            "reach": REACH[self.norm] if self.epsilon is None else epsilon,
            "restarts": self.restarts,
        }

    def step_count(self) -> int:
        return self.steps

    def run_count(self) -> int:
        return self.restarts

    def search_radius(self) -> float | None:
        return self.epsilon

    def begin(self, network: Network, images: Images, numbers: Numbers) -> Approach:
        x, y, keys = images
        logits = network.logits(x)
        if logits.shape[1] is None:
            raise InputError("Expected a model with a known number of classes. Received: logits of unknown width.")
        again = numbers["run"] % numbers["restarts"] > 0
        return Approach(
            rivals=self.rivals(logits, y, numbers),
            x_adv=tf.cond(again, lambda: _start(keys, x, numbers["reach"], self.norm), lambda: x),
            found=x,
            distance=tf.where(losses.margin(logits, y) < 0, 0.0, float("inf")),
            # Of more targets than there are rivals the rest have nothing to do.
            idle=tf.fill(tf.shape(y), numbers["run"] // numbers["restarts"] >= logits.shape[1] - 1),
        )

    def done(self, state: Approach, numbers: Numbers) -> tf.Tensor:
        return state.idle | (numbers["early_stop"] & (state.distance < numbers["epsilon"]))

    def step(self, network: Network, images: Images, state: Approach, numbers: Numbers) -> Approach:
        x, x_adv = images.x, state.x_adv
        shape = tf.shape(x)
        leads, slopes = network.drawing(2 * network.step).linearise(x_adv, images.y, state.rivals)
        lead, slope = _nearest(leads, tf.reshape(slopes, [shape[0], leads.shape[1], -1]), self.norm)
        here, origin = (tf.reshape(part, [shape[0], -1]) for part in (x_adv, x))
        # The rises are taken from differences: <w, x> itself is large, and its rounding with it.
        rises = [-lead, -lead + tf.reduce_sum(slope * (here - origin), axis=1)]
        both = tf.concat([here, origin], axis=0), tf.concat([slope, slope], axis=0), tf.concat(rises, axis=0)
        way, way_back = tf.split(tf.reshape(project_plane(*both, self.norm), [-1, *x.shape[1:]]), 2)
        length, length_back = (tf.maximum(balls.distance(part, self.norm), 1e-8) for part in (way, way_back))
        share = balls.column(tf.minimum(length / (length + length_back), numbers["alpha_max"]))
        moved = (1 - share) * (x_adv + numbers["eta"] * way) + share * (x + numbers["eta"] * way_back)
        moved = tf.clip_by_value(moved, 0.0, 1.0)

        flipped = network.drawing(2 * network.step + 1).score(moved, images.y) < -numbers["slack"]
        distance = balls.distance(moved - x, self.norm)
        better = flipped & (distance < state.distance) & ~self.done(state, numbers)
        return state._replace(
            x_adv=balls.choose(flipped, x + numbers["beta"] * (moved - x), moved),
            found=balls.choose(better, moved, state.found),
            distance=tf.where(better, distance, state.distance),
        )

    def found(self, state: Approach, numbers: Numbers) -> tuple[tf.Tensor, tf.Tensor]:
        return state.found, state.distance - numbers["epsilon"]


@dataclass(frozen=True, kw_only=True)
class FABT(FAB):
    """FAB-T: FAB towards one class per run, at one gradient per step whatever the number of classes.

    Any misclassification counts as a success, not only the class that is aimed at.

    Attributes:
        targets: how many wrong classes are tried, those with the highest logits of the unchanged image first.

    Example:
        >>> result = FABT(epsilon=8 / 255)(model, x, y)
        >>> robust_accuracy = 1 - (result.success & (result.distance <= 8 / 255)).mean()

    Reference: Croce and Hein 2020a, section 5.
    """

    name: ClassVar[str] = "fab-t"

    targets: int = 9

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.targets < 1:
            raise InputError(f"Expected at least 1 target class. Received: targets={self.targets}. Try 9.")

    def rivals(self, logits: tf.Tensor, y: tf.Tensor, numbers: Numbers) -> tf.Tensor:
        return nth_rival(logits, y, numbers["run"] // numbers["restarts"])[:, None]

    def run_count(self) -> int:
        return self.targets * self.restarts


def _nearest(leads: tf.Tensor, slopes: tf.Tensor, norm: balls.Norm) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns lead (N,) and slope (N, D) of the rival whose linearised boundary is nearest, box or not."""
    if leads.shape[1] == 1:
        return leads[:, 0], slopes[:, 0]
    # By the dual norm.
    speeds = tf.norm(slopes, ord={"linf": 1, "l2": 2, "l1": np.inf}[norm], axis=2)
    nearest = tf.argmin(tf.abs(leads) / (speeds + 1e-12), axis=1)
    return tf.gather(leads, nearest, batch_dims=1), tf.gather(slopes, nearest, batch_dims=1)


def _start(keys: tf.Tensor, x: tf.Tensor, reach: tf.Tensor, norm: balls.Norm) -> tf.Tensor:
    """Returns random points at half the distance `reach` from the images, in the box."""
    shape = tf.shape(x)
    noise = draws.uniform(keys, shape, -1.0, 1.0) if norm == "linf" else draws.normal(keys, shape)
    return tf.clip_by_value(x + reach / 2 * noise / balls.column(balls.distance(noise, norm)), 0.0, 1.0)
