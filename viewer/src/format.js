// Numbers as text.

/** A value in at most eight characters; "–" where there is none. The same as `shown` in compare/numbers.py. */
export function shown(value) {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  const size = Math.abs(value);
  if (value === 0 || (size >= 0.0005 && size < 10)) return value.toFixed(3);
  if (size < 0.0005 || size >= 100000) return value.toExponential(1);
  return value.toFixed(size < 100 ? 2 : size < 1000 ? 1 : 0);
}

export const percent = (value) => (Number.isFinite(value) ? `${Math.round(value * 100)} %` : "–");

/** How many times more than an even spread over the image. */
export const times = (value) => (Number.isFinite(value) ? `${value.toFixed(value < 10 ? 1 : 0)}×` : "–");
