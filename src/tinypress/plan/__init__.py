"""Choose: which widths, heads and layers a network keeps under a budget."""

from tinypress.plan.architecture import search_architecture
from tinypress.plan.netadapt import Searched, Tried, adapt_architecture

__all__ = ["Searched", "Tried", "adapt_architecture", "search_architecture"]
