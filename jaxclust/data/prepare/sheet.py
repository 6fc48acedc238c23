"""The contact sheet: a few images of each class under each other, to see at a glance that the data is right."""

from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

PAPER, INK, FAINT = "#ffffff", "#1f2328", "#6e7781"
MARGIN, GAP = 32, 4


def draw(title: str, subtitle: str, names: Sequence[str], rows: Sequence[Sequence[Image.Image]]) -> Image.Image:
    """Draws the sheet.

    Args:
      title: what the images are.
      subtitle: what else to say, on the same line in grey.
      names: the classes' names, each beside its row.
      rows: for each class its thumbnails, squares of one size; classes beyond twenty go into several columns.
    """
    side = rows[0][0].width
    head, note, body = (ImageFont.load_default(size) for size in (20, 15, 15 if side > 40 else 12))
    columns = 1 if len(rows) <= 20 else round((len(rows) / 8) ** 0.5)
    each = -(-len(rows) // columns)  # rows in a column
    labels = [max(int(body.getlength(name)) for name in names[i : i + each]) + 12 for i in range(0, len(rows), each)]
    pictures = max(map(len, rows)) * (side + GAP) - GAP
    left = [MARGIN + sum(labels[:i]) + i * (pictures + MARGIN) for i in range(len(labels))]
    top = MARGIN + 44
    first_line = int(head.getlength(title) + 14 + note.getlength(subtitle))
    width = max(left[-1] + labels[-1] + pictures, MARGIN + first_line) + MARGIN
    page = Image.new("RGB", (width, top + each * (side + GAP) - GAP + MARGIN), PAPER)
    pen = ImageDraw.Draw(page)
    pen.text((MARGIN, MARGIN + 20), title, INK, head, anchor="ls")
    pen.text((MARGIN + head.getlength(title) + 14, MARGIN + 20), subtitle, FAINT, note, anchor="ls")
    for i, (name, row) in enumerate(zip(names, rows, strict=True)):
        x, y = left[i // each] + labels[i // each], top + i % each * (side + GAP)
        pen.text((x - 12, y + side // 2), name, INK, body, anchor="rm")
        for j, picture in enumerate(row):
            page.paste(picture, (x + j * (side + GAP), y))
    return page
