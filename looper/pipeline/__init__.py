"""A request -> its loops: candidates, the best of them, its variations, the finished set."""
