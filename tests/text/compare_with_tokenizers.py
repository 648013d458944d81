#!/usr/bin/env python3
"""Compares Weir with the `tokenizers` package on random texts and random rows of ids.

Usage: compare_with_tokenizers.py BUILD_FOLDER [FOLDER_WITH_TOKENIZER_JSON...] [--count N] [--seed S]
Needs the target tokenizer_answers. Without folders it takes those of tests/text/golden. Exits 1 on any difference.
"""

import argparse
import json
import pathlib
import random
import subprocess
import sys

from tokenizers import Tokenizer

BLOCKS = [(0, 0x7F), (0x80, 0xFF), (0x100, 0x24F), (0x300, 0x36F), (0x370, 0x5FF), (0x600, 0x6FF), (0x900, 0xDFF),
          (0xE00, 0xFFF), (0x1000, 0x1FFF), (0x2000, 0x206F), (0x2070, 0x2BFF), (0x3000, 0x30FF), (0x4E00, 0x9FFF),
          (0xAC00, 0xD7A3), (0xE000, 0xFFFF), (0x10000, 0x1FFFF), (0x20000, 0x323AF), (0xE0000, 0x10FFFF)]
SPACES = " \t\n\r\v\f\x85\u00a0\u2003\u3000\u200b\u180e\u2028"


def random_piece(rng, added, vocab):
    kind = rng.randrange(8)
    if kind == 0 and added:
        return rng.choice(added)
    if kind == 1 and added:
        token = rng.choice(added)
        return token[: rng.randint(0, len(token))] if rng.random() < 0.5 else token[rng.randint(0, len(token)):]
    if kind == 2:
        return "".join(rng.choice(SPACES) if rng.random() < 0.4 else " " for _ in range(rng.randint(1, 5)))
    if kind == 3:
        return rng.choice(vocab).replace("Ġ", " ").replace("▁", " ")
    if kind == 4:
        return str(rng.randrange(10 ** rng.randint(1, 12)))
    if kind == 5:
        return rng.choice(["'s", "'S", "'ſ", "'ll", "'LL", "'re", "n't", "'m", "'", "\r\n", "\n\n"])
    if kind == 6:
        return "".join(chr(rng.randint(0x20, 0x7E)) for _ in range(rng.randint(1, 8)))
    return "".join(chr(rng.randint(*rng.choice(BLOCKS))) for _ in range(rng.randint(1, 6)))


def ask(binary, folder, questions):
    lines = "".join(json.dumps(question) + "\n" for question in questions)
    done = subprocess.run([binary, folder], input=lines, capture_output=True, text=True, check=True)
    return [json.loads(line) for line in done.stdout.split("\n") if line]


def compare(binary, folder, count, seed):
    """The number of differences; each of the first few is printed."""
    reference = Tokenizer.from_file(str(folder / "tokenizer.json"))
    document = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    added = [token["content"] for token in document["added_tokens"]]
    vocab = list(document["model"]["vocab"])
    rng = random.Random(seed)
    texts = ["".join(random_piece(rng, added, vocab) for _ in range(rng.randint(0, 12))) for _ in range(count)]
    encoded = [reference.encode(text).ids for text in texts]
    size = reference.get_vocab_size()
    rows = [ids + [rng.randrange(size) for _ in range(rng.randint(0, 6))] for ids in encoded]
    rows += [[rng.randrange(size + 5) for _ in range(rng.randint(0, 20))] for _ in range(count)]
    decoded = []
    for row in rows:
        whole = reference.decode(row, skip_special_tokens=False)
        decoded.append([whole, reference.decode(row, skip_special_tokens=True), whole])
    questions = [{"text": text} for text in texts] + [{"ids": row} for row in rows]
    answers = ask(binary, folder, questions)
    assert len(answers) == len(questions)
    wrong = [(q, e, a) for q, e, a in zip(questions, encoded + decoded, answers) if e != a]
    for question, expected, answer in wrong[:5]:
        print(f"{folder}: {question!a}\n  reference {expected!a}\n  weir      {answer!a}")
    print(f"{folder.name}: {count} texts, {sum(map(len, encoded))} tokens, {len(rows)} rows, {len(wrong)} differences")
    return len(wrong)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("build", type=pathlib.Path)
    parser.add_argument("folders", type=pathlib.Path, nargs="*")
    parser.add_argument("--count", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    folders = options.folders or sorted((pathlib.Path(__file__).parent / "golden").iterdir())
    binary = options.build / "tokenizer_answers"
    return 1 if sum(compare(binary, folder, options.count, options.seed) for folder in folders) else 0


if __name__ == "__main__":
    sys.exit(main())
