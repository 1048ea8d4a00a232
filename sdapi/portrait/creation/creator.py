"""Creation from a request to a picture."""

import logging
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

import anyio.to_thread

from sdapi.errors import BadUrl
from sdapi.portrait import faults
from sdapi.portrait.base.words import Words
from sdapi.portrait.creation import face_tasks
from sdapi.portrait.creation.drawing.bases import Targets
from sdapi.portrait.creation.drawing.prompts import FILM_WEIGHT, SCENE_WEIGHT, Speaker
from sdapi.portrait.creation.drawing.units import UnitMaker
from sdapi.portrait.creation.drawing.webui import Drawer, Inventory
from sdapi.portrait.creation.face_tasks import Seen
from sdapi.portrait.creation.finish import finish
from sdapi.portrait.creation.gathered import template
from sdapi.portrait.creation.gathered.person import Person, load_meta, load_person, see_person
from sdapi.portrait.creation.gathered.sight import Sight
from sdapi.portrait.creation.gathered.studio import Studio
from sdapi.portrait.creation.group import draw_all
from sdapi.portrait.creation.line import Line
from sdapi.portrait.creation.one_face import largest
from sdapi.portrait.creation.one_person import ANIME, OnePerson
from sdapi.portrait.faults import PortraitError
from sdapi.portrait.handlers import Created
from sdapi.portrait.models.artefacts import Artefacts, ModelMeta
from sdapi.portrait.state.records import Base, Model
from sdapi.portrait.tools import Tools
from sdapi.portrait.wire.configure import CreateOptions
from sdapi.portrait.wire.plain_text import without_tags
from sdapi.portrait.wire.requests import CreateRequest

#: the usual file name of the LoRA that makes few steps enough, and how much it is to act
_LCM: Final = {"sd15": ("lcm-lora-sdv1-5", 0.80), "xl": ("lcm-lora-sdxl", 0.40)}
_ADAPTER_IN_TEMPLATE: Final = 0.30
#: creations at a time; each holds its template in memory several times
_AT_ONCE: Final = 4
#: creations that may wait for their turn, and for how long
_MOST_WAITING, _PATIENCE_S = 64, 1800.0
#: pixels of a template of which one is worked on at a time: it is in memory a dozen times
_LARGE: Final = 16_000_000
#: creations that may wait with a large template, at up to 200 MB each
_MOST_LARGE_WAITING: Final = 8
_SEEDS: Final = 65536
log = logging.getLogger(__name__)


class PortraitCreator:
    """The creator of a server."""

    def __init__(
        self,
        tools: Tools,
        drawer: Drawer,
        targets: Targets,
        seed: Callable[[], int] | None = None,
    ) -> None:
        self._tools = tools
        self._drawer = drawer
        self._targets = targets
        self._sight = Sight(tools.processes)
        self._seed = seed or (lambda: secrets.randbelow(_SEEDS))
        self._few = Line("portraits", _AT_ONCE, _MOST_WAITING, _PATIENCE_S)
        self._one_large = Line(
            "portraits with templates over 16 megapixels", 1, _MOST_LARGE_WAITING, _PATIENCE_S
        )

    async def can_create(self, *, is_xl: bool) -> bool:
        kind = "xl" if is_xl else "sd15"
        return await anyio.to_thread.run_sync(self._targets.find, kind) is not None

    async def create(self, models: Sequence[Model], request: CreateRequest) -> Created:
        async with self._few.turn():
            sitting = await self._sitting(models, request)
            if not sitting.is_large:
                return await sitting.portrait()
        # Not in one of the few places: small ones go on while large ones wait for each other.
        async with self._one_large.turn(), self._few.turn():
            return await sitting.portrait()

    async def _sitting(self, models: Sequence[Model], request: CreateRequest) -> "_Sitting":
        studio = await self._studio(request)
        people = await self._people(models, request, studio)
        found = await self._template(models, request, studio, people)
        return _Sitting(studio, people, found)

    async def _studio(self, request: CreateRequest) -> Studio:
        """Raises PortraitError where there is no checkpoint for the style."""
        options = request.options
        kind: Base = "xl" if request.is_xl else "sd15"
        is_anime = options.style_name == ANIME
        look = self._targets.anime if is_anime else partial(self._targets.find, kind)
        found = await anyio.to_thread.run_sync(look)
        if found is None:
            raise PortraitError(faults.MODEL_UNKNOWN)
        target, words = found
        inventory = await self._drawer.inventory()
        warnings: dict[str, None] = {}
        lcm = _lcm_lora(kind, inventory, warnings) if options.lcm_accelerate else ()
        film = () if is_anime or kind == "xl" else _film_lora(words, inventory, warnings)
        style = words.anime if is_anime else words.realistic
        return Studio(
            self._tools.processes,
            self._sight,
            self._drawer,
            inventory,
            target,
            Speaker(words, style, (*film, *lcm)),
            UnitMaker(inventory.controls_for(kind), kind, {}),
            _styled(options) if is_anime else options,
            self._seed(),
            bool(lcm),
            warnings,
        )

    async def _people(
        self, models: Sequence[Model], request: CreateRequest, studio: Studio
    ) -> list[Person]:
        """Raises PortraitError for one who cannot be drawn; each model is read once."""
        picture = await self._reference_picture(studio.options)
        if not models:
            if picture is None:
                raise PortraitError(faults.NOT_TRAINED)
            return [Person(picture)]
        known: dict[str, Person] = {}
        for model in models:
            if model.model_id not in known:
                artefacts = Artefacts(self._tools.folders.published(model.owner, model.model_id))
                person = await load_person(artefacts, studio.target.kind, self._sight)
                if person.meta is not None:
                    meta = await _drawable(person.meta, artefacts, studio.drawer)
                    person = replace(person, meta=meta)
                known[model.model_id] = person
        people = [known[model.model_id] for model in models]
        if picture is not None:
            people[0] = replace(people[0], shown=picture)
        return people

    async def _reference_picture(self, options: CreateOptions) -> Seen | None:
        """The picture that `ipa_image_path` names, where it is to be used.

        One that cannot serve is the caller's mistake, so it is 462 in both modes (contract:
        portrait-pipeline 5.2; portrait-api 2.11 has 500 for the second).
        """
        if not (options.ipa_control or options.ipa_control_only):
            return None
        if not options.ipa_image_path:
            if options.ipa_control_only:
                raise PortraitError(faults.NOT_TRAINED)
            return None
        photos = self._tools.photos
        try:
            async with photos.held:
                data = await photos.get(options.ipa_image_path)
        except BadUrl as error:
            log.info("portrait: no reference picture: %s", error)
            raise PortraitError(faults.NOT_TRAINED) from error
        return await see_person(self._sight, data, largest, faults.NOT_TRAINED)

    async def _template(
        self,
        models: Sequence[Model],
        request: CreateRequest,
        studio: Studio,
        people: Sequence[Person],
    ) -> template.Template:
        count = len(people) if request.is_group else 1
        if request.template_url:
            found = await template.fetched(
                studio, self._tools.photos, request.template_url, is_group=request.is_group,
                count=count,
            )  # fmt: skip
            return found
        invention = await self._invention(models, studio, people[0])
        return await template.invented(studio, invention, is_group=request.is_group, count=count)

    async def _invention(
        self, models: Sequence[Model], studio: Studio, person: Person
    ) -> template.Invention:
        """What a template is drawn from: a text, or what a scene was trained on."""
        options, words = studio.options, studio.speaker.words
        text, loras = options.t2i_prompt, list[tuple[str, float]]()
        if options.scene_id:
            scene = await self._scene(models, studio)
            loras.append((scene.lora_name, SCENE_WEIGHT))
            text = text or (scene.captions[0] if scene.captions else scene.trigger)
        plain = without_tags(text)
        if plain != text:
            studio.warn("a template's text has no tags or comments: <…> and # were left out")
            text = plain
        trigger = words.reference
        if person.meta is not None:
            trigger = person.meta.trigger
            loras.append(Speaker.template_lora(person.meta.lora_name))
        prompt = studio.speaker.template(text, trigger, loras, _sex(studio, person))
        needs = tuple(name for name, _ in loras)
        if not options.ipa_control_only:
            return template.Invention(prompt, needs=needs)
        face = await studio.task(
            faults.NOT_TRAINED, face_tasks.reference_face, person.picture, 1.05
        )
        units = studio.units.adapter(face, _ADAPTER_IN_TEMPLATE)
        return template.Invention(prompt, tuple(units), needs)

    async def _scene(self, models: Sequence[Model], studio: Studio) -> ModelMeta:
        """The scene's model, of the same owner; raises PortraitError."""
        if not models:
            raise PortraitError(faults.MODEL_ID_MALFORMED)
        owner, scene_id = models[0].owner, studio.options.scene_id
        if await self._tools.store.model(owner, scene_id) is None:
            raise PortraitError(faults.NOT_TRAINED)
        artefacts = Artefacts(self._tools.folders.published(owner, scene_id))
        meta = await load_meta(artefacts, studio.target.kind, "scene")
        return await _drawable(meta, artefacts, studio.drawer)


@dataclass(frozen=True, slots=True)
class _Sitting:
    """All that a portrait is made of."""

    studio: Studio
    people: Sequence[Person]
    template: template.Template

    @property
    def is_large(self) -> bool:
        height, width = self.template.rgb.shape[:2]
        return height * width > _LARGE

    async def portrait(self) -> Created:
        studio = self.studio
        painters = [OnePerson(studio, one, _prompt(studio, one)) for one in self.people]
        rgb = await draw_all(studio, self.template, painters)
        image = await finish(studio, rgb, self.template.faces)
        for sentence in studio.units.missing:
            studio.warn(sentence)
        return Created(image, tuple(studio.warnings))


def _prompt(studio: Studio, person: Person) -> str:
    options, meta, sex = studio.options, person.meta, _sex(studio, person)
    if meta is None:
        return studio.speaker.reference(sex)
    return studio.speaker.person(meta.trigger, meta.lora_name, options.lora_weights, sex)


def _sex(studio: Studio, person: Person) -> str:
    """As the request says, else as the model was trained."""
    options = studio.options
    return options.sex if person.meta is None or "sex" in options.given else person.meta.sex


async def _drawable(meta: ModelMeta, artefacts: Artefacts, drawer: Drawer) -> ModelMeta:
    """What a model is, with its LoRA's name for whoever draws; PortraitError without it."""
    name = await drawer.lora(meta.lora_name, artefacts.lora)
    if name is None:
        log.warning("portrait: there is no usable LoRA %s", meta.lora_name)
        raise PortraitError(faults.MODEL_ID_MALFORMED)
    return replace(meta, lora_name=name)


def _film_lora(
    words: Words, inventory: Inventory, warnings: dict[str, None]
) -> tuple[tuple[str, float], ...]:
    if not words.film_lora:
        return ()
    if inventory.style_loras is None or words.film_lora in inventory.style_loras:
        return ((words.film_lora, FILM_WEIGHT),)
    warnings[f"no LoRA {words.film_lora}: drawn without its film look"] = None
    return ()


def _lcm_lora(
    kind: Base, inventory: Inventory, warnings: dict[str, None]
) -> tuple[tuple[str, float], ...]:
    """The usual file, else the first LoRA of this kind that is named after LCM."""
    usual, weight = _LCM[kind]
    named = [name for name in inventory.style_loras or () if "lcm" in name.lower()]
    fitting = sorted(name for name in named if ("xl" in name.lower()) == (kind == "xl"))
    if fitting:
        return ((usual if usual in fitting else fitting[0], weight),)
    warnings[f"lcm_accelerate: no LoRA {usual}; drawn with all steps"] = None
    return ()


def _styled(options: CreateOptions) -> CreateOptions:
    """What style Anime changes, where the caller said nothing else."""
    changes = {"skin_retouching_bool": False, "photo_enhancement_method": "super_resolution"}
    return replace(
        options, **{key: value for key, value in changes.items() if key not in options.given}
    )
