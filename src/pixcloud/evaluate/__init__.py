"""Stage 9: frozen encoders and labelled clouds -> predictions -> rows of results.jsonl."""
