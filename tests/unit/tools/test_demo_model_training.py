"""The demo model's training: soft norms fold away, the VAE starts with colours, runs repeat."""

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")

from tools.demo_model.networks.models import make_text_encoder, make_vae  # noqa: E402  torch may be missing
from tools.demo_model.networks.soft_norm import harden, set_soft_eps, soften  # noqa: E402
from tools.demo_model.networks.vae_start import carry_colours  # noqa: E402
from tools.demo_model.pictures.attributes import VALUES  # noqa: E402
from tools.demo_model.pictures.dataset import UNSEEN, draw_sample, render  # noqa: E402
from tools.demo_model.training.diffusion import loss_weight, spread_times  # noqa: E402
from tools.demo_model.training.run_folder import learning_rate  # noqa: E402
from tools.demo_model.training.text import Reader, TextPlan, draw_lesson  # noqa: E402
from tools.demo_model.training.vae import (  # noqa: E402
    normalise_latents,
    psnr,
    reconstruct,
    to_tensor,
)


@pytest.fixture
def vae() -> "diffusers.AutoencoderKL":
    torch.manual_seed(0)
    vae = make_vae().requires_grad_(False)
    set_soft_eps(vae)
    carry_colours(vae)
    return vae


@pytest.fixture
def pictures() -> "torch.Tensor":
    return torch.cat([to_tensor(render(draw_sample(UNSEEN, i), 64)[None], "cpu") for i in range(4)])


def test_untrained_vae_already_knows_colours(vae, pictures):
    assert psnr(reconstruct(vae, pictures), pictures) > 16.0


def test_soft_norms_fold_into_ordinary_weights(vae, pictures):
    wanted = reconstruct(vae, pictures)

    harden(vae)
    hard = reconstruct(vae, pictures)
    soften(vae)

    assert torch.allclose(hard, wanted, atol=1e-4)
    assert torch.allclose(reconstruct(vae, pictures), wanted, atol=1e-4)


def test_normalised_latents_decode_to_the_same_picture(vae, pictures):
    wanted = reconstruct(vae, pictures)

    normalise_latents(vae, pictures)

    latents = vae.encode(pictures).latent_dist.mean * vae.config.scaling_factor
    assert torch.allclose(latents.std(dim=(0, 2, 3)), torch.ones(4), atol=0.01)
    assert latents.mean(dim=(0, 2, 3)).abs().max() < 0.01
    assert torch.allclose(reconstruct(vae, pictures), wanted, atol=1e-4)


def test_learning_rate_rises_stays_and_fades():
    rates = [learning_rate(s, 100, 1.0, warm_up=10, fade_share=0.5) for s in (0, 30, 75, 99)]

    assert rates == pytest.approx([0.1, 1.0, 0.5, 0.02])


def test_loss_weighs_hidden_colours_more_than_nearly_clean_latents():
    weights = loss_weight(torch.tensor([0.005, 0.1, 1.0, 50.0]))

    assert weights.tolist() == pytest.approx([10.0, 10.0, 2.0, 0.102])


def test_noisy_times_are_likelier_and_all_are_valid():
    times = spread_times(np.random.default_rng(0), 1000)

    assert times.min() >= 0
    assert times.max() <= 999
    assert 0.55 < (times >= 500).mean() < 0.65


def test_text_heads_read_every_attribute(tmp_path: Path):
    reader = Reader()
    texts, wanted = draw_lesson(TextPlan(tmp_path, "cpu", batch=6), step=0)
    tokens = torch.randint(0, 49408, (6, 77))

    from_end, from_all = reader(tokens)

    assert len(texts) == 6
    assert wanted.shape == (6, len(VALUES))
    for scores in (from_end, from_all):
        assert [s.shape[1] for s in scores] == [len(values) for values in VALUES.values()]


@pytest.mark.slow
@pytest.mark.parametrize("stops", [[50], [20, 50]])
def test_fifty_steps_give_the_same_weights_again(tmp_path: Path, stops: list[int]):
    """Twice from scratch, the second time also cut off and resumed."""
    pytest.importorskip("open_clip")
    from tools.demo_model.train import weights_hash
    from tools.demo_model.training.diffusion import DiffusionPlan, train_diffusion

    hashes = []
    for name, untils in (("a", [50]), ("b", stops)):
        folder = tmp_path / name
        folder.mkdir()
        torch.manual_seed(0)
        torch.save(make_vae().state_dict(), folder / "vae.pt")
        torch.save(make_text_encoder().state_dict(), folder / "text.pt")
        for until in untils:
            plan = DiffusionPlan(folder, "cpu", size=32, pictures=16, until=until, batch=4)
            networks = train_diffusion(plan).networks
        hashes.append(weights_hash(networks))

    assert hashes[0] == hashes[1]
