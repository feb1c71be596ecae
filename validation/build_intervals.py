"""Write the table of GPU error bands, ``hwconfigs/gpu/_intervals.csv``, from measured training rows.

python validation/build_intervals.py                      # needs the extra 'validation'
python validation/build_intervals.py --deepbench PATH     # V100 as well
python validation/build_intervals.py --scores PATH.csv    # and score the bands on test rows
python validation/build_intervals.py --inner              # only score: on some training rows, bands of others

Devices that are left out are scored with bands that know nothing of their family.
"""

from __future__ import annotations

import argparse
import sys
import time
from datetime import date
from pathlib import Path

from accelsim.core.files import write_whole
from accelsim.core.paths import data_folder
from accelsim.validate import bands


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rows", type=int, default=1200, help="rows of each device and kind of operator")
    parser.add_argument("--deepbench", type=Path, help="checkout of DeepBench, or its V100 sheet")
    parser.add_argument("--out", type=Path, default=data_folder("hwconfigs") / "gpu" / "_intervals.csv")
    parser.add_argument("--scores", type=Path, help="CSV for coverage and width on held-out rows")
    parser.add_argument("--inner", action="store_true", help="only score, on a fold of the training rows")
    options = parser.parse_args()
    start = time.monotonic()
    training = bands.gathered(False, options.rows, options.deepbench)
    if options.inner:
        _score(*bands.inner(training), options.scores)
        return
    table = bands.table(training)
    sets = "aiconfigurator-core 0.12.0" + (" and DeepBench" if options.deepbench else "")
    today = date.today().isoformat()
    head = (
        "# Bands of measured over predicted latency that hold the share 'level' of rows. Logarithm of an\n"
        "# end: middle + log(low or high) exp(spread); middle and spread are linear in what a model knows.\n"
        f"# Training rows of {sets}, {today}, by validation/build_intervals.py --rows {options.rows}.\n"
        "# Basis 'measured': the device's own rows; 'left out': its family was left out of every fit.\n"
        "# Row 'common': share of the variance that kernels of a run have in common.\n"
    )
    write_whole(options.out, head + table.to_csv(index=False))
    sys.stdout.write(f"{options.out}: {len(table)} rows in {time.monotonic() - start:.0f} s\n")
    if options.scores is not None:
        _score(bands.gathered(True, options.rows, options.deepbench), training, options.scores)


def _score(test: bands.Measured, training: bands.Measured, path: Path | None) -> None:
    scored = bands.scores(test, training)
    if path is not None:
        write_whole(path, scored.to_csv(index=False, float_format="%.4g"))
    sys.stdout.write(scored.to_string(index=False, float_format="%.1f") + "\n")


if __name__ == "__main__":
    main()
