# ruff: noqa
# fmt: off
import torch
from torch import nn
import torch.nn.functional as F


class DecoderLayer(nn.Module):
    def __init__(self, d, h):
        super().__init__()
        self.self_attn = nn.MultiheadAttention(d, h)
        self.cross = nn.MultiheadAttention(d, h)
        self.l1, self.l2 = nn.Linear(d, 2 * d), nn.Linear(2 * d, d)
        self.n1, self.n2, self.n3 = nn.LayerNorm(d), nn.LayerNorm(d), nn.LayerNorm(d)

    def forward(self, tgt, memory, pos, query_pos):
        q = k = tgt + query_pos
        tgt = self.n1(tgt + self.self_attn(q, k, value=tgt)[0])
        tgt = self.n2(tgt + self.cross(query=tgt + query_pos, key=memory + pos, value=memory)[0])
        return self.n3(tgt + self.l2(F.relu(self.l1(tgt))))


class Net(nn.Module):
    def __init__(self, d=12):
        super().__init__()
        self.backbone = nn.Conv2d(3, 16, 4, 4)
        self.conv = nn.Conv2d(16, d, 1)
        self.encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(d, 3, 24), 2)
        self.decoder = nn.ModuleList([DecoderLayer(d, 3) for _ in range(2)])
        self.query_pos = nn.Parameter(torch.rand(4, d))
        self.row, self.col = nn.Parameter(torch.rand(6, d // 2)), nn.Parameter(torch.rand(6, d // 2))
        self.cls, self.box = nn.Linear(d, 3), nn.Linear(d, 4)

    def forward(self, x):
        h = self.conv(F.relu(self.backbone(x)))
        H, W = h.shape[-2:]
        pos = torch.cat([self.col[:W].unsqueeze(0).repeat(H, 1, 1), self.row[:H].unsqueeze(1).repeat(1, W, 1)], dim=-1)
        pos = pos.flatten(0, 1).unsqueeze(1)
        src = h.flatten(2).permute(2, 0, 1)
        memory = self.encoder(src + 0.1 * pos)
        query = self.query_pos.unsqueeze(1).repeat(1, x.shape[0], 1)
        tgt = torch.zeros_like(query)
        for layer in self.decoder:
            tgt = layer(tgt, memory, pos, query)
        return {"logits": self.cls(tgt).transpose(0, 1), "boxes": self.box(tgt).sigmoid().transpose(0, 1)}


def inputs(rng):
    return rng.standard_normal((2, 3, 16, 20)).astype("float32")


FAULTS = [
    ("row col swapped", "[self.col[:W].unsqueeze(0).repeat(H, 1, 1), self.row[:H].unsqueeze(1).repeat(1, W, 1)]", "[self.row[:H].unsqueeze(1).repeat(1, W, 1), self.col[:W].unsqueeze(0).repeat(H, 1, 1)]", "concatenation_order"),
    ("tables swapped", "[self.col[:W].unsqueeze(0).repeat(H, 1, 1), self.row[:H].unsqueeze(1)", "[self.row[:W].unsqueeze(0).repeat(H, 1, 1), self.col[:H].unsqueeze(1)", "weights_permuted weights_differ layer_order concatenation_order"),
    ("pos scale", "src + 0.1 * pos", "src + pos", "scale_missing constant_factor"),
    ("key without pos", "key=memory + pos, value=memory", "key=memory, value=memory", "residual_missing"),
    ("value with pos", "key=memory + pos, value=memory", "key=memory + pos, value=memory + pos", "residual_differs"),
    ("query without pos", "query=tgt + query_pos", "query=tgt", "residual_missing"),
    ("self value", "self.self_attn(q, k, value=tgt)", "self.self_attn(q, k, value=q)", "residual_differs"),
    ("pre norm", "self.n3(tgt + self.l2(F.relu(self.l1(tgt))))", "tgt + self.l2(F.relu(self.l1(self.n3(tgt))))", "layer_order"),
    ("n1 n2 swapped", "tgt = self.n2(tgt + self.cross", "tgt = self.n1(tgt + self.cross", "weights_permuted weights_differ layer_order"),
    ("gelu encoder", "nn.TransformerEncoderLayer(d, 3, 24)", "nn.TransformerEncoderLayer(d, 3, 24, activation='gelu')", "activation_differs"),
    ("norm first encoder", "nn.TransformerEncoderLayer(d, 3, 24)", "nn.TransformerEncoderLayer(d, 3, 24, norm_first=True)", "layer_order"),
    ("heads", "self.cross = nn.MultiheadAttention(d, h)", "self.cross = nn.MultiheadAttention(d, 4)", "attention_heads"),
    ("box no sigmoid", "self.box(tgt).sigmoid()", "self.box(tgt)", "activation_missing"),
    ("batch first", "nn.TransformerEncoderLayer(d, 3, 24)", "nn.TransformerEncoderLayer(d, 3, 24, batch_first=True)", "attention_heads features_permuted batch_axis"),
    ("layer norm eps", "nn.TransformerEncoderLayer(d, 3, 24)", "nn.TransformerEncoderLayer(d, 3, 24, layer_norm_eps=1e-2)", "layer_norm_epsilon"),
    ("starts from queries", "tgt = torch.zeros_like(query)", "tgt = query", "initial_state layer_order residual_differs unexplained"),
    ("relu missing", "self.conv(F.relu(self.backbone(x)))", "self.conv(self.backbone(x))", "activation_missing"),
]
CORRECT = [
    ("expand", "self.query_pos.unsqueeze(1).repeat(1, x.shape[0], 1)", "self.query_pos[:, None].expand(-1, x.shape[0], -1)"),
    ("batch first", "src = h.flatten(2).permute(2, 0, 1)\n        memory = self.encoder(src + 0.1 * pos)", "src = h.flatten(2).permute(0, 2, 1)\n        for l in self.encoder.layers:\n            l.self_attn.batch_first = True\n        memory = self.encoder(src + 0.1 * pos.transpose(0, 1)).transpose(0, 1)"),
]
