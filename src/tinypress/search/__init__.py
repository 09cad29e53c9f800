"""Choose: which widths, heads and layers a network keeps under a budget."""

from tinypress.search.architecture import search_architecture
from tinypress.search.netadapt import Searched, Tried, adapt_architecture

__all__ = ["Searched", "Tried", "adapt_architecture", "search_architecture"]
