"""featstore: compute dense ViT features once, clean them, and train on them ever after."""
