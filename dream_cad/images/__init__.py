"""Pictures: safe loading, matting, cropping, and the text-to-image stage."""
