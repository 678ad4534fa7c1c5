"""Numbers of quality control."""

GOOD = {
    "brain_ml": 1400.0,
    "ncc": 0.65,
    "dice": 0.95,
    "coverage": 1.0,
    "scaling": 1.3,
    "snr": 20.0,
    "foreground": 0.23,
}
