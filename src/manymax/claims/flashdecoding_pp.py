"""Hong et al., 2023: decoding in chunks of keys with one maximum set beforehand, and a table of flat products."""

from manymax.claims.claim import Check, Claim, Source

CLAIM = Claim(
    name="flashdecoding-pp",
    source=Source("Hong et al.", 2023, "FlashDecoding++: Faster Large Language Model Inference on GPUs", "2311.01282"),
    statement=(
        "Partial softmax over chunks of keys has to be synchronised: every chunk that raises the maximum rescales what "
        "was summed before, about 20 % of attention's time. Scores of a given model lie in a known range (99.99 % of "
        "Llama 2 7B's in -16.8 to 6.5), so that one maximum phi, set beforehand, serves all chunks without rescaling; "
        "a row with a score outside of (phi + a, phi + b) is computed again with a running maximum. Softmax is exact "
        "for any phi. A decoding step's products of M tokens with weights are flat: a table, measured once for each "
        "shape, picks matrix-vector products, a product padded to 8 tokens or the library's own by M."
    ),
    setting=(
        "Two C++ kernels for one query a head that differ in this alone: keys and values are read once, in chunks; a "
        "running maximum rescales sum and output where a chunk raises it, the preset one checks each score's range. "
        "Times: 8 heads of width 64 in float32, caches of 4096 to 65536 keys, one thread, processor time, the forms in "
        "turn, each with the best of three chunk sizes, the best of several rounds; the metric is the smallest ratio "
        "over caches of at least 16384 keys. phi is the middle of the scores of a byte-level GPT (2 blocks, width 64, "
        "contexts of 512, Python's documentation) on training text, layer by layer, a and b their range widened by "
        "half; the rate of rows out of range is that on held-out text at 16 lengths. Errors are against float64. "
        "Misleading presets: phi off by 200 both ways, b too low, and one key whose score is far above all others. "
        "The table is measured for three shapes of weights and 1 to 32 tokens: M vectors one by one, torch's product "
        "padded to a multiple of 8, the same as it is."
    ),
    differences=(
        "The paper measures GPUs, where chunks are computed by different processors that have to wait for each other; "
        "on one core nothing waits, and only the arithmetic of rescaling is left. The running maximum here leaves a "
        "chunk alone that does not raise it; the ratio to one that rescales after every chunk, as the paper's baseline "
        "does, is reported beside. The paper writes kernels of its own for flat products; the three here are torch's."
    ),
    checks=(
        Check("time_ratio", ">", 1.05, "a running maximum takes longer than the preset one"),
        Check("largest_error", "<", 1e-5, "the preset maximum is exact on held-out text", over="every"),
        Check("fallback_rate", "<", 1e-3, "few rows of held-out text are out of range", over="every"),
        Check("misled_error", "<", 1e-5, "the output is exact when phi is wrong", over="every"),
    ),
    also={
        "time_ratio_every_chunk": "the same for a maximum that rescales after every chunk",
        "time_ratio_shortest": "the ratio of times at the shortest cache",
        "time_ratio_groups_bfloat16": "the same at 32768 keys in bfloat16, four queries' heads to a head of keys",
        "time_noise": "time of the running maximum over itself, in the same rounds",
        "gigabytes_per_second": "keys and values over the time of the preset maximum at the longest cache, in 1e9",
        "misled_fallback_rate": "smallest rate of rows computed again where all are out of range",
        "layers_disabled": "layers whose scores reach too far for a preset",
        "flat_vectors_below": "tokens (M1) below which the table picks matrix-vector products, the most of all shapes",
        "flat_padded_share": "share of shapes and numbers of tokens for which it pads to 8",
        "flat_table_gain": "time of the ordinary product over that of the table's choice, mean of all",
    },
    numbers={
        "depth": 2,
        "width": 64,
        "length": 512,
        "steps": 200,
        "batch_size": 4,
        "learning_rate": 6e-3,
        "warmup": 20,
        "calibration_texts": 32,
        "margin": 1.5,
        "texts": 128,
        "positions": 16,
        "misled_keys": 5000,
        "heads": 8,
        "keys": [4096, 16384, 32768, 65536],
        "long": 16384,
        "chunks": [64, 128, 256],
        "rounds": 15,
        "seconds": 0.01,
        "flat": {
            "shapes": [[1024, 1024], [4096, 1024], [1024, 4096]],
            "tokens": [1, 2, 3, 4, 6, 8, 12, 16, 24, 32],
            "rounds": 7,
            "turn": 0.005,
        },
    },
    tiny={
        "depth": 1,
        "width": 32,
        "length": 16,
        "steps": 4,
        "batch_size": 2,
        "warmup": 2,
        "calibration_texts": 2,
        "texts": 2,
        "positions": 3,
        "misled_keys": 100,
        "heads": 1,
        "keys": [40, 64, 100],
        "long": 64,
        "chunks": [32],
        "rounds": 1,
        "seconds": 0.0001,
        "flat": {"shapes": [[8, 16]], "tokens": [1, 3], "rounds": 1, "turn": 0.0001},
    },
    seeds=(0, 1, 2),
    minutes=1,
)
