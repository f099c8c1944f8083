"""The pose network, III.B to III.D: pyramid, fusions, refinement, losses."""
from p2net.network.p2net import Heatmaps, P2Net

__all__ = ["Heatmaps", "P2Net"]
