"""From noise to a latent: schedules, noise, guidance, samplers."""
