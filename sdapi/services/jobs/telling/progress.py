"""How far a task is, as one number (contract: webui-api 8.3)."""

from sdapi.services.jobs.tasks import State, Task

#: What a job shows before its first step.
_FLOOR = 0.01


def progress_of(task: Task) -> float:
    """The share of a task's work that is done, not capped at 1; 0 while it waits."""
    return _FLOOR + work_done(task) if task.state is State.RUNNING else 0.0


def work_done(task: Task) -> float:
    """As `progress_of`, but nothing is nothing, as the page's progress has it."""
    monitor, share = task.monitor, 0.0
    if monitor.job_count > 0:
        share += monitor.job_no / monitor.job_count
        if monitor.sampling_steps > 0 and monitor.job_no < monitor.job_count:
            share += monitor.sampling_step / monitor.sampling_steps / monitor.job_count
    return share
