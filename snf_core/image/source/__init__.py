"""Built-in image sources: where an image's bytes come from."""
