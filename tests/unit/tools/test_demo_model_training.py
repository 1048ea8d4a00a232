"""The demo model's training: soft norms fold away, the VAE starts with colours, runs repeat."""

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")

from tools.demo_model.networks.models import make_text_encoder, make_vae  # noqa: E402  torch may be missing
from tools.demo_model.networks.schedule import alphas_cumprod  # noqa: E402
from tools.demo_model.networks.soft_norm import harden, set_soft_eps, soften  # noqa: E402
from tools.demo_model.networks.vae_start import carry_colours  # noqa: E402
from tools.demo_model.pictures.attributes import VALUES  # noqa: E402
from tools.demo_model.pictures.dataset import (  # noqa: E402
    TRAIN,
    UNSEEN,
    Portrait,
    draw_sample,
    render,
)
from tools.demo_model.pictures.features import (  # noqa: E402
    LEFT_EYE,
    MOUTH,
    NOSE,
    RIGHT_EYE,
    true_landmarks,
)
from tools.demo_model.training.control import ControlPlan, Hints  # noqa: E402
from tools.demo_model.training.diffusion import loss_weight, spread_times  # noqa: E402
from tools.demo_model.training.emphasis import training_emphasis  # noqa: E402
from tools.demo_model.training.focus import focus_map  # noqa: E402
from tools.demo_model.training.latent_set import Batch, LatentSet  # noqa: E402
from tools.demo_model.training.latents import cached_latents, to_tensor  # noqa: E402
from tools.demo_model.training.lcm import Level  # noqa: E402
from tools.demo_model.training.pace import Pace  # noqa: E402
from tools.demo_model.training.run_folder import learning_rate  # noqa: E402
from tools.demo_model.training.text import Reader, TextPlan, draw_lesson  # noqa: E402
from tools.demo_model.training.vae import (  # noqa: E402
    normalise_latents,
    psnr,
    reconstruct,
)
from tools.demo_model.training.wordings import Wordings, cached_wordings  # noqa: E402


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


def test_times_in_the_middle_are_likelier_and_all_are_valid():
    times = spread_times(1000, torch.Generator().manual_seed(0))

    assert times.min() >= 0
    assert times.max() <= 999
    assert 0.65 < ((times >= 250) & (times < 750)).float().mean() < 0.75


def test_pace_fits_the_steps_into_the_seconds(monkeypatch: pytest.MonkeyPatch):
    clock = iter(range(10_000))
    monkeypatch.setattr("tools.demo_model.training.pace.time.monotonic", lambda: next(clock))

    pace = Pace(steps=10**6, seconds=500.0)
    done = 0
    while done < pace.look(done):
        done += 1

    assert 495 <= done <= 500  # one tick of the clock a step


def test_wordings_name_their_picture_and_now_and_then_nothing(tmp_path: Path):
    pytest.importorskip("open_clip")
    wordings = cached_wordings(tmp_path, pictures=5, wordings=3, workers=1)
    numbers = torch.tensor([0, 1, 2, 3, 4])

    named = wordings.choose(numbers, 0.0, torch.Generator().manual_seed(1))
    unnamed = wordings.choose(numbers, 1.0, torch.Generator().manual_seed(1))

    for number, tokens in enumerate(named):
        assert any(torch.equal(tokens, one.long()) for one in wordings.captions[number])
    assert all((tokens == wordings.nothing).all(dim=1).any() for tokens in unnamed)


def test_latents_of_mirror_images_lie_beside_those_of_the_pictures(vae, tmp_path: Path):
    shown = np.stack([render(draw_sample(UNSEEN, i), 64) for i in range(3)])

    latents = cached_latents(tmp_path / "a.npy", vae, shown, "cpu", bf16=False, batch=2)

    alone = cached_latents(tmp_path / "b.npy", vae, shown[:, :, ::-1], "cpu", bf16=False, batch=2)
    assert latents.shape == (3, 2, 4, 8, 8)
    assert np.allclose(latents[:, 1], alone[:, 0], atol=1e-3)


def test_control_pictures_are_mirrored_with_their_latents(tmp_path: Path):
    plan = ControlPlan(tmp_path, "cpu", kind="canny", size=64, shown=4, workers=1)
    hints = Hints(plan)
    latents = torch.zeros(4, 4, 8, 8)
    tokens = torch.zeros(4, 77, dtype=torch.long)

    def of(mirrored: int) -> torch.Tensor:
        flips = torch.full((4,), mirrored)
        batch = Batch(torch.arange(4), flips, latents, tokens, latents, latents)
        return hints.of(batch, step=3)

    assert of(0).shape == (4, 3, 64, 64)
    assert 0.005 < of(0).mean() < 0.5
    assert torch.equal(of(1), of(0).flip(-1))


def test_consistency_function_keeps_what_is_clean_and_predicts_what_is_noisy():
    noisy, noise = torch.randn(2, 2, 4, 8, 8)
    kept = alphas_cumprod()[[0, 999]]
    level = Level(torch.tensor([0, 999]), kept[:, None, None, None])

    made = level.consistent(noisy, noise)

    assert torch.allclose(made[0], noisy[0])
    assert torch.allclose(made[1], level.clean(noisy, noise)[1], atol=1e-2)


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


def test_what_is_hard_to_draw_is_shown_more_often():
    count = 64
    emphasis = training_emphasis(count)
    samples = [draw_sample(TRAIN, number) for number in range(count)]
    captions = torch.arange(count * 77).reshape(count, 1, 77)
    wordings = Wordings(captions, torch.zeros(1, 77, dtype=torch.long))
    maps = torch.ones(count, 1, 1)
    data = LatentSet(torch.zeros(count, 2, 4, 1, 1), wordings, emphasis, maps)

    shown = torch.cat([data.batch(0, step, 64, 0.0).numbers for step in range(100)])
    often = torch.bincount(shown, minlength=count).float()

    glasses = torch.tensor([isinstance(s, Portrait) and s.who.has_glasses for s in samples])
    stills = torch.tensor([not isinstance(s, Portrait) for s in samples])
    dark = torch.tensor([isinstance(s, Portrait) and s.who.skin_name == "dark" for s in samples])
    plain = emphasis == 1.0
    assert often[dark].mean() > 2.0 * often[plain].mean()
    assert often[glasses].mean() > 2.0 * often[plain].mean()
    assert often[plain].mean() > 1.1 * often[stills].mean()


def test_errors_count_more_at_features_and_nowhere_more_where_there_is_no_face():
    samples = [draw_sample(TRAIN, number) for number in range(20)]
    portraits = [sample for sample in samples if isinstance(sample, Portrait)]
    stills = [sample for sample in samples if not isinstance(sample, Portrait)]

    for sample in portraits:
        weights = focus_map(sample, 256)
        points = true_landmarks(sample.who, sample.view, 256) // 8
        corner = weights[-1, 0]
        for landmark, least in ((LEFT_EYE, 4.0), (RIGHT_EYE, 4.0), (MOUTH, 3.0), (NOSE, 2.0)):
            across, down = points[landmark].astype(int)
            assert weights[down, across] > least * corner
    assert portraits
    assert stills
    assert all((focus_map(sample, 256) == 1.0).all() for sample in stills)


def test_a_mirrored_picture_has_its_focus_mirrored():
    maps = torch.arange(3.0).repeat(8, 1, 1)
    wordings = Wordings(torch.zeros(8, 1, 77, dtype=torch.long), torch.zeros(1, 77).long())
    data = LatentSet(torch.zeros(8, 2, 4, 1, 3), wordings, torch.ones(8), maps)

    batch = data.batch(0, 0, 8, 0.0)

    assert set(batch.mirrored.tolist()) == {0, 1}
    for is_mirrored, row in zip(batch.mirrored.tolist(), batch.focus[:, 0, 0], strict=True):
        assert row.tolist() == ([2.0, 1.0, 0.0] if is_mirrored else [0.0, 1.0, 2.0])
