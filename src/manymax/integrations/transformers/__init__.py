"""manymax in the models of `transformers`; importing this registers it there.

Example:
    >>> import manymax.integrations.transformers
    >>> from transformers import LlamaConfig, LlamaForCausalLM
    >>> sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "vocab_size": 32}
    >>> config = LlamaConfig(**sizes, num_attention_heads=4, num_key_value_heads=2)
    >>> model = LlamaForCausalLM._from_config(config, attn_implementation="manymax")
    >>> model.set_attn_implementation("manymax:sparsemax")
"""

from manymax._extras import require

require("transformers", "transformers")

from manymax.integrations.transformers.loss import patch_loss, unpatch_loss  # noqa: E402
from manymax.integrations.transformers.register import implementations, register  # noqa: E402
from manymax.integrations.transformers.replace import replace_attention  # noqa: E402

__all__ = ["implementations", "patch_loss", "register", "replace_attention", "unpatch_loss"]

register()
