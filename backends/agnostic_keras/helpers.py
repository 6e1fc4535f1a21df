"""Functions that ported source may call: what Keras has no operation for. Each is written into the file if it is used.

The texts are source of the ported file, not of ours: they need Keras and NumPy alone.
"""

from __future__ import annotations

from collections.abc import Mapping


def _convolution(name: str, filters: bool) -> str:
    """The source of a convolution that pads as PyTorch does."""
    first = "filters, " if filters else ""
    return f'''
@register
class {name}(layers.{name}):
    """A convolution with so many zeros on each side of the image."""

    def __init__(self, {first}kernel_size, strides=1, padding=0, **kwargs):
        super().__init__({first}kernel_size, strides, **kwargs)
        reach = {{d * (k - 1) for k, d in zip(self.kernel_size, self.dilation_rate, strict=True)}}
        if reach == {{2 * padding}} and set(self.strides) == {{1}}:
            self.padding, padding = "same", 0
        self.zeros = padding

    def build(self, input_shape):
        super().build((*[None] * (self.rank + 1), input_shape[-1]))

    def call(self, x):
        if self.zeros:
            x = ops.pad(x, [(0, 0), *[(self.zeros, self.zeros)] * self.rank, (0, 0)])
        return super().call(x)
'''


HELPERS: Mapping[str, str] = {
    "Block": '''
class Block(layers.Layer):
    """A layer made of layers, each of which makes its weights when it is first called."""

    def build(self, input_shape):
        pass
''',
    "Stack": '''
@register
class Stack(Block):
    """Layers that are called one after the other."""

    def __init__(self, *parts, **kwargs):
        super().__init__(**kwargs)
        self.parts = list(parts)

    def call(self, x):
        for part in self.parts:
            x = part(x)
        return x
''',
    "pad_image": '''
def pad_image(x, amount, value=0.0):
    """Numbers around the image: as many on each side, or (before, after) per axis."""
    if isinstance(amount, int):
        amount = [(amount, amount)] * (len(x.shape) - 2)
    return ops.pad(x, [(0, 0), *amount, (0, 0)], constant_values=value)
''',
    **{f"Conv{rank}D": _convolution(f"Conv{rank}D", True) for rank in (1, 2, 3)},
    **{f"DepthwiseConv{rank}D": _convolution(f"DepthwiseConv{rank}D", False) for rank in (1, 2)},
    "gelu": '''
def gelu(x):
    """The exact GELU, not its approximation."""
    return ops.gelu(x, approximate=False)
''',
    "standardize": '''
def standardize(x, axis, epsilon):
    """Mean 0 and variance 1 along axes."""
    mean, variance = ops.moments(x, axis, keepdims=True)
    return (x - mean) / ops.sqrt(variance + epsilon)
''',
    "group_norm": '''
def group_norm(x, groups, epsilon):
    """Mean 0 and variance 1 in each group of channels."""
    shape = ops.shape(x)
    x = ops.reshape(x, (*shape[:-1], groups, shape[-1] // groups))
    axes = (*range(1, len(shape) - 1), len(shape))
    mean, variance = ops.moments(x, axes, keepdims=True)
    return ops.reshape((x - mean) / ops.sqrt(variance + epsilon), shape)
''',
    "attention": '''
def attention(query, key, value, mask=None, causal=False, scale=None):
    """Attention over (batch, places, heads, channels)."""
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    scores = ops.einsum("bqhd,bkhd->bhqk", query * scale, key)
    if causal:
        scores = ops.where(ops.tril(ops.ones(scores.shape[-2:], "bool")), scores, -1e9)
    if mask is not None:
        mask = ops.convert_to_tensor(mask)
        is_bool = keras.backend.standardize_dtype(mask.dtype) == "bool"
        scores = ops.where(mask, scores, -1e9) if is_bool else scores + mask
    return ops.einsum("bhqk,bkhd->bqhd", ops.softmax(scores), value)
''',
    "general_attention": '''
def general_attention(query, key, value, mask=None, causal=False, scale=None, shared_heads=False, heads_last=False):
    """Attention over the last two axes: places and channels."""
    if heads_last:
        query, key, value = (ops.swapaxes(x, -2, -3) for x in (query, key, value))
    if shared_heads:
        times = query.shape[-3] // key.shape[-3]
        key, value = ops.repeat(key, times, axis=-3), ops.repeat(value, times, axis=-3)
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    scores = ops.matmul(query * scale, ops.swapaxes(key, -1, -2))
    if causal:
        scores = ops.where(ops.tril(ops.ones(scores.shape[-2:], "bool")), scores, -1e9)
    if mask is not None:
        mask = ops.convert_to_tensor(mask)
        is_bool = keras.backend.standardize_dtype(mask.dtype) == "bool"
        scores = ops.where(mask, scores, -1e9) if is_bool else scores + mask
    x = ops.matmul(ops.softmax(scores), value)
    return ops.swapaxes(x, -2, -3) if heads_last else x
''',
    "windows": '''
def windows(n, kernel, stride, low, high, dilation=1, ceil_mode=False):
    """How many windows there are, and how far the last hangs over the end."""
    room = n + low + high - (kernel - 1) * dilation - 1
    count = (-(-room // stride) if ceil_mode else room // stride) + 1
    if ceil_mode and (count - 1) * stride >= n + low:
        count -= 1
    return count, max(0, (count - 1) * stride + (kernel - 1) * dilation + 1 - n - low - high)
''',
    "max_pool": '''
def max_pool(x, kernel, strides, padding, dilation, ceil_mode=False):
    """The largest number of each window, as PyTorch counts windows."""
    for axis, (k, s, (low, high), d) in enumerate(zip(kernel, strides, padding, dilation, strict=True), 1):
        count, over = windows(x.shape[axis], k, s, low, high, d, ceil_mode)
        widths = [(0, 0)] * len(x.shape)
        widths[axis] = (low, high + over)
        x = ops.pad(x, widths, constant_values=-np.inf)
        before = (slice(None),) * axis
        parts = [x[(*before, slice(i * d, i * d + (count - 1) * s + 1, s))] for i in range(k)]
        x = parts[0]
        for part in parts[1:]:
            x = ops.maximum(x, part)
    return x
''',
    "average_pool": '''
def average_pool(x, kernel, strides, padding, ceil_mode=False, count_padding=True, divisor=None):
    """The mean of each window, as PyTorch counts windows and what is in them."""
    for axis, (k, s, (low, high)) in enumerate(zip(kernel, strides, padding, strict=True), 1):
        n = x.shape[axis]
        count, over = windows(n, k, s, low, high, 1, ceil_mode)
        widths = [(0, 0)] * len(x.shape)
        widths[axis] = (low, high + over)
        x = ops.pad(x, widths)
        before = (slice(None),) * axis
        x = sum(x[(*before, slice(i, i + (count - 1) * s + 1, s))] for i in range(k))
        start = np.arange(count) * s - low
        first, last = (-low, n + high) if count_padding else (0, n)
        inside = np.minimum(start + k, last) - np.maximum(start, first)
        shape = [1] * len(x.shape)
        shape[axis] = -1
        if divisor is None:
            x = x / ops.convert_to_tensor(inside.reshape(shape), x.dtype)
    return x if divisor is None else x / divisor
''',
    "adaptive_mean": '''
def adaptive_mean(x, sizes):
    """The mean of so many windows per axis, which need not have the same size; None keeps an axis."""
    for axis, count in enumerate(sizes, 1):
        n = x.shape[axis]
        if count is None or count == n:
            continue
        start = np.arange(count) * n // count
        stop = -(-np.arange(1, count + 1) * n // count)
        places = np.arange(n)
        inside = (places >= start[:, None]) & (places < stop[:, None])
        matrix = ops.convert_to_tensor((inside / inside.sum(1, keepdims=True)).T, x.dtype)
        x = ops.moveaxis(ops.tensordot(x, matrix, ((axis,), (0,))), -1, axis)
    return x
''',
    "adaptive_max": '''
def adaptive_max(x, sizes):
    """The largest number of so many windows per axis, which need not have the same size; None keeps an axis."""
    for axis, count in enumerate(sizes, 1):
        n = x.shape[axis]
        if count is None or count == n:
            continue
        before = (slice(None),) * axis
        ends = [(i * n // count, -(-(i + 1) * n // count)) for i in range(count)]
        x = ops.stack([ops.max(x[(*before, slice(*end))], axis=axis) for end in ends], axis=axis)
    return x
''',
    "resize_matrix": '''
def resize_matrix(old, new, method, align_corners, half_pixel, antialias, cubic, scale):
    """The share of each old pixel in each new one."""
    ratio = 1 / scale if scale else old / new
    if align_corners:
        places = np.arange(new) * ((old - 1) / max(new - 1, 1))
    elif half_pixel:
        places = (np.arange(new) + 0.5) * ratio - 0.5
    else:
        places = np.arange(new) * ratio
    pixels = np.arange(old)
    if method == "nearest":
        chosen = np.floor(places + 0.5 if half_pixel else places + 1e-9).astype(int)
        return np.eye(old)[np.clip(chosen, 0, old - 1)]
    wide = max(ratio, 1.0) if antialias else 1.0
    if method == "bilinear" and not antialias:
        places = np.clip(places, 0, old - 1)
    reach = {"bilinear": 1, "bicubic": 2}[method] * wide
    first, last = int(np.floor(places.min() - reach)), int(np.ceil(places.max() + reach))
    around = np.arange(first, last + 1)
    t = np.abs(around - places[:, None]) / wide
    if method == "bilinear":
        weights = np.maximum(1 - t, 0)
    else:
        near = (cubic + 2) * t**3 - (cubic + 3) * t**2 + 1
        far = cubic * (t**3 - 5 * t**2 + 8 * t - 4)
        weights = np.where(t <= 1, near, np.where(t < 2, far, 0))
    if antialias:
        weights = weights * ((around >= 0) & (around < old))
        weights = weights / weights.sum(1, keepdims=True)
    matrix = np.zeros((new, old))
    np.add.at(matrix, (np.arange(new)[:, None], np.clip(around, 0, old - 1)[None]), weights)
    return matrix[:, pixels]
''',
    "resize": '''
def resize(x, sizes, method, align_corners=False, half_pixel=True, antialias=False, cubic=-0.75, scales=None):
    """The image at another size, as PyTorch resizes."""
    for axis, (size, scale) in enumerate(zip(sizes, scales or [None] * len(sizes), strict=True), 1):
        if size == x.shape[axis] and not scale:
            continue
        matrix = resize_matrix(x.shape[axis], size, method, align_corners, half_pixel, antialias, cubic, scale)
        x = ops.moveaxis(ops.tensordot(x, ops.convert_to_tensor(matrix.T, x.dtype), ((axis,), (0,))), -1, axis)
    return x
''',
    "pad": '''
def pad(x, widths, mode="constant", value=0.0):
    """Numbers before and after each axis; a negative number cuts."""
    for axis, (low, high) in enumerate(widths):
        n = x.shape[axis]
        places = np.arange(-low, n + high)
        if low <= 0 and high <= 0:
            x = x[(slice(None),) * axis + (slice(-low, n + high),)]
        elif mode == "constant":
            x = x[(slice(None),) * axis + (slice(max(-low, 0), n + min(high, 0)),)]
            grown = [(0, 0)] * len(x.shape)
            grown[axis] = (max(low, 0), max(high, 0))
            x = ops.pad(x, grown, constant_values=value)
        elif mode == "circular":
            x = ops.take(x, places % n, axis=axis)
        elif mode == "reflect":
            x = ops.take(x, np.abs((places + n - 1) % (2 * n - 2) - n + 1) if n > 1 else places * 0, axis=axis)
        else:
            x = ops.take(x, np.clip(places, 0, n - 1), axis=axis)
    return x
''',
    "update": '''
def update(x, value, axis, start, stop, step=1):
    """The array with a part of one axis replaced."""
    n = x.shape[axis]
    chosen = np.zeros(n, bool)
    chosen[start:stop:step] = True
    places = np.cumsum(chosen) - 1
    shape = [1] * len(x.shape)
    shape[axis] = n
    part = list(x.shape)
    part[axis] = int(chosen.sum())
    value = ops.broadcast_to(ops.cast(value, x.dtype), part)
    grown = ops.take(value, np.maximum(places, 0), axis=axis)
    return ops.where(chosen.reshape(shape), grown, x)
''',
    "unfold": '''
def unfold(x, axis, length, step):
    """Windows along an axis; the places within a window become the last axis."""
    count = (x.shape[axis] - length) // step + 1
    places = np.arange(count)[:, None] * step + np.arange(length)
    x = ops.take(x, places.reshape(-1), axis=axis)
    x = ops.reshape(x, (*x.shape[:axis], count, length, *x.shape[axis + 1 :]))
    return ops.moveaxis(x, axis + 1, -1)
''',
    "patches": '''
def patches(x, kernel, strides, padding, dilation):
    """The windows of an image with its channels first, as columns."""
    x = ops.pad(x, [(0, 0), (0, 0), *((p, p) for p in padding)])
    sizes = zip(x.shape[2:], kernel, strides, dilation, strict=True)
    counts = [(n - (k - 1) * d - 1) // s + 1 for n, k, s, d in sizes]
    rows = []
    for place in np.ndindex(*kernel):
        ends = zip(place, dilation, counts, strides, strict=True)
        window = [slice(p * d, p * d + (n - 1) * s + 1, s) for p, d, n, s in ends]
        rows.append(x[(slice(None), slice(None), *window)])
    return ops.reshape(ops.stack(rows, axis=2), (-1, x.shape[1] * len(rows), int(np.prod(counts))))
''',
    "grouped_conv": '''
def grouped_conv(x, kernel, groups, strides=1, dilation_rate=1):
    """A convolution of each group of channels by itself."""
    images, kernels = ops.split(x, groups, axis=-1), ops.split(kernel, groups, axis=-1)
    parts = [ops.conv(i, k, strides, dilation_rate=dilation_rate) for i, k in zip(images, kernels, strict=True)]
    return ops.concatenate(parts, axis=-1)
''',
    "conv_transpose": '''
def conv_transpose(x, kernel, strides, dilation, crop, groups):
    """The adjoint of a convolution: zeros between the places, then a convolution by the turned kernel."""
    sizes = kernel.shape[:-2]
    for axis, stride in enumerate(strides, 1):
        n = x.shape[axis]
        x = ops.expand_dims(x, axis + 1)
        x = ops.pad(x, [(0, stride - 1) if i == axis + 1 else (0, 0) for i in range(len(x.shape))])
        x = ops.reshape(x, (*x.shape[:axis], n * stride, *x.shape[axis + 2 :]))
        x = x[(slice(None),) * axis + (slice(0, (n - 1) * stride + 1),)]
    around = [((k - 1) * d - low, (k - 1) * d - high) for k, d, (low, high) in zip(sizes, dilation, crop, strict=True)]
    x = ops.pad(x, [(0, 0), *((max(a, 0), max(b, 0)) for a, b in around), (0, 0)])
    for axis, (a, b) in enumerate(around, 1):
        x = x[(slice(None),) * axis + (slice(max(-a, 0), x.shape[axis] + min(b, 0)),)]
    kernel = ops.flip(kernel, axis=tuple(range(len(sizes))))
    images, kernels = ops.split(x, groups, axis=-1), ops.split(kernel, groups, axis=-2)
    parts = [ops.conv(i, k, 1, dilation_rate=dilation) for i, k in zip(images, kernels, strict=True)]
    return ops.concatenate(parts, axis=-1)
''',
    "pick": '''
def pick(x, indices, axis):
    """The places (i, j, ...) of consecutive axes."""
    sizes = x.shape[axis : axis + len(indices)]
    flat = 0
    for index, size in zip(indices, sizes, strict=True):
        index = ops.where(index < 0, index + size, index)
        flat = flat * size + index
    shape = ops.shape(x)
    x = ops.reshape(x, (*shape[:axis], int(np.prod(sizes)), *shape[axis + len(indices) :]))
    return ops.take(x, flat, axis=axis)
''',
    "top": '''
def top(x, count, axis, largest=True):
    """The largest or smallest numbers along an axis in order, and their places."""
    x = ops.moveaxis(x, axis, -1)
    values, places = ops.top_k(x if largest else -x, count)
    values = values if largest else -values
    return ops.moveaxis(values, -1, axis), ops.moveaxis(places, -1, axis)
''',
    "as_tensor": '''
def as_tensor(weight):
    """A weight as an array, for what runs inside a loop."""
    return None if weight is None else ops.convert_to_tensor(weight)
''',
    "lstm": '''
def lstm(x, h, c, kernel, recurrent, input_bias=None, recurrent_bias=None, projection=None, reverse=False):
    """A long short-term memory over (time, batch, channels): all outputs, the last one, the last cell state."""
    weights = (h, c, kernel, recurrent, input_bias, recurrent_bias, projection)
    h, c, kernel, recurrent, input_bias, recurrent_bias, projection = map(as_tensor, weights)
    h = ops.zeros((ops.shape(x)[1], recurrent.shape[1]), x.dtype) if h is None else h
    c = ops.zeros((ops.shape(x)[1], recurrent.shape[0] // 4), x.dtype) if c is None else c
    fixed = ops.matmul(x, ops.transpose(kernel))
    if input_bias is not None:
        fixed = fixed + input_bias + recurrent_bias

    def step(state, now):
        h, c = state[..., :size], state[..., size:]
        i, f, g, o = ops.split(now + ops.matmul(h, ops.transpose(recurrent)), 4, axis=-1)
        c = ops.sigmoid(f) * c + ops.sigmoid(i) * ops.tanh(g)
        h = ops.sigmoid(o) * ops.tanh(c)
        if projection is not None:
            h = ops.matmul(h, ops.transpose(projection))
        state = ops.concatenate([h, c], axis=-1)
        return state, state

    size = h.shape[-1]
    state, states = ops.scan(step, ops.concatenate([h, c], axis=-1), fixed, reverse=reverse)
    return states[..., :size], state[..., :size], state[..., size:]
''',
    "gru": '''
def gru(x, h, kernel, recurrent, input_bias=None, recurrent_bias=None, reset_after=True, reverse=False):
    """A gated recurrent unit over (time, batch, channels): all outputs, and the last one."""
    weights = (h, kernel, recurrent, input_bias, recurrent_bias)
    h, kernel, recurrent, input_bias, recurrent_bias = map(as_tensor, weights)
    h = ops.zeros((ops.shape(x)[1], recurrent.shape[1]), x.dtype) if h is None else h
    fixed = ops.matmul(x, ops.transpose(kernel))
    fixed = fixed if input_bias is None else fixed + input_bias

    def step(h, now):
        gates = ops.matmul(h, ops.transpose(recurrent))
        gates = gates if recurrent_bias is None else gates + recurrent_bias
        xr, xz, xn = ops.split(now, 3, axis=-1)
        hr, hz, hn = ops.split(gates, 3, axis=-1)
        z = ops.sigmoid(xz + hz)
        h = (1 - z) * ops.tanh(xn + ops.sigmoid(xr + hr) * hn) + z * h
        return h, h

    h, outputs = ops.scan(step, h, fixed, reverse=reverse)
    return outputs, h
''',
    "rnn": '''
def rnn(x, h, kernel, recurrent, input_bias=None, recurrent_bias=None, activation="tanh", reverse=False):
    """A simple recurrent layer over (time, batch, channels): all outputs, and the last one."""
    weights = (h, kernel, recurrent, input_bias, recurrent_bias)
    h, kernel, recurrent, input_bias, recurrent_bias = map(as_tensor, weights)
    h = ops.zeros((ops.shape(x)[1], recurrent.shape[1]), x.dtype) if h is None else h
    fixed = ops.matmul(x, ops.transpose(kernel))
    if input_bias is not None:
        fixed = fixed + input_bias + recurrent_bias
    activate = getattr(ops, activation)

    def step(h, now):
        h = activate(now + ops.matmul(h, ops.transpose(recurrent)))
        return h, h

    h, outputs = ops.scan(step, h, fixed, reverse=reverse)
    return outputs, h
''',
    "sample": '''
def sample(x, grid, method="bilinear", fill="zeros", align_corners=False):
    """An image with its channels first, read at the places (column, row) of a grid in [-1, 1]."""
    batch, channels, height, width = x.shape
    x = ops.reshape(x, (batch, channels, height * width))

    def place(p, n):
        p = (p + 1) / 2 * (n - 1) if align_corners else ((p + 1) * n - 1) / 2
        return ops.clip(p, 0, n - 1) if fill == "border" else p

    rows, columns = place(grid[..., 1], height), place(grid[..., 0], width)

    def pixel(row, column):
        inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
        flat = ops.clip(row, 0, height - 1) * width + ops.clip(column, 0, width - 1)
        shape = ops.shape(flat)
        flat = ops.reshape(ops.cast(flat, "int32"), (batch, 1, -1))
        flat = ops.broadcast_to(flat, (batch, channels, shape[1] * shape[2]))
        found = ops.reshape(ops.take_along_axis(x, flat, axis=2), (batch, channels, shape[1], shape[2]))
        return found * ops.cast(inside, x.dtype)[:, None]

    if method == "nearest":
        return pixel(ops.round(rows), ops.round(columns))
    top, left = ops.floor(rows), ops.floor(columns)
    result = 0
    for dr in (0, 1):
        for dc in (0, 1):
            weight = (1 - ops.abs(rows - top - dr)) * (1 - ops.abs(columns - left - dc))
            result = result + weight[:, None] * pixel(top + dr, left + dc)
    return result
''',
}
