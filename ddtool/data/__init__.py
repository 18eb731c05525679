"""Images with labels in memory: real ones, synthetic ones, augmentation."""
