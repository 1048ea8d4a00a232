"""Finding faces and their landmarks in small pictures, with dlib.

The detector is dlib's own. The landmark predictor is trained here, on renderings whose landmarks
are known, because dlib's is a download. It takes about a minute and is kept in the run's folder.
"""

from dataclasses import dataclass
from pathlib import Path

import dlib
import numpy as np
from PIL import Image

from tools.demo_model.pictures.dataset import Picture, Portrait, draw_sample, render
from tools.demo_model.pictures.features import Points, true_landmarks

DETECTION_SIZE = 384  # the detector needs faces of 80 pixels, so small pictures are enlarged
_STREAM = 3  # samples that neither training nor the other measurements use


def enlarge(picture: Picture) -> Picture:
    """The picture at the size on which faces are looked for."""
    image = Image.fromarray(picture).resize(
        (DETECTION_SIZE, DETECTION_SIZE), Image.Resampling.LANCZOS
    )
    return np.asarray(image)


@dataclass(frozen=True, slots=True)
class FaceFinder:
    """dlib's frontal detector, and the predictor for our landmarks."""

    detector: dlib.fhog_object_detector
    predictor: dlib.shape_predictor

    def find(self, picture: Picture) -> list[Points]:
        """The landmarks of every face in a square picture, in its own pixels."""
        large = enlarge(picture)
        faces = [self.predictor(large, box) for box in self.detector(large, 0)]
        scale = picture.shape[0] / DETECTION_SIZE
        return [
            (np.array([(p.x, p.y) for p in face.parts()], float) + 0.5) * scale - 0.5
            for face in faces
        ]


def _training_example(
    detector: dlib.fhog_object_detector, index: int, size: int
) -> tuple[Picture, dlib.full_object_detection] | None:
    """A rendering with its landmarks inside the box that the detector reports."""
    sample = draw_sample(_STREAM, index)
    if not isinstance(sample, Portrait):
        return None
    large = enlarge(render(sample, size))
    boxes = detector(large, 0)
    if len(boxes) != 1:
        return None
    scale = DETECTION_SIZE / size
    true = (true_landmarks(sample.who, sample.view, size) + 0.5) * scale - 0.5
    points = [dlib.point(int(x), int(y)) for x, y in np.rint(true)]
    return large, dlib.full_object_detection(boxes[0], points)


def make_face_finder(path: Path, size: int = 128, count: int = 700) -> FaceFinder:
    """Load the predictor at `path`, or train it and put it there."""
    detector = dlib.get_frontal_face_detector()
    if not path.exists():
        examples = [_training_example(detector, i, size) for i in range(count)]
        kept = [example for example in examples if example is not None]
        options = dlib.shape_predictor_training_options()
        options.cascade_depth, options.num_trees_per_cascade_level = 10, 200
        options.oversampling_amount, options.nu, options.tree_depth = 10, 0.1, 4
        options.num_threads, options.random_seed = 2, "1"
        trained = dlib.train_shape_predictor([e[0] for e in kept], [[e[1]] for e in kept], options)
        trained.save(str(path))
    return FaceFinder(detector, dlib.shape_predictor(str(path)))
