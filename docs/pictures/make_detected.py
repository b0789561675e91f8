"""Draws detected.png and live.png: what a detector of blood cells finds in pictures, and in a film.

    python docs/pictures/make_detected.py MODEL BCCD

MODEL is what `bench/bccd.py` trains, BCCD its data (MIT licence, github.com/Shenggan/BCCD_Dataset), of which
pictures of the test list are drawn. The film is made here: a window that moves over one of them, as a microscope's
stage does; three of its frames are shown with the numbers that tracking gives to cells. Needs
`pip install '.[video]'`.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

import av
import numpy as np
from PIL import Image

import mobilenet
from mobilenet.pictures.decode import decode

FOLDER = Path(__file__).parent
PICTURES = ("BloodImage_00068", "BloodImage_00333")  # platelets, red cells, white cells
FILMED = "BloodImage_00031"
SHOWN = (5, 25, 45)  # frames
FRAMES, STEP = 50, 4  # of the film, and pixels a frame
SIZE = (360, 440)  # height and width of the window
GAP, SIDE, COLOURS = 6, 440, 160


def main() -> None:
    """Reads the command line and draws both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("bccd", type=Path)
    words = parser.parse_args()
    model = mobilenet.load(words.model)
    pictures = words.bccd / "JPEGImages"
    found = [model.predict(pictures / f"{name}.jpg").plot() for name in PICTURES]
    save(found, FOLDER / "detected.png")
    with tempfile.TemporaryDirectory() as folder:
        film = make_film(Path(folder) / "film.mp4", decode(pictures / f"{FILMED}.jpg"))
        seen = Path(folder) / "seen"
        for _ in model.stream(film, save=seen.with_suffix(".mp4")):
            pass
        with av.open(str(seen.with_suffix(".mp4"))) as opened:
            frames = [frame.to_image() for frame in opened.decode(video=0)]
    save([frames[number] for number in SHOWN], FOLDER / "live.png")


def make_film(path: Path, pixels: np.ndarray) -> Path:
    """The window from the left to the right, and slowly down."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": "12"})
        stream.height, stream.width, stream.pix_fmt = *SIZE, "yuv420p"
        for number in range(FRAMES):
            top, left = 2 * number, STEP * number
            window = np.ascontiguousarray(pixels[top : top + SIZE[0], left : left + SIZE[1]])
            container.mux(stream.encode(av.VideoFrame.from_ndarray(window, format="rgb24")))
        container.mux(stream.encode())
    return path


def save(pictures: Sequence[Image.Image], path: Path) -> None:
    """Side by side, in few colours."""
    small = [image.resize((SIDE, round(image.height * SIDE / image.width))) for image in pictures]
    sheet = Image.new("RGB", (len(small) * (SIDE + GAP) - GAP, small[0].height), (255, 255, 255))
    for number, image in enumerate(small):
        sheet.paste(image, (number * (SIDE + GAP), 0))
    sheet.quantize(COLOURS).save(path, optimize=True)


if __name__ == "__main__":
    main()
