"""Why a candidate loses quality: which step, which layer, what mends it."""

from tinypress.plan.diagnose.diagnose import diagnose, read_diagnosis

__all__ = ["diagnose", "read_diagnosis"]
