"""Fleets from files are those from code; mistakes are named with their place."""

from __future__ import annotations

from pathlib import Path

import pytest

import accelsim as ax
from accelsim.serving import (
    Client,
    Crash,
    Fleet,
    Knative,
    Nearest,
    Place,
    Pool,
    QueueLimit,
    Replica,
    Swap,
    TableService,
    serve_fleet,
)

TEXT = """
name: vision
places: {edge: {delay_s: 0.002, bytes_per_s: 1.0e+8}}
client: {timeout_s: 0.5, retries: 1}
pools:
  detector:
    balancer: {nearest: {spill: 4}}
    replicas:
      - {model: {linear: {fixed_s: 0.004, per_item_s: 0.0005}}, count: 2, name: box, place: edge,
         batching: {triton: {max_batch: 8}}}
  classifier:
    after: [detector]
    fan_out: 3
    admission: {queue: {most: 200}}
    autoscaler: {knative: {target: 20, least: 1}}
    replicas: [{model: {table: {1: 0.002, 8: 0.004}}, name: measured, batching: greedy}]
faults: [{crash: {replica: box-0, at_s: 1, for_s: 0.5}}]
changes:
  - swap: {at_s: 2, pool: detector, replica: {model: {linear: {fixed_s: 0.003}}, name: new, version: 2}}
"""


def _read(tmp_path: Path, text: str) -> Fleet:
    path = tmp_path / "fleet.yaml"
    path.write_text(text)
    return Fleet.from_file(path)


def test_a_file_is_the_fleet_that_code_makes(tmp_path: Path) -> None:
    box = Replica(
        ax.LinearService(0.004, 0.0005),
        batching=ax.Triton(8),
        count=2,
        name="box",
        place=Place("edge", 0.002, 1e8),
    )
    fleet = Fleet(
        (
            Pool(box, "detector", Nearest(4)),
            Pool(
                Replica(TableService({1: 0.002, 8: 0.004}), name="measured"),
                "classifier",
                admission=QueueLimit(200),
                autoscaler=Knative(target=20, least=1),
                after=("detector",),
                fan_out=3,
            ),
        ),
        Client(timeout_s=0.5, retries=1),
        (Crash("box-0", at_s=1, for_s=0.5),),
        (Swap(2, Replica(ax.LinearService(0.003), name="new", version="2"), "detector"),),
        "vision",
    )
    assert _read(tmp_path, TEXT) == fleet
    assert (
        serve_fleet(_read(tmp_path, TEXT), arrivals=ax.Poisson(100), requests=400).summary["in_flight"] == 0
    )


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("fan_out: 3", "fanout: 3", r"pools.classifier: unknown key 'fanout'; did you mean fan_out"),
        ("{triton:", "{tritn:", r"replicas\[0\].batching: unknown kind 'tritn'; did you mean triton"),
        ("{nearest:", "{neerest:", r"balancer: unknown kind 'neerest'"),
        ("place: edge", "place: egde", r"replicas\[0\].place: unknown place 'egde'; did you mean edge"),
        ("delay_s: 0.002", "delay_s: -1", r"places.edge: the network delay of 'edge'"),
        ("delay_s: 0.002", "delay_s: 2 ms", r"places.edge.delay_s: '2 ms' is not a number"),
        ("after: [detector]", "after: [classifier]", "cycle through"),
        ("count: 2", "count: 0", "zero replicas"),
        ("at_s: 1,", "", "either a time"),
        ("faults: [", "faults: [{crash: {at_s: 1}, slow: {}}, ", r"faults\[0\]: expected one kind"),
        ("at_s: 2, pool", "pool", r"changes\[0\].swap: 'at_s' is missing"),
        ("{1: 0.002, 8: 0.004}", "5", r"model.table: expected keys"),
        ("name: vision", "nam: vision", "unknown key 'nam'"),
        ("retries: 1", "retries: one", r"client.retries: 'one' is not a number"),
    ],
)
def test_mistakes_are_named_with_their_place(tmp_path: Path, old: str, new: str, words: str) -> None:
    assert old in TEXT
    with pytest.raises(ax.AccelsimError, match=words) as caught:
        _read(tmp_path, TEXT.replace(old, new))
    assert "fleet.yaml" in str(caught.value)
    assert "\n" not in str(caught.value)
