"""Stage 4, pure tensor functions on clouds for the encoders; each has a slow twin in the tests."""
