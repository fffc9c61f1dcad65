"""What the tasks of images share: where data sets lie, reading, subsets, noise, augmentation, batches."""
