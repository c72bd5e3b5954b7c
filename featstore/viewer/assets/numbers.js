// Features as numbers: half precision decoded, lengths, cosines.

const HALVES = halves();

// Return the value of every one of the 65,536 float16 numbers.
function halves() {
  const values = new Float32Array(1 << 16);
  for (let bits = 0; bits < values.length; bits++) {
    const exponent = (bits >> 10) & 31;
    const fraction = bits & 1023;
    let value = exponent === 0 ? fraction * 2 ** -24 : (1 + fraction / 1024) * 2 ** (exponent - 15);
    if (exponent === 31) value = fraction ? NaN : Infinity;
    values[bits] = bits >> 15 ? -value : value;
  }
  return values;
}

// Return {height, width, channels, unit, norms} of float16 bytes of (height, width, channels).
export function decode({ shape: [height, width, channels], bytes }) {
  const stored = new Uint16Array(bytes); // little-endian, as every machine is that runs a browser
  const unit = new Float32Array(height * width * channels);
  const norms = new Float32Array(height * width);
  for (let place = 0; place < norms.length; place++) {
    const start = place * channels;
    let sum = 0;
    for (let n = start; n < start + channels; n++) {
      const value = HALVES[stored[n]];
      unit[n] = value;
      sum += value * value;
    }
    const norm = Math.sqrt(sum);
    norms[place] = norm;
    const scale = norm > 0 ? 1 / norm : 0;
    for (let n = start; n < start + channels; n++) unit[n] *= scale;
  }
  return { height, width, channels, unit, norms };
}

// Return the cosine of every feature with that of one place, in [-1, 1]; 0 for a feature of zeros.
export function cosines({ channels, unit, norms }, place) {
  const values = new Float32Array(norms.length);
  const own = unit.subarray(place * channels, (place + 1) * channels);
  const even = channels - (channels % 4);
  for (let other = 0; other < values.length; other++) {
    const start = other * channels;
    // Four sums at a time: one would wait for its own last addition at every step.
    let [one, two, three, four] = [0, 0, 0, 0];
    for (let n = 0; n < even; n += 4) {
      one += unit[start + n] * own[n];
      two += unit[start + n + 1] * own[n + 1];
      three += unit[start + n + 2] * own[n + 2];
      four += unit[start + n + 3] * own[n + 3];
    }
    for (let n = even; n < channels; n++) one += unit[start + n] * own[n];
    values[other] = Math.max(-1, Math.min(1, one + two + three + four));
  }
  return values;
}

// Return [smallest, largest] of several lists of numbers.
export function extent(lists) {
  let low = Infinity;
  let high = -Infinity;
  for (const values of lists) {
    for (const value of values) {
      if (value < low) low = value;
      if (value > high) high = value;
    }
  }
  return low <= high ? [low, high] : [0, 1];
}

// Return a number in three digits.
export function text(value) {
  return Math.abs(value) >= 1000 ? value.toFixed(0) : value.toPrecision(3);
}
