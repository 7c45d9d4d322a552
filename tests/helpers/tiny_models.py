"""Models of sentence-transformers and timm with random weights, the same every time, saved as the real ones are: their real code
loads and runs them, and nothing is downloaded. A token is a character, so that a test knows how many a text has."""

import json
import string
from pathlib import Path
from typing import Any

from tasks.embedders.local import torchvision_repair

CHARACTERS = [c for c in string.printable if not c.isspace()]


def text_model(folder: Path, normalize: bool = False, seed: int = 0, prompts: dict[str, str] | None = None) -> Path:
    """BERT: 32 dimensions, at most 32 tokens (it has 64 positions), two of them special; texts alone."""
    torchvision_repair.repair()
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer
    from transformers import BertConfig, BertModel

    torch.manual_seed(seed)
    tokenizer = _tokenizer()
    tokenizer.save_pretrained(folder / "base")
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    config = BertConfig(vocab_size=len(tokenizer), max_position_embeddings=64, **sizes)
    BertModel(config).save_pretrained(folder / "base")
    modules = [Transformer(str(folder / "base"), max_seq_length=32), Pooling(32), *([Normalize()] if normalize else [])]
    default = next(iter(prompts), None) if prompts else None
    model = SentenceTransformer(modules=modules, device="cpu", prompts=prompts, default_prompt_name=default)
    model.save(str(folder / "model"))
    return folder / "model"


def table_model(folder: Path, rows: dict[str, float], dimensions: int = 4) -> Path:
    """A table of one row a character, without a limit of tokens; ``rows`` are filled with a value each."""
    torchvision_repair.repair()
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding

    tokenizer = _tokenizer()
    torch.manual_seed(0)
    table = torch.randn(len(tokenizer), dimensions)
    for character, value in rows.items():
        table[tokenizer.convert_tokens_to_ids(character)] = value
    SentenceTransformer(modules=[StaticEmbedding(tokenizer, embedding_weights=table)], device="cpu").save(str(folder))
    return folder


def clip_model(folder: Path, dimensions: int = 24, tokens: int = 20) -> Path:
    """CLIP: texts of so many tokens at most, and images."""
    torchvision_repair.repair()
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Transformer
    from tokenizers import pre_tokenizers
    from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel, CLIPProcessor, CLIPTokenizerFast

    torch.manual_seed(0)
    base = folder / "base"
    base.mkdir(parents=True)
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    (base / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(words)}))
    (base / "merges.txt").write_text("#version: 0.2\n")
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    end = len(words) - 1
    ends = {"bos_token_id": end - 1, "eos_token_id": end, "pad_token_id": end}
    config = CLIPConfig(
        projection_dim=dimensions,
        text_config={"vocab_size": len(words), "max_position_embeddings": tokens, **sizes, **ends},
        vision_config={"image_size": 32, "patch_size": 16, **sizes},
    )
    CLIPModel(config).save_pretrained(base)
    tokenizer = CLIPTokenizerFast(str(base / "vocab.json"), str(base / "merges.txt"), model_max_length=tokens)
    images = CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    CLIPProcessor(images, tokenizer).save_pretrained(base)
    SentenceTransformer(modules=[Transformer(str(base))], device="cpu").save(str(folder / "model"))
    return folder / "model"


def timm_model(folder: Path, seed: int = 0, channels: int = 3, width: int = 8, **config: Any) -> Path:
    """Swin: images of 64×64, eight times ``width`` dimensions, not normalized; ``config`` is what its configuration says beside its
    own: bicubic, cropped at its centre to 0.9, ImageNet's mean and deviation."""
    torchvision_repair.repair()
    import timm
    import torch

    torch.manual_seed(seed)
    sizes = {"img_size": 64, "window_size": 2, "embed_dim": width, "depths": (1, 1, 1, 1), "num_heads": (1, 2, 4, 8)}
    model = timm.create_model("swin_tiny_patch4_window7_224", num_classes=0, in_chans=channels, **sizes)
    timm.models.save_for_hf(model, str(folder), model_config={"pretrained_cfg": config}, safe_serialization=True)
    return folder


def _tokenizer() -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *CHARACTERS, *(f"##{c}" for c in CHARACTERS)]
    made = Tokenizer(models.WordPiece({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    return PreTrainedTokenizerFast(tokenizer_object=made, model_max_length=32, **special)
