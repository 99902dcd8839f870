"""The sums of a prediction set, which merge exactly, and the numbers that are made of them."""
