#!/usr/bin/env python3
"""Writes tests/text/golden: small tokenizers of each style and what the reference makes of a nasty corpus.

Needs the `tokenizers` package (0.23). Deterministic: the training text is generated here.
Usage: make_goldens.py [FOLDER]
"""

import json
import pathlib
import random
import sys

from tokenizers import AddedToken, Regex, Tokenizer, decoders, normalizers, pre_tokenizers, processors
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer

LLAMA3_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN2_PATTERN = LLAMA3_PATTERN.replace(r"\p{N}{1,3}", r"\p{N}")
DEEPSEEK_PATTERN = (
    r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"
    r"| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
WORDS = """a the of to and in is it that for on with as was at be by this have from or had not but what all were
when we there can an your which their said if do will each about how up out them then she many some so these would
other into has more her two like him see time could no make than first been its who now people my made over did
down only way find use may water long little very after words called just where most know get through back much go
good new write our me man too any day same right look think also around another came come work three word must
because does part even place well such here take why things help put years different away again off went old number
weir dam river crest overflow basin plan op device layout tensor attention head query key value cache step token
batch shard pipeline stage reduce gather scatter broadcast kernel compute memory bandwidth latency schedule""".split()
OTHER_WORDS = """straße naïve façade jalapeño Ångström smörgåsbord über être où déjà señor mañana coração ação
привет мир река плотина внимание устройство время γειά κόσμος ποτάμι שלום עולם مرحبا بالعالم نهر سد नमस्ते दुनिया
你好 世界 河流 注意力 水坝 设备 こんにちは 世界 ダム 안녕하세요 세계 강 สวัสดี xin chào Việt Nam""".split()
SOME_CHARACTERS = set("\t\n\r äöüßéñçабвеимор你好世界🙂" + "".join(map(chr, range(0x21, 0x7F)))) - set("#$%&@^`~|\\")
EMOJI = ["🙂", "🚀", "👩‍💻", "👨‍👩‍👧‍👦", "🇩🇪", "❤️", "👍🏽"]


def training_text():
    """A few thousand lines of generated prose, code, numbers and other scripts."""
    rng = random.Random(20240607)
    lines = []
    for _ in range(3000):
        words = rng.choices(WORDS, k=rng.randint(3, 14))
        if rng.random() < 0.3:
            words.insert(rng.randrange(len(words)), rng.choice(OTHER_WORDS))
        if rng.random() < 0.1:
            words.append(rng.choice(EMOJI))
        line = " ".join(words)
        kind = rng.random()
        if kind < 0.4:
            line = line.capitalize() + rng.choice([".", "!", "?", ", he said.", ": I'm sure they'll do it; we've seen it."])
        elif kind < 0.55:
            line = "    if (%s == %d) { return %s(%s); }  // %s" % (*rng.choices(WORDS, k=1), rng.randint(0, 4096), *rng.choices(WORDS, k=2), line)
        elif kind < 0.6:
            line = "\t%s = %s[%d];\r\n\r\n" % (words[0], words[1], rng.randint(0, 99))
        lines.append(line)
    return lines


def special(content):
    return AddedToken(content, special=True, normalized=False)


def byte_level(pattern, vocab_size, specials, pre=None):
    tokenizer = Tokenizer(BPE())
    steps = pre or [pre_tokenizers.Split(Regex(pattern), "isolated")]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        steps + [pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = BpeTrainer(vocab_size=vocab_size, show_progress=False,
                         initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()))
    tokenizer.train_from_iterator(training_text(), trainer)
    tokenizer.add_special_tokens([special(s) for s in specials])
    return tokenizer


def template(tokenizer, single, tokens):
    return processors.TemplateProcessing(
        single=single, pair=single + " $B:1", special_tokens=[(t, tokenizer.token_to_id(t)) for t in tokens])


def llama3():
    tokenizer = byte_level(LLAMA3_PATTERN, 700, ["<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>"])
    tokenizer.post_processor = processors.Sequence(
        [processors.ByteLevel(trim_offsets=False), template(tokenizer, "<|begin_of_text|> $A", ["<|begin_of_text|>"])])
    document = json.loads(tokenizer.to_str())
    document["model"]["ignore_merges"] = True
    # Words that no row of merges makes: only ignore_merges finds them.
    for word in ["Ġunmergeable", "zqxj"]:
        document["model"]["vocab"][word] = len(document["model"]["vocab"]) + len(document["added_tokens"])
    return renumber_added(document)


def renumber_added(document):
    """Ids of added tokens follow those of the model."""
    vocab = document["model"]["vocab"]
    for i, token in enumerate(sorted(vocab, key=vocab.get)):
        vocab[token] = i
    old = {t["id"]: i for i, t in enumerate(document["added_tokens"], start=len(vocab))}
    for token in document["added_tokens"]:
        token["id"] = old[token["id"]]
    for processor in document["post_processor"]["processors"]:
        for token in processor.get("special_tokens", {}).values():
            token["ids"] = [old[i] for i in token["ids"]]
    return document


def qwen2():
    tokenizer = byte_level(QWEN2_PATTERN, 650, ["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.post_processor = processors.ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=False)
    tokenizer.add_tokens([AddedToken("<tool_call>", normalized=False), AddedToken("Ångström unit", normalized=True)])
    document = json.loads(tokenizer.to_str())
    # The older form of merges, one string each.
    document["model"]["merges"] = [" ".join(pair) for pair in document["model"]["merges"]]
    document["model"]["continuing_subword_prefix"] = ""
    document["model"]["end_of_word_suffix"] = ""
    return document


def gpt2():
    """ByteLevel with its own pattern and a space before the text."""
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = BpeTrainer(vocab_size=600, show_progress=False, special_tokens=["<|endoftext|>"],
                         initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()))
    tokenizer.train_from_iterator(training_text(), trainer)
    tokenizer.add_special_tokens([AddedToken("<mask>", special=True, lstrip=True, normalized=False),
                                  AddedToken("<right>", special=True, rstrip=True, normalized=False)])
    tokenizer.add_tokens([AddedToken("word", single_word=True), AddedToken("both", lstrip=True, rstrip=True)])
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=True)
    return json.loads(tokenizer.to_str())


def deepseek():
    tokenizer = byte_level("", 600, ["<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"], pre=[
        pre_tokenizers.Split(Regex(r"\p{N}{1,3}"), "isolated"),
        pre_tokenizers.Split(Regex(r"[一-龥぀-ゟ゠-ヿ]+"), "isolated"),
        pre_tokenizers.Split(Regex(DEEPSEEK_PATTERN), "isolated")])
    tokenizer.post_processor = template(tokenizer, "<｜begin▁of▁sentence｜> $A <｜end▁of▁sentence｜>",
                                        ["<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"])
    return json.loads(tokenizer.to_str())


def sentencepiece(pre_tokenizer, vocab_size, alphabet):
    """A vocabulary with <unk>, <s>, </s>, the 256 byte tokens and merges, as a converted SentencePiece model has."""
    tokenizer = Tokenizer(BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.pre_tokenizer = pre_tokenizer
    byte_tokens = ["<0x%02X>" % b for b in range(256)]
    # Other characters are left to the bytes. (The trainer's limit_alphabet would break ties at random.)
    lines = ["".join(c for c in line if c in alphabet) for line in training_text()]
    trainer = BpeTrainer(vocab_size=vocab_size, show_progress=False,
                         special_tokens=["<unk>", "<s>", "</s>"] + byte_tokens)
    tokenizer.train_from_iterator(lines, trainer)
    document = json.loads(tokenizer.to_str())
    document["added_tokens"] = document["added_tokens"][:3]
    return document


def llama2():
    document = sentencepiece(pre_tokenizers.Metaspace(prepend_scheme="always", split=True), 800, SOME_CHARACTERS)
    document["pre_tokenizer"] = None
    document["normalizer"] = {"type": "Sequence", "normalizers": [
        {"type": "Prepend", "prepend": "▁"}, {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]}
    document["decoder"] = {"type": "Sequence", "decoders": [
        {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"},
        {"type": "Strip", "content": " ", "start": 1, "stop": 0}]}
    tokenizer = Tokenizer.from_str(json.dumps(document))
    tokenizer.post_processor = template(tokenizer, "<s> $A", ["<s>"])
    tokenizer.add_tokens([AddedToken("[TOOL]", normalized=True)])
    return json.loads(tokenizer.to_str())


def mistral():
    document = sentencepiece(pre_tokenizers.Metaspace(prepend_scheme="first", split=False), 800, SOME_CHARACTERS)
    tokenizer = Tokenizer.from_str(json.dumps(document))
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(),
                                           decoders.Strip(content=" ", left=1)])
    tokenizer.post_processor = template(tokenizer, "<s> $A", ["<s>"])
    tokenizer.add_special_tokens([special("[INST]"), special("[/INST]")])
    return json.loads(tokenizer.to_str())


def metaspace_unknown():
    """No byte fallback: what the vocabulary lacks is <unk>, one for each character."""
    document = sentencepiece(pre_tokenizers.Metaspace(prepend_scheme="never", split=True), 500, SOME_CHARACTERS - set("xyz{}XYZ"))
    document["model"]["byte_fallback"] = False
    document["model"]["fuse_unk"] = False
    document["decoder"] = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True}
    return document


STYLES = {"llama3": llama3, "qwen2": qwen2, "gpt2": gpt2, "deepseek": deepseek, "llama2": llama2, "mistral": mistral,
          "metaspace_unknown": metaspace_unknown}


def corpus(added):
    """Texts that break tokenizers. `added` are the contents of the added tokens."""
    texts = [
        "", " ", "  ", "\n", "\t", "\r\n", "a", " a", "a ", "  a  ", "Hello world", "hello  world   again",
        "Hello, world! I'm sure they'LL say it's what we'Ve done; you'd, he'D, I'M, isn'T",
        "'s 't 're 've 'm 'll 'd 'S 'ſ s's ''s", "1 12 123 1234 12345 1234567890 3.14159 1,000,000 ½ ² Ⅷ ٣٤٥ ४५",
        "def f(x):\n    return x**2  # square\n\n\nclass A:\n\tpass\n", "if (a[i] != b->c) { x += 1; }\r\n\r\n\r\n  y",
        "tabs\t\tand\t spaces \t mixed\n \n  \n\t\n end", "a\u00a0b\u2003c\u3000d\u202fe\u1680f\u180eg\u200bh\u2028i\u2029j\x85k\x0bl\x0cm",
        "\x00", "a\x00b\x00\x00c", "\x01\x02\x1f\x7f\x80\x9f", "🙂🚀 👩‍💻👨‍👩‍👧‍👦 🇩🇪🇫🇷 ❤️ 👍🏽 🏴󠁧󠁢󠁥󠁮󠁧󠁿",
        "e\u0301 é A\u030angstro\u0308m Ångström \u212bngstr\u00f6m", "q\u0307\u0323 q\u0323\u0307 \u1e9b\u0323 \uac00 \u1100\u1161\u11a8",
        "a\u0300\u0301\u0302\u0303\u0304\u0305 \u0301leading mark", "你好，世界！河流和水坝。注意力机制", "こんにちは世界。ダムとカワ ｶﾞｷﾞ",
        "안녕하세요 세계", "مرحبا بالعالم ١٢٣ كيف حالك؟", "שלום עולם", "नमस्ते दुनिया क्षत्रिय", "สวัสดีชาวโลก", "Việt Nam xin chào",
        "straße ﬁne ǅ ŉ İstanbul ſ K", "\ufeffbom \ufffd replacement", "\u0378 unassigned \U0001fffe \U000e0000",
        "\ue000\uf8ff\U000f0000\U0010fffd private", "\U00031350\U0002ebf0 \u1c89 \u0cf3 \U00010d40 new in Unicode 15 and 16",
        "▁ ▁▁ a▁b ▁a", "Ġ Ċ ĠĠ", "<0x41> <0x0A> <0xZZ>", "x" * 300, "ab" * 150, " " * 200, "word" * 60, "\n" * 50,
        "The quick brown fox jumps over the lazy dog. " * 2, "unmergeable zqxj unmergeable zqxj",
        "http://example.com/a/b?c=d&e=f#g user@host.org #tag @name $5.00 50% C++ C# a_b snake_case camelCase CONSTANT",
        "“quotes” ‘single’ — dash … ellipsis «guillemets» ¿qué? ¡sí!", "∀x∈ℝ: ⌈x⌉ ≤ y ⇒ ∑ √2 ≈ 1.414 €£¥₿",
        # Marks younger than Unicode 9, which the reference does not reorder; letters of Unicode 16 beside a word.
        "x\U0001e136\u031b e\u07fd\u0323\u0301 w\u1ac0\u0328", "word\U00010d53 word\U000140c8 \U0002ebf0word word\u200d",
        "word swordfish word, sword keyword word", "  both  both\n both", "a <mask> b  <mask><right>   c<right> ",
    ]
    for token in added:
        texts += [token, "a" + token + "b", " " + token + " ", token + token, "x  " + token + "  y\n" + token,
                  token[:-1], token[1:], token[:-1] + token]
    texts.append("start " + " mid ".join(added) + " end")
    return texts


def cases(tokenizer, added):
    result = []
    for text in corpus(added):
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        with_special = tokenizer.encode(text).ids
        result.append({"text": text, "ids": ids, "ids_with_special": with_special,
                       "decoded": tokenizer.decode(with_special, skip_special_tokens=False),
                       "decoded_skipping": tokenizer.decode(with_special, skip_special_tokens=True)})
    return result


def decode_cases(tokenizer, vocab_size):
    """Rows of random ids: broken UTF-8, broken runs of byte tokens, ids that nobody has."""
    rng = random.Random(7)
    rows = [[i] for i in range(0, vocab_size, 7)]
    rows += [[rng.randrange(min(limit, vocab_size + 3)) for _ in range(rng.randint(2, 12))]
             for limit in [vocab_size + 3, 300] for _ in range(60)]
    return [{"ids": row, "decoded": tokenizer.decode(row, skip_special_tokens=False),
             "decoded_skipping": tokenizer.decode(row, skip_special_tokens=True)} for row in rows]


def main():
    folder = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else pathlib.Path(__file__).parent / "golden")
    for name, make in STYLES.items():
        document = make()
        tokenizer = Tokenizer.from_str(json.dumps(document))
        out = folder / name
        out.mkdir(parents=True, exist_ok=True)
        dump = lambda value: json.dumps(value, ensure_ascii=False, separators=(",", ":")) + "\n"
        (out / "tokenizer.json").write_text(dump(document), encoding="utf-8")
        size = tokenizer.get_vocab_size()
        added = [token["content"] for token in document["added_tokens"]]
        golden = {"vocab_size": size, "encode": cases(tokenizer, added), "decode": decode_cases(tokenizer, size)}
        (out / "golden.json").write_text(dump(golden), encoding="utf-8")


if __name__ == "__main__":
    main()
