"""The files between Steps 2 and 3: shards, their reader and writer, and COCO files."""
