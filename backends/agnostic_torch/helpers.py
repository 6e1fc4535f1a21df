"""Functions that ported torch source may call: written into the file that calls them, so that it needs torch alone."""

from __future__ import annotations


def _convolution(rank: int) -> str:
    """The source of a convolution that pads as Keras does."""
    return f'''
class Conv{rank}d(nn.Conv{rank}d):
    """A convolution that pads each side by a width of its own, as F.pad takes them, or by the image's size: "same"."""

    def __init__(self, *args, padding=0, **kwargs):
        around = padding == "same" or (isinstance(padding, tuple) and len(padding) == {2 * rank})
        super().__init__(*args, padding=0 if around else padding, **kwargs)
        self.around = padding if around else None

    def forward(self, x):
        if self.around == "same":
            x = pad_same(x, self.kernel_size, self.stride, dilation=self.dilation)
        elif self.around:
            x = F.pad(x, self.around)
        return super().forward(x)
'''


HELPERS: dict[str, str] = {
    "pad_same": '''
def pad_same(x, kernel, stride, dilation=1, value=0.0):
    """Pad an image so that there is a window for each stride; the smaller half comes first."""
    widths = []
    for axis in range(x.ndim - 1, 1, -1):
        k, s, d = (n if isinstance(n, int) else n[axis - 2] for n in (kernel, stride, dilation))
        total = max((-(-x.shape[axis] // s) - 1) * s + (k - 1) * d + 1 - x.shape[axis], 0)
        widths += [total // 2, total - total // 2]
    return F.pad(x, widths, value=value)
''',
    "average_pool": '''
def average_pool(x, kernel, stride, padding=None):
    """The mean of each window without what was padded; padding: before and after each axis, or None for SAME."""
    pool = {3: F.avg_pool1d, 4: F.avg_pool2d, 5: F.avg_pool3d}[x.ndim]
    ones = torch.ones_like(x[:1, :1])
    if padding is None:
        x, ones = (pad_same(y, kernel, stride) for y in (x, ones))
    else:
        widths = [n for pair in reversed(padding) for n in pair]
        x, ones = (F.pad(y, widths) for y in (x, ones))
    return pool(x, kernel, stride) / pool(ones, kernel, stride)
''',
    "attention": '''
def attention(query, key, value, **options):
    """Attention of arrays with the places before the heads."""
    query, key, value = (x.transpose(-2, -3) for x in (query, key, value))
    return F.scaled_dot_product_attention(query, key, value, **options).transpose(-2, -3)
''',
    "lu": '''
def lu(x):
    """Both triangles in one matrix, and the row that each row was exchanged with; the first is 0."""
    packed, pivots = torch.linalg.lu_factor(x)
    return packed, pivots - 1
''',
    **{f"Conv{rank}d": _convolution(rank) for rank in (1, 2, 3)},
    "hold": '''
def hold(module, path, held, persistent=True):
    """Have a module, parameter or buffer under a name with dots: in modules that hold it and are not called."""
    *parents, name = path.split(".")
    for parent in parents:
        if parent not in module._modules:
            module.add_module(parent, nn.Module())
        module = module._modules[parent]
    if held is None or isinstance(held, nn.Module):
        module.add_module(name, held)
    elif isinstance(held, nn.Parameter):
        module.register_parameter(name, held)
    else:
        module.register_buffer(name, held, persistent=persistent)
''',
    "recurrent": '''
def recurrent(layer, x, *states, reverse=False):
    """All outputs and the last states of a recurrent layer; without states it starts from zeros."""
    time = 1 if layer.batch_first else 0
    x = x.flip(time) if reverse else x
    states = [state[None] for state in states if state is not None]
    outputs, last = layer(x, *([tuple(states)] if len(states) > 1 else states))
    last = last if isinstance(last, tuple) else (last,)
    return (outputs.flip(time) if reverse else outputs, *(state[0] for state in last))
''',
    "recurrent_masked": '''
def recurrent_masked(layer, x, mask, *states, zeros=True, reverse=False):
    """As recurrent, over the places that a mask shows; elsewhere states stay, and zeros or the state are given."""
    if not layer.batch_first:
        x, mask = x.transpose(0, 1), mask.transpose(0, 1)
    x, mask = (x.flip(1), mask.flip(1)) if reverse else (x, mask)
    # What is seen comes first, as a packed sequence; each place then takes the output of the last one that was seen.
    count, order = mask.sum(1), torch.argsort((~mask).int(), dim=1, stable=True)
    x = x.take_along_dim(order[..., None], 1)
    x = x if layer.batch_first else x.transpose(0, 1)
    packed = nn.utils.rnn.pack_padded_sequence(
        x, count.clamp(min=1).cpu(), batch_first=layer.batch_first, enforce_sorted=False
    )
    given = [state[None] for state in states]
    outputs, last = layer(packed, *([tuple(given)] if len(given) > 1 else given))
    last = last if isinstance(last, tuple) else (last,)
    outputs, _ = nn.utils.rnn.pad_packed_sequence(outputs, batch_first=True, total_length=mask.shape[1])
    place = mask.cumsum(1) - 1
    outputs = outputs.take_along_dim(place.clamp(min=0)[..., None], 1)
    before = states[0][:, None] if states and not zeros else 0.0
    outputs = torch.where((mask if zeros else place >= 0)[..., None], outputs, before)
    outputs = outputs.flip(1) if reverse else outputs
    last = (torch.where(count[:, None] > 0, new[0], states[n] if states else 0.0) for n, new in enumerate(last))
    return (outputs if layer.batch_first else outputs.transpose(0, 1), *last)
''',
    "steps": '''
def steps(step, x, states, mask=None, zeros=True, reverse=False):
    """A step for each time; at places that the mask does not show, states stay, and zeros or the state are given."""
    outputs = []
    for t in range(len(x) - 1, -1, -1) if reverse else range(len(x)):
        new = step(x[t], states)
        seen = None if mask is None else mask[t][:, None]
        outputs.append(new[0] if mask is None else torch.where(seen, new[0], 0.0 if zeros else states[0]))
        states = new if mask is None else [torch.where(seen, *pair) for pair in zip(new, states)]
    return torch.stack(outputs[::-1] if reverse else outputs), *states
''',
    "over_time": '''
def over_time(step, sequences, states, fixed=(), mask=None, hidden="zeros", axes=(1,), axis=1):
    """All outputs of a step for each time, and the last states; where the mask hides a time, states stay."""
    outputs = []
    for t, now in enumerate(zip(*(x.unbind(n) for x, n in zip(sequences, axes)))):
        output, *new = step(*now, *states, *fixed)
        if mask is not None:
            before = torch.zeros_like(output) if hidden == "zeros" or not outputs else outputs[-1]
            before = states[hidden] if isinstance(hidden, int) else before
            pairs = [(output, before), *zip(new, states)]
            output, *new = (torch.where(mask[t].reshape(-1, *[1] * (x.ndim - 1)), x, y) for x, y in pairs)
        states = new
        outputs.append(output)
    return torch.stack(outputs, axis), *states
''',
    "gru": '''
def gru(
    x, h, kernel, recurrent, bias=None, recurrent_bias=None, mask=None, reset_after=True, zeros=True, reverse=False,
    batch_first=False,
):
    """A gated recurrent unit with its gates in the order r, z, n."""
    x, mask = (x.transpose(0, 1), None if mask is None else mask.transpose(0, 1)) if batch_first else (x, mask)
    h = x.new_zeros(x.shape[1], recurrent.shape[1]) if h is None else h
    units = h.shape[-1]
    first, second = (None, None) if recurrent_bias is None else recurrent_bias.split((2 * units, units))

    def step(now, states):
        (h,) = states
        xr, xz, xn = now.chunk(3, dim=-1)
        r, z = F.linear(h, recurrent[: 2 * units], first).chunk(2, dim=-1)
        r, z = torch.sigmoid(xr + r), torch.sigmoid(xz + z)
        if reset_after:
            n = torch.tanh(xn + r * F.linear(h, recurrent[2 * units :], second))
        else:
            n = torch.tanh(xn + F.linear(r * h, recurrent[2 * units :], second))
        return [(1 - z) * n + z * h]

    y, h = steps(step, F.linear(x, kernel, bias), [h], mask, zeros, reverse)
    return (y.transpose(0, 1) if batch_first else y), h
''',
    "lstm": '''
def lstm(
    x, h, c, kernel, recurrent, bias=None, recurrent_bias=None, projection=None, mask=None, zeros=True, reverse=False,
    batch_first=False,
):
    """A long short-term memory with its gates in the order i, f, g, o."""
    time = 1 if batch_first else 0
    h = x.new_zeros(x.shape[1 - time], recurrent.shape[1]) if h is None else h
    c = x.new_zeros(x.shape[1 - time], len(recurrent) // 4) if c is None else c
    biases = [] if bias is None else [bias, torch.zeros_like(bias) if recurrent_bias is None else recurrent_bias]
    weights = [kernel, recurrent, *biases, *([] if projection is None else [projection])]
    if mask is not None:
        x, mask = (x.transpose(0, 1), mask.transpose(0, 1)) if batch_first else (x, mask)
        y, h, c = steps(lambda now, last: torch.lstm_cell(now, last, *weights), x, [h, c], mask, zeros, reverse)
        return (y.transpose(0, 1) if batch_first else y), h, c
    x = x.flip(time) if reverse else x
    y, h, c = torch.lstm(x, (h[None], c[None]), weights, bool(biases), 1, 0.0, False, False, batch_first)
    return y.flip(time) if reverse else y, h[0], c[0]
''',
    "rnn": '''
def rnn(
    x, h, kernel, recurrent, bias=None, recurrent_bias=None, mask=None, function="tanh", zeros=True, reverse=False,
    batch_first=False,
):
    """A plain recurrent layer."""
    time = 1 if batch_first else 0
    h = x.new_zeros(x.shape[1 - time], recurrent.shape[1]) if h is None else h
    biases = [] if bias is None else [bias, torch.zeros_like(bias) if recurrent_bias is None else recurrent_bias]
    weights = [kernel, recurrent, *biases]
    if mask is not None:
        x, mask = (x.transpose(0, 1), mask.transpose(0, 1)) if batch_first else (x, mask)
        cell = torch.rnn_relu_cell if function == "relu" else torch.rnn_tanh_cell
        y, h = steps(lambda now, last: [cell(now, *last, *weights)], x, [h], mask, zeros, reverse)
        return (y.transpose(0, 1) if batch_first else y), h
    x = x.flip(time) if reverse else x
    run = torch.rnn_relu if function == "relu" else torch.rnn_tanh
    y, h = run(x, h[None], weights, bool(biases), 1, 0.0, False, False, batch_first)
    return y.flip(time) if reverse else y, h[0]
''',
    "SharedDropout": '''
class SharedDropout(nn.Module):
    """A dropout that draws along some axes and drops whole what lies along the others, as stochastic depth does."""

    def __init__(self, p, axes):
        super().__init__()
        self.p, self.axes = p, axes

    def forward(self, x):
        shape = [n if axis in self.axes else 1 for axis, n in enumerate(x.shape)]
        return x * F.dropout(x.new_ones(shape), self.p, self.training)
''',
    "GaussianDropout": '''
class GaussianDropout(nn.Module):
    """Multiplies numbers by normal ones of mean 1 in training."""

    def __init__(self, p):
        super().__init__()
        self.p = p

    def forward(self, x):
        return x * (1 + torch.randn_like(x) * (self.p / (1 - self.p)) ** 0.5) if self.training else x
''',
    "without": '''
def without(layer, *names):
    """A layer without some of its weights."""
    for name in names:
        layer.register_parameter(name, None)
    return layer
''',
    "zeroed": '''
def zeroed(layer, *names):
    """A layer with some of its weights zero for good."""
    for name in names:
        getattr(layer, name).requires_grad_(False).zero_()
    return layer
''',
    "pad": '''
def pad(x, widths, mode):
    """Numbers of the array itself before and after each axis."""
    for axis, (low, high) in enumerate(widths):
        n = x.shape[axis]
        places = torch.arange(-low, n + high, device=x.device)
        if mode == "circular":
            places = places % n
        elif mode == "replicate":
            places = places.clamp(0, n - 1)
        else:
            places = places.abs()
            places = (n - 1) - (n - 1 - places).abs()
        x = x.index_select(axis, places) if low or high else x
    return x
''',
    "update": '''
def update(x, value, axis, start, stop, step=1):
    """The array with the places start, start + step, ... of an axis replaced."""
    places = torch.arange(start, stop, step, device=x.device)
    shape = list(x.shape)
    shape[axis] = len(places)
    return x.index_copy(axis, places, torch.as_tensor(value, dtype=x.dtype, device=x.device).expand(shape))
''',
    "take": '''
def take(x, ids, axis):
    """The places of one axis, in the shape of ids."""
    found = x.index_select(axis, ids.reshape(-1))
    return found.reshape(*x.shape[:axis], *ids.shape, *x.shape[axis + 1 :])
''',
    "resize": '''
def resize(x, sizes, method, antialias=False):
    """Resize an image by Keys' cubic or Lanczos' filter; what is beyond the border is left out."""

    def weights(t):
        if method == "bicubic":
            near, far = 1.5 * t**3 - 2.5 * t**2 + 1, -0.5 * t**3 + 2.5 * t**2 - 4 * t + 2
            return torch.where(t <= 1, near, torch.where(t < 2, far, 0.0))
        reach = int(method[-1])
        return torch.where(t < reach, torch.sinc(t) * torch.sinc(t / reach), 0.0)

    for axis, new in enumerate(sizes, 2):
        ratio = x.shape[axis] / new
        centre = (torch.arange(new, dtype=torch.float64) + 0.5) * ratio - 0.5
        distance = torch.arange(x.shape[axis]) - centre[:, None]
        matrix = weights(distance.abs() / (max(ratio, 1.0) if antialias else 1.0))
        matrix = (matrix / matrix.sum(1, keepdim=True)).to(x)
        x = torch.tensordot(x, matrix, ([axis], [1])).movedim(-1, axis)
    return x
''',
    "read_weights": '''
def read_weights(path):
    """The tensors of a .safetensors file: a length, a header in JSON, the numbers."""
    types = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "I64": "int64", "I32": "int32",
             "I16": "int16", "I8": "int8", "U8": "uint8", "BOOL": "bool"}  # fmt: skip
    data = bytearray(Path(path).read_bytes())
    size = int.from_bytes(data[:8], "little")
    found = {}
    for name, entry in json.loads(data[8 : 8 + size]).items():
        if name != "__metadata__":
            start, stop = (8 + size + n for n in entry["data_offsets"])
            dtype = getattr(torch, types[entry["dtype"]])
            numbers = torch.frombuffer(data[start:stop], dtype=dtype) if stop > start else torch.empty(0, dtype=dtype)
            found[name] = numbers.reshape(entry["shape"])
    return found
''',
}
"""By name. Each is text, since it is not run here; tests run all of them."""
