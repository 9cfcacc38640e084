// An animated GIF (89a) of frames of one size: a palette of 6 × 7 × 6 colours and LZW, as its specification has them.
const LEVELS = [6, 7, 6]; // of red, green and blue: 252 colours

/** @param frames ImageData of one size; @param ms that each is shown; returns the file's bytes */
export function encodeGif(frames, ms) {
  const { width, height } = frames[0];
  const out = new Bytes();
  out.text("GIF89a");
  out.words(width, height);
  out.push(0b1111_0111, 0, 0); // a global table of 256 colours
  for (let i = 0; i < 256; i++) out.push(...colour(i));
  out.push(0x21, 0xff, 11);
  out.text("NETSCAPE2.0"); // for ever
  out.push(3, 1, 0, 0, 0);
  for (const frame of frames) {
    out.push(0x21, 0xf9, 4, 0);
    out.words(Math.round(ms / 10));
    out.push(0, 0, 0x2c);
    out.words(0, 0, width, height);
    out.push(0, 8);
    blocks(out, lzw(indices(frame.data)));
  }
  out.push(0x3b);
  return out.bytes();
}

class Bytes {
  list = [];
  push(...values) {
    for (const value of values) this.list.push(value);
  }
  text(words) {
    this.push(...[...words].map((letter) => letter.charCodeAt(0)));
  }
  words(...values) {
    for (const value of values) this.push(value & 255, value >> 8);
  }
  bytes() {
    return Uint8Array.from(this.list);
  }
}

function colour(index) {
  const [red, green, blue] = LEVELS;
  if (index >= red * green * blue) return [0, 0, 0];
  const of = [Math.floor(index / (green * blue)), Math.floor(index / blue) % green, index % blue];
  return of.map((level, channel) => Math.round((level / (LEVELS[channel] - 1)) * 255));
}

function indices(rgba) {
  const out = new Uint8Array(rgba.length / 4);
  const level = (value, channel) => Math.round((value / 255) * (LEVELS[channel] - 1));
  for (let i = 0; i < out.length; i++)
    out[i] = (level(rgba[4 * i], 0) * LEVELS[1] + level(rgba[4 * i + 1], 1)) * LEVELS[2] + level(rgba[4 * i + 2], 2);
  return out;
}

/** Variable-length codes of 8-bit indices, from 9 to 12 bits. */
function lzw(data) {
  const [clear, end] = [256, 257];
  const out = [];
  let [held, bits, size, next] = [0, 0, 9, 258];
  let known = new Map();
  const emit = (code) => {
    held |= code << bits;
    bits += size;
    while (bits >= 8) {
      out.push(held & 255);
      held >>>= 8;
      bits -= 8;
    }
  };
  emit(clear);
  let prefix = data[0];
  for (let i = 1; i < data.length; i++) {
    const key = (prefix << 8) | data[i];
    const code = known.get(key);
    if (code !== undefined) {
      prefix = code;
      continue;
    }
    emit(prefix);
    if (next < 4096) {
      known.set(key, next++);
      if (next - 1 === 1 << size && size < 12) size++;
    } else {
      emit(clear);
      known = new Map();
      [size, next] = [9, 258];
    }
    prefix = data[i];
  }
  emit(prefix);
  emit(end);
  if (bits) out.push(held & 255);
  return out;
}

function blocks(out, data) {
  for (let i = 0; i < data.length; i += 255) {
    const part = data.slice(i, i + 255);
    out.push(part.length, ...part);
  }
  out.push(0);
}
