"""DA²: a differentiable search for augmentation policies, section III.A of the paper."""
