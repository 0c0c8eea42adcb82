"""Boxes, masks and maps of a store against ground truth."""
