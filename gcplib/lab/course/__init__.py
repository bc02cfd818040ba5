"""The course: tasks with checks, findings from the evidence, sliders, and what every notebook begins and ends with."""

from gcplib.lab.course.checking import Task, Unsolved, Wrong, check, use_solutions
from gcplib.lab.course.findings import finding
from gcplib.lab.course.playing import play
from gcplib.lab.course.session import setup

__all__ = ["Task", "Unsolved", "Wrong", "check", "finding", "play", "setup", "use_solutions"]
