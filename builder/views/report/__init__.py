"""One build as one HTML page, which needs nothing but itself."""

from builder.views.report.page import page
from builder.views.report.told import Told

__all__ = ["Told", "page"]
