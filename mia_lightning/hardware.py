"""stub"""
from dataclasses import dataclass
@dataclass
class Hardware:
    accelerator: str = "auto"
    """x"""
