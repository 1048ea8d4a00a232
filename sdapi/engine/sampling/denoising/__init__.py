"""What a UNet predicts for a latent: conditioned, guided, and blended with what stays."""
