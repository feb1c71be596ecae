"""Private, secure and federated inference against published figures and exact results.

Nothing is fitted on these rows. A row without a published figure is compared with an exact result.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from accelsim.core.paths import data_folder
from accelsim.engine.confidential import confidential_query
from accelsim.engine.training import training_bill
from accelsim.serving.federated import Participants, federated
from accelsim.serving.federated_round import expected_kth_s
from accelsim.techniques.federation import SecureAggregation
from accelsim.validate.table import Table
from accelsim.validate.techniques import error_pct

if TYPE_CHECKING:
    import pandas as pd

TARGET_PCT = 20.0
"""How close a scored row should be [%]."""

ROUNDS = 400
"""Rounds behind a mean that is compared with an exact one."""

_COLUMNS = (
    "what", "device", "published_low", "published_high", "predicted", "predicted_low", "predicted_high",
    "error_pct", "scored", "remark", "source",
)  # fmt: skip

Row = Mapping[str, Any]


def tables() -> Iterator[Table]:
    """The frontier part of the validation report.

    Yields
    ------
    Table
    """
    frame = rows()
    yield Table(
        "Federated, private and confidential",
        f"Error [%] to the nearer end of the published range, 0 inside it; target {TARGET_PCT:.0f} % where "
        "scored. Constants of encrypted transfers are assumed, none is fitted; predicted_low and "
        "predicted_high are the ends of their range.",
        frame[[c for c in _COLUMNS if c != "source"]],
    )
    yield Table("Sources of these rows", "In the order of the table above.", frame[["what", "source"]])


def rows() -> pd.DataFrame:
    """Every published figure beside the model's.

    Returns
    -------
    DataFrame
        ``what device published_low published_high predicted predicted_low predicted_high error_pct scored
        remark source``; ``error_pct`` is signed.
    """
    import pandas as pd

    table = pd.read_csv(data_folder("validation") / "frontier" / "published.csv", keep_default_na=False)
    found = []
    for record in table.to_dict("records"):
        row = {str(name): value for name, value in record.items()}
        answer = _CHECKS[str(row["check"])](row)
        low, high = (
            float(answer.get(f"published_{end}", row[f"published_{end}"] or math.nan))
            for end in ("low", "high")
        )
        found.append(
            {
                "predicted_low": math.nan,
                "predicted_high": math.nan,
                **row,
                **answer,
                "published_low": low,
                "published_high": high,
                "error_pct": error_pct(answer["predicted"], low, high),
            }
        )
    return pd.DataFrame(found)[list(_COLUMNS)]


def _settings(row: Row) -> dict[str, Any]:
    """``users=1024 bits=16`` as numbers by name, in order."""
    return {name: int(value) for name, value in (pair.split("=") for pair in str(row["settings"]).split())}


def _expansion(row: Row) -> dict[str, float]:
    users, elements, bits = _settings(row).values()
    secure = SecureAggregation()
    whole = secure.sent_bytes(users, elements, bits) + secure.received_bytes(users)
    return {"predicted": whole / (elements * bits / 8)}


def _straggler(row: Row) -> dict[str, float]:
    devices, accept = _settings(row).values()
    client = Participants("device", devices, step_s=1.0, cv=1.0)
    mean = federated(client, parameters=1, accept=accept, rounds=ROUNDS).summary["round_mean_s"]
    exact = expected_kth_s(1.0, devices, accept)
    return {"predicted": mean, "published_low": exact, "published_high": exact}


def _confidential(row: Row) -> dict[str, float]:
    held = confidential_query(str(row["what"]).split(",")[0], row["device"], **_settings(row))
    shares = [held[name] for name in ("overhead_pct", "overhead_low_pct", "overhead_high_pct")]
    if "throughput" in str(row["what"]):
        shares = [share / (1.0 + share / 100.0) for share in shares]
    return dict(zip(("predicted", "predicted_low", "predicted_high"), shares))


def _adversarial(row: Row) -> dict[str, float]:
    bill = training_bill("resnet50", row["device"], **_settings(row))
    return {"predicted": bill.summary["multiplier"] if bill.feasible else math.nan}


_CHECKS: dict[str, Callable[[Row], dict[str, float]]] = {
    "expansion": _expansion,
    "straggler": _straggler,
    "confidential": _confidential,
    "adversarial": _adversarial,
}
