"""Stage 10: run folders -> one page that shows what the encoder learned and what it is worth."""
