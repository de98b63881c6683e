"""Out-of-fold scores, calibration and files of scores."""
