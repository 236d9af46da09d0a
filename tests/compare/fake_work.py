"""Stands in for manymax.compare.work, without torch: the candidate's name says what the job does."""

import os
import signal
import time

from manymax.compare import jobs


def machine(order):
    return {"threads": order.threads}


def perform(order, tell):
    tell(0.5)
    what, _, value = order.candidate.partition("-")
    if what == "exit":
        os._exit(int(value))
    elif what == "kill":
        os.kill(os.getpid(), getattr(signal, value))
    elif what == "sleep":
        time.sleep(float(value))
    elif what == "print":
        print(value, flush=True)
        os.system(f"echo {value} {value}")
    elif what == "raise":
        raise RuntimeError(value)
    return jobs.line(order.job, "ok", seconds=1.0, metrics={"pid": os.getpid(), "steps": order.steps})
