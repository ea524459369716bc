"""Whole swarms in virtual time: how fast, at which cost for the origin, and what they survive.

`make bench BENCH=swarm_sim` runs the large ones.
"""

import pytest

from support.swarm_scenarios import Result, Scenario
from support.swarm_simulator import Simulator


def run(**scenario) -> Result:
    result = Simulator(Scenario(**scenario)).run()
    assert result.ended
    assert result.wrong_sends == 0
    assert result.wrong_held == 0
    return result


@pytest.mark.parametrize("n_nodes", [2, 4, 8, 16])
@pytest.mark.parametrize("seed", range(2))
def test_a_swarm_ends_within_a_fifth_of_the_ideal_time_and_reads_the_origin_once(n_nodes, seed):
    result = run(n_nodes=n_nodes, n_chunks=256, seed=seed)
    assert result.ratio <= 1.20
    assert result.origin_fetches <= 1.05 * 256


def test_more_chunks_bring_it_nearer_to_the_ideal():
    assert run(n_nodes=6, n_chunks=1536).ratio <= 1.06


@pytest.mark.parametrize("n_nodes", [8, 16])
@pytest.mark.parametrize("seed", range(2))
def test_a_node_with_a_quarter_of_the_uplink_holds_nobody_up(n_nodes, seed):
    result = run(n_nodes=n_nodes, n_chunks=256, slow_up={0: 0.25}, seed=seed)
    assert result.ratio <= 1.35
    assert result.origin_fetches <= 1.05 * 256


@pytest.mark.parametrize("n_nodes", [8, 16])
@pytest.mark.parametrize("seed", range(2))
def test_a_node_that_dies_holds_nobody_up(n_nodes, seed):
    result = run(n_nodes=n_nodes, n_chunks=256, dies_at={3: 0.3}, seed=seed)
    assert result.ratio <= 1.35
    assert result.origin_fetches <= 1.10 * 256  # what it had not passed on is read again


@pytest.mark.parametrize("n_nodes", [8, 16])
def test_a_node_that_joins_late_is_fed_at_full_speed_by_peers(n_nodes):
    result = run(n_nodes=n_nodes, n_chunks=256, joins_at={3: 0.5})
    assert result.ratio <= 1.10
    assert result.origin_fetches <= 1.05 * 256


@pytest.mark.parametrize("n_nodes", [8, 16])
def test_a_throttling_origin_costs_a_third_at_most(n_nodes):
    result = run(n_nodes=n_nodes, n_chunks=256, origin_requests_per_s=22.0)
    assert result.ratio <= 1.35
    assert result.origin_fetches <= 1.05 * 256


def test_a_slow_origin_is_shared_and_peers_cost_no_time():
    result = run(n_nodes=16, n_chunks=256, origin_rate=5.0)
    assert result.ratio <= 1.10
    assert result.origin_fetches <= 1.05 * 256


def test_one_node_with_a_grant_feeds_all():
    result = run(n_nodes=8, n_chunks=256, without_grant=frozenset(range(1, 8)))
    assert result.origin_fetches == 256
    assert result.ratio <= 1.5  # its own uplink passes every chunk on


def test_without_any_grant_a_complete_node_feeds_all():
    everyone = frozenset(range(8))
    result = run(n_nodes=8, n_chunks=256, without_grant=everyone, complete=frozenset({0}))
    assert result.origin_fetches == 0
    assert result.ratio <= 1.20


def test_a_node_that_sends_wrong_bytes_is_found_out_by_everyone():
    result = run(n_nodes=8, n_chunks=256, corrupt=frozenset({2}))
    assert result.blamed[2] == 7


def test_a_node_that_states_checksums_of_its_own_misleads_nobody():
    result = run(n_nodes=8, n_chunks=256, liars=frozenset({2}))
    assert result.blamed[2] == 7


@pytest.mark.parametrize("seed", range(24))
def test_every_seed_ends_whatever_goes_wrong(seed):
    run(
        n_nodes=6 + seed % 7,
        n_chunks=96,
        seed=seed,
        loss=0.05 * (seed % 3),
        stale_s=0.5 * (seed % 2),
        slow_up={1: 0.3},
        slow_down={2: 0.5},
        joins_at={3: 0.4},
        dies_at={4: 0.2, 5: 0.5} if seed % 2 else {5: 0.5},
        revives_at={4: 0.6} if seed % 2 else {},
        origin_requests_per_s=18.0 if seed % 4 == 0 else None,
        corrupt=frozenset({2}) if seed % 5 == 0 else frozenset(),
        liars=frozenset({3}) if seed % 5 == 1 else frozenset(),
        without_grant=frozenset({1}) if seed % 3 == 0 else frozenset(),
    )


def test_what_a_node_sends_depends_on_its_neighbours_and_not_on_the_swarm():
    few, many = run(n_nodes=33, n_chunks=192), run(n_nodes=99, n_chunks=192)
    assert many.messages_per_node <= 1.25 * few.messages_per_node
    assert many.ratio <= 1.35
    assert many.origin_fetches <= 1.05 * 192
