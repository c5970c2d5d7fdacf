"""How good a tagger is: metrics, calibration, baselines and reports."""
