"""Membership inference attacks on image classifiers, with honest error rates."""
