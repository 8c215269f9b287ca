"""`python -m bench.gpu`: everything to be known of a GPU, in one command; see `bench.gpu.__main__`."""
