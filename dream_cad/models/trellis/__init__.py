"""TRELLIS: structured latents from an image or a text, decoded to four representations."""
