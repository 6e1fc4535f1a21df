# ruff: noqa
# fmt: off
import torch
import torch.nn as nn
import torch.nn.functional as F


class Net(nn.Module):
    def __init__(self, d=2, h=6):
        super().__init__()
        self.embed = nn.Linear(d, h)
        self.encoder = nn.LSTM(h, h, batch_first=True)
        self.cell = nn.LSTMCell(h, h)
        self.start = nn.Parameter(torch.randn(h))
        self.W1, self.W2, self.v = nn.Linear(h, h, bias=False), nn.Linear(h, h), nn.Linear(h, 1, bias=False)

    def forward(self, x):
        b, n, _ = x.shape
        e = self.embed(x)
        enc, (h, c) = self.encoder(e)
        h, c = h[0], c[0]
        inp = self.start.expand(b, -1)
        visited = torch.zeros(b, n, dtype=torch.bool)
        probs = []
        for _ in range(n - 1):
            h, c = self.cell(inp, (h, c))
            u = self.v(torch.tanh(self.W1(enc) + self.W2(h).unsqueeze(1))).squeeze(-1)
            u = 10 * torch.tanh(u)
            u = u.masked_fill(visited, float("-inf"))
            p = F.log_softmax(u, dim=1)
            probs.append(p.exp())
            idx = p.argmax(1)
            visited = visited | F.one_hot(idx, n).bool()
            inp = e[torch.arange(b), idx]
        return torch.stack(probs, 1)


def inputs(rng):
    return rng.standard_normal((3, 5, 2)).astype("float32")


FAULTS = [
    ("state not passed", "h, c = h[0], c[0]", "h, c = torch.zeros_like(h[0]), torch.zeros_like(c[0])", "initial_state layer_missing constant layer_order unexplained"),
    ("h and c swapped", "h, c = self.cell(inp, (h, c))", "h, c = self.cell(inp, (c, h))", "layer_order wrong_part sequence_step"),
    ("clip forgotten", "u = 10 * torch.tanh(u)\n", "pass\n", "activation_missing"),
    ("clip 5", "u = 10 * torch.tanh(u)", "u = 5 * torch.tanh(u)", "constant_factor attention_scale"),
    ("not masked", 'u = u.masked_fill(visited, float("-inf"))', "pass", "attention_mask"),
    ("encoder output as input", "inp = e[torch.arange(b), idx]", "inp = enc[torch.arange(b), idx]", "layer_order"),
    ("W of e", "self.W1(enc)", "self.W1(e)", "layer_order"),
    ("softmax dim", "F.log_softmax(u, dim=1)", "F.log_softmax(u, dim=0)", "softmax_axis"),
    ("relu", "self.v(torch.tanh(self.W1(enc)", "self.v(torch.relu(self.W1(enc)", "activation_differs"),
    ("start zeros", "inp = self.start.expand(b, -1)", "inp = torch.zeros_like(h)", "initial_state layer_order weights_differ bias_missing constant"),
    ("argmin", "idx = p.argmax(1)", "idx = p.argmin(1)", "layer_kind pool_kind"),
]
CORRECT = [
    ("gather", "inp = e[torch.arange(b), idx]", "inp = e.gather(1, idx[:, None, None].expand(-1, 1, e.shape[2])).squeeze(1)"),
    ("scatter", "visited = visited | F.one_hot(idx, n).bool()", "visited = visited.scatter(1, idx[:, None], True)"),
    ("softmax", "probs.append(p.exp())", "probs.append(u.softmax(1))"),
]
