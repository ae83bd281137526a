"""Tasks on nodes: submitted, and their results taken one by one; Ray's errors become those of the project."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from weightzoo.datasets.images import ImageData
from weightzoo.errors import ClusterError, WeightzooError
from weightzoo.execution.build import Engines
from weightzoo.execution.cluster import tasks
from weightzoo.execution.cluster.connection import load_ray
from weightzoo.execution.cluster.sizing import Node
from weightzoo.members import Cohort
from weightzoo.training.devices import KEPT_BYTES
from weightzoo.training.protocol import TrainState

AHEAD = 2  # results that a task may have waiting for the driver


class WorkerLost(ClusterError):
    """A task ended before its time: its process is gone, or all of its node."""

    def __init__(self, reason: str, *, node_gone: bool) -> None:
        super().__init__(reason)
        self.node_gone = node_gone


class Stream:
    """What a task yields; `refs` is what Ray can wait for."""

    def __init__(self, refs: Any) -> None:
        self.refs = refs
        self._over = False

    def take(self) -> Any:
        """The next result; None behind the last.

        Raises:
            WorkerLost: the task's process or node is gone.
            WeightzooError: what the task raised; a `ClusterError` if that was another error.
        """
        try:
            return resolve(next(self.refs))
        except StopIteration:
            self._over = True
            return None
        except Exception:
            self._over = True
            raise

    def over(self) -> None:
        """Nothing more is wanted, and the task is at its end anyway."""
        self._over = True

    def cancel(self) -> None:
        """Interrupt the task, which may still save what it has."""
        if not self._over:
            self._over = True
            load_ray().cancel(self.refs)


def resolve(reference: Any) -> Any:
    """What a reference stands for; errors as for `Stream.take`."""
    ray = load_ray()
    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        cause = error.cause
        if isinstance(cause, WeightzooError):
            raise cause from None
        raise ClusterError(f"a task failed by {type(cause).__name__}: {' '.join(str(cause).split())}") from error
    except ray.exceptions.RayError as error:
        gone = isinstance(error, ray.exceptions.NodeDiedError | ray.exceptions.TaskUnschedulableError)
        raise WorkerLost(f"{type(error).__name__}: {str(error).strip().splitlines()[0]}", node_gone=gone) from None


class Tasks:
    """Submits tasks with the CPUs and GPUs that an engine asks for.

    Ray is to retry none of them: what is left to do is known here, and smaller than the whole task.
    """

    def __init__(self, engines: Engines) -> None:
        self.cpus = engines.threads or 1
        self.gpus = 1 if engines.device.startswith("cuda") else 0
        self._engines = engines
        self._placed: Any = None

    def place(self, data: ImageData, engine: str) -> None:
        """Put the images where every node fetches them once; all tasks of a node read them in the same memory.

        With them go the normalised images, if the engine wants all of those.
        """
        if self._placed is None:
            if engine == "lanes" or 4 * sum(images.size for images in data.images.values()) <= KEPT_BYTES:
                _ = data.inputs
            self._placed = load_ray().put(data)

    def look(self, node: Node, marks: Mapping[str, str], tracking_uri: str | None) -> Any:
        """A reference to what `tasks.look` sees on a node."""
        options = {"num_cpus": 0, "max_retries": 1, **self._on(node)}
        return load_ray().remote(**options)(tasks.look).remote(marks, tracking_uri)

    def engine_name(self, cohort: Cohort) -> tuple[str, list[str]]:
        """What `tasks.engine_name` says on any node.

        Raises:
            EngineError: no engine can train this there.
        """
        function = load_ray().remote(num_cpus=self.cpus, num_gpus=self.gpus)(tasks.engine_name)
        return resolve(function.remote(self._engines, cohort))

    def train(self, node: Node, engine: str, cohort: Cohort, resume: TrainState | None) -> Stream:
        """`tasks.train_epochs` on a node, ahead of what is taken by `AHEAD` epochs."""
        function = self._generator(node, tasks.train_epochs, _generator_backpressure_num_objects=AHEAD)
        return Stream(function.remote(self._engines, engine, cohort, self._placed, resume))

    def record(self, node: Node, order: tasks.Order) -> Stream:
        """`tasks.record_members` on a node."""
        return Stream(self._generator(node, tasks.record_members).remote(order, self._placed))

    def _generator(self, node: Node, function: Any, **options: Any) -> Any:
        options |= {"num_cpus": self.cpus, "num_gpus": self.gpus, "max_retries": 0, "num_returns": "streaming"}
        return load_ray().remote(**options, **self._on(node))(function)

    @staticmethod
    def _on(node: Node) -> dict[str, Any]:
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        return {"scheduling_strategy": NodeAffinitySchedulingStrategy(node.id, soft=False)}
