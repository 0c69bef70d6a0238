"""PyTorch as a rival of hebb on the CPU: the same LLaMA, trained and generating, as PyTorch does it best.

A child of rivals.py: reads one order a line from stdin and answers with one JSON object a line:
  train N      seconds of each of N optimizer steps
  generate N   tokens/s of N tokens, one at a time, batch 1, key/value cache
  memory       peak resident bytes of this process
"""
import argparse
import json
import sys
import time

import torch
import torch.nn.functional as F
from torch import nn

HIDDEN, WIDE, LAYERS, HEADS, HEAD_DIM = 512, 1376, 8, 8, 64
EPS, THETA, LR, CLIP = 1e-6, 10000.0, 1e-3, 1.0
PROMPT = 16


def rotate(x, cosine, sine):
    low, high = x.chunk(2, dim=-1)
    return x * cosine + torch.cat((-high, low), dim=-1) * sine


class Block(nn.Module):
    """q, k, v in one product and gate, up in one: fewer and larger products."""

    def __init__(self):
        super().__init__()
        self.qkv = nn.Linear(HIDDEN, 3 * HIDDEN, bias=False)
        self.o = nn.Linear(HIDDEN, HIDDEN, bias=False)
        self.gate_up = nn.Linear(HIDDEN, 2 * WIDE, bias=False)
        self.down = nn.Linear(WIDE, HIDDEN, bias=False)
        self.norm_in = nn.RMSNorm(HIDDEN, eps=EPS)
        self.norm_post = nn.RMSNorm(HIDDEN, eps=EPS)

    def heads(self, x, cosine, sine):
        batch, context, _ = x.shape
        q, k, v = self.qkv(self.norm_in(x)).view(batch, context, 3, HEADS, HEAD_DIM).permute(2, 0, 3, 1, 4)
        return rotate(q, cosine, sine), rotate(k, cosine, sine), v

    def rest(self, x, attended):
        x = x + self.o(attended.transpose(1, 2).flatten(2))
        gate, up = self.gate_up(self.norm_post(x)).chunk(2, dim=-1)
        return x + self.down(F.silu(gate) * up)

    def forward(self, x, cosine, sine):
        q, k, v = self.heads(x, cosine, sine)
        return self.rest(x, F.scaled_dot_product_attention(q, k, v, is_causal=True))

    def step(self, x, cosine, sine, cache, place, mask):
        q, k, v = self.heads(x, cosine, sine)
        cache[0].index_copy_(2, place, k)
        cache[1].index_copy_(2, place, v)
        return self.rest(x, F.scaled_dot_product_attention(q, cache[0], cache[1], attn_mask=mask))


class Llama(nn.Module):
    def __init__(self, vocab, context):
        super().__init__()
        self.embed = nn.Embedding(vocab, HIDDEN)
        self.blocks = nn.ModuleList(Block() for _ in range(LAYERS))
        self.norm = nn.RMSNorm(HIDDEN, eps=EPS)
        self.head = nn.Linear(HIDDEN, vocab, bias=False)
        angles = torch.outer(torch.arange(context), THETA ** (-torch.arange(0, HEAD_DIM, 2) / HEAD_DIM))
        self.register_buffer("cosine", torch.cat((angles, angles), dim=-1).cos(), persistent=False)
        self.register_buffer("sine", torch.cat((angles, angles), dim=-1).sin(), persistent=False)
        for weight in self.parameters():
            if weight.dim() > 1:
                nn.init.normal_(weight, std=0.02)

    def forward(self, tokens, targets):
        x = self.embed(tokens)
        for block in self.blocks:
            x = block(x, self.cosine, self.sine)
        return F.cross_entropy(self.head(self.norm(x)).flatten(0, 1), targets.flatten())

    def step(self, token, place, caches):
        mask = (torch.arange(self.cosine.shape[0]) <= place)[None]  # (queries, keys)
        cosine, sine = self.cosine[place], self.sine[place]
        x = self.embed(token)
        for block, cache in zip(self.blocks, caches):
            x = block.step(x, cosine, sine, cache, place, mask)
        return self.head(self.norm(x))[:, -1].argmax(-1, keepdim=True)


class Rival:
    def __init__(self, args):
        torch.manual_seed(1)
        self.args = args
        self.model = Llama(args.vocab, args.context)
        compiled = args.mode == "compile"
        self.loss = torch.compile(self.model) if compiled else self.model
        self.next = torch.compile(self.model.step) if compiled else self.model.step
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=LR, fused=True)

    def train(self, count):
        seconds = []
        for _ in range(count):
            data = torch.randint(self.args.vocab, (self.args.batch, self.args.context + 1))
            began = time.perf_counter()
            self.optimizer.zero_grad(set_to_none=True)
            loss = self.loss(data[:, :-1], data[:, 1:])
            loss.backward()
            nn.utils.clip_grad_norm_(self.model.parameters(), CLIP)
            self.optimizer.step()
            loss.item()
            seconds.append(time.perf_counter() - began)
        return {"seconds": seconds}

    @torch.inference_mode()
    def generate(self, count):
        shape = (1, HEADS, self.args.context, HEAD_DIM)
        caches = [(torch.zeros(shape), torch.zeros(shape)) for _ in range(LAYERS)]
        token = torch.zeros((1, 1), dtype=torch.long)
        began = time.perf_counter()
        for place in range(count + PROMPT):
            if place == PROMPT:
                began = time.perf_counter()
            token = self.next(token, torch.tensor([place]), caches)
        return {"tokens_per_s": count / (time.perf_counter() - began)}

    def memory(self):
        with open("/proc/self/status") as status:
            line = next(line for line in status if line.startswith("VmHWM"))
        return {"bytes": int(line.split()[1]) * 1024}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--mode", choices=("eager", "compile"), required=True)
    parser.add_argument("--batch", type=int, required=True)
    parser.add_argument("--context", type=int, default=256)
    parser.add_argument("--vocab", type=int, default=257)
    parser.add_argument("--threads", type=int, required=True)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    rival = Rival(args)
    print(json.dumps({"torch": torch.__version__}), flush=True)
    for line in sys.stdin:
        order, *count = line.split()
        answer = getattr(rival, order)(*map(int, count))
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
