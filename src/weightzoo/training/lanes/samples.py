"""Bringing images into registers: each lane reads the image that its model visits next."""

from __future__ import annotations

import math
from typing import Any

from weightzoo.training.lanes.language import ArrayType, Code, Function, Program, Value
from weightzoo.training.lanes.stages import Shape3

LINE = 16  # numbers of a cache line
ORDER = ArrayType((1,), "int")  # [visits]: sample numbers, by lane


def images_type(shape: Shape3) -> ArrayType:
    """The data set `[N, C * H * W]`, shared; N is not known here."""
    return ArrayType((1, math.prod(shape)), lanes=False)


def load_images(program: Program, name: str, shape: Shape3) -> Function:
    """Emit `x[i] = images[order[visit], i]` for each lane, as transposed blocks of width x width numbers.

    The images of visit `following` are asked for at the same time: they lie all over memory, and the network's
    arithmetic on this visit is time enough for them to arrive.
    """
    count, width = math.prod(shape), program.width

    def body(code: Code, a: Any) -> None:
        samples = a.order[a.visit]
        coming = a.order[a.following]
        for image in [a.images.part(coming.lane(lane).to_index()) for lane in range(width)]:
            for start in code.range(0, count, LINE):
                image.prefetch(start)
        rows = [a.images.part(samples.lane(lane).to_index()) for lane in range(width)]

        def block(start: Value) -> None:
            columns = code.transpose([row.row(start) for row in rows])
            for offset, column in enumerate(columns):
                a.x[start + offset] = column

        if count < width:
            for i in range(count):
                a.x[i] = code.assemble([row[i] for row in rows])
            return
        for start in code.range(0, count - width + 1, width):
            block(start)
        if count % width:
            block(code.index(count - width))

    parameters: dict[str, Any] = {
        "images": images_type(shape), "order": ORDER, "visit": "index", "following": "index", "x": ArrayType((count,)),
    }  # fmt: skip
    return program.function(name, parameters, body)


def copy_bordered(program: Program, name: str, shape: Shape3, source: ArrayType, target: ArrayType) -> Function:
    """Emit the copy of an image into the interior of a larger one, whose border holds zeros."""

    def body(code: Code, a: Any) -> None:
        for c in code.range(shape[0]):
            for y in code.range(shape[1]):
                for x in code.range(shape[2]):
                    a.target[c, y, x] = a.source[c, y, x]

    return program.function(name, {"source": source, "target": target}, body)
