"""What a sweep evaluates: a float model, data to calibrate it with and a figure of merit. One file a task."""

from .base import Task, TaskError, load_task, task_names

__all__ = ["Task", "TaskError", "load_task", "task_names"]
