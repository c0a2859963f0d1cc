"""Any architecture of transformers, a few ten thousand random weights of it, from its configuration alone.

Sizes are known by their names, which are much the same in all configurations. Windows, chunks and kernels are made so
small that a sample of a dozen tokens is longer; each kind of layer that the default configuration has is there.
"""

import inspect

import torch
import transformers

VOCABULARY = 128
BY_SIZE = {
    1: "n_group topk_group first_k_dense_replace moe_layer_start_index num_mem_blocks expert_ffn_hidden_size_min",
    2: """num_key_value_heads decoder_num_key_value_heads n_kv_heads num_experts_per_tok moe_topk moe_k top_k
        num_local_experts_per_tok expert_top_k attention_chunk num_attention_groups mamba_n_groups mamba_ngroups
        n_groups temporal_patch_size spatial_merge_size""",
    4: """num_hidden_layers n_layer num_layers decoder_layers encoder_layers n_layers num_attention_heads n_head n_heads
        decoder_attention_heads encoder_attention_heads num_attention_heads num_heads depth vision_layers
        sliding_window attention_window_size attention_chunk_size chunk_size mamba_chunk_size floor_scale
        num_experts num_local_experts n_routed_experts moe_num_experts moe_num_shared_experts_max block_size
        local_attention time_step_rank mamba_dt_rank attention_window chunk_len lsh_attn_chunk_length
        local_attn_chunk_length window_size""",
    8: """head_dim qk_rope_head_dim mamba_n_heads mamba_num_heads qk_nope_head_dim v_head_dim
        kv_lora_rank q_lora_rank rotary_dim mamba_d_state ssm_state_size
        state_size mamba_d_head mamba_head_dim mamba_headdim linear_key_head_dim linear_value_head_dim
        kv_channels d_embed d_head attention_head_size patch_size""",
    16: "image_size moe_hidden_size_min",
    32: """hidden_size d_model n_embd dim embedding_size word_embed_proj_dim emb_dim decoder_hidden_size embed_dim
        lru_width dim_model out_hidden_size shared_expert_intermediate_size moe_intermediate_size projection_dim
        expert_ffn_hidden_size hidden_size_per_layer_input dim_ff embed_dim_per_head""",
    64: """intermediate_size ffn_dim decoder_ffn_dim encoder_ffn_dim n_inner d_inner d_ff ffn_hidden_size
        mamba_intermediate_size intermediate_size_mlp mlp_hidden_size mamba_d_ssm shared_intermediate_size
        ffn_intermediate_size dff mlp_dim""",
    256: """max_position_embeddings n_positions n_ctx max_seq_len max_sequence_length model_max_length
        context_length""",
    VOCABULARY: "vocab_size n_vocab vocab_size_per_layer_input num_embeddings decoder_vocab_size",
}
SIZES = {name: size for size, names in BY_SIZE.items() for name in names.split()}
SIZES |= {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "is_decoder": True}


def build(model_class: str, config_class: type, seed: int, changes: dict | None = None, noise: float = 0.0):
    """A model in evaluation mode, float32; changes: keys of its configuration, nested as that is.

    noise: put on every weight; 0 leaves the default initialisation, in which gates are zero and attention is weak.
    """
    config = shrink(config_class, changes or {})
    chosen = getattr(transformers, model_class)
    if chosen.config_class is config_class.sub_configs.get("text_config"):  # as transformers' AutoModel has it
        config = config.get_text_config()
    torch.manual_seed(seed)
    model = chosen(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if noise and parameter.is_floating_point():
                parameter += noise * torch.randn_like(parameter)
    return model


def shrink(config_class: type, changes: dict):
    """A small configuration with each kind of layer that the default one has."""
    default = config_class()
    known = set(inspect.signature(config_class.__init__).parameters)
    keys = {name: size for name, size in SIZES.items() if name in known}
    kinds = list(dict.fromkeys(getattr(default, "layer_types", None) or ()))
    if kinds and "layer_types" in known:
        keys["layer_types"] = (2 * kinds)[: max(2, len(kinds))]
        keys["num_hidden_layers"] = len(keys["layer_types"])
    parts = {name: getattr(default, name, None) for name in config_class.sub_configs}
    for name, part in parts.items():
        if part is not None:
            keys[name] = _keys(shrink(type(part), changes.get(name, {})))
    return config_class(**keys | {name: value for name, value in changes.items() if name not in parts})


def _keys(config) -> dict:
    """What the constructor of a part takes."""
    known = {"model_type", *inspect.signature(type(config).__init__).parameters}
    return {name: value for name, value in config.to_dict().items() if name in known}
