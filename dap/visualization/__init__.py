"""Pictures of maps and boxes, and the page that shows the boxes of a run."""
