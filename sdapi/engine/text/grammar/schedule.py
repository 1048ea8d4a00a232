"""Prompt editing `[from:to:when]` and alternation `[a|b]` -> a text for every step.

Grammar of one prompt (contract: webui-generation 2.5). `prompt` is what may stand inside brackets;
only the outermost level takes stray brackets and colons literally, and a text that cannot be
derived has no schedule:

    start      = ( prompt | any of "[](): " )*
    prompt     = ( emphasised | scheduled | alternate | plain )*
    emphasised = "(" prompt [ ":" prompt ] ")" | "[" prompt "]"
    scheduled  = "[" [ prompt ":" ] prompt ":" number "]"
    alternate  = "[" prompt ( "|" prompt )+ "]"
    plain      = ( any character but \\ [ ] ( ) : | , or \\ and one character )+
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

_NUMBER = re.compile(r"\s*([+-]?(?:\d+\.\d*|\.\d+|\d+)(?:[eE][+-]?\d+)?)\s*\]")
_PLAIN = re.compile(r"(?:[^\\\[\]():|]|\\.)+")
_MAX_DEPTH = 64


@dataclass(frozen=True, slots=True)
class ScheduledText:
    """The text in force up to and including denoiser call `end_step` (0-based call <= end_step)."""

    end_step: int
    text: str


@dataclass(frozen=True, slots=True)
class _Edit:
    before: "_Nodes"
    after: "_Nodes"
    when: str


@dataclass(frozen=True, slots=True)
class _Alternate:
    options: list["_Nodes"]


_Node = str | _Edit | _Alternate
_Nodes = list[_Node]


@dataclass(frozen=True, slots=True)
class Timeline:
    """How `when` becomes a step of `steps` denoiser calls; hires passes set `first_pass_steps`."""

    steps: int
    first_pass_steps: int | None = None
    use_old_scheduling: bool = False

    @property
    def last_step(self) -> int:
        """Where the last text ends: the old way counts a hires pass by the first pass's steps."""
        if self.use_old_scheduling and self.first_pass_steps is not None:
            return self.first_pass_steps
        return self.steps

    def boundary(self, when: str) -> int:
        """The last step on which the text before the edit holds."""
        value = float(when)
        if self.use_old_scheduling:
            step = value * self.last_step if value < 1 else value
        elif self.first_pass_steps is None:
            step = value * self.steps if "." in when else value
        elif "." in when:
            step = (value - 1) * self.steps
        else:
            step = value - self.first_pass_steps
        return min(self.last_step, int(step))


def schedule(prompt: str, timeline: Timeline) -> list[ScheduledText]:
    """Return the texts of a prompt in step order; the last one ends at its `last_step`."""
    nodes = _Parser(prompt).start()
    if nodes is None:
        return [ScheduledText(timeline.last_step, prompt)]
    try:
        ends = sorted({timeline.last_step, *_boundaries(nodes, timeline)})
    except (OverflowError, ValueError):  # `[a:b:1e999]`: no step has that number
        return [ScheduledText(timeline.last_step, prompt)]
    return [ScheduledText(end, _text_at(nodes, end, timeline)) for end in ends]


def depends_on_scheduling(prompt: str, timeline: Timeline) -> bool:
    """Whether `use_old_scheduling` changes the texts of a prompt, or when they are in force."""
    old, new = (
        schedule(prompt, replace(timeline, use_old_scheduling=is_old)) for is_old in (True, False)
    )
    if len(old) == len(new) == 1:
        return old[0].text != new[0].text  # in force at every step, however they are counted
    return old != new


def _boundaries(nodes: _Nodes, timeline: Timeline) -> Iterator[int]:
    for node in nodes:
        if isinstance(node, _Edit):
            boundary = timeline.boundary(node.when)
            if boundary >= 1:
                yield boundary
            yield from _boundaries(node.before, timeline)
            yield from _boundaries(node.after, timeline)
        elif isinstance(node, _Alternate):
            yield from range(1, timeline.last_step + 1)
            for option in node.options:
                yield from _boundaries(option, timeline)


def _text_at(nodes: _Nodes, step: int, timeline: Timeline) -> str:
    texts: list[str] = []
    for node in nodes:
        if isinstance(node, _Edit):
            chosen = node.before if step <= timeline.boundary(node.when) else node.after
            texts.append(_text_at(chosen, step, timeline))
        elif isinstance(node, _Alternate):
            chosen = node.options[(step - 1) % len(node.options)]
            texts.append(_text_at(chosen, step, timeline))
        else:
            texts.append(node)
    return "".join(texts)


@dataclass(slots=True)
class _Parser:
    """Recursive descent with memory, so that nested unbalanced brackets stay cheap."""

    source: str
    memory: dict[int, tuple[_Nodes, int]] = field(default_factory=dict[int, tuple[_Nodes, int]])
    depth: int = 0

    def start(self) -> _Nodes | None:
        nodes: _Nodes = []
        position = 0
        while position < len(self.source):
            more, position = self.prompt(position)
            nodes += more
            if position == len(self.source):
                break
            if self.source[position] not in "[]():":
                return None
            nodes.append(self.source[position])
            position += 1
        return nodes

    def prompt(self, position: int) -> tuple[_Nodes, int]:
        """The longest run of complete nodes from `position`, and where it ends."""
        if position in self.memory:
            return self.memory[position]
        begin, nodes = position, list[_Node]()
        self.depth += 1
        while position < len(self.source):
            found = self.node(position)
            if found is None:
                break
            nodes += found[0]
            position = found[1]
        self.depth -= 1
        self.memory[begin] = nodes, position
        return nodes, position

    def node(self, position: int) -> tuple[_Nodes, int] | None:
        if match := _PLAIN.match(self.source, position):
            return [match[0]], match.end()
        if self.depth > _MAX_DEPTH:
            return None
        if self.source[position] == "(":
            return self.round(position)
        if self.source[position] == "[":
            return self.square(position)
        return None

    def round(self, position: int) -> tuple[_Nodes, int] | None:
        nodes, position = self.prompt(position + 1)
        nodes = ["(", *nodes]
        if self.at(position) == ":":
            more, position = self.prompt(position + 1)
            nodes += [":", *more]
        return ([*nodes, ")"], position + 1) if self.at(position) == ")" else None

    def square(self, position: int) -> tuple[_Nodes, int] | None:
        """A bracket that edits, alternates or only weakens, whichever fits."""
        first, position = self.prompt(position + 1)
        if self.at(position) == "]":
            return ["[", *first, "]"], position + 1
        if self.at(position) == "|":
            return self.alternate([first], position)
        return self.edit(first, position) if self.at(position) == ":" else None

    def alternate(self, options: list[_Nodes], position: int) -> tuple[_Nodes, int] | None:
        while self.at(position) == "|":
            option, position = self.prompt(position + 1)
            options.append(option)
        return ([_Alternate(options)], position + 1) if self.at(position) == "]" else None

    def edit(self, first: _Nodes, colon: int) -> tuple[_Nodes, int] | None:
        second, position = self.prompt(colon + 1)
        if self.at(position) == ":" and (number := _NUMBER.match(self.source, position + 1)):
            return [_Edit(first, second, number[1])], number.end()
        if number := _NUMBER.match(self.source, colon + 1):
            return [_Edit([], first, number[1])], number.end()
        return None

    def at(self, position: int) -> str:
        return self.source[position : position + 1]
