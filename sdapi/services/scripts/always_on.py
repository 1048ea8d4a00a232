"""Lets the always-on scripts of a request act on its options and its job."""

import logging
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from sdapi.engine.jobs.job import Job
from sdapi.errors import SDAPIError
from sdapi.options import Options
from sdapi.services.scripts.registry import CalledScript
from sdapi.services.scripts.script import Kind, Preparation, Script

log = logging.getLogger(__name__)


class ScriptFailed(SDAPIError):
    """A defect of a script that the request named."""

    status, code = 500, "script_failed"


def script_options(
    called: Iterable[CalledScript], options: Options, kind: Kind
) -> Mapping[str, Any]:
    """The options that scripts set for a request, a later script's over an earlier one's."""
    found: dict[str, Any] = {}
    for each in called:
        with _guarded(each, lambda _: None):
            found.update(each.script.overrides(each.args, options, kind))
    return found


def prepare_job(job: Job, called: Iterable[CalledScript], preparation: Preparation) -> Job:
    """The job as the scripts want it, with what they do while it is drawn."""
    for each in called:
        with _guarded(each, preparation.warnings.append):
            prepared = each.script.prepare(job, each.args, preparation)
            stages = each.script.stages(prepared, each.args)
            job = prepared
            if stages is not None:
                job = replace(job, stages=(*job.stages, stages))
    return job


def read_infotext(scripts: Iterable[Script], parameters: Mapping[str, object]) -> dict[str, object]:
    """The parameters of an infotext, with what the scripts read out of their own."""
    found = dict(parameters)
    for script in scripts:
        try:
            found.update(script.read_infotext(parameters))
        except Exception:  # a script's defect costs what it would have read
            log.exception("the script %r failed", script.name)
    return found


@contextmanager
def _guarded(called: CalledScript, warn: Callable[[str], None]) -> Generator[None]:
    """A defect of a script that nobody asked for costs its effect, not the request."""
    try:
        yield
    except SDAPIError:
        raise
    except Exception as error:
        sentence = f"the script {called.script.name!r} failed: {type(error).__name__}"
        log.exception(sentence)
        if called.is_named:
            raise ScriptFailed(sentence) from error
        warn(sentence)
