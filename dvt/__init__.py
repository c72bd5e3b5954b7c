"""dvt: dense features of pretrained vision transformers, and their denoising."""
