"""A moving average that starts at the first value and not at zero.

The rule this module protects: what is drawn is smoothed, what is said in numbers is measured.
"""

from __future__ import annotations

import numpy as np

from tui.metrics.options import KEEP
from tui.metrics.thinning import Floats


def smoothed(values: Floats, keep: float = KEEP) -> Floats:
    """Return the exponential moving average with Adam's correction of the bias towards zero.

    m_t = keep * m_(t-1) + (1 - keep) * x_t, divided by 1 - keep**t (Kingma and Ba 2015, section 3).
    A value that is not finite stays as it is and does not count.
    """
    result = np.array(values)
    mean, weight = 0.0, 0.0
    for index in np.flatnonzero(np.isfinite(values)):
        mean = keep * mean + (1 - keep) * float(values[index])
        weight = keep * weight + (1 - keep)
        result[index] = mean / weight
    return result
