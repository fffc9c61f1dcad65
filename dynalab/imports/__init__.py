"""Trajectories from elsewhere: a table of someone else's runs becomes an ensemble like any other."""
