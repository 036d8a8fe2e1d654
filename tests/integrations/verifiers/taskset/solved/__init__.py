"""A taskset of verifiers: its tasks and answers are the rows of the file named in SOLVED_ROWS."""

import json
import os

import verifiers.v1 as vf

__all__ = ["Solved"]


class Data(vf.TaskData):
    answer: str


class SolvedTask(vf.Task[Data]):
    @vf.reward
    async def right(self, trace: vf.Trace) -> float:
        return float(f"\\boxed{{{self.data.answer}}}" in trace.last_reply)


class Solved(vf.Taskset[SolvedTask, vf.TasksetConfig]):
    def load(self) -> list[SolvedTask]:
        with open(os.environ["SOLVED_ROWS"], encoding="utf-8") as file:
            rows = [json.loads(line) for line in file]
        data = [Data(idx=i, prompt=row["problem"], answer=row["reference"]) for i, row in enumerate(rows)]
        return [SolvedTask(one, self.config.task) for one in data]
