// Maps as distributions over their cells: the formulas of cam_engine.metrics.

/** Values after ReLU as shares of their sum times the number of cells: 1 everywhere is an even spread. */
export function density(values) {
  const n = values.length;
  let sum = 0;
  for (let i = 0; i < n; i++) sum += values[i];
  const out = new Float32Array(n);
  for (let i = 0; i < n; i++) out[i] = (values[i] / sum) * n;
  return out;
}

/** Mean of several densities of one size. */
export function mean(densities) {
  const sum = new Float32Array(densities[0].length);
  for (const it of densities) for (let i = 0; i < sum.length; i++) sum[i] += it[i];
  return sum.map((value) => value / densities.length);
}

/** Jensen–Shannon divergence, base 2, of two or more distributions with equal weights, over log2 of their number: 0 to 1. */
export function divergence(densities) {
  const centre = mean(densities);
  const n = centre.length;
  let sum = 0;
  for (const it of densities)
    for (let i = 0; i < n; i++) if (it[i] > 0) sum += (it[i] / n) * Math.log2(it[i] / centre[i]);
  return Math.max(0, sum / densities.length / Math.log2(densities.length));
}

/** Index of the largest value. */
export function peak(values) {
  let best = 0;
  for (let i = 1; i < values.length; i++) if (values[i] > values[best]) best = i;
  return best;
}
