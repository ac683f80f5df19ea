"""Scalars of a step reach the loggers as means, in order, without anybody waiting for them."""

import torch

from ssl_zoo.methods.scalars import Scalars


def test_micro_batches_are_averaged_and_the_loss_is_that_of_the_whole_step():
    scalars = Scalars()
    for loss, extra in ((1.0, 10.0), (3.0, 20.0)):
        scalars.add({"loss": torch.tensor(loss / 2), "extra": torch.tensor([extra]), "features": torch.zeros(4, 2)}, 2)
    scalars.end_step(True, step=7)
    assert scalars.arrived() == [({"step": 7}, {"loss": 2.0, "extra": 15.0})]
    assert scalars.arrived(wait=True) == []


def test_a_step_that_is_not_sent_leaves_nothing_behind():
    scalars = Scalars()
    scalars.add({"loss": torch.tensor(1.0)}, 1)
    scalars.end_step(False, step=1)
    scalars.add({"loss": torch.tensor(5.0)}, 1)
    scalars.end_step(True, step=2)
    assert scalars.arrived() == [({"step": 2}, {"loss": 5.0})]


class Late:
    """An event of a device that is slow."""

    def __init__(self):
        self.there = self.waited = False

    def query(self):
        return self.there

    def synchronize(self):
        self.waited = True


def test_what_has_not_arrived_is_not_waited_for_and_holds_back_what_came_after_it(monkeypatch):
    events = [Late(), Late()]
    coming = iter(events)
    monkeypatch.setattr("ssl_zoo.methods.scalars._to_host", lambda values: (values, next(coming)))
    scalars = Scalars()
    for step in (1, 2):
        scalars.add({"loss": torch.tensor(float(step))}, 1)
        scalars.end_step(True, step=step)
    events[1].there = True
    assert scalars.arrived() == [] and not events[0].waited
    events[0].there = True
    assert [label["step"] for label, _ in scalars.arrived()] == [1, 2]
    scalars.add({"loss": torch.tensor(3.0)}, 1)
    coming = iter([late := Late()])
    scalars.end_step(True, step=3)
    assert scalars.arrived(wait=True)[0][1] == {"loss": 3.0} and late.waited
