"""Built-in image formats: how an image's bytes become a disk's."""
