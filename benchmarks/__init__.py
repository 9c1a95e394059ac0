"""Speed and memory, each measured against the textbook way, in turns, in one run."""
