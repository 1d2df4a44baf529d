"""What is found among trajectories: vectors of them, clusters, and what these are called."""
