"""Class folders and lists of images, and reading them in many processes (Step 2)."""
