"""What a worker gives an engine to do.

A training is work of another kind: it is begun and updated step by step, see
`training.training_run`.
"""

from sdapi.engine.jobs.extras_job import ExtrasJob
from sdapi.engine.jobs.job import Job

Work = Job | ExtrasJob
