import pytest
from PIL import Image

from sdapi.engine.jobs.job import GeneratedImage, Result
from sdapi.errors import ShuttingDown
from sdapi.services.jobs.tasks import TaskRegistry
from sdapi.services.jobs.telling.cut_short import WARNING, told_of_stop

PICTURES = (GeneratedImage(0, Image.new("RGB", (8, 8))),)


def running_tasks() -> TaskRegistry:
    tasks = TaskRegistry()
    tasks.begin(tasks.create("txt2img", "one"))
    return tasks


def test_what_was_cut_short_keeps_its_warnings_and_gets_one_more():
    tasks = running_tasks()
    tasks.cut_short()
    task = tasks.get("one")
    assert task is not None
    told = told_of_stop(task, Result(PICTURES, {}, ("mind", "this"), interrupted=True))
    assert told.warnings == ("mind", "this", WARNING)


def test_what_was_done_before_it_could_be_cut_short_is_whole():
    tasks = running_tasks()
    tasks.cut_short()
    task = tasks.get("one")
    assert task is not None
    done = Result(PICTURES, {})
    assert told_of_stop(task, done) is done


@pytest.mark.parametrize(("images", "wants_whole"), [((), False), (PICTURES, True)])
def test_nothing_or_a_part_that_is_of_no_use_is_an_error_that_passes(
    images: tuple[GeneratedImage, ...], wants_whole: bool
):
    tasks = running_tasks()
    tasks.cut_short()
    task = tasks.get("one")
    assert task is not None
    with pytest.raises(ShuttingDown, match="stopped before"):
        told_of_stop(task, Result(images, {}, interrupted=True), wants_whole=wants_whole)
