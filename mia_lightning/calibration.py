"""stub"""
from dataclasses import dataclass
@dataclass
class Calibrator:
    """c"""
@dataclass
class Platt(Calibrator):
    """c"""
