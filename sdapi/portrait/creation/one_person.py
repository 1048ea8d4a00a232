"""The chain of stages that turns one face of a template into a person's.

Fusion, drawing, colour, fusion, drawing of the edge, colour, make-up. Contract: portrait-pipeline
3.2 to 3.11; its stages' errors are in section 6.
"""

from dataclasses import dataclass
from typing import Final

import anyio.to_thread
import numpy as np

from sdapi.portrait import faults
from sdapi.portrait.creation import face_tasks
from sdapi.portrait.creation.drawing.passes import MASK_BLUR, Pass, Unit
from sdapi.portrait.creation.face_tasks import Seen
from sdapi.portrait.creation.gathered.person import Person, source_for
from sdapi.portrait.creation.gathered.studio import Studio
from sdapi.portrait.faces.face import Face, Mask, Pixels
from sdapi.portrait.faults import Fault
from sdapi.portrait.pixels.frame import Frame, cropped, uncropped
from sdapi.portrait.pixels.guides.pose_map import pose_map
from sdapi.portrait.pixels.raster import blurred, box_blurred, grown, mixed

ANIME: Final = "Anime"
#: of the second fusion: photographic eyes on a drawing look wrong (contract 5.7)
_ANIME_SHARE: Final = 0.6
_LCM_STEPS: Final = (12, 8)
#: of the units in both passes
_CANNY, _OPENPOSE, _COLOUR = (0.50, 1.0), 0.50, 0.85
_TILE: Final = 1.0
#: pixels, to be scaled as `Target.scale` says
_PASTE_BLUR: Final = 32
#: how the person's face is cut for IP-Adapter: with training, and without
_ADAPTER_MARGINS: Final = (1.0, 1.05)


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """A finished face in its frame, and where the frame was changed."""

    frame: Frame
    rgb: Pixels
    changed: Mask

    def onto(self, template: Pixels) -> Pixels:
        """The template with it; everything outside the frame stays to the bit."""
        return self.frame.back(template, self.rgb, self.changed)


@dataclass(frozen=True, slots=True)
class OnePerson:
    """Draws one person into templates."""

    studio: Studio
    person: Person
    prompt: str

    async def draw(self, template: Pixels, face: Face) -> Part:
        """The template's face drawn as the person; raises PortraitError."""
        studio, options = self.studio, self.studio.options
        frame = self._frame(template, face)
        before = await studio.task(
            faults.TEMPLATE_UNUSABLE, face_tasks.begin, template, face, frame
        )
        known = before.face
        source = await source_for(self.person, known, studio.sight)
        rgb = before.rgb
        if options.apply_face_fusion_before:
            ratio = options.more_like_me_before
            rgb = await self._fused(faults.FIRST_FUSION, rgb, known, source, ratio)
        adapter = await self._adapter()
        rgb, first = await self._first_pass(rgb, known, adapter)
        known = await studio.improve(
            "finding the drawn face", known,
            studio.processes.run(face_tasks.relocate, rgb, known),
        )  # fmt: skip
        if options.color_shift_middle:
            rgb = await self._shifted("color_shift_middle", rgb, known, before, keep_mouth=False)
        if options.apply_face_fusion_after:
            share = _ANIME_SHARE if options.style_name == ANIME else 1.0
            ratio = options.more_like_me * share
            rgb = await self._fused(
                faults.SECOND_FUSION, rgb, known, source, ratio, spares_nose=True
            )
        rgb, second = await self._second_pass(rgb, known, adapter)
        if options.color_shift_last:
            rgb = await self._shifted("color_shift_last", rgb, known, before, keep_mouth=True)
        if options.makeup_transfer:
            rgb = await studio.improve(
                "makeup_transfer", rgb,
                studio.processes.run(
                    face_tasks.make_up, rgb, known, before, options.makeup_transfer_ratio
                ),
            )  # fmt: skip
        changed = await anyio.to_thread.run_sync(self._soft, first, second)
        return Part(frame, rgb, changed)

    def _frame(self, template: Pixels, face: Face) -> Frame:
        size = (template.shape[1], template.shape[0])
        native, by_area = self.studio.target.native, self.studio.target.kind == "xl"
        if self.studio.options.crop_face_preprocess:
            return cropped(size, face.box, native, by_area=by_area)
        return uncropped(size, native, by_area=by_area)

    async def _fused(
        self,
        fault: Fault,
        rgb: Pixels,
        face: Face,
        source: tuple[Seen, bool],
        ratio: float,
        *,
        spares_nose: bool = False,
    ) -> Pixels:
        return await self.studio.task(
            fault, face_tasks.fuse, rgb, face, source[0], ratio, source[1], spares_nose
        )

    async def _shifted(
        self, name: str, rgb: Pixels, face: Face, before: Seen, *, keep_mouth: bool
    ) -> Pixels:
        return await self.studio.improve(
            name,
            rgb,
            self.studio.processes.run(face_tasks.shift_colour, rgb, face, before, keep_mouth),
        )

    async def _first_pass(
        self, rgb: Pixels, face: Face, adapter: list[Unit]
    ) -> tuple[Pixels, Mask]:
        """The picture with the face drawn anew, and where that was done."""
        studio, options = self.studio, self.studio.options
        matches_shape = options.face_shape_match
        mask = await self._mask(faults.TEMPLATE_UNUSABLE, rgb, face, "face")
        units = studio.units.canny(rgb, _CANNY[0])
        units += studio.units.openpose(await self._pose(rgb, face), _OPENPOSE)
        if not matches_shape:
            units += await anyio.to_thread.run_sync(studio.units.colour, rgb, _COLOUR)
        units += adapter
        drawn = await studio.draw(
            faults.FIRST_DIFFUSION,
            self._pass(
                rgb,
                None if matches_shape else mask,
                studio.steps("first_diffusion_steps", _LCM_STEPS[0]),
                options.first_denoising_strength,
                units,
            ),
        )
        return await self._pasted(rgb, drawn, face) if matches_shape else (drawn, mask)

    async def _pasted(self, rgb: Pixels, drawn: Pixels, face: Face) -> tuple[Pixels, Mask]:
        """Face and ears of a picture that was drawn as a whole, and where they are in it."""
        studio = self.studio
        found = await studio.task(faults.FIRST_DIFFUSION, face_tasks.relocate, drawn, face)
        mask = await self._mask(faults.FIRST_DIFFUSION, drawn, found, "ears")
        side = max(round(_PASTE_BLUR * studio.target.scale), 1)
        pasted = await anyio.to_thread.run_sync(lambda: mixed(rgb, drawn, box_blurred(mask, side)))
        return pasted, mask

    async def _second_pass(
        self, rgb: Pixels, face: Face, adapter: list[Unit]
    ) -> tuple[Pixels, Mask]:
        """The picture with the face's edge, or the whole face, drawn once more."""
        studio, options = self.studio, self.studio.options
        mask = await self._mask(faults.SECOND_DIFFUSION, rgb, face, options.mask_region)
        units = studio.units.canny(rgb, _CANNY[1])
        units += adapter or studio.units.tile(rgb, _TILE)
        drawn = await studio.draw(
            faults.SECOND_DIFFUSION,
            self._pass(
                rgb,
                mask,
                studio.steps("second_diffusion_steps", _LCM_STEPS[1]),
                options.second_denoising_strength,
                units,
            ),
        )
        return drawn, mask

    async def _mask(self, fault: Fault, rgb: Pixels, face: Face, region: str) -> Mask:
        scale = self.studio.target.scale
        return await self.studio.task(fault, face_tasks.masks, rgb, face, region, scale)

    async def _pose(self, rgb: Pixels, face: Face) -> Pixels:
        """The pose picture: the person's own shape of face where one was trained."""
        points = face.points68
        assert points is not None  # `begin` has located it
        if self.person.face_id is not None:
            points = await self.studio.improve(
                "laying the person's shape over the template's", points,
                self.studio.processes.run(face_tasks.pose_points, face, self.person.face_id),
            )  # fmt: skip
        size = (rgb.shape[0], rgb.shape[1])
        return await anyio.to_thread.run_sync(pose_map, points, size, self.studio.target.scale)

    async def _adapter(self) -> list[Unit]:
        """Of both passes."""
        options = self.studio.options
        if not (options.ipa_control or options.ipa_control_only):
            return []
        margin = _ADAPTER_MARGINS[1 if options.ipa_control_only else 0]
        face = await self.studio.task(
            faults.NOT_TRAINED, face_tasks.reference_face, self.person.picture, margin
        )
        return self.studio.units.adapter(face, options.ipa_weight)

    def _pass(
        self, rgb: Pixels, mask: Mask | None, steps: int, strength: float, units: list[Unit]
    ) -> Pass:
        return Pass(
            prompt=self.prompt,
            negative=self.studio.speaker.words.negative,
            size=(rgb.shape[1], rgb.shape[0]),
            steps=steps,
            strength=strength,
            rgb=rgb,
            mask=mask,
            units=tuple(units),
            needs=() if self.person.meta is None else (self.person.meta.lora_name,),
        )

    def _soft(self, first: Mask, second: Mask) -> Mask:
        """What the passes changed, with the soft edge that their masks had."""
        reach = MASK_BLUR * self.studio.target.scale
        return blurred(grown(np.maximum(first, second), reach), reach / 2)
