"""What the runner talks to, without processes and without a screen."""

from manymax.compare import jobs
from manymax.compare.executors import Done, Progress

FACTS = {"quality": {"name": "accuracy", "better": "higher", "unit": "share"}, "model": {"depth": 2}}


class Pretender:
    """An executor that does nothing; `answers` says what becomes of a job, by its name or its beginning."""

    slots = 2

    def __init__(self, answers=None):
        self.answers, self.orders, self.most, self.queue = answers or {}, [], 0, []

    def submit(self, order):
        self.orders.append(order)
        self.queue.append(order)
        self.most = max(self.most, len(self.queue))

    def wait(self, seconds):
        order = self.queue.pop(0)
        name = order.job.name
        fitting = [answer for start, answer in self.answers.items() if name.startswith(start)]
        status, message = fitting[0] if fitting else ("ok", "")
        metrics = {"quality": 0.5}
        if order.kind == "calibrate":
            metrics = {"step": 0.01, "fixed": 1.0, "facts": FACTS}
        elif order.kind != "train":
            metrics = {"candidates": {label: {"status": "ok", "message": ""} for label in order.candidates}}
        line = jobs.line(order.job, status, message, seconds=1.0, metrics=metrics if status == "ok" else {})
        return [Progress(order, 0.5), Done(order, line)]

    def close(self):
        pass

    @property
    def names(self):
        return [order.job.name for order in self.orders]


class Silent:
    def __init__(self):
        self.said, self.lines, self.started, self.lefts, self.stopped = [], [], None, [], 0

    def start(self, total, finished, quality):
        self.started = (total, finished, quality)

    def running(self, shares, left):
        self.lefts.append(left)

    def ended(self, line):
        self.lines.append((line["job"], line["status"]))

    def say(self, text):
        self.said.append(text)

    def stop(self):
        self.stopped += 1
