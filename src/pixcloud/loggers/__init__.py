"""Stage 7, loggers: the lines of `metrics.jsonl` -> TensorBoard files or a Weights & Biases server.

Training only writes its run folder. For each logger a process of its own follows that folder
(`follow`), starts another one that holds the library (`session`), and ends it when it hangs. So a
logger that is slow, away or broken costs training nothing, and whatever it missed is still in
`metrics.jsonl`, from where `pixcloud log` sends it later.
"""
