"""Losses: how wrong one execution was.

The loss of a trace is 1 minus its score. For closed choices there is also the cross-entropy of the accepted answers,
which still tells two candidates apart when both are right.
"""

import math
from collections.abc import Sequence

from engine.records import Trace
from engine.statistics import mean

_FLOOR = 1e-9


def cross_entropy(trace: Trace) -> float | None:
    """-log of the probability of the accepted choices, in nats, at most 20.7; None without choices.

    A failed execution costs the most, so that a program cannot gain by failing.
    """
    probabilities = trace.prediction.probabilities
    if probabilities is None:
        return -math.log(_FLOOR) if trace.prediction.error else None
    accepted = math.fsum(probabilities.get(answer, 0.0) for answer in set(trace.example.accepted))
    return -math.log(max(accepted, _FLOOR))


def mean_loss(traces: Sequence[Trace]) -> float:
    """The mean cross-entropy where there are choices, else 1 minus the mean score. Lower is better."""
    entropies = [cross_entropy(trace) for trace in traces]
    known = [value for value in entropies if value is not None]
    return mean(known) if len(known) == len(traces) else 1.0 - mean([trace.score for trace in traces])
