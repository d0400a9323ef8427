"""Paired statistics (docs/protocol.md, section 5), used alike by boards, pages of claims and `compare`.

Functions of numbers in the units that they are given; what is sampled is seeded.
"""

from gkdbench.report.statistics.descriptive import LEVEL, MIN_RUNS, mean_std
from gkdbench.report.statistics.family import Run, step_down
from gkdbench.report.statistics.holm import holm
from gkdbench.report.statistics.judgement import EQUAL, OUTCOMES, ComparisonOutcome, Estimate, judge
from gkdbench.report.statistics.pooling import Pooled, pooled
from gkdbench.report.statistics.power import power_of_design, runs_to_resolve, seeds_needed
from gkdbench.report.statistics.ranks import Rank, RankTest, average_ranks, rank_test, ranked
from gkdbench.report.statistics.resampled import nadeau_bengio
from gkdbench.report.statistics.signflip import SignFlip, sign_flip, sign_flip_interval, sign_flip_p

__all__ = [
    "EQUAL",
    "LEVEL",
    "MIN_RUNS",
    "OUTCOMES",
    "ComparisonOutcome",
    "Estimate",
    "Pooled",
    "Rank",
    "RankTest",
    "Run",
    "SignFlip",
    "average_ranks",
    "holm",
    "judge",
    "mean_std",
    "nadeau_bengio",
    "pooled",
    "power_of_design",
    "rank_test",
    "ranked",
    "runs_to_resolve",
    "seeds_needed",
    "sign_flip",
    "sign_flip_interval",
    "sign_flip_p",
    "step_down",
]
