"""Functions that ported source may call: what Keras has no operation for. Each is written into the file if it is used.

The texts are source of the ported file, not of ours: they need Keras and NumPy alone.
"""

from __future__ import annotations

from collections.abc import Mapping


def _convolution(name: str, call: str) -> str:
    """The source of a convolution that pads as PyTorch does."""
    return f'''
@register
class {name}(layers.{name}):
    """A convolution that pads both sides alike; Keras' own pads more at the end where it strides."""

    def call(self, x):
        if set(self.strides) == {{1}}:
            return super().call(x)
        around = [(d * (k - 1) // 2,) * 2 for k, d in zip(self.kernel_size, self.dilation_rate, strict=True)]
        x = ops.{call}(ops.pad(x, [(0, 0), *around, (0, 0)]), self.kernel, self.strides)
        return x if self.bias is None else x + self.bias
'''


HELPERS: Mapping[str, str] = {
    "Block": '''
@register
class Block(layers.Layer):
    """A layer made of layers, which are called one after the other where a subclass has no call of its own."""

    def __init__(self, *parts, **kwargs):
        super().__init__(**kwargs)
        self.parts = list(parts)

    def build(self, input_shape):
        pass  # layers make their weights when they are first called

    def call(self, x):
        for part in self.parts:
            x = part(x)
        return x
''',
    **{f"Conv{rank}D": _convolution(f"Conv{rank}D", "conv") for rank in (1, 2, 3)},
    **{f"DepthwiseConv{rank}D": _convolution(f"DepthwiseConv{rank}D", "depthwise_conv") for rank in (1, 2)},
    "GroupNormalization": '''
@register
class GroupNormalization(layers.GroupNormalization):
    """Keras' own takes the mean of squares less the square of the mean, which loses digits where the mean is large."""

    def call(self, x):
        x = standardize_groups(x, self.groups, self.epsilon)
        return x * self.gamma + self.beta
''',
    "standardize": '''
def standardize(x, axis, epsilon):
    """Mean 0 and variance 1 along axes."""
    x = x - ops.mean(x, axis, keepdims=True)
    return x * ops.rsqrt(ops.mean(ops.square(x), axis, keepdims=True) + epsilon)
''',
    "standardize_groups": '''
def standardize_groups(x, groups, epsilon):
    """Mean 0 and variance 1 in each group of channels."""
    shape = ops.shape(x)
    x = ops.reshape(x, (*shape[:-1], groups, shape[-1] // groups))
    return ops.reshape(standardize(x, (*range(1, len(shape) - 1), len(shape)), epsilon), shape)
''',
    "masked_softmax": '''
def masked_softmax(scores, mask):
    """The softmax of scores with a mask: False and minus infinity hide a place, other numbers are added."""
    mask = ops.convert_to_tensor(mask)
    if keras.backend.standardize_dtype(mask.dtype) == "bool":
        seen, scores = mask, ops.where(mask, scores, -1e9)
    else:
        seen, scores = mask > -1e9, scores + ops.maximum(mask, -1e9)
    # A place from which all are hidden sees nothing.
    return ops.softmax(scores) * ops.cast(seen, scores.dtype)
''',
    "masked_attention": '''
def masked_attention(query, key, value, mask=None, causal=False, scale=None):
    """Attention over (batch, places, heads, channels)."""
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    scores = ops.einsum("bqhd,bkhd->bhqk", query * scale, key)
    if causal:
        scores = ops.where(ops.tril(ops.ones(scores.shape[-2:], "bool")), scores, -1e9)
    weights = ops.softmax(scores) if mask is None else masked_softmax(scores, mask)
    return ops.einsum("bhqk,bkhd->bqhd", weights, value)
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
    weights = ops.softmax(scores) if mask is None else masked_softmax(scores, mask)
    x = ops.matmul(weights, value)
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
    "max_pool_places": '''
def max_pool_places(x, kernel, strides, padding, dilation, ceil_mode=False):
    """The first place of the largest number of each window, in the flat image."""
    sizes = x.shape[1:-1]
    places = ops.reshape(ops.arange(int(np.prod(sizes)), dtype="int32"), (1, *sizes, 1))
    places = ops.broadcast_to(places, ops.shape(x))
    for axis in range(len(sizes), 0, -1):
        k, s, (low, high), d = (given[axis - 1] for given in (kernel, strides, padding, dilation))
        count, over = windows(x.shape[axis], k, s, low, high, d, ceil_mode)
        widths = [(0, 0)] * len(x.shape)
        widths[axis] = (low, high + over)
        x, places = ops.pad(x, widths, constant_values=-np.inf), ops.pad(places, widths)
        before = (slice(None),) * axis
        cuts = [(*before, slice(i * d, i * d + (count - 1) * s + 1, s)) for i in range(k)]
        best, at = x[cuts[0]], places[cuts[0]]
        for cut in cuts[1:]:
            is_larger = x[cut] > best
            best, at = ops.where(is_larger, x[cut], best), ops.where(is_larger, places[cut], at)
        x, places = best, at
    return places
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
    "average_pool_same": '''
def average_pool_same(x, kernel, strides):
    """The mean of each window with zeros around the image, for as many windows as strides."""
    widths = [(0, 0)]
    for n, k, s in zip(x.shape[1:-1], kernel, strides, strict=True):
        total = max((-(-n // s) - 1) * s + k - n, 0)
        widths.append((total // 2, total - total // 2))
    return ops.average_pool(ops.pad(x, [*widths, (0, 0)]), kernel, strides)
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
    "conv_by_group": '''
def conv_by_group(x, kernel, groups, strides=1, dilation_rate=1):
    """A convolution of each group of channels by itself, of any number of groups."""
    *sizes, inner, _ = kernel.shape
    strides, dilation_rate = (n if isinstance(n, tuple) else (n,) * len(sizes) for n in (strides, dilation_rate))
    ends = list(zip(x.shape[1:-1], sizes, strides, dilation_rate, strict=True))
    counts = [(n - (k - 1) * d - 1) // s + 1 for n, k, s, d in ends]
    shape, result = ops.shape(x), 0
    x = ops.reshape(x, (*shape[:-1], groups, inner))
    kernel = ops.reshape(kernel, (*sizes, inner, groups, ops.shape(kernel)[-1] // groups))
    for place in np.ndindex(*sizes):
        firsts = [(i * d, s) for i, (_, _, s, d) in zip(place, ends, strict=True)]
        cut = [slice(i, i + (count - 1) * s + 1, s) for (i, s), count in zip(firsts, counts, strict=True)]
        result = result + ops.einsum("...gi,igo->...go", x[(slice(None), *cut)], kernel[place])
    return ops.reshape(result, (shape[0], *counts, -1))
''',
    "spread": '''
def spread(x, sizes, strides, dilation, crop):
    """An image with zeros between its places, and around it as many as the adjoint of a convolution needs."""
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
    return x
''',
    "conv_transpose": '''
def conv_transpose(x, kernel, strides, dilation, crop, groups):
    """The adjoint of a convolution: zeros between the places, then a convolution by the turned kernel."""
    sizes = kernel.shape[:-2]
    x = spread(x, sizes, strides, dilation, crop)
    kernel = ops.flip(kernel, axis=tuple(range(len(sizes))))
    images, kernels = ops.split(x, groups, axis=-1), ops.split(kernel, groups, axis=-2)
    parts = [ops.conv(i, k, 1, dilation_rate=dilation) for i, k in zip(images, kernels, strict=True)]
    return ops.concatenate(parts, axis=-1)
''',
    "conv_transpose_by_group": '''
def conv_transpose_by_group(x, kernel, strides, dilation, crop, groups):
    """The adjoint of a convolution of each group of channels by itself, of any number of groups."""
    *sizes, channels, out = kernel.shape
    x = spread(x, sizes, strides, dilation, crop)
    kernel = ops.reshape(kernel, (*sizes, groups, channels // groups, out))
    kernel = ops.flip(ops.swapaxes(kernel, -3, -2), axis=tuple(range(len(sizes))))
    return conv_by_group(x, ops.reshape(kernel, (*sizes, channels // groups, -1)), groups, 1, tuple(dilation))
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
    "scan": '''
def scan(step, state, fixed, mask, zeros, reverse):
    """A step for each time; where a place is not seen, the state stays, and zeros or the state are given."""
    if mask is None:
        return ops.scan(step, state, fixed, reverse=reverse)

    def masked(state, given):
        now, seen = given
        new, output = step(state, now)
        other = ops.zeros_like(output) if zeros else state
        return ops.where(seen, new, state), ops.where(seen, output, other)

    return ops.scan(masked, state, (fixed, ops.expand_dims(mask, -1)), reverse=reverse)
''',
    "lstm": '''
def lstm(
    x, h, c, kernel, recurrent, input_bias=None, recurrent_bias=None, projection=None, mask=None, zeros=True,
    reverse=False, batch_first=False,
):
    """A long short-term memory over (time, batch, channels): all outputs, the last one, the last cell state."""
    weights = (h, c, kernel, recurrent, input_bias, recurrent_bias, projection)
    h, c, kernel, recurrent, input_bias, recurrent_bias, projection = map(as_tensor, weights)
    h = ops.zeros((ops.shape(x)[0 if batch_first else 1], recurrent.shape[1]), x.dtype) if h is None else h
    c = ops.zeros((ops.shape(x)[0 if batch_first else 1], recurrent.shape[0] // 4), x.dtype) if c is None else c
    fixed = ops.matmul(x, ops.transpose(kernel))
    fixed = ops.swapaxes(fixed, 0, 1) if batch_first else fixed
    mask = ops.swapaxes(mask, 0, 1) if batch_first and mask is not None else mask
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
    state, states = scan(step, ops.concatenate([h, c], axis=-1), fixed, mask, zeros, reverse)
    states = ops.swapaxes(states, 0, 1) if batch_first else states
    return states[..., :size], state[..., :size], state[..., size:]
''',
    "gru": '''
def gru(
    x, h, kernel, recurrent, input_bias=None, recurrent_bias=None, mask=None, reset_after=True, zeros=True,
    reverse=False, batch_first=False,
):
    """A gated recurrent unit over (time, batch, channels), or batch first: all outputs, and the last one."""
    weights = (h, kernel, recurrent, input_bias, recurrent_bias)
    h, kernel, recurrent, input_bias, recurrent_bias = map(as_tensor, weights)
    h = ops.zeros((ops.shape(x)[0 if batch_first else 1], recurrent.shape[1]), x.dtype) if h is None else h
    fixed = ops.matmul(x, ops.transpose(kernel))
    fixed = ops.swapaxes(fixed, 0, 1) if batch_first else fixed
    mask = ops.swapaxes(mask, 0, 1) if batch_first and mask is not None else mask
    fixed = fixed if input_bias is None else fixed + input_bias

    def step(h, now):
        gates = ops.matmul(h, ops.transpose(recurrent))
        gates = gates if recurrent_bias is None else gates + recurrent_bias
        xr, xz, xn = ops.split(now, 3, axis=-1)
        hr, hz, hn = ops.split(gates, 3, axis=-1)
        z = ops.sigmoid(xz + hz)
        h = (1 - z) * ops.tanh(xn + ops.sigmoid(xr + hr) * hn) + z * h
        return h, h

    h, outputs = scan(step, h, fixed, mask, zeros, reverse)
    return (ops.swapaxes(outputs, 0, 1) if batch_first else outputs), h
''',
    "rnn": '''
def rnn(
    x, h, kernel, recurrent, input_bias=None, recurrent_bias=None, mask=None, activation="tanh", zeros=True,
    reverse=False, batch_first=False,
):
    """A simple recurrent layer over (time, batch, channels), or batch first: all outputs, and the last one."""
    weights = (h, kernel, recurrent, input_bias, recurrent_bias)
    h, kernel, recurrent, input_bias, recurrent_bias = map(as_tensor, weights)
    h = ops.zeros((ops.shape(x)[0 if batch_first else 1], recurrent.shape[1]), x.dtype) if h is None else h
    fixed = ops.matmul(x, ops.transpose(kernel))
    fixed = ops.swapaxes(fixed, 0, 1) if batch_first else fixed
    mask = ops.swapaxes(mask, 0, 1) if batch_first and mask is not None else mask
    if input_bias is not None:
        fixed = fixed + input_bias + recurrent_bias
    activate = getattr(ops, activation)

    def step(h, now):
        h = activate(now + ops.matmul(h, ops.transpose(recurrent)))
        return h, h

    h, outputs = scan(step, h, fixed, mask, zeros, reverse)
    return (ops.swapaxes(outputs, 0, 1) if batch_first else outputs), h
''',
    "gather": '''
def gather(x, ids, axis):
    """x[ids[i, j, k], j, k] for axis 0, and so on, where the other axes of ids are shorter than those of x."""
    x = x[tuple(slice(None) if a == axis else slice(n) for a, n in enumerate(ids.shape))]
    return ops.take_along_axis(x, ids, axis=axis)
''',
    "flat_places": '''
def flat_places(shape, indices):
    """Places (i, j, ...) as places in the flat array; None stands for a whole axis."""
    indices = [None if i is None else ops.cast(i, "int32") for i in indices] + [None] * (len(shape) - len(indices))
    kept = [axis for axis, index in enumerate(indices) if index is not None]
    rank = max(len(indices[axis].shape) for axis in kept)
    front = kept[0] if kept == list(range(kept[0], kept[-1] + 1)) else 0
    total, whole, flat = rank + len(shape) - len(kept), 0, 0
    for axis, (n, index) in enumerate(zip(shape, indices, strict=True)):
        if index is None:
            place = whole if whole < front else whole + rank
            index = ops.reshape(ops.arange(n, dtype="int32"), [-1 if a == place else 1 for a in range(total)])
            whole += 1
        else:
            index = ops.where(index < 0, index + n, index)
            behind = total - front - rank
            index = ops.reshape(index, (*[1] * (total - len(index.shape) - behind), *index.shape, *[1] * behind))
        flat = flat * n + index
    return flat
''',
    "put": '''
def put(x, flat, value, reduce=None):
    """The array with numbers at places of its flat form replaced, or together with them their sum, max or min."""
    line, flat = ops.reshape(x, (-1,)), ops.reshape(flat, (-1,))
    value = ops.reshape(ops.cast(value, x.dtype), (-1,))
    if reduce == "sum":
        line = line + ops.segment_sum(value, flat, num_segments=line.shape[0])
    elif reduce in ("max", "min"):
        # Each number is among those that are sent to its place: what a place without any gets differs by engine.
        places = ops.concatenate([ops.arange(ops.shape(line)[0], dtype=flat.dtype), flat])
        sign = 1 if reduce == "max" else -1
        line = sign * ops.segment_max(sign * ops.concatenate([line, value]), places, num_segments=line.shape[0])
    else:
        line = ops.scatter_update(line, flat[:, None], value)
    return ops.reshape(line, ops.shape(x))
''',
    "pick_apart": '''
def pick_apart(x, indices):
    """The places (i, j, ...) of an array; None stands for a whole axis."""
    return ops.take(ops.reshape(x, (-1,)), flat_places(ops.shape(x), indices))
''',
    "write": '''
def write(x, indices, value, add=False):
    """The array with the numbers at places (i, j, ...) replaced, or added to; None stands for a whole axis."""
    flat = flat_places(ops.shape(x), indices)
    return put(x, flat, ops.broadcast_to(value, ops.shape(flat)), "sum" if add else None)
''',
    "scatter": '''
def scatter(x, ids, value, axis, reduce=None):
    """The array with value[i, j, k] at [ids[i, j, k], j, k] for axis 0, and so on, or reduced with what is there."""
    shape, flat = ops.shape(x), 0
    ids = ops.cast(ids, "int32")
    for a, (n, length) in enumerate(zip(shape, ids.shape, strict=True)):
        along = ops.reshape(ops.arange(length, dtype="int32"), [-1 if b == a else 1 for b in range(len(shape))])
        flat = flat * n + (ids if a == axis else along)
    value = ops.convert_to_tensor(value)
    value = value[tuple(map(slice, ids.shape))] if len(value.shape) else ops.broadcast_to(value, ids.shape)
    return put(x, flat, value, reduce)
''',
    "fourier": '''
def fourier(x, axes, inverse=False, half=False, length=None, norm="backward"):
    """The discrete Fourier transform over axes; half: of real numbers, the frequencies from 0 on along the last."""
    sizes = [x.shape[axis] for axis in axes]
    sizes[-1] = length or sizes[-1]
    is_complex = "complex" in keras.backend.standardize_dtype(x.dtype)
    real, imaginary = (ops.real(x), ops.imag(x)) if is_complex else (x, ops.zeros_like(x))

    def along(real, imaginary, axis, function):
        moved = function(tuple(ops.moveaxis(part, axis, -1) for part in (real, imaginary)))
        return tuple(ops.moveaxis(part, -1, axis) for part in moved)

    turn = -1.0 if inverse else 1.0  # the inverse is the transform of the conjugate, conjugated
    if half and not inverse:
        real, imaginary = along(real, imaginary, axes[-1], lambda pair: ops.rfft(pair[0]))
    imaginary = turn * imaginary
    for axis in axes[:-1] if half else axes:
        real, imaginary = along(real, imaginary, axis, ops.fft)
    imaginary = turn * imaginary
    count = float(np.prod(sizes))
    scale = {"backward": 1 / count if inverse else 1.0, "ortho": count**-0.5, "forward": 1.0 if inverse else 1 / count}
    if half and inverse:
        real = ops.moveaxis(real, axes[-1], -1), ops.moveaxis(imaginary, axes[-1], -1)
        return ops.moveaxis(ops.irfft(real, fft_length=length), -1, axes[-1]) * (scale[norm] * sizes[-1])
    return ops.view_as_complex(ops.stack([real, imaginary], axis=-1) * scale[norm])
''',
    "overlap_add": '''
def overlap_add(x, sizes, kernel, strides, padding, dilation):
    """Windows, as columns, back at their places in an image with its channels first, added where they overlap."""
    ends = list(zip(sizes, kernel, strides, padding, dilation, strict=True))
    counts = [(n + 2 * p - (k - 1) * d - 1) // s + 1 for n, k, s, p, d in ends]
    parts = ops.reshape(x, (-1, x.shape[1] // int(np.prod(kernel)), *kernel, *counts))
    image = 0
    for place in np.ndindex(*kernel):
        part = parts[(slice(None), slice(None), *place)]
        for axis, (i, count, (n, k, s, p, d)) in enumerate(zip(place, counts, ends, strict=True), 2):
            # Zeros between the windows' places, and around them.
            part = ops.expand_dims(part, axis + 1)
            part = ops.pad(part, [(0, s - 1 if a == axis + 1 else 0) for a in range(len(part.shape))])
            part = ops.reshape(part, (-1, *part.shape[1:axis], count * s, *part.shape[axis + 2 :]))
            before = i * d
            part = part[(slice(None),) * axis + (slice(0, n + 2 * p - before),)]
            after = n + 2 * p - before - part.shape[axis]
            part = ops.pad(part, [(before, after) if a == axis else (0, 0) for a in range(len(part.shape))])
        image = image + part
    return image[(slice(None), slice(None), *(slice(p, p + n) for n, p in zip(sizes, padding, strict=True)))]
''',
    "sample": '''
def sample(x, grid, method="bilinear", fill="zeros", align_corners=False):
    """An image with its channels first, read at the places (column, row, ...) of a grid in [-1, 1]."""
    batch, channels, *sizes = x.shape
    line = ops.reshape(x, (batch, channels, -1))

    def inside(p, n):
        if fill == "reflection":
            low, span = (0.0, n - 1.0) if align_corners else (-0.5, float(n))
            away = ops.abs(p - low)
            turns = ops.floor(away / span) if span else away * 0
            rest = away - turns * span
            p = ops.where(turns % 2 == 0, rest + low, span - rest + low)
        return p if fill == "zeros" else ops.clip(p, 0, n - 1)

    taps = []
    for axis, n in enumerate(sizes):
        p = grid[..., len(sizes) - 1 - axis]
        p = (p + 1) / 2 * (n - 1) if align_corners else ((p + 1) * n - 1) / 2
        if method != "bicubic":
            p = inside(p, n)
        first = ops.floor(p)
        t = p - first
        if method == "nearest":
            taps.append([(ops.round(p), 1.0)])
        elif method == "bilinear":
            taps.append([(first, 1 - t), (first + 1, t)])
        else:
            a = -0.75
            near = [(a + 2) * s**3 - (a + 3) * s**2 + 1 for s in (t, 1 - t)]
            far = [a * s**3 - 5 * a * s**2 + 8 * a * s - 4 * a for s in (1 + t, 2 - t)]
            taps.append([(inside(first + i - 1, n), w) for i, w in enumerate((far[0], *near, far[1]))])
    shape, result = ops.shape(grid)[1:-1], 0
    for which in np.ndindex(*map(len, taps)):
        flat, share = 0, 1.0
        for n, tap, i in zip(sizes, taps, which, strict=True):
            p, weight = tap[i]
            p = ops.cast(ops.round(p), "int32")
            flat = flat * n + ops.clip(p, 0, n - 1)
            share = share * weight * ops.cast((p >= 0) & (p < n), x.dtype)
        flat = ops.broadcast_to(ops.reshape(flat, (batch, 1, -1)), (batch, channels, int(np.prod(shape))))
        found = ops.reshape(ops.take_along_axis(line, flat, axis=2), (batch, channels, *shape))
        result = result + share[:, None] * found
    return result
''',
}
