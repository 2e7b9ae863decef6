from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from omh_mmseg.models.decode_heads import PrototypeHead
from omh_mmseg.registry import MODELS


def moved(head: PrototypeHead) -> PrototypeHead:
    """With a teacher that differs from the student."""
    with torch.no_grad():
        head.centres.copy_(torch.randn_like(head.centres))
    return head


def test_start():
    """docs/methods/smooseg.md 2.6: Xavier-normal, rows of length 1, the teacher a copy."""
    head = PrototypeHead(64, 27)
    torch.testing.assert_close(head.student.norm(dim=1), torch.ones(27))
    assert torch.equal(head.student, head.centres) and head.student.data_ptr() != head.centres.data_ptr()
    assert set(head.state_dict()) == {'student', 'centres'}
    assert [name for name, _ in head.named_parameters()] == ['student']
    # Directions of a normal distribution have no preferred sign or axis.
    assert abs(head.student.mean()) < 0.02 and head.student.abs().max() < 0.7


def test_cosines_are_the_teachers():
    head, code = moved(PrototypeHead(6, 4)), torch.randn(2, 6, 3, 5)
    expected = F.cosine_similarity(code[:, None], head.centres[None, :, :, None, None], dim=2)
    torch.testing.assert_close(head(code), expected)


def test_assignments_move_the_code_alone():
    head, code = moved(PrototypeHead(6, 4, temperature=0.2)), torch.randn(2, 6, 3, 5, requires_grad=True)
    assignments = head.assignments(code)
    torch.testing.assert_close(assignments, (5 * head(code)).softmax(1))
    assignments.square().sum().backward()
    assert code.grad.norm() > 0 and head.student.grad is None


def test_data_term_moves_the_student_alone():
    head, code = moved(PrototypeHead(6, 4)), torch.randn(2, 6, 3, 5, requires_grad=True)
    loss = head.loss(code)['loss_data']
    cosines = F.cosine_similarity(code[:, None], head.student[None, :, :, None, None], dim=2)
    probabilities = cosines.softmax(1).gather(1, head(code).argmax(1, keepdim=True))
    torch.testing.assert_close(loss, -probabilities.log().mean())
    loss.backward()
    assert code.grad is None and head.student.grad.norm() > 0 and head.centres.grad is None


def test_data_term_has_no_temperature():
    """docs/methods/smooseg.md 8.19: its least value."""
    head, code = PrototypeHead(2, 2, temperature=0.01), torch.tensor([[1.0, 0.0], [-1.0, 0.0]])[:, :, None, None]
    with torch.no_grad():
        head.student.copy_(code[:, :, 0, 0]), head.centres.copy_(code[:, :, 0, 0])
    assert head.loss(code)['loss_data'].item() == pytest.approx(math.log(1 + math.exp(-2)))


def test_teacher_follows_the_raw_student():
    head = moved(PrototypeHead(6, 4, momentum=0.9))
    with torch.no_grad():
        head.student.mul_(3)
    expected = 0.9 * head.centres + 0.1 * head.student.detach()
    head.update_teacher()
    torch.testing.assert_close(head.centres, expected)
    assert not head.centres.requires_grad


@pytest.mark.parametrize('momentum', [0.0, 1.0])
def test_extreme_momenta(momentum):
    head = moved(PrototypeHead(6, 4, momentum=momentum))
    expected = head.centres.clone() if momentum else head.student.detach().clone()
    head.update_teacher()
    assert torch.equal(head.centres, expected)


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_autocast_changes_nothing(dtype):
    """Cosines, assignments and cross-entropy stay in single precision."""
    head, code = moved(PrototypeHead(6, 4)), torch.randn(2, 6, 3, 5)
    results = []
    for enabled in (False, True):
        with torch.autocast('cpu', dtype=dtype, enabled=enabled):
            results.append((head(code), head.assignments(code), head.loss(code)['loss_data']))
    for plain, cast in zip(*results):
        assert cast.dtype == torch.float32 and torch.equal(plain, cast)


def test_half_precision_code():
    head, code = moved(PrototypeHead(6, 4)), torch.randn(2, 6, 3, 5).bfloat16()
    assert head.assignments(code).dtype == head.loss(code)['loss_data'].dtype == torch.float32
    assert torch.equal(head.assignments(code), head.assignments(code.float()))


def test_state_is_restored():
    head, other = moved(PrototypeHead(6, 4)), PrototypeHead(6, 4)
    other.load_state_dict(head.state_dict())
    assert torch.equal(other.centres, head.centres) and torch.equal(other.student, head.student)


def test_one_class():
    with pytest.raises(ValueError, match='num_classes must be at least 2; got 1. With one prototype'):
        MODELS.build(dict(type='PrototypeHead', in_channels=6, num_classes=1))
