"""Pure tensor functions on clouds, used by the encoders of stage 4; each has a slow twin in tests."""
