"""Operations on batches of images: float [B, C, H, W] in [0, 1], one random draw for each sample."""
