import json

import pytest

from sdapi.portrait import faults
from sdapi.portrait.state.records import Job, JobState
from sdapi.portrait.wire import jobs


@pytest.mark.parametrize(
    ("created_s", "text"),
    [
        (1692693815.36, "2023-08-22T16:43:35.36+08:00"),
        (1692690881.046, "2023-08-22T15:54:41.046+08:00"),
        (1692690881.0, "2023-08-22T15:54:41+08:00"),
        (1692690881.5, "2023-08-22T15:54:41.5+08:00"),
        (1692690880.9999, "2023-08-22T15:54:41+08:00"),
    ],
)
def test_times_are_chinas_without_zeros_at_the_end(created_s: float, text: str):
    assert jobs.local_time(created_s) == text


def test_a_job_shows_its_result_as_text_under_a_capital():
    state = {"code": 1, "frontal": False, "message": "success", "url": "a.jpg"}
    done = jobs.succeeded("m", [state], 1.5, {"base": "sd15"})
    job = Job("app:1", "m", {}, "1", 7, JobState.SUCCEEDED, done.message, done.result, 0.0)
    shown = jobs.job_on_wire(job, "1")
    assert list(shown) == ["id", "app_id", "state", "message", "create_time", "Result", "type"]
    assert (shown["id"], shown["app_id"], shown["state"]) == (7, "1", 2)
    assert shown["Result"] == (
        '{"cost_time":1.5,"states":[{"code":1,"frontal":false,"message":"success",'
        '"url":"a.jpg"}],"model_id":"m"}'
    )


def test_a_failed_job_tells_its_fault_in_both_places():
    failed = jobs.failed(faults.IMAGES_UNUSABLE, is_corrected=False)
    assert failed.state is JobState.FAILED
    assert failed.message == "Image process error"
    assert json.loads(failed.result) == {
        "status": 462,
        "code": "error",
        "message": "Image process error",
    }
