"""Probes: what can be read from the features of a frozen network, by estimators of scikit-learn.

``LinearProbe`` pools features in a fixed way and fits a logistic regression; ``TrainedProbe`` trains pool and
classifier by gradients. Both choose their own settings on validation images, and refit on all.
"""

from gcplib.probe.linear import LinearProbe
from gcplib.probe.trained import AttentionPool, TrainedProbe

__all__ = ["AttentionPool", "LinearProbe", "TrainedProbe"]
