"""Boxes of images of 100 x 100 pixels, xyxy."""

LEFT, RIGHT, WHOLE = [0, 0, 50, 100], [50, 0, 100, 100], [0, 0, 100, 100]


def labelled(label, *boxes):
    """Rows of x1, y1, x2, y2, label."""
    return [[*box, label] for box in boxes]
