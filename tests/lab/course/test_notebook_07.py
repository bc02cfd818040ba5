"""The loop that the learner writes in notebook 07 trains as the library does, number for number."""

from dataclasses import replace

import pytest
import torch
from notebook_code import definitions

from gcplib import create_pool
from gcplib.lab.setting import make_setting
from gcplib.lab.training import Recipe
from gcplib.lab.training.recipe import learning_rate_factor
from gcplib.models import Head

CODE = definitions("07")


@pytest.mark.parametrize("pool", ["gap", "mpn_cov"])
def test_the_loop_agrees_with_the_library(pool):
    # 9 images in batches of 4: the last one has a batch of its own, which is left out.
    recipe = Recipe(epochs=3, batch_size=4, learning_rate=0.1, clip=1.0)
    setting = make_setting(families=3, train=3, validation=1, test=1, pixels=64, stride=16, device="cpu", recipe=recipe)
    maps = setting.features
    torch.manual_seed(5)
    head = Head(create_pool(pool, maps.shape[1], reduction=8), setting.classes)
    steps = CODE.batches_of(setting.places["train"], recipe, 5)
    assert [len(batch) for batch in steps] == [4, 4] * 3
    losses = CODE.train_head(head, maps, setting.labels["fine"], steps, recipe)
    (run,) = setting.train([replace(setting.base, pool=pool, reduction=8, seed=5)])
    by_epoch = torch.tensor(losses).view(3, 2).mean(1)
    assert by_epoch.tolist() == pytest.approx(run.metrics.train_loss.tolist(), rel=1e-5)
    for name, value in run.load_model().state_dict().items():
        torch.testing.assert_close(head.state_dict()[name], value, rtol=1e-4, atol=1e-5)


def test_the_schedule_is_the_librarys():
    plan = Recipe(epochs=7)
    for t in (0.0, 0.1, 0.299, 0.3, 0.5, 1.0):
        assert CODE.one_cycle(t) == pytest.approx(learning_rate_factor(plan, 7 * t))


def test_correlations_of_channels_that_move_together_are_one():
    maps = torch.randn(2, 1, 4, 5)
    together = torch.cat([maps, -2 * maps, torch.zeros_like(maps)], 1)
    torch.testing.assert_close(CODE.correlation(together), torch.ones(2, dtype=torch.float64))
