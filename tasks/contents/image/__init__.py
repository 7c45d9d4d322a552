"""The content of images: references, where they lead, and what may be had there."""
