"""The simulator finds bugs that are planted on purpose: at least 95 % of them, each within a bounded number of runs."""

from __future__ import annotations

import pytest

from hypercache.testing import simulation
from hypercache.testing.simulation import SimulationError, simulate

from .mutants import MUTANTS

RUNS = 60
FOUND_SHARE = 0.95
# Where most runs leave a kind of trouble out: who looks for the bug by hand would choose the same kind.
SCENARIOS = {
    "commits_entries_of_earlier_terms": simulation.elections,
    "follows_leaders_of_earlier_terms": simulation.elections,
    "compares_logs_by_length_alone": simulation.partitions,
    "replaces_committed_entries": simulation.partitions,
    "reads_without_asking_a_majority": simulation.partitions,
    "answers_to_earlier_requests_confirm_reads": simulation.partitions,
    "a_lease_outlives_a_transfer": simulation.leases,
    "a_lease_does_not_end": simulation.leases,
    "one_majority_of_a_joint_configuration_decides": simulation.memberships,
    "changes_members_without_joint_consensus": simulation.memberships,
    "keeps_configurations_that_were_cut_off": simulation.memberships,
    "snapshot_with_the_latest_configuration": simulation.memberships,
}
HARD = frozenset({"counts_votes_of_earlier_terms"})
"""Not found within that many runs: a vote must be late by a whole campaign, and decide the next one."""


def runs_until_found(name: str) -> int:
    """Return how many runs it takes to find a mutant; 0 where it is not found."""
    scenario = SCENARIOS.get(name, simulation.scenario_of)
    with MUTANTS[name]():
        for seed in range(RUNS):
            try:
                simulate(seed, 60.0, scenario(seed))
            except SimulationError:
                return seed + 1
    return 0


@pytest.mark.parametrize("name", [name for name in MUTANTS if name not in HARD])
def test_a_planted_bug_is_found(name: str) -> None:
    assert runs_until_found(name)


def test_nearly_all_are_found_and_they_are_many() -> None:
    assert len(MUTANTS) >= 30
    assert len(MUTANTS) - len(HARD) >= FOUND_SHARE * len(MUTANTS)


@pytest.mark.parametrize("scenario", [simulation.elections, simulation.partitions, simulation.leases, simulation.memberships])
def test_without_a_bug_the_same_runs_find_nothing(scenario: simulation.ScenarioMaker) -> None:
    for seed in range(20):
        simulate(seed, 60.0, scenario(seed))
