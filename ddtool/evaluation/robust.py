"""DD-Ranking's scores (Li et al., 2025, arXiv 2505.13300): what a set is worth apart from soft labels and from augmentation.

Accuracies are in [0, 1]. A set as good as random real images, whose hard labels lose nothing on the whole training set, has 0.27 in
both scores, (1 − e⁻¹) / (e − e⁻¹); 1 is the most there is.
"""

import math
from dataclasses import dataclass

WEIGHT = 0.5
"""Of the first of two parts, as on the leaderboard."""


@dataclass(frozen=True)
class Accuracies:
    """What networks reach that are trained on each of six sets. Random: as many real images, with labels of the same kind."""

    whole_hard: float
    """The whole training set, with hard labels."""
    set_hard: float
    """The set, with hard labels."""
    set_any: float
    """The set as it is."""
    random_any: float
    """Random real images, with labels made as the set's are."""
    set_plain: float
    """As `set_any`, without augmentation."""
    random_plain: float
    """As `random_any`, without augmentation."""

    @property
    def hard_label_recovery(self) -> float:
        """HLR: what the set with hard labels is behind the whole training set; less is better."""
        return self.whole_hard - self.set_hard

    @property
    def improvement_over_random(self) -> float:
        """IOR: what the set is ahead of random real images."""
        return self.set_any - self.random_any

    @property
    def improvement_without_augmentation(self) -> float:
        """The same where networks are trained without augmentation."""
        return self.set_plain - self.random_plain

    def label_robust(self, weight: float = WEIGHT) -> float:
        """LRS, in [0, 1]: of weight · IOR − (1 − weight) · HLR."""
        return squashed(weight * self.improvement_over_random - (1 - weight) * self.hard_label_recovery)

    def augmentation_robust(self, weight: float = WEIGHT) -> float:
        """ARS, in [0, 1]: of weight · IOR + (1 − weight) · IOR without augmentation."""
        return squashed(weight * self.improvement_over_random + (1 - weight) * self.improvement_without_augmentation)


def squashed(x: float) -> float:
    """(eˣ − e⁻¹) / (e − e⁻¹): [−1, 1] → [0, 1]."""
    return (math.exp(x) - math.exp(-1)) / (math.e - math.exp(-1))
