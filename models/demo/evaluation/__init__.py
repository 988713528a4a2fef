"""Evaluates whatever answers the contract: asks drawn questions over gRPC, judges and counts.

    from models.demo.evaluation import drawn_tasks, evaluate

    report = await evaluate(client, drawn_tasks(), count=40)
    report.row("colour").rate

`case` says what is asked, `run` asks, `report` keeps what came of it, `compare` holds two reports
of the same cases side by side. The command is `models.demo.evaluate`.
"""

from models.demo.evaluation.case import RIGHT, Task
from models.demo.evaluation.comparison import Change, Comparison, compare
from models.demo.evaluation.drawn import drawn_tasks
from models.demo.evaluation.report import Failure, Report, Row, Subject
from models.demo.evaluation.run import evaluate
from models.demo.evaluation.written import written_tasks

__all__ = [
    "RIGHT",
    "Change",
    "Comparison",
    "Failure",
    "Report",
    "Row",
    "Subject",
    "Task",
    "compare",
    "drawn_tasks",
    "evaluate",
    "written_tasks",
]
