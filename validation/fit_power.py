"""Fit the power model of the B200 on training rows and print it as YAML for ``_blackwell.yaml``.

python validation/fit_power.py              # needs the extra 'validation'
python validation/fit_power.py --inner      # fit on four fifths of the training groups, score the fifth
python validation/fit_power.py --sensor     # constants of the sensor, for accelsim/validate/power.py
"""

from __future__ import annotations

import argparse
import sys
from datetime import date

from accelsim.calibration.power import Fitted, fit_power, fit_sensor, predict_power
from accelsim.calibration.splits import held_out
from accelsim.hardware.spec import load_hardware
from accelsim.validate import power


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--inner", action="store_true", help="score on an inner fold of the training rows")
    parser.add_argument("--sensor", action="store_true", help="fit what the driver reads of short kernels")
    inner, sensor = (getattr(parser.parse_args(), name) for name in ("inner", "sensor"))
    frame = power.rows()
    if sensor:
        frame = frame[~held_out(frame)].reset_index(drop=True)
        predicted = predict_power(frame, load_hardware(power.DEVICE), power.STACK)
        for op, found in fit_sensor(frame.assign(predicted_w=predicted)).items():
            sys.stdout.write(f"{op}: {found}\n")
        return
    frame = frame[~held_out(frame) & (frame["quality"] == "steady").to_numpy()].reset_index(drop=True)
    device = load_hardware(power.DEVICE)
    fold = held_out(frame, salt="power ")
    training = frame[~fold].reset_index(drop=True) if inner else frame
    fitted = fit_power(training, device, power.STACK)
    sys.stdout.write(yaml_of(fitted))
    if inner:
        models = {f.family: f.model for f in fitted}
        kernels = device.kernels.model_copy(update={"power": {**device.kernels.power, **models}})
        refitted = device.model_copy(update={"kernels": kernels, "hash": device.hash + " refitted"})
        rest = frame[fold].reset_index(drop=True)
        rest = rest.assign(predicted_w=predict_power(rest, refitted, power.STACK))
        sys.stdout.write(power.errors(rest, ["op", "precision"]).to_string(index=False) + "\n")


def yaml_of(found: list[Fitted]) -> str:
    """The section ``kernels.power``."""
    lines = [
        "  power:",
        "    status: measured",
        '    source: "fitted on NVML board power of attention and expert layers of vLLM 0.22.0 on B200, '
        "aiconfigurator-core 0.12.0, kernels of 200 us and more with several readings, training groups of "
        f'docs/validation.md, validation/fit_power.py, {date.today():%Y-%m}"',
    ]
    for f in found:
        numbers = {name: getattr(f.model, name) for name in type(f.model).model_fields}
        text = ", ".join(f"{name}: {value if value > 1e-6 else 0:.4g}" for name, value in numbers.items())
        lines.append(f"    {f.family}: {{{text}}}  # {f.rows} rows, mean |log| {f.error:.3f}")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
