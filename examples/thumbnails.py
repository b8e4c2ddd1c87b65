"""Thumbnails in a process pool: work that keeps a CPU busy, in children that a crash of the image library cannot hurt.

pip install pillow
kantoku-kafka topics create thumbnails:kan --yes
kantoku-kafka run-executor thumbnails:kan
python thumbnails.py holiday/*.jpg
"""

from __future__ import annotations

import io
import sys
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from kantoku_kafka import Kantoku, NonRetryable, Task, labels

kan = Kantoku("pictures")


@kan.task("thumbnail", pool="process")
def thumbnail(data: bytes) -> bytes:
    """A picture of any format in, a PNG of at most 128 x 128 pixels out."""
    try:
        image = Image.open(io.BytesIO(data))
    except UnidentifiedImageError as error:
        raise NonRetryable("this is no picture") from error
    image.thumbnail((128, 128))
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()


def main(paths: list[str]) -> None:
    tasks = [Task("thumbnail", Path(path).read_bytes()).with_(labels(path=path)) for path in paths]
    # The results come in the order of the tasks, however the pictures were spread over executors.
    for path, result in zip(paths, kan.gather(kan.spawn_many(tasks), timeout_seconds=60), strict=True):
        if result.ok:
            Path(path).with_suffix(".thumb.png").write_bytes(result.data)
        else:
            print(f"{path}: {result.error.message if result.error else result.status}")
    kan.close()


if __name__ == "__main__":
    main(sys.argv[1:])
