"""What is fitted on frozen features, in closed form or as a convex problem."""
