"""What happens at which step of a run: progress lines, checkpoints, evaluations, panels, and the end."""

from solo_dist.config import TrainConfig


class Schedule:
    """Answers for each number of finished steps; what happens every so many steps also happens after the last one."""

    def __init__(self, train: TrainConfig):
        self._train = train
        self.total_steps = train.steps
        """Steps of the whole run; 0 as long as they are not known, with train.minutes."""

    def is_last(self, step: int) -> bool:
        """Whether no step is left."""
        return step >= self.total_steps

    def logs(self, step: int) -> bool:
        """Whether a progress line is due."""
        return self._due(self._train.log_every, step)

    def saves(self, step: int) -> bool:
        """Whether a checkpoint is due."""
        return self._due(self._train.save_every, step)

    def evaluates(self, step: int) -> bool:
        """Whether an evaluation is due; the last step has one even if eval_every is 0."""
        return step > 0 and self._due(self._train.eval_every, step)

    def draws_panel(self, step: int) -> bool:
        """Whether a panel is due."""
        return self._train.panel_every > 0 and self._due(self._train.panel_every, step)

    def evaluation_images(self, step: int) -> int:
        """Images that the evaluation at a step takes; 0: all of them, as after the last step."""
        return 0 if self.is_last(step) else self._train.eval_images

    def steps_to_run(self, step: int, others: list[int]) -> int:
        """Steps that one call into TensorFlow may run: steps_per_call, but not past the next event.

        Args:
          others: steps until further events.
        """
        train = self._train
        intervals = (train.log_every, train.save_every, train.eval_every, train.panel_every)
        events = [every - step % every for every in intervals if every]
        return min(train.steps_per_call, self.total_steps - step, *events, *others)

    def _due(self, every: int, step: int) -> bool:
        return bool(every) and step % every == 0 or self.is_last(step)
