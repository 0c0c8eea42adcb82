"""Class folders and lists of images, and reading images in several processes (Step 2)."""
