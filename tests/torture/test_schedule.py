# SPDX-License-Identifier: GPL-3.0-or-later
"""The torture's schedule: the same from the same seed, and nothing in it gets in its own way."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.torture.schedule import GROUPS, KINDS, Layout, Round, holds, layout, plan_round

SEEDS = [str(number) for number in range(40)]


def rounds(seed: str, fleet: Layout) -> list[Round]:
    return [plan_round(seed, number, fleet) for number in range(1, 21)]


def test_the_same_seed_draws_the_same() -> None:
    for seed in SEEDS:
        assert layout(seed) == layout(seed)
        assert rounds(seed, layout(seed)) == rounds(seed, layout(seed))
    assert len({str(rounds(seed, layout("1"))) for seed in SEEDS}) == len(SEEDS)


def test_python_3_9_draws_the_same_as_the_newest() -> None:
    fleet = layout("7")
    assert (fleet.partitions, fleet.workers, fleet.rotate) == (4, {"a": ((0, 3), (1, 2)), "b": ((0, 1, 2, 3),)}, "2s")
    assert str(plan_round("7", 1, fleet).actions[0]) == " 0.14 s  kill     server for 0.57 s"


def test_a_round_is_the_same_however_many_kinds_are_left_out() -> None:
    fleet = layout("3")
    for number in range(1, 21):
        whole = plan_round("3", number, fleet)
        for kind in KINDS:
            part = plan_round("3", number, fleet, [kind])
            assert part.actions == tuple(action for action in whole.actions if action.kind == kind)
            assert part.seconds == whole.seconds


@pytest.mark.parametrize("seed", SEEDS)
def test_every_partition_has_one_reader_in_each_group(seed: str) -> None:
    fleet = layout(seed)
    for group in GROUPS:
        read = [number for numbers in fleet.workers[group] for number in numbers]
        assert sorted(read) == list(range(fleet.partitions))
        assert len(fleet.consumers(group)) == len(fleet.workers[group])


@pytest.mark.parametrize("seed", SEEDS)
def test_nothing_is_in_two_actions_at_a_time(seed: str) -> None:
    fleet = layout(seed)
    for plan in rounds(seed, fleet):
        free: dict[str, float] = {}
        for action in plan.actions:
            if action.kind != "rotate":
                assert all(action.at >= free.get(name, 0.0) for name in holds(action, fleet)), plan
                free.update(dict.fromkeys(holds(action, fleet), action.at + action.seconds))


def test_actions_have_targets_that_exist_and_times_within_their_round() -> None:
    for seed in SEEDS:
        fleet = layout(seed)
        known = {*fleet.programs, *fleet.sources, *fleet.disks, *GROUPS, "server"}
        for plan in rounds(seed, fleet):
            assert [action.at for action in plan.actions] == sorted(action.at for action in plan.actions)
            for action in plan.actions:
                assert action.target in known
                assert 0.0 <= action.at <= plan.seconds
                assert 0.0 <= action.seconds <= 3.0


def test_all_kinds_of_trouble_come_up() -> None:
    counts: Counter[str] = Counter()
    for seed in SEEDS:
        for plan in rounds(seed, layout(seed)):
            counts.update(action.kind for action in plan.actions)
            counts.update({"rewind": plan.rewind == "restore"})
    assert set(counts) == set(KINDS)
    assert min(counts.values()) > 20
