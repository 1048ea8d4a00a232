"""What a worker gives an engine to do.

A training is work of another kind: it is begun and updated step by step, see
`training.training_run`.
"""

from sdapi.engine.extras_job import ExtrasJob
from sdapi.engine.job import Job

Work = Job | ExtrasJob
