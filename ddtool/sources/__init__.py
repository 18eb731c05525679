"""A dataset's name, whatever it names, to images with labels."""
