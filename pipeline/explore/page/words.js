// What the page says of brains, points and groups, in words.

import { plain, plural, signed } from "./base.js";

// First and last month, where both brains are visits of one person.
export function monthsBetween(study, state) {
  if (state.mode !== "between" || !state.other) return null;
  const [a, b] = [state.scan, state.other].map((scan) => study.scans.indexOf(scan));
  const [first, last] = [study.months[a], study.months[b]];
  return study.subjects[a] === study.subjects[b] && first !== null && last !== null && first !== last ? [first, last] : null;
}

export function titleOf(state, study, direction) {
  if (state.mode === "noise") return `seed ${state.seed}, nobody's brain`;
  if (state.mode === "vary") return `${state.scan}, other noise, seed ${state.seed}`;
  if (state.mode === "between") {
    const months = monthsBetween(study, state);
    return months ? `month ${plain(months[0] + state.alpha * (months[1] - months[0]), 1)}, between two visits` : `${plain(state.alpha)} of the way from A to B`;
  }
  if (!direction || state.scale === 0) return baseTitleOf(state);
  return `${state.scan}, ${signed(state.scale)} ${direction.unit} towards ${direction.name}`;
}

export const baseTitleOf = (state) => `${state.mode === "between" ? "A, " : ""}${state.scan}, as the model has it`;

// A scan, its month where its person has several, and what it is coloured by.
export function pointWords(study, visits, label, i) {
  const value = !label ? null : label.numbers ? label.numbers[i] : label.groups[label.codes[i]];
  const month = visits.has(study.subjects[i]) && study.months[i] !== null ? `, month ${study.months[i]}` : "";
  return `${study.scans[i]}${month}` + (value === null || value === undefined ? "" : `\n${label.name.replace(/_/g, " ")}: ${value}`);
}

export function groupWords(study, label, rows) {
  if (!rows.length) return "No points chosen.";
  const people = new Set(rows.map((i) => study.subjects[i])).size;
  let words = `${plural(rows.length, "scan")} of ${plural(people, "person")}`;
  if (label?.numbers) {
    const values = rows.map((i) => label.numbers[i]).filter((v) => v !== null).sort((a, b) => a - b);
    if (values.length) words += `; median ${label.name.replace(/_/g, " ")} ${plain(values[Math.floor(values.length / 2)], 1)}`;
  } else if (label) {
    const counts = label.groups.map((g, code) => [g, rows.filter((i) => label.codes[i] === code).length]).filter(([, n]) => n);
    words += `; ${counts.map(([g, n]) => `${n} ${g}`).join(", ")}`;
  }
  return `${words}. Escape, or a click beside the points, lets them go.`;
}

// The scan that a text names: whole, in any case of letters, as a person, or as a part that only one has.
export function findScan(study, text) {
  const wanted = text.toLowerCase(), same = (name) => name.toLowerCase() === wanted;
  for (const names of [study.scans, study.subjects]) {
    const at = names.includes(text) ? names.indexOf(text) : names.findIndex(same);
    if (at >= 0) return { row: at };
  }
  const rows = study.scans.flatMap((scan, i) => (scan.toLowerCase().includes(wanted) ? [i] : []));
  if (rows.length === 1) return { row: rows[0] };
  return { words: rows.length ? `${text}: ${rows.length} scans have that in their name; go on typing.` : `${text} is not among the scans here.` };
}
