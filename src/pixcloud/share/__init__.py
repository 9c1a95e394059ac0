"""Stage 9, what leaves: encoders and classifiers to ONNX, and to the Hugging Face Hub."""
