"""Overlays, labelled panels, contact sheets and film strips: numpy in, uint8 RGB numpy out.

The only place of the package that imports cv2. Which file holds what:

* `heat.py`: a map's numbers become colours, and colours are blended onto a picture
* `tiles.py`: one probe image as it is drawn: enlarged, blended, outlined
* `contours.py`: a region's outline as polygons
* `crops.py`: what lies under a map's focus
* `sheets.py`: pictures with words: `panel`, `contact_sheet`, `film_strip`
* `resize.py`: as OpenCV resizes
* `text.py`: words that fit the room they have
* `encoding.py`: the bytes of PNG, JPEG and WebP files, and PNG files that appear whole or not at all
"""

from cam_engine.render.contours import contours
from cam_engine.render.crops import above, focus_wall, under_focus
from cam_engine.render.encoding import WEBP_LARGEST, encode_jpeg, encode_png, encode_webp, mean_difference, write_png
from cam_engine.render.heat import COLORMAPS, DEFAULT_COLORMAP, colorize, is_valid, overlay, unit_scale, upsample
from cam_engine.render.sheets import contact_sheet, film_strip, panel
from cam_engine.render.tiles import Tile, draw_tile, shrunk

__all__ = [
    "COLORMAPS",
    "DEFAULT_COLORMAP",
    "WEBP_LARGEST",
    "Tile",
    "above",
    "colorize",
    "contact_sheet",
    "contours",
    "draw_tile",
    "encode_jpeg",
    "encode_png",
    "encode_webp",
    "film_strip",
    "focus_wall",
    "is_valid",
    "mean_difference",
    "overlay",
    "panel",
    "shrunk",
    "under_focus",
    "unit_scale",
    "upsample",
    "write_png",
]
