"""From heatmaps to joints, from joints to the numbers of the tables, and what they cost."""
