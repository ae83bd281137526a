"""The weights that members with a parent start from, out of the runs of their parents."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from weightzoo.architectures import Architecture
from weightzoo.errors import MissingError, NotFoundError
from weightzoo.members import Member
from weightzoo.tracking import RunStore


def parent_state(store: RunStore, member: Member) -> dict[str, np.ndarray] | None:
    """The weights of a member's parent behind the epoch that it starts from, by name; None if it has no parent.

    Raises:
        MissingError: the store does not have them.
        FormatError: their files are damaged.
        TrackingError: the store can't be used.
    """
    if member.parent is None:
        return None
    try:
        return store.checkpoint(member.parent.member, member.parent.epoch)
    except (MissingError, NotFoundError) as error:
        raise MissingError(
            f"member {member.id} starts from member {member.parent.member} behind epoch {member.parent.epoch}, whose "
            f"checkpoint is not to be had ({error}); train or import that member first"
        ) from None


def recorded_weights(store: RunStore, built: Architecture, members: Sequence[Member]) -> np.ndarray:
    """The weights float32 `[M, P]` that members with a parent start from, out of their parents' runs.

    Raises:
        MissingError, FormatError, TrackingError: as `parent_state`.
        LayoutError: a parent's weights do not fit.
    """
    states = {one.parent: parent_state(store, one) for one in members}
    return np.stack([built.layout.flatten(states[one.parent] or {}) for one in members])
