"""A version in one HTML file: what, how, how many, how well, where from."""
