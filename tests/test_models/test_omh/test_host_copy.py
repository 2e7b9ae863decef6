from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import Tensor

from omh_mmseg.models.omh import OMHHead, host_copy
from omh_mmseg.models.omh.host_copy import HostCopy, send


def tensors() -> list[Tensor]:
    return [torch.randn(3, 4), torch.randn(5, dtype=torch.float64), torch.tensor(7.0, requires_grad=True)]


def test_copies_are_the_values_in_float64():
    given = tensors()
    for copied in (HostCopy().finish(given), send(given, torch.device('cpu'))):
        assert [item.dtype for item in copied] == 3 * [torch.float64]
        assert not any(item.requires_grad for item in copied)
        assert all(torch.equal(item, value.double()) for item, value in zip(copied, given))


class Event:
    """Fills the copy when it is waited for, as a device does in its own time."""

    def __init__(self, host: Tensor, packed: Tensor) -> None:
        self.host, self.packed = host, packed

    def synchronize(self) -> None:
        self.host.copy_(self.packed)


@pytest.fixture
def queue(monkeypatch) -> list[Event]:
    """What is queued on a device, which is the CPU under another name."""
    events: list[Event] = []

    def queued(packed: Tensor) -> tuple[Tensor, Event]:
        host = torch.full_like(packed, torch.nan)
        events.append(Event(host, packed.clone()))
        return host, events[-1]

    def start(self: HostCopy, given: list[Tensor]) -> None:
        self._pending = host_copy._versions(given), *queued(host_copy._packed(given))

    monkeypatch.setattr(HostCopy, 'start', start)
    return events


def test_a_copy_begun_is_waited_for(queue):
    given, copies = tensors(), HostCopy()
    copies.start(given)
    assert len(queue) == 1 and queue[0].host.isnan().all()
    assert all(torch.equal(item, value.double()) for item, value in zip(copies.finish(given), given))
    assert not queue[0].host.isnan().any()
    with torch.no_grad():
        given[0].zero_()
    assert not copies.finish(given)[0].any()


def test_a_copy_of_what_has_changed_is_not_used(queue):
    given, copies = tensors(), HostCopy()
    copies.start(given)
    given[0].fill_(2.0)
    assert torch.equal(copies.finish(given)[0], torch.full((3, 4), 2.0, dtype=torch.float64))
    assert queue[0].host.isnan().all()


def test_a_model_is_copied_and_stored_without_copies_on_their_way(queue):
    copies = HostCopy()
    copies.start(tensors())
    assert copy.deepcopy(copies)._pending is None and pickle.loads(pickle.dumps(copies))._pending is None


@pytest.mark.parametrize('marginal', ['uniform', 'activation'])
@pytest.mark.parametrize('warm_start', [False, True])
def test_steps_of_the_head_do_not_depend_on_when_the_copy_began(queue, warm_start, marginal):
    torch.manual_seed(0)
    options = dict(warm_start=warm_start, marginal=marginal)
    prepared = OMHHead(6, 3, reach=dict(type='FixedWeight', begin=0), plan=options).train()
    plain = copy.deepcopy(prepared)
    for step in range(3):
        code = torch.randn(2, 6, 4, 5)
        prepared.begin_step()
        losses, expected = prepared.loss(code, step), plain.loss(code, step)
        assert losses.keys() == expected.keys()
        assert all(torch.equal(losses[name], expected[name]) for name in losses)
        with torch.no_grad():
            for head in (prepared, plain):
                for centres in head.centres:
                    centres.add_(0.1 * step + 0.1 * centres.flip(0))
    # With marginals of the batch there is nothing to bring before the batch is known.
    assert len(queue) == (3 if marginal == 'uniform' else 0)
    assert all(torch.equal(value, plain.state_dict()[name]) for name, value in prepared.state_dict().items())


def test_plans_differentiated_through_the_solver_are_solved_where_the_centres_are(queue):
    head = OMHHead(6, 3, plan=dict(gradient='solver'))
    head.begin_step()
    assert not queue and head.plans()[0].plan.requires_grad
