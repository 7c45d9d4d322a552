"""The pictures that scikit-image comes with, as somebody would caption them."""

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

PHOTOGRAPHS = "skimage"
CAPTIONS: Mapping[str, str] = {
    "astronaut.png": "a smiling woman in an orange space suit beside a model of the shuttle",
    "brick.png": "a wall of bricks, seen from the front",
    "camera.png": "a man in a coat looks through a camera on a tripod, in black and white",
    "cell.png": "a single living cell under a microscope",
    "chelsea.png": "the face of a tabby cat with green eyes and long whiskers",
    "clock_motion.png": "a clock on a wall, blurred by the movement of the camera",
    "coffee.png": "a cup of espresso on a saucer with a spoon, on a wooden table",
    "coins.png": "rows of ancient Greek coins on a dark ground",
    "color.png": "a chart of coloured fields",
    "grass.png": "blades of grass on a lawn",
    "gravel.png": "small stones of a gravel path",
    "horse.png": "the black silhouette of a galloping horse",
    "hubble_deep_field.jpg": "thousands of distant galaxies, by the Hubble space telescope",
    "ihc.png": "stained tissue of the colon, for a pathologist",
    "logo.png": "the snake that is the logo of a software library",
    "microaneurysms.png": "tiny bulges of blood vessels in an eye",
    "moon.png": "craters on the surface of the moon",
    "motorcycle_left.png": "a motorcycle in a workshop, seen from its left side",
    "page.png": "a scanned page of a printed book",
    "phantom.png": "the phantom of a human head for computer tomography",
    "retina.jpg": "the retina at the back of an eye with its blood vessels",
    "rocket.jpg": "a rocket is launched at night, in fire and smoke",
    "text.png": "lines of handwriting, photographed at an angle",
}
"""File → what there is to be seen."""
QUESTIONS = ("an animal with whiskers", "a hot drink", "a spaceship takes off")


def folder() -> Path:
    """Where the package has them."""
    spec = find_spec(PHOTOGRAPHS)
    assert spec
    assert spec.origin
    return Path(spec.origin).parent / "data"
