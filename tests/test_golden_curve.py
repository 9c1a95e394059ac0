"""Fifty steps of training in double precision: DGCNN as it is, against the textbook form."""

from __future__ import annotations

import torch

from pixcloud.encoders import DGCNN
from pixcloud.losses import nt_xent
from reference.plain_ops import plain_nt_xent
from reference.textbook import TextbookDGCNN
from reference.textbook_seg import copy_weights

STEPS, BATCH, POINTS = 50, 4, 40


def curve(model: torch.nn.Module, ours: bool) -> list[float]:
    """The losses of views of random clouds, and a step of Adam on each."""
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    generator = torch.Generator().manual_seed(1)
    losses = []
    for _ in range(STEPS):
        clouds = torch.randn(BATCH, POINTS, 3, generator=generator, dtype=torch.float64)
        noise = torch.randn(2, BATCH, POINTS, 3, generator=generator, dtype=torch.float64)
        views = (clouds + 0.05 * noise).flatten(0, 1)
        pooled = model(views).pooled if ours else model(views)
        loss = (nt_xent if ours else plain_nt_xent)(*pooled.chunk(2), 0.1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def test_fifty_steps_are_those_of_the_textbook_form() -> None:
    torch.manual_seed(0)
    ours, textbook = DGCNN(6, 32, [16, 16, 24]).double(), TextbookDGCNN(6, 32, [16, 16, 24])
    textbook = textbook.double()
    with torch.no_grad():
        for conv in ours.convs:
            conv.bn.weight[::3] *= -1  # the minimum over the neighbours counts there
    copy_weights(ours, textbook)
    first, second = curve(ours, True), curve(textbook, False)
    torch.testing.assert_close(torch.tensor(first), torch.tensor(second), rtol=1e-7, atol=0)
    assert first[-1] < first[0]
    for name, value in ours.state_dict().items():
        expected = textbook.state_dict()[name].view(value.shape)
        torch.testing.assert_close(
            value, expected, rtol=1e-5, atol=1e-8, msg=lambda m, n=name: n + m
        )
