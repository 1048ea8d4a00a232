"""How near portraits come to their person, over the templates' own faces; end to end.

usage: python -m benchmarks.portrait_likeness [--steps N] [--data FOLDER] [--person N]
                                              [--only PART ...]

A server as users start it, on the demo checkpoint, is asked through its queue: ten rendered photos
of a person nobody has seen are checked and trained; then portraits are made from templates of other
people, of a group with its ids swapped, from one reference photo, and from texts. Prints embedding
distances, by how much they fall, and seconds; also how far they would fall if the portrait were the
person's own face, rendered with the template's hair and skin tone, which is the most that can be
had. With a folder the trained person stays for the next run. Goals: a fall of 25 % (trained) and of
15 % (reference) on average, 400 steps in 10 minutes, a portrait in one, nine of ten texts.
"""

import argparse
import base64
import io
import json
import tempfile
import time
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import requests
from PIL import Image

from sdapi.portrait.creation.face_tasks import see_pixels
from sdapi.portrait.faces.face import Embedding, Face, Pixels, distance
from sdapi.portrait.faces.providers import Choices, Providers
from sdapi.portrait.pixels.frame import grown_box
from tests.photo_server import PhotoServer, photo_server
from tests.portraits.portrait_models import jpeg, picture, png
from tests.servers import ROOT, server_process
from tools.demo_model.pictures.person import draw_identity

#: people whom the measure tells from others: had they the templates' hair and skin, they would
#: still be known
PERSON, OTHER = 8, 7
TEMPLATES: Final = (3, 12, 20, 33, 41)
GROUPS: Final = ((33, 41), (33, 41, 20))
TEXTS: Final = (
    "a woman with red hair",
    "a man in a blue shirt",
    "portrait of a girl with blonde hair",
    "a person, green background",
    "a woman with long black hair, wearing a white shirt",
)
PARTS: Final = ("trained", "reference", "groups", "texts")
PLAIN: Final = {
    "first_diffusion_steps": 20,
    "second_diffusion_steps": 20,
    "skin_retouching_bool": False,
    "photo_enhancement_bool": False,
    "sharp_ratio": 0,
}
_HAIR: Final = ("hair", "hair_name", "hair_length", "has_fringe", "part", "hair_volume", "wave")
_TONE: Final = ("skin", "skin_name")
_WAIT_S: Final = 1800


class Faces:
    """Looks at pictures with the built-in providers, as the server does."""

    def __init__(self) -> None:
        self.providers = Providers(Choices.make(ROOT / "models", {}))

    def largest(self, rgb: Pixels) -> Face | None:
        """The widest face; None where there is none."""
        faces = see_pixels(self.providers, rgb).faces
        return max(faces, key=lambda face: face.width, default=None)

    def embedding(self, rgb: Pixels) -> Embedding | None:
        """Of the largest face; None where there is none."""
        face = self.largest(rgb)
        return None if face is None else self.providers.embedder.embed(rgb, face)

    def known(self, who: int) -> Embedding:
        """Of a person by number, in a picture that nothing is trained on."""
        found = self.embedding(picture(who, 11))
        if found is None:
            raise SystemExit(f"person {who}: no face is found; choose another")
        return found

    def apart(self, rgb: Pixels, person: Embedding) -> float:
        """The distance of a picture's face to a person's; infinite without a face."""
        found = self.embedding(rgb)
        return np.inf if found is None else distance(found, person, self.providers.embedder.metric)

    def keeps_the_rest(self, template: Pixels, made: Pixels) -> bool:
        """Whether every pixel outside the part that is worked on is the template's."""
        face = self.largest(template)
        if face is None:
            return False
        size = (template.shape[1], template.shape[0])
        left, top, right, bottom = grown_box(face.box, 3.0, size)
        same = (template == made).all(axis=2)
        same[top:bottom, left:right] = True
        return bool(same.all())


class Queue:
    """The portrait services of a server's queue."""

    def __init__(self, url: str, photos: PhotoServer) -> None:
        self.url = f"{url}/api/predict"
        self.photos = photos

    def shown(self, name: str, data: bytes) -> str:
        """The URL of a picture that the server may fetch."""
        self.photos.files[name] = data
        return f"{self.photos.url}/{name}"

    def ask(self, service: str, body: dict[str, Any]) -> tuple[Any, float]:
        """The answer to a request that succeeds, and its seconds; raises RuntimeError otherwise."""
        started = time.monotonic()
        body = {"request_id": 1, **body}
        put = requests.post(f"{self.url}/{service}", data=json.dumps(body), timeout=30)
        put.raise_for_status()
        while time.monotonic() < started + _WAIT_S:
            got = requests.get(f"{self.url}/{service}/sink?_timeout_=20s", timeout=40)
            if got.status_code == 200:
                answer = got.json()
                if answer["code"] != "OK":
                    raise RuntimeError(f"{service}: {answer['code']} {answer['message']}")
                return answer["data"], time.monotonic() - started
        raise RuntimeError(f"{service}: no answer in {_WAIT_S} s")

    def portrait(self, configure: dict[str, Any], template: Pixels | None) -> tuple[Pixels, float]:
        """A portrait without retouching, and its seconds."""
        body: dict[str, Any] = {"configure": {**PLAIN, **configure}}
        if template is not None:
            body["template_image"] = self.shown("template.png", png(template))
        data, seconds = self.ask("photog_pre_pmml", body)
        made = Image.open(io.BytesIO(base64.b64decode(data["image"])))
        return np.asarray(made.convert("RGB")), seconds


def name_of(who: int, steps: int) -> str:
    """Of a person's model: a folder that is kept may have those of other runs."""
    return f"person-{who}-{steps}"


def train(queue: Queue, name: str, who: int, steps: int) -> None:
    """Check and train a person from ten photos."""
    photos = [picture(who, how, side=320, scale=0.6) for how in range(10)]
    urls = [queue.shown(f"{name}-{i}.jpg", jpeg(rgb)) for i, rgb in enumerate(photos)]
    checked, check_s = queue.ask(
        "photog_check", {"images": urls, "configure": {"face_reconize": True}}
    )
    codes = [image["code"] for image in checked["check_results"]]
    configure = {"user_id": name, "max_train_steps": steps}
    _, train_s = queue.ask("photog_train_pmml", {"images": urls, "configure": configure})
    print(f"{name}: check {check_s:.1f} s, codes {codes}; {steps} steps {train_s / 60:.1f} min")


def perfect_portrait(person: int, template: int) -> Pixels:
    """A person rendered in a template's place, with its hair and skin tone."""
    own, other = (draw_identity(np.random.default_rng([50, who])) for who in (person, template))
    kept = {name: getattr(other, name) for name in (*_HAIR, *_TONE)}
    return picture(template, 1, identity=replace(own, **kept))


def falls(
    faces: Faces,
    queue: Queue,
    configure: dict[str, Any],
    person: Embedding,
    perfect: Sequence[float],
) -> None:
    """Portraits from five templates, each one's distance to the person against its template's.

    `perfect` has the distance of `perfect_portrait` in each template's place.
    """
    shares: list[float] = []
    best: list[float] = []
    for who, least in zip(TEMPLATES, perfect, strict=True):
        template = picture(who, 1)
        made, seconds = queue.portrait(configure, template)
        before, after = faces.apart(template, person), faces.apart(made, person)
        shares.append(1 - after / before)
        best.append(1 - least / before)
        rest = "kept" if faces.keeps_the_rest(template, made) else "CHANGED"
        print(f"  template {who}: {before:.3f} -> {after:.3f}, {seconds:.1f} s, the rest {rest}")
    print(f"  mean fall {np.mean(shares):.1%}, smallest {min(shares):.1%}")
    print(f"  with a perfect portrait {np.mean(best):.1%}, smallest {min(best):.1%}")


def swapped_groups(faces: Faces, queue: Queue, people: dict[str, Embedding]) -> None:
    """Groups, and the same with their ids swapped: each face is nearer to whom it shows."""
    names = list(people)
    for group in GROUPS:
        template = np.hstack([picture(who, 1, side=400) for who in group])
        ids = [names[i % 2] for i in range(len(group))]
        turned = [names[1 - i % 2] for i in range(len(group))]
        made = [queue.portrait({"user_id": order}, template)[0] for order in (ids, turned)]
        for i in range(len(group)):
            tiles = [rgb[:, 400 * i : 400 * (i + 1)].copy() for rgb in made]
            for name, one, two in ((ids[i], *tiles), (turned[i], *reversed(tiles))):
                own, other = (faces.apart(rgb, people[name]) for rgb in (one, two))
                verdict = "nearer" if own < other else "NOT NEARER"
                face = f"face {i + 1} of {len(group)} as {name}"
                print(f"  {face}: {own:.3f}, else {other:.3f}, {verdict}")


def drawn_templates(faces: Faces, queue: Queue, name: str) -> None:
    """Ten portraits in templates from texts: how many have one face."""
    good = 0
    for number in range(10):
        text = TEXTS[number % len(TEXTS)]
        try:
            made, _ = queue.portrait({"user_id": name, "t2i_prompt": text}, None)
        except RuntimeError as error:
            print(f"  {text}: {error}")
            continue
        count = len(see_pixels(faces.providers, made).faces)
        good += count == 1
        if count != 1:
            print(f"  {text}: {count} faces")
    print(f"  {good} of 10 texts gave a portrait with one face")


def measure(
    queue: Queue, steps: int, parts: Sequence[str], trained: Collection[str], person: int
) -> None:
    """Train whom that was not done with, then print every part's figures."""
    faces = Faces()
    one, other = name_of(person, steps), name_of(OTHER, steps)
    known = {one: faces.known(person), other: faces.known(OTHER)}
    for name, who in ((one, person), (other, OTHER)):
        if name not in trained and (name == one or "groups" in parts):
            train(queue, name, who, steps)
    perfect: list[float] = []
    if {"trained", "reference"} & set(parts):
        perfect += [faces.apart(perfect_portrait(person, who), known[one]) for who in TEMPLATES]
    if "trained" in parts:
        print("trained person")
        falls(faces, queue, {"user_id": one}, known[one], perfect)
    if "reference" in parts:
        print("one reference photo")
        photo = queue.shown("reference.jpg", jpeg(picture(person, 0)))
        only = {"ipa_control_only": True, "ipa_image_path": photo, "user_id": ""}
        falls(faces, queue, only, known[one], perfect)
    if "groups" in parts:
        print("groups")
        swapped_groups(faces, queue, known)
    if "texts" in parts:
        print("templates from texts")
        drawn_templates(faces, queue, one)


def main() -> None:
    """Read the command line, start the server, measure."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--person", type=int, default=PERSON, help="who is trained, by number")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    arguments = parser.parse_args()
    if arguments.person == OTHER:
        parser.error(f"--person {OTHER} is the other one of the groups; choose another")
    with photo_server() as photos, tempfile.TemporaryDirectory() as folder:
        data = arguments.data or Path(folder, "data")
        trained = {path.name for path in data.glob("portrait/users/*")}
        with server_process(data, "--allow-private-urls", "--portrait-processes=1") as server:
            queue = Queue(server.url, photos)
            measure(queue, arguments.steps, arguments.only, trained, arguments.person)


if __name__ == "__main__":
    main()
