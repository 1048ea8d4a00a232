"""What a worker gives an engine to do."""

from sdapi.engine.extras_job import ExtrasJob
from sdapi.engine.job import Job

Work = Job | ExtrasJob
