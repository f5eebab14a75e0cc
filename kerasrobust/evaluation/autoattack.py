"""AutoAttack: several attacks that fail for different reasons, each on what the ones before have left."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, get_args

import numpy as np

from kerasrobust.attacks import Attack, AttackResult
from kerasrobust.attacks.driver import as_emit, is_nearest
from kerasrobust.attacks.fab import FAB
from kerasrobust.attacks.registry import make_attack
from kerasrobust.attacks.task import Task
from kerasrobust.errors import InputError, unknown_name
from kerasrobust.evaluation.chain import Part, part_of, run_chain, without_gradients
from kerasrobust.names import Version
from kerasrobust.networks.classifier import Classifier
from kerasrobust.ops import balls
from kerasrobust.settings import check_made, radii, read_epsilon

EOT = 20
"""Passes of each gradient in the version for randomized networks."""
QUICK_STEPS, QUICK_QUERIES, FEW_TARGETS = 16, 1_000, 3
"""Of the cheaper attacks of `adaptive`."""


@dataclass(frozen=True, kw_only=True)
class AutoAttack:
    """The ensemble that robust accuracies are compared by, without anything to tune.

    - `standard`: APGD-CE, APGD-T and FAB-T on 9 targets each, and Square with 5,000 queries.
    - `adaptive`: the same threat at a fraction of the cost. APGD-CE with 16 steps and APGD-T with 16 on 3 targets run
      on all images; then APGD-T, FAB-T on 3 targets and Square with 1,000 queries, and with 5,000 if those broke any,
      run as far as they find something (`evaluation.narrowing`). It isn't `standard`, and may leave more images robust:
      a finding says what was left out. With `confirm` the whole of `standard` follows on what is left, and
      a finding says whether it found more.
    - `plus`: APGD-CE and APGD-DLR and FAB with 5 restarts each, Square, APGD-T, FAB-T.
    - `rand`, for randomized networks: APGD-CE and APGD-DLR with gradients over 20 noisy passes. The verdict is a mean
      over fresh passes, never the attack's own last one.
    - `auto` chooses `rand` for a network whose answers differ from pass to pass, else `standard`.

    With three classes or fewer the losses of APGD-DLR and APGD-T are undefined: APGD on the margin takes their place.
    In L1 APGD begins in larger balls, except in `rand`, and `standard` runs APGD-CE five times and APGD-T on 5 targets.

    Attributes:
        norm: "linf", "l2" or "l1".
        epsilon: radius of the ball, in units of an image in [0, 1].
        version: "auto", "standard", "adaptive", "plus" or "rand".
        confirm: run the whole of `standard` on what `adaptive` has left.
        eot: passes over which each gradient is averaged; None for 20 in `rand` and 1 otherwise.
        attacks: names, or attacks with settings of their own, in the place of a version's. Where several look for the
            nearest example, these run on all images.
        epsilons: several radii instead of `epsilon`, numbers or texts. Everything runs within the smallest, then within
            the next on what is left, as an example in a ball lies in all larger ones, and so on; `epsilon` is the
            largest. Attacks for the nearest example can't be among `attacks`: one run of theirs says all radii.

    Example:
        >>> result = AutoAttack(epsilon=8 / 255)(model, x, y)
        >>> custom = AutoAttack(attacks=("apgd-ce", Square(queries=1_000)))
        >>> within = AutoAttack(attacks=("pgd",), epsilons=("2/255", "4/255", "8/255"))

    Reference: Croce and Hein 2020a, section 6.
    """

    name: ClassVar[str] = "autoattack"
    norms: ClassVar[tuple[balls.Norm, ...]] = ("linf", "l2", "l1")

    norm: balls.Norm = "linf"
    epsilon: float = 8 / 255
    version: Version = "auto"
    confirm: bool = False
    eot: int | None = None
    attacks: Sequence[str | Attack[Any]] = ()
    epsilons: Sequence[float | str] = ()

    def __post_init__(self) -> None:
        if self.epsilons:
            object.__setattr__(self, "epsilons", radii(self.epsilons, self.norm))
            object.__setattr__(self, "epsilon", self.epsilons[-1])
        read_epsilon(self)
        if self.version not in get_args(Version):
            raise unknown_name("version", self.version, get_args(Version))
        if self.confirm and self.version != "adaptive":
            raise InputError(
                f"Expected confirm with version 'adaptive' only. Received: it with {self.version!r}. Leave it out."
            )
        for attack in self.attacks:
            check_made(attack, "an attack")
            made = make_attack(attack, norm=self.norm) if isinstance(attack, str) else attack
            if made.in_ball and made.norm != self.norm:
                raise InputError(
                    f"Expected attacks of one norm, {self.norm}. Received: {made.name} of {made.norm}. Change one."
                )
            if self.epsilons and (made.minimum_norm or not made.in_ball):
                why = "one run of which says all radii" if made.in_ball else "which has no ball"
                raise InputError(
                    f"Expected attacks within a radius where there are several. Received: {made.name}, {why}. "
                    "Run it by itself, without them."
                )

    def chosen(self, classifier: Classifier) -> Version:
        """Returns the version that runs against a classifier."""
        if self.version != "auto":
            return self.version
        return "rand" if classifier.randomized else "standard"

    def parts(self, classifier: Classifier) -> list[Attack[Any]]:
        """Returns the attacks that run against a classifier, in their order."""
        return [part.attack for part in self.parts_of_chain(classifier)]

    def parts_of_chain(self, classifier: Classifier) -> list[Part]:
        """Returns the attacks as parts of a chain, each on what those before it have left."""
        if self.epsilons:
            return [part for radius in self.epsilons for part in self._at(float(radius)).parts_of_chain(classifier)]
        version = self.chosen(classifier)
        eot = self.eot or (EOT if version == "rand" and not self.attacks else 1)

        def make(name: str, **settings: Any) -> Attack[Any]:
            return self._within(self._made(name, eot, **settings))

        def parts(attacks: Sequence[Attack[Any]], **how: bool) -> list[Part]:
            return [part_of(attack, self.epsilon, chained=True, **how) for attack in attacks]

        if self.attacks:
            return self._own(eot)
        rivals = classifier.classes - 1
        l1 = self.norm == "l1"
        targets = min(9, rivals)
        dlr = "apgd-dlr" if rivals > 1 else "apgd-margin"

        def apgd(name: str, **settings: Any) -> Attack[Any]:
            return make(name, multi_radius=l1, **settings)

        def targeted(targets: int, **settings: Any) -> Attack[Any]:
            return apgd("apgd-t", targets=targets, **settings) if rivals > 2 else apgd("apgd-margin", **settings)

        standard = [
            apgd("apgd-ce", restarts=5 if l1 else 1), targeted(min(5, rivals) if l1 else targets),
            make("fab-t", targets=targets), make("square"),
        ]  # fmt: skip
        if version == "standard":
            return parts(standard)
        if version == "adaptive":
            few = min(FEW_TARGETS, rivals)
            quick = [apgd("apgd-ce", steps=QUICK_STEPS), targeted(few, steps=QUICK_STEPS)]
            squares = [make("square", queries=QUICK_QUERIES), make("square")]
            thorough = [targeted(targets), make("fab-t", targets=few), *squares]
            again = parts(standard, confirming=True) if self.confirm else []
            return parts(quick) + parts(thorough, narrowed=True) + again
        if version == "rand":
            return parts([make("apgd-ce"), make(dlr)])
        return parts([
            apgd("apgd-ce", restarts=5), apgd(dlr, restarts=5), make("fab", restarts=5), make("square"),
            *([targeted(targets)] if rivals > 1 else []), make("fab-t", targets=targets),
        ])  # fmt: skip

    def _at(self, radius: float) -> AutoAttack:
        """Returns the same within one radius."""
        own: Any = {"epsilon": radius}  # Those that have none were refused.
        attacks = [item if isinstance(item, str) else replace(item, **own) for item in self.attacks]
        return replace(self, epsilons=(), epsilon=radius, attacks=attacks)

    def _own(self, eot: int) -> list[Part]:
        """Returns the parts of a list of one's own: several that look for the nearest example run on all images."""
        attacks = [self._made(attack, eot) if isinstance(attack, str) else attack for attack in self.attacks]
        if sum(map(is_nearest, attacks)) > 1:
            return [part_of(attack, self.epsilon, chained=not is_nearest(attack)) for attack in attacks]
        return [part_of(self._within(attack), self.epsilon, chained=True) for attack in attacks]

    def _made(self, name: str, eot: int, **settings: Any) -> Attack[Any]:
        return make_attack(name, epsilon=self.epsilon, norm=self.norm, eot=eot, **settings)

    def _within(self, attack: Attack[Any]) -> Attack[Any]:
        """Returns an attack that stops at what it finds inside the radius: here nothing nearer is asked for."""
        return replace(attack, epsilon=self.epsilon) if isinstance(attack, FAB) and attack.epsilon is None else attack

    def settings(self) -> dict[str, Any]:
        """Returns the settings as JSON has them."""
        names = [attack if isinstance(attack, str) else attack.name for attack in self.attacks]
        return {**vars(self), "attacks": names}

    def __call__(self, model: Any, x: np.ndarray, y: np.ndarray, **settings: Any) -> AttackResult:
        """Attacks images; takes what every attack takes but targets, and `early_stop`, which it lives by.

        Returns:
            Per example what the attack that did worst to the model found.
        """
        task = Task.checked(model, x, y, emit=as_emit(settings.pop("progress", None)), **settings)
        parts, _ = without_gradients(self.parts_of_chain(task.classifier), task)
        task = task.settled([part.attack for part in parts])
        with task.classifier.unchanged():
            return run_chain(parts, task).worst
