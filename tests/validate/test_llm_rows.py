"""Measured serving rows: labels, split and replay."""

from importlib.util import find_spec

import pytest

pytestmark = pytest.mark.skipif(
    find_spec("aiconfigurator_core") is None, reason="aiconfigurator-core is not installed"
)


@pytest.fixture(scope="module")
def frame():
    from accelsim.validate.llm_rows import table

    return table()


def test_every_row_is_there_and_excluded_rows_say_why(frame):
    assert len(frame) == 5221
    counts = frame[frame["mode"] == "agg"]["excluded"].value_counts()
    assert counts[""] > 2700
    assert all(reason for reason in counts.index if reason != "")


def test_repaired_labels_count_devices_once(frame):
    """A node has eight GPUs; GB200 and GB300 rows that claim more tensor ranks are left out."""
    used = frame[(frame["mode"] == "agg") & (frame["excluded"] == "")]
    assert used["tp_size"].max() == 8
    assert used["attention_dp_size"].max() == 8


def test_a_measurement_is_on_one_side_of_the_split(frame):
    aggregated = frame[frame["mode"] == "agg"]
    same = ["system", "backend", "isl", "osl", "batch_size", "silicon_ttft_ms", "silicon_tpot_ms"]
    assert (aggregated.groupby(same)["test"].nunique() == 1).all()
    assert 0.15 < aggregated["test"].mean() < 0.28


def test_replay_of_a_training_row_is_near_and_repeats():
    from accelsim.serving.llm.policy import Host
    from accelsim.validate.llm_rows import rows
    from accelsim.validate.llm_serving import replay

    row = next(
        r for r in rows() if not r.test and r.model.startswith("meta-llama/Llama-3.1-70B") and r.osl == 1024
    )
    a, b = replay(row, Host()), replay(row, Host())
    assert (a.ttft_s, a.tpot_s) == (b.ttft_s, b.tpot_s)
    assert 0.5 < a.tpot_s / row.tpot_s < 2


def test_flags_of_campaigns_are_documented_values_and_come_from_training_rows():
    from accelsim.validate.llm_campaigns import branch_of, known
    from accelsim.validate.llm_rows import rows

    trained = {name for r in rows() if not r.test for name in (r.campaign, branch_of(r))}
    for campaign, flags in known().items():
        assert "|" not in campaign or campaign in trained
        assert flags.stream in (1, 4, 10, 20, 30)
        assert flags.poll in (1, 30)
        assert flags.drafts in (0, 3)
        assert flags.short in (0, 1)


def test_a_branch_of_a_launch_script_goes_before_its_campaign_and_that_before_the_backend():
    from dataclasses import replace

    from accelsim.serving.llm.machine import Split
    from accelsim.validate.llm_campaigns import DEFAULT, Settings, branch_of, usual_of
    from accelsim.validate.llm_rows import rows

    row = replace(next(r for r in rows() if r.backend == "trtllm"), isl=1024, osl=1024, split=Split(tensor=4))
    whole = replace(row, split=Split(tensor=8))
    longer = replace(row, isl=8192)
    assert len({branch_of(r) for r in (row, whole, longer)}) == 3
    assert branch_of(replace(row, users=row.users + 1)) == branch_of(row)
    table = {"trtllm": Settings(1), row.campaign: Settings(10), branch_of(row): Settings(20)}
    assert [usual_of(r, table).stream for r in (row, whole, longer)] == [20, 10, 10]
    assert usual_of(whole, {"trtllm": Settings(30)}).stream == 30
    assert usual_of(row, {}) == DEFAULT


def test_an_engine_without_a_place_for_each_user_lets_requests_wait_for_completions():
    """With one place less than users, one of them always waits; with equal service, an n-th of a round."""
    from accelsim.serving.llm.policy import Host
    from accelsim.validate.llm_campaigns import Settings
    from accelsim.validate.llm_rows import rows
    from accelsim.validate.llm_serving import replay

    row = next(
        r
        for r in rows()
        if not r.test and "|1.0.0rc3|" in r.campaign and "Llama" in r.model and r.users == 8 and r.osl == 512
    )
    enough, short = (replay(row, Host(), settings=Settings(short=n)) for n in (0, 1))
    round_s = enough.ttft_s + 0.9 * row.osl * enough.tpot_s
    assert 0.7 < (short.ttft_s - enough.ttft_s) / (round_s / row.users) < 1.2


def test_few_users_are_looked_for_more_often():
    from dataclasses import replace

    from accelsim.validate.llm_campaigns import Settings, settings_of
    from accelsim.validate.llm_rows import rows

    row = next(r for r in rows() if r.backend == "sglang" and r.split.data == 1)
    assert settings_of(replace(row, users=8), Settings(poll=30)).poll == 10
    assert settings_of(replace(row, users=16), Settings(poll=30)).poll == 30


def test_speculation_shortens_steps_per_token():
    from accelsim.serving.llm.policy import Host
    from accelsim.validate.llm_campaigns import Settings
    from accelsim.validate.llm_rows import rows
    from accelsim.validate.llm_serving import ACCEPTANCE, replay

    row = next(
        r
        for r in rows()
        if not r.test and r.backend == "trtllm" and "DeepSeek" in r.model and r.users == 4 and r.osl == 1024
    )
    plain, drafted = (replay(row, Host(), settings=Settings(drafts=d)).tpot_s for d in (0, 3))
    most = sum(ACCEPTANCE**i for i in range(4))
    assert 1 / most < drafted / plain < 1
