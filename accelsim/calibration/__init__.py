"""From measurements to the constants of a device and to error bands: files, splits, fits, conformal bands."""
