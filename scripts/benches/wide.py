"""Four seeds of the larger networks: a residual network on digits, and masked language modelling."""

from __future__ import annotations

from benches.base import Subject
from benches.seeds import Work, compare

RESNET = Work("digits, ResNet-20", ("task=digits", "model=resnet20"), seeds=4, steps=150, bar=1.2, measured=2)
MLM = Work("mlm", ("task=mlm",), seeds=4, steps=400, bar=1.2, measured=2)
SUBJECTS = [
    Subject("resnet20", "4 seeds of digits with ResNet-20 against the loops", lambda o: compare(RESNET, o)),
    Subject("mlm", "4 seeds of masked language modelling against the loops", lambda o: compare(MLM, o)),
]
