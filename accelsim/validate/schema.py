"""The measurement schema, under the name that it had before calibration needed it too."""

from accelsim.calibration.measurements import (
    MEASURED,
    check_measurements,
    matrix_precision,
    read_measurements,
    roofline,
)

__all__ = ["MEASURED", "check_measurements", "matrix_precision", "read_measurements", "roofline"]
